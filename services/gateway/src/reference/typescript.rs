//! TypeScript's types of all that is said, out of the same schemas.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::{
    catalogue,
    samples::Samples,
    schemas::{Event, Schemas},
};

const HEAD: &str = "\
// What clients of Natter send and get. Generated from the server's own types; a gateway serves its
// own at /v1/natter.d.ts.
";

/// What is made of the maps of events, for each transport.
const TAIL: &str = r#"
/** An event of the server, by its name. */
export type ServerEvent = keyof ServerEvents;
/** A request of a client, by its name. */
export type ClientEvent = keyof ClientEvents;

/** A frame to send over `/v1/ws`. */
export type ClientFrame<E extends ClientEvent = ClientEvent> = {
  [K in E]: { event: K; id?: number; data: ClientEvents[K]["data"] };
}[E];
/** An event that comes over `/v1/ws`; `cursor` with what is on feeds. */
export type EventFrame<E extends ServerEvent = ServerEvent> = {
  [K in E]: { event: K; data: ServerEvents[K]; cursor?: string };
}[E];
/** The answer to the request with this `id`; `cursor` with that of `send_message`. */
export type ReplyFrame<E extends ClientEvent = ClientEvent> =
  | { reply: number; data: ClientEvents[E]["reply"]; cursor?: string; error?: undefined }
  | { reply: number; error: WireError; data?: undefined; cursor?: undefined };
/** Whatever comes over `/v1/ws`. */
export type ServerFrame = EventFrame | ReplyFrame;

/** What Socket.IO's acks are called with. */
export type Ack<T> = { ok: true; data: T; cursor?: string } | { ok: false; error: WireError };
/**
 * For `Socket<ServerToClientEvents, ClientToServerEvents>` of `socket.io-client`. To `emit` without
 * an interest in the answer, give it `() => {}`: an ack that may be missing would have no type in
 * `emitWithAck`.
 */
export type ClientToServerEvents = {
  [E in ClientEvent]: (
    data: ClientEvents[E]["data"],
    ack: (answer: Ack<ClientEvents[E]["reply"]>) => void,
  ) => void;
};
"#;

/// The whole file.
pub fn file(schemas: &Schemas) -> String {
    let mut text = HEAD.to_owned();
    for (name, schema) in schemas.all() {
        declare(&mut text, &name, &schema);
    }
    client_events(&mut text, &schemas.requests());
    let events = schemas.events();
    server_events(&mut text, &events);
    text.push_str(TAIL);
    socketio_events(&mut text, &events);
    calls(&mut text, schemas.openapi());
    text
}

/// `export interface …`, or `export type …`.
fn declare(text: &mut String, name: &str, schema: &Value) {
    text.push('\n');
    comment(text, "", schema["description"].as_str());
    match schema["properties"].as_object() {
        Some(fields) => {
            let _ = writeln!(text, "export interface {name} {{");
            for (field, of) in fields {
                // What may be null has it beside its type.
                let about = of.get("description").or_else(|| of.pointer("/oneOf/0/description"));
                comment(text, "  ", about.and_then(Value::as_str));
                let _ = writeln!(text, "  {};", property(schema, field, of));
            }
            text.push_str("}\n");
        }
        None => {
            let _ = writeln!(text, "export type {name} = {};", spelled(schema));
        }
    }
}

fn comment(text: &mut String, indent: &str, about: Option<&str>) {
    let lines: Vec<&str> = about.unwrap_or_default().lines().map(str::trim).collect();
    match &lines[..] {
        [] => {}
        [line] => {
            let _ = writeln!(text, "{indent}/** {} */", line.replace("*/", "*\\/"));
        }
        lines => {
            let _ = writeln!(text, "{indent}/**");
            for line in lines {
                let told = format!("{indent} * {}", line.replace("*/", "*\\/"));
                let _ = writeln!(text, "{}", told.trim_end());
            }
            let _ = writeln!(text, "{indent} */");
        }
    }
}

