//! The AsyncAPI document: every event of the socket, as each transport spells it.

use natter_protocol::error::{ErrorCode, close};
use serde_json::{Map, Value, json};

use super::{
    catalogue::{self, ALWAYS, Request},
    samples::{CURSOR, Samples},
    schemas::{Event, Schemas},
};

const ABOUT: &str = "The events of Natter's socket, as a server of them: `receive` is what clients \
    send, `send` is what they get. Both transports carry the same events. Times are RFC 3339 UTC \
    with milliseconds, ids are UUIDs. The token says who asks: a payload that names somebody else in \
    `user`, `userId` or `senderId` is refused (`forbidden`).";
const WEBSOCKET: &str = "One JSON object a text frame. A request with an `id` gets a reply with the \
    same number; one without, when it fails, the event `exception`. What is on feeds ends with a \
    `cursor`: keep the last one, and show it as `?cursor=` when connecting again. Tokens travel in \
    `Authorization: Bearer`, in the list of subprotocols (`natter.v1, bearer.<token>`: for \
    browsers), or in a first frame `authenticate`; never in a URL. One that is refused closes the \
    connection (4401). What the query may say is `SocketQuery`. The server pings every \
    `heartbeatMs` of `ready`; browsers and libraries answer by themselves.";
const SOCKET_IO: &str = "Stock Socket.IO v4 clients, over polling or WebSocket, in the default \
    namespace. A payload here is an event's arguments after its packet's type and number \
    (`42` an event, `42<id>` one that wants an ack, `43<id>` an ack). Cursors are an event's last \
    argument, which stock clients keep and show by themselves when they come back. `auth` of the \
    handshake is `SocketIoAuth`; a token that is refused is told by `connect_error`, whose error is \
    `SocketIoRefused`. There are no close codes here: the event `closing` tells them. Binary data are \
    refused.";

/// The keys of the channels.
const CHANNELS: [&str; 2] = ["websocket", "socketio"];

/// Puts the document together.
pub fn document(schemas: &Schemas) -> Value {
    let samples = Samples::new();
    let mut parts = Parts::default();
    let known = schemas.requests();
    for request in catalogue::requests(&samples) {
        let like = request.like.unwrap_or(request.event);
        if let Some(event) = known.iter().find(|event| event.name == like) {
            let told = schemas.events().iter().any(|event| event.name == request.event);
            parts.add_request(&request, event, told);
        }
    }
    parts.add_refusals(&samples);
    let examples: Vec<Value> = samples.events().iter().map(|event| json!(event)).collect();
    for event in schemas.events() {
        parts.add_event(&event, &examples);
    }
    for event in catalogue::socketio_events() {
        parts.add_socketio_event(&event);
    }
    parts.finished(schemas)
}

#[derive(Default)]
struct Parts {
    /// By channel.
    messages: [Map<String, Value>; 2],
    operations: Map<String, Value>,
}

