//! The schemas of all that is said, as the protocol's types give them.

use natter_protocol::{
    client::{Command, SearchSort},
    error::{ErrorCode, Outcome, WireError},
    feed::SystemKind,
    imported::ImportedKind,
    limits,
    media::MediaKind,
    notify::{Preview, PushReason, PushState},
    push::Provider,
    server, socketio,
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::{OpenApi, ToSchema};

use crate::{
    codec, rest,
    socket::{self, handshake::connect},
};

#[derive(OpenApi)]
#[openapi(components(schemas(
    Command,
    server::ServerEvent<'static>,
    server::Authenticated,
    server::Changed,
    server::Chat,
    server::Empty,
    server::HistoryPage,
    server::Joined,
    server::PresenceList,
    server::Resumed,
    server::Sent,
    natter_protocol::rest::SearchPage,
    WireError,
    socketio::Auth,
    codec::Checkpoint<'static>,
    codec::Closing,
    codec::Exception<'static>,
    connect::Refused<'static>,
    socket::ConnectOptions,
)))]
struct Socket;

/// The two enums of events, which are described one event at a time.
const EVENTS: [&str; 2] = ["Command", "ServerEvent"];

/// An event, as its enum tells it.
pub struct Event {
    /// As the wire spells it.
    pub name: String,
    /// What it is.
    pub summary: String,
    /// The schema of its payload.
    pub data: Value,
}

/// Schemas by their names.
pub struct Schemas {
    socket: Map<String, Value>,
    openapi: Value,
}

impl Schemas {
    /// Those of the socket's events, and of REST's document.
    pub fn new() -> Self {
        let socket = tidy(&Socket::openapi());
        let openapi = tidy(&rest::openapi::document());
        Self { socket: named(&socket), openapi }
    }

    /// What clients send.
    pub fn requests(&self) -> Vec<Event> {
        events(self.socket.get("Command"))
    }

    /// What the server sends.
    pub fn events(&self) -> Vec<Event> {
        events(self.socket.get("ServerEvent"))
    }

    /// REST's whole document.
    pub fn openapi(&self) -> &Value {
        &self.openapi
    }

    /// What the socket's events refer to.
    pub fn socket(&self) -> Map<String, Value> {
        let own = self.socket.iter().filter(|(name, _)| !EVENTS.contains(&name.as_str()));
        own.map(|(name, schema)| (name.clone(), schema.clone())).collect()
    }

    /// What either refers to.
    pub fn all(&self) -> Map<String, Value> {
        let mut all = self.socket();
        all.extend(named(&self.openapi));
        all
    }
}

fn named(document: &Value) -> Map<String, Value> {
    document.pointer("/components/schemas").and_then(Value::as_object).cloned().unwrap_or_default()
}

fn events(schema: Option<&Value>) -> Vec<Event> {
    let variants = schema.and_then(|schema| schema["oneOf"].as_array()).into_iter().flatten();
    let told = variants.filter_map(|variant| {
        let name = variant.pointer("/properties/event/enum/0")?.as_str()?.to_owned();
        let summary = variant["description"].as_str().unwrap_or_default().to_owned();
        let mut data = variant.pointer("/properties/data")?.clone();
        // The event's own, said once.
        data.as_object_mut()?.remove("description");
        Some(Event { name, summary, data })
    });
    told.collect()
}

/// As readers who have no source code want it: bounds by their values, and a name for the one
/// integer that has a meaning of its own.
fn tidy(document: &utoipa::openapi::OpenApi) -> Value {
    let mut text = document.to_json().unwrap_or_default();
    for (name, value) in [
        ("CONTENT_BYTES", limits::CONTENT_BYTES.to_string()),
        ("PAGE", limits::PAGE.to_string()),
        ("NAME_CHARS", limits::NAME_CHARS.to_string()),
        ("PARTICIPANTS", limits::PARTICIPANTS.to_string()),
        ("PRESENCE_USERS", limits::PRESENCE_USERS.to_string()),
        ("DESCRIPTION_CHARS", limits::DESCRIPTION_CHARS.to_string()),
        ("ADDED", limits::ADDED.to_string()),
        ("MENTIONS", limits::MENTIONS.to_string()),
    ] {
        text = text.replace(&format!("[`crate::limits::{name}`]"), &value);
    }
    text = text.replace("\"#/components/schemas/u64\"", "\"#/components/schemas/Seq\"");
    let mut document: Value = serde_json::from_str(&text).unwrap_or_default();
    let schemas = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut);
    if let Some(schemas) = schemas {
        if let Some(mut seq) = schemas.remove("u64") {
            seq["description"] =
                "A place in a feed's order; it grows, not by one. Starts at 1.".into();
            schemas.insert("Seq".to_owned(), seq);
        }
        explain(schemas);
    }
    document
}

/// Says what each word of an enum means: schemas have no place for that but their description.
fn explain(schemas: &mut Map<String, Value>) {
    let codes = ErrorCode::MEANINGS.iter().map(|(code, meaning)| {
        let told = format!("{} HTTP {}.", meaning.trim(), code.status());
        (*code, told)
    });
    let enums = [
        meanings(codes),
        words(Outcome::MEANINGS),
        words(SystemKind::MEANINGS),
        words(ImportedKind::MEANINGS),
        words(MediaKind::MEANINGS),
        words(Preview::MEANINGS),
        words(Provider::MEANINGS),
        words(PushReason::MEANINGS),
        words(PushState::MEANINGS),
        words(server::ContentType::MEANINGS),
        words(server::ResumeRefusal::MEANINGS),
        words(server::Role::MEANINGS),
        words(SearchSort::MEANINGS),
    ];
    for (name, told) in enums {
        if let Some(about) = schemas.get_mut(&name).and_then(|schema| schema.get_mut("description"))
        {
            *about = json!(format!("{}\n{told}", about.as_str().unwrap_or_default()));
        }
    }
}

fn words<T: Copy + Serialize + ToSchema>(all: &[(T, &str)]) -> (String, String) {
    meanings(all.iter().map(|(word, meaning)| (*word, meaning.trim().to_owned())))
}

/// The name of the enum, and its words as a list of Markdown's.
fn meanings<T: Serialize + ToSchema>(all: impl Iterator<Item = (T, String)>) -> (String, String) {
    let lines = all.map(|(word, meaning)| format!("\n- `{}`: {meaning}", spelled(&word)));
    (T::name().into_owned(), lines.collect())
}

fn spelled<T: Serialize>(word: &T) -> String {
    let word = serde_json::to_value(word).unwrap_or_default();
    word.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_speaks_of_source_code() {
        let schemas = Schemas::new();
        let text = format!("{}{}", schemas.openapi(), Value::from(schemas.all()));
        for word in ["[`", "crate::", "schemas/u64"] {
            assert!(!text.contains(word), "{word}");
        }
    }

    #[test]
    fn every_word_of_an_enum_is_explained() {
        let mut explained = 0;
        for (name, schema) in Schemas::new().all() {
            let about = schema["description"].as_str().unwrap_or_default();
            for word in schema["enum"].as_array().into_iter().flatten() {
                let word = word.as_str().unwrap_or_default();
                assert!(about.contains(&format!("\n- `{word}`: ")), "{name}: {word}");
                explained += 1;
            }
        }
        assert!(explained > 20, "{explained}");
    }

    #[test]
    fn one_name_is_one_schema() {
        let schemas = Schemas::new();
        let rest = named(schemas.openapi());
        for (name, schema) in schemas.socket() {
            assert!(rest.get(&name).is_none_or(|other| *other == schema), "{name}");
        }
    }
}