fn property(of: &Value, name: &str, schema: &Value) -> String {
    let required = of["required"].as_array().is_some_and(|names| names.iter().any(|n| n == name));
    format!("{name}{}: {}", if required { "" } else { "?" }, spelled(schema))
}

/// A schema as a type.
fn spelled(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return reference.rsplit('/').next().unwrap_or_default().to_owned();
    }
    if let Some(values) = schema["enum"].as_array() {
        return joined(values.iter().map(Value::to_string), " | ");
    }
    for (key, between) in [("oneOf", " | "), ("anyOf", " | "), ("allOf", " & ")] {
        if let Some(parts) = schema[key].as_array() {
            return joined(parts.iter().map(spelled), between);
        }
    }
    match &schema["type"] {
        Value::Array(kinds) => {
            let kinds = kinds.iter().filter_map(Value::as_str);
            joined(kinds.map(|kind| of_kind(kind, schema)), " | ")
        }
        Value::String(kind) => of_kind(kind, schema),
        _ => "unknown".to_owned(),
    }
}

fn joined(parts: impl Iterator<Item = String>, between: &str) -> String {
    parts.collect::<Vec<_>>().join(between)
}

fn of_kind(kind: &str, schema: &Value) -> String {
    match kind {
        // A file in a form.
        "string" if schema["format"] == "binary" => "Blob".to_owned(),
        "string" | "boolean" | "null" => kind.to_owned(),
        "integer" | "number" => "number".to_owned(),
        "array" => {
            let item = spelled(&schema["items"]);
            if item.contains(' ') { format!("({item})[]") } else { format!("{item}[]") }
        }
        "object" => inline(schema),
        _ => "unknown".to_owned(),
    }
}

fn inline(schema: &Value) -> String {
    if let Some(fields) = schema["properties"].as_object() {
        let fields = fields.iter().map(|(name, of)| property(schema, name, of));
        return format!("{{ {} }}", joined(fields, "; "));
    }
    let values = &schema["additionalProperties"];
    format!("Record<string, {}>", if values.is_object() { spelled(values) } else { "never".into() })
}

fn client_events(text: &mut String, events: &[Event]) {
    text.push_str("\n/** What clients send, and what it is answered with. */\n");
    text.push_str("export interface ClientEvents {\n");
    for request in catalogue::requests(&Samples::new()) {
        let like = request.like.unwrap_or(request.event);
        let Some(event) = events.iter().find(|event| event.name == like) else { continue };
        comment(text, "  ", Some(&event.summary));
        let (data, reply) = (spelled(&event.data), request.answer.schema);
        let _ = writeln!(text, "  {}: {{ data: {data}; reply: {reply} }};", request.event);
    }
    text.push_str("}\n");
}

fn server_events(text: &mut String, events: &[Event]) {
    text.push_str("\n/** What the server sends, over `/v1/ws`. */\n");
    text.push_str("export interface ServerEvents {\n");
    for Event { name, summary, data } in events {
        comment(text, "  ", Some(summary));
        let _ = writeln!(text, "  {name}: {};", spelled(data));
    }
    text.push_str("}\n");
}

fn socketio_events(text: &mut String, events: &[Event]) {
    text.push_str("/** The other half. What is on feeds ends with a cursor. */\n");
    text.push_str("export interface ServerToClientEvents {\n");
    for Event { name, summary, data } in events {
        comment(text, "  ", Some(summary));
        let data = if name == "exception" { "Exception".to_owned() } else { spelled(data) };
        let feed = catalogue::told(name).is_some_and(|told| told.feed);
        let cursor = if feed || catalogue::PLACES.contains(&name.as_str()) {
            ", cursor: string"
        } else if catalogue::SOMETIMES.contains(&name.as_str()) {
            ", cursor?: string"
        } else {
            ""
        };
        let _ = writeln!(text, "  {name}: (data: {data}{cursor}) => void;");
    }
    for event in catalogue::socketio_events() {
        comment(text, "  ", Some(event.summary));
        let ack = if event.acknowledged { ", ack: () => void" } else { "" };
        let data = spelled(&event.schema);
        let _ = writeln!(text, "  {}: (data: {data}{ack}) => void;", event.event);
    }
    text.push_str("}\n");
}