impl Parts {
    /// A name that is `told` is an event's too, which has it here.
    fn add_request(&mut self, request: &Request, event: &Event, told: bool) {
        let name = request.event;
        let key = if told { format!("{name}.request") } else { name.to_owned() };
        let summary = match request.like {
            Some(like) => format!("Another name for `{like}`."),
            None => event.summary.clone(),
        };
        let about = json!({"summary": summary, "description": request.more});
        let answer = &request.answer;
        let replied = reference(&answer.schema);

        let mut frame = object(
            &["event", "data"],
            &json!({
                "event": {"const": name},
                "id": {"type": "integer", "minimum": 0, "description": "Asks for a reply."},
                "data": event.data,
            }),
        );
        frame["description"] = about["summary"].clone();
        let shown = json!({"event": name, "id": 7, "data": request.data});
        let mut reply = json!({"reply": {"type": "integer"}, "data": replied});
        let mut reply_shown = json!({"reply": 7, "data": answer.data});
        let mut ack = json!({"ok": {"const": true}, "data": replied});
        let mut ack_shown = json!({"ok": true, "data": answer.data});
        if answer.cursor {
            for fields in [&mut reply, &mut ack] {
                fields["cursor"] = json!({"type": "string"});
            }
            for shown in [&mut reply_shown, &mut ack_shown] {
                shown["cursor"] = json!(CURSOR);
            }
        }
        let packet = tuple(&[json!({"const": name}), event.data.clone()]);
        let packet_shown = json!([name, request.data]);
        let ack = tuple(&[object(&["ok", "data"], &ack)]);
        let answered = format!("{name}.reply");
        let messages = [
            [
                message(name, &about, &frame, &shown, Some("$message.payload#/id")),
                message(
                    &answered,
                    &json!({}),
                    &object(&["reply", "data"], &reply),
                    &reply_shown,
                    Some("$message.payload#/reply"),
                ),
            ],
            [
                message(name, &about, &packet, &packet_shown, None),
                message(&answered, &json!({}), &ack, &json!([ack_shown]), None),
            ],
        ];
        let errors: Vec<ErrorCode> = ALWAYS.iter().chain(request.errors).copied().collect();
        for ((channel, known), [sent, reply]) in
            CHANNELS.iter().zip(&mut self.messages).zip(messages)
        {
            known.insert(key.clone(), sent);
            known.insert(answered.clone(), reply);
            let mut operation = operation(channel, "receive", &key, &about);
            operation["reply"] = json!({
                "channel": {"$ref": format!("#/channels/{channel}")},
                "messages": [at(channel, &answered), at(channel, "refusal")],
            });
            operation["x-errors"] = json!(errors);
            self.operations.insert(format!("{channel}.{key}"), operation);
        }
    }

    /// What any request that fails is answered with.
    fn add_refusals(&mut self, samples: &Samples) {
        let about = json!({"summary": "The answer to a request that failed."});
        let error = reference("WireError");
        let frame =
            object(&["reply", "error"], &json!({"reply": {"type": "integer"}, "error": error}));
        let ack = object(&["ok", "error"], &json!({"ok": {"const": false}, "error": error}));
        let shown = json!({"reply": 7, "error": samples.error});
        let [websocket, socketio] = &mut self.messages;
        let by = Some("$message.payload#/reply");
        websocket.insert("refusal".to_owned(), message("refusal", &about, &frame, &shown, by));
        let shown = json!([{"ok": false, "error": samples.error}]);
        socketio
            .insert("refusal".to_owned(), message("refusal", &about, &tuple(&[ack]), &shown, None));
    }

    fn add_event(&mut self, event: &Event, examples: &[Value]) {
        let name = event.name.as_str();
        let told = catalogue::told(name);
        let feed = told.as_ref().is_some_and(|told| told.feed);
        let to = told.map_or("", |told| told.to);
        let about = json!({"summary": event.summary, "description": to});
        let example = examples.iter().find(|example| example["event"] == name);
        let data = example.map(|example| example["data"].clone()).unwrap_or_default();

        let mut fields = json!({"event": {"const": name}, "data": event.data});
        let mut shown = json!({"event": name, "data": data});
        let mut required = vec!["event", "data"];
        if feed {
            required.push("cursor");
            fields["cursor"] = json!({"type": "string"});
            shown["cursor"] = json!(CURSOR);
        }
        if catalogue::SOMETIMES.contains(&name) {
            fields["cursor"] = json!({"type": "string"});
        }
        let frame = message(name, &about, &object(&required, &fields), &shown, None);

        let mut arguments = vec![json!({"const": name}), event.data.clone()];
        let mut packet_shown = vec![json!(name), data.clone()];
        if name == "exception" {
            arguments[1] = reference("Exception");
            packet_shown[1]["status"] = json!("error");
        }
        if feed || catalogue::PLACES.contains(&name) {
            arguments.push(json!({"type": "string", "description": "The cursor."}));
            packet_shown.push(json!(CURSOR));
        }
        let packet = message(name, &about, &tuple(&arguments), &packet_shown.into(), None);
        for ((channel, known), message) in
            CHANNELS.iter().zip(&mut self.messages).zip([frame, packet])
        {
            known.insert(name.to_owned(), message);
            let operation = operation(channel, "send", name, &about);
            self.operations.insert(format!("{channel}.{name}"), operation);
        }
    }