/// The calls of REST, by method and path.
fn calls(text: &mut String, openapi: &Value) {
    text.push_str("\n/** The calls of REST. They fail with `Problem`. */\n");
    text.push_str("export interface RestCalls {\n");
    for (path, methods) in openapi["paths"].as_object().into_iter().flatten() {
        let methods = methods.as_object().into_iter().flatten();
        for (method, operation) in methods.filter(|(method, _)| *method != "head") {
            comment(text, "  ", operation["summary"].as_str());
            let _ = writeln!(text, "  \"{} {path}\": {{", method.to_uppercase());
            for place in ["path", "query"] {
                parameters(text, place, operation);
            }
            if let Some(body) = operation.pointer("/requestBody/content").and_then(first) {
                let optional = if operation["requestBody"]["required"] == true { "" } else { "?" };
                let _ = writeln!(text, "    body{optional}: {body};");
            }
            let _ = writeln!(text, "    answer: {};\n  }};", answers(operation));
        }
    }
    text.push_str("}\n");
}

fn parameters(text: &mut String, place: &str, operation: &Value) {
    let all = operation["parameters"].as_array().into_iter().flatten();
    let here: Vec<&Value> = all.filter(|parameter| parameter["in"] == place).collect();
    if here.is_empty() {
        return;
    }
    let optional =
        if here.iter().any(|parameter| parameter["required"] == true) { "" } else { "?" };
    let fields = here.iter().filter_map(|parameter| {
        let name = parameter["name"].as_str()?;
        let optional = if parameter["required"] == true { "" } else { "?" };
        Some(format!("{name}{optional}: {}", spelled(&parameter["schema"])))
    });
    let _ = writeln!(text, "    {place}{optional}: {{ {} }};", joined(fields, "; "));
}

/// What a call that went well is answered with.
fn answers(operation: &Value) -> String {
    let empty = Map::new();
    let responses = operation["responses"].as_object().unwrap_or(&empty);
    let good = responses.iter().filter(|(status, _)| status.starts_with('2'));
    let mut answers: Vec<String> = good
        .map(|(_, response)| first(&response["content"]).unwrap_or_else(|| "undefined".to_owned()))
        .collect();
    answers.dedup();
    answers.join(" | ")
}

/// The type of the first of these contents.
fn first(contents: &Value) -> Option<String> {
    let (kind, content) = contents.as_object()?.iter().next()?;
    let json = kind.ends_with("json") || kind.starts_with("multipart/");
    Some(if json { spelled(&content["schema"]) } else { "Blob".to_owned() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_may_be_missing_and_what_may_be_null_are_told_apart() {
        let schema = json!({
            "type": "object", "required": ["a", "b"], "description": "One\ntwo",
            "properties": {
                "a": {"type": ["string", "null"]},
                "b": {"oneOf": [{"$ref": "#/components/schemas/Other"}, {"type": "null"}]},
                "c": {"type": "array", "items": {"enum": ["x", "y"]}, "description": "A few."},
                "d": {"type": "object", "additionalProperties": {"type": "integer"}},
            },
        });
        let mut text = String::new();
        declare(&mut text, "Thing", &schema);
        assert_eq!(
            text,
            "\n/**\n * One\n * two\n */\nexport interface Thing {\n  a: string | null;\n  \
             b: Other | null;\n  /** A few. */\n  c?: (\"x\" | \"y\")[];\n  \
             d?: Record<string, number>;\n}\n"
        );
    }
}