    fn add_socketio_event(&mut self, event: &catalogue::SocketIoEvent) {
        let [_, channel] = CHANNELS;
        let name = event.event;
        let about = json!({"summary": event.summary});
        let payload = tuple(&[json!({"const": name}), event.schema.clone()]);
        let shown = json!([name, event.example]);
        let [_, known] = &mut self.messages;
        known.insert(name.to_owned(), message(name, &about, &payload, &shown, None));
        let mut operation = operation(channel, "send", name, &about);
        if event.acknowledged {
            let answered = format!("{name}.reply");
            let payload = json!({"type": "array", "description": "Its arguments are ignored."});
            known.insert(
                answered.clone(),
                message(&answered, &json!({}), &payload, &json!([]), None),
            );
            operation["reply"] = json!({
                "channel": {"$ref": format!("#/channels/{channel}")},
                "messages": [at(channel, &answered)],
            });
        }
        self.operations.insert(format!("{channel}.{name}"), operation);
    }

    fn finished(self, schemas: &Schemas) -> Value {
        let [websocket, socketio] = self.messages;
        let codes: Vec<Value> = close::ALL
            .iter()
            .map(|close| json!({"code": close.code, "reason": close.reason, "meaning": close.meaning}))
            .collect();
        let server = |protocol: &str, version: &str, about: &str| {
            json!({
                "host": "{host}",
                "protocol": protocol,
                "protocolVersion": version,
                "description": about,
                "variables": {"host": {"default": "localhost:8080"}},
                "security": [{"$ref": "#/components/securitySchemes/bearer"}],
            })
        };
        json!({
            "asyncapi": "3.0.0",
            "id": "urn:natter:socket",
            "info": {
                "title": "Natter",
                "version": env!("CARGO_PKG_VERSION"),
                "description": ABOUT,
                "license": {"name": "Apache-2.0"},
            },
            "defaultContentType": "application/json",
            "servers": {
                "websocket": server("wss", "13", "Any gateway; `ws` without TLS."),
                "socketio": server("socket.io", "5", "Any gateway, with every request."),
            },
            "channels": {
                "websocket": {
                    "address": "/v1/ws",
                    "title": "WebSocket",
                    "description": WEBSOCKET,
                    "servers": [{"$ref": "#/servers/websocket"}],
                    "messages": websocket,
                    "bindings": {"ws": {"method": "GET", "query": schemas.socket()["SocketQuery"]}},
                    "x-close-codes": codes,
                },
                "socketio": {
                    "address": "/socket.io/",
                    "title": "Socket.IO",
                    "description": SOCKET_IO,
                    "servers": [{"$ref": "#/servers/socketio"}],
                    "messages": socketio,
                },
            },
            "operations": self.operations,
            "components": {
                "schemas": schemas.socket(),
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                },
            },
        })
    }
}

/// A reference to one of the schemas.
pub fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn at(channel: &str, message: &str) -> Value {
    json!({"$ref": format!("#/channels/{channel}/messages/{message}")})
}

fn object(required: &[&str], properties: &Value) -> Value {
    json!({"type": "object", "required": required, "properties": properties})
}

/// An array of just these, as the dialect of AsyncAPI's schemas says it.
fn tuple(items: &[Value]) -> Value {
    json!({"type": "array", "items": items, "minItems": items.len()})
}

fn message(name: &str, about: &Value, payload: &Value, shown: &Value, id: Option<&str>) -> Value {
    let mut message = json!({"name": name, "payload": payload, "examples": [{"payload": shown}]});
    describe(&mut message, about);
    if let Some(location) = id {
        message["correlationId"] = json!({"location": location});
    }
    message
}

fn operation(channel: &str, action: &str, message: &str, about: &Value) -> Value {
    let mut operation = json!({
        "action": action,
        "channel": {"$ref": format!("#/channels/{channel}")},
        "messages": [at(channel, message)],
    });
    describe(&mut operation, about);
    operation
}

fn describe(what: &mut Value, about: &Value) {
    for key in ["summary", "description"] {
        if about[key].as_str().is_some_and(|text| !text.is_empty()) {
            what[key] = about[key].clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::ws::Utf8Bytes;

    use super::*;
    use crate::codec::Codec;

    fn example(document: &Value, channel: &str, message: &str) -> Value {
        document["channels"][channel]["messages"][message]["examples"][0]["payload"].clone()
    }

    /// A packet's arguments, after its type and number.
    fn arguments(packet: &Utf8Bytes, prefix: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(packet.strip_prefix(prefix).unwrap_or_default())?)
    }

    #[test]
    fn examples_are_what_the_transports_write() -> anyhow::Result<()> {
        let (document, samples) = (document(&Schemas::new()), Samples::new());
        for event in samples.events() {
            let frame: Value = serde_json::from_str(&Codec::Native.event(&event))?;
            let name = frame["event"].as_str().unwrap_or_default();
            let mut told = example(&document, "websocket", name);
            // Each connection's own.
            told.as_object_mut().map(|fields| fields.remove("cursor"));
            assert_eq!(told, frame);
            let told = example(&document, "socketio", name);
            let packet = if told.as_array().is_some_and(|told| told.len() > 2) {
                Codec::SocketIo.event_at(&event, CURSOR)
            } else {
                Codec::SocketIo.event(&event)
            };
            assert_eq!(told, arguments(&packet, "42")?);
        }
        for request in catalogue::requests(&samples) {
            let (name, data) = (format!("{}.reply", request.event), request.answer.data);
            let text = data.to_string();
            let reply = |codec: Codec| {
                if request.answer.cursor {
                    codec.reply_at(7, &text, &[CURSOR])
                } else {
                    codec.reply(7, &data)
                }
            };
            let frame: Value = serde_json::from_str(&reply(Codec::Native))?;
            assert_eq!(example(&document, "websocket", &name), frame);
            let ack = arguments(&reply(Codec::SocketIo), "437")?;
            assert_eq!(example(&document, "socketio", &name), ack);
        }
        // A name may be a request's and an event's.
        let operations = document["operations"].as_object().into_iter().flatten();
        let taken = operations.filter(|(_, operation)| operation["action"] == "receive").count();
        assert_eq!(taken, 2 * catalogue::requests(&samples).len());
        let refused = |codec: Codec| codec.refusal(Some(7), &samples.error);
        let frame: Value = serde_json::from_str(&refused(Codec::Native))?;
        assert_eq!(example(&document, "websocket", "refusal"), frame);
        let ack = arguments(&refused(Codec::SocketIo), "437")?;
        assert_eq!(example(&document, "socketio", "refusal"), ack);
        Ok(())
    }

    #[test]
    fn what_only_socket_io_has_is_written_as_it_is_told() -> anyhow::Result<()> {
        let document = document(&Schemas::new());
        let codec = Codec::SocketIo;
        let said = [
            codec.place(&[CURSOR]).map(|packet| arguments(&packet, "42")),
            codec.checkpoint(9, CURSOR).map(|packet| arguments(&packet, "429")),
            codec.goodbye(close::SLOW_CONSUMER).first().map(|packet| arguments(packet, "42")),
        ];
        for (event, said) in catalogue::socketio_events().iter().zip(said) {
            assert_eq!(said.transpose()?, Some(example(&document, "socketio", event.event)));
        }
        Ok(())
    }
}
