//! The OpenAPI document: what the calls say of themselves, and what is true of all of them.

use natter_protocol::client::SearchSort;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        Content, Ref, RefOr, Response as Described, ResponseBuilder,
        path::Operation,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};

use super::problem::{PROBLEM_JSON, ProblemBody};

/// What may go wrong with any call.
const ALL: [(&str, &str); 4] = [
    ("400", "The request does not have the documented form (`bad_request`)."),
    ("429", "Too many requests (`rate_limited`): see `retryAfterMs`."),
    ("500", "A fault of the server (`internal`)."),
    ("503", "A dependency is down (`unavailable`): see `outcome` for a send."),
];
/// With any call that has a body.
const WITH_BODY: [(&str, &str); 2] = [
    ("413", "The body is larger than 64 KiB (`too_large`)."),
    ("415", "The body is not `application/json` (`unsupported_media`)."),
];
/// With any call that needs a token of a user's.
const WITH_TOKEN: [(&str, &str); 2] = [
    ("401", "No valid token, or its device is revoked (`unauthenticated`)."),
    ("403", "The account is disabled (`account_disabled`)."),
];
/// With any call of a server.
const WITH_SERVICE_TOKEN: [(&str, &str); 2] = [
    ("401", "No service token, or one that is unknown or revoked (`unauthenticated`)."),
    ("403", "The token lacks the scope (`forbidden`)."),
];
const SERVER: &str = "/v1/server/";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Natter",
        description = "Accounts, devices, chats and messages. What happens meanwhile comes over the socket: `/v1/asyncapi.json`. The token says who calls: a body that names somebody else in `user`, `userId` or `senderId` is refused (403, `forbidden`). What is under `/v1/server` is for the servers of the product that this is embedded in, by service tokens (`natter service-token create`), each with its scopes.",
    ),
    components(schemas(ProblemBody, SearchSort)),
    security(("bearer" = [])),
    modifiers(&Bearer),
)]
struct Head;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.bearer_format = Some("JWT".to_owned());
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
        let scheme = Http::new(HttpAuthScheme::Bearer);
        components.add_security_scheme("service", SecurityScheme::Http(scheme));
    }
}

/// The document without calls.
pub(super) fn head() -> utoipa::openapi::OpenApi {
    Head::openapi()
}

/// The whole document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    let (_, document) = super::described().split_for_parts();
    finished(document)
}

/// Adds what is true of all calls.
fn finished(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    for (path, item) in &mut document.paths.paths {
        let operations = [
            &mut item.get,
            &mut item.head,
            &mut item.post,
            &mut item.patch,
            &mut item.delete,
            &mut item.put,
        ];
        for operation in operations.into_iter().flatten() {
            add_errors(operation, path.starts_with(SERVER));
        }
        // Both methods of one handler have its name, and a document has a name once.
        if let Some(head) = &mut item.head {
            head.operation_id = head.operation_id.as_ref().map(|name| format!("{name}_head"));
        }
    }
    document
}

fn add_errors(operation: &mut Operation, of_server: bool) {
    // A call without a requirement of its own has the document's: a token.
    let token = match (of_server, operation.security.is_some()) {
        (true, _) => &WITH_SERVICE_TOKEN[..],
        (false, false) => &WITH_TOKEN,
        (false, true) => &[],
    };
    let body = if operation.request_body.is_some() { &WITH_BODY[..] } else { &[] };
    let described = &mut operation.responses.responses;
    for (status, why) in ALL.into_iter().chain(body.iter().copied()) {
        described.entry(status.to_owned()).or_insert_with(|| RefOr::T(problem(why)));
    }
    for (status, why) in token {
        let known = described.entry((*status).to_owned()).or_insert_with(|| RefOr::T(problem("")));
        if let RefOr::T(known) = known {
            let told = format!("{} {why}", known.description);
            told.trim().clone_into(&mut known.description);
        }
    }
}

fn problem(why: &str) -> Described {
    let schema = Ref::from_schema_name("Problem");
    let content = Content::new(Some(schema));
    ResponseBuilder::new().description(why).content(PROBLEM_JSON, content).build()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use anyhow::Context;
    use natter_protocol::error::ErrorCode;
    use serde_json::Value;

    use super::*;

    const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    /// The pages and the documents, and the sockets: by file.
    const ROUTED_OTHERWISE: [&str; 5] = [
        "page.rs path",
        "reference/mod.rs path",
        "socket/mod.rs \"/v1/ws\"",
        "socketio/mod.rs PATH",
        "socketio/mod.rs PATH.trim_end_matches('/'",
    ];

    #[test]
    fn every_call_of_the_wire_is_described_with_its_errors() -> anyhow::Result<()> {
        let document = serde_json::to_value(document())?;
        let mut calls = BTreeSet::new();
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                calls.insert(format!("{method} {path}"));
                let responses = &operation["responses"];
                let of_server = path.starts_with(SERVER);
                let public = operation.get("security").is_some() && !of_server;
                assert_eq!(public, path.starts_with("/v1/auth/") && responses.get("204").is_none());
                assert_eq!(of_server, operation["security"][0]["service"].is_array());
                assert!(public || responses["401"].is_object(), "{method} {path}");
                let silent = [
                    "/v1/auth/logout",
                    "/v1/chats/{id}/leave",
                    "/v1/chats/{id}/hide",
                    "/v1/chats/{id}/messages/{messageId}/reactions/{emoji}",
                    "/v1/users/{id}/block",
                    "/v1/server/users/{id}/disable",
                    "/v1/server/users/{id}/enable",
                ];
                let silent = silent.contains(&path.as_str());
                let told = operation["requestBody"].is_object();
                // The password of the account that is to end.
                let parting = (&**method, path.as_str()) == ("delete", "/v1/users/me");
                assert_eq!(
                    told,
                    matches!(&**method, "post" | "patch" | "put") && !silent || parting,
                    "{method} {path}"
                );
                for status in ["400", "429", "500", "503"] {
                    let schema = &responses[status]["content"][PROBLEM_JSON]["schema"]["$ref"];
                    assert_eq!(schema, "#/components/schemas/Problem", "{method} {path} {status}");
                }
            }
        }
        let expected = [
            "delete /v1/chats/{id}",
            "delete /v1/chats/{id}/bans/{userId}",
            "delete /v1/chats/{id}/invites/{inviteId}",
            "delete /v1/chats/{id}/messages/{messageId}",
            "delete /v1/chats/{id}/messages/{messageId}/reactions/{emoji}",
            "delete /v1/chats/{id}/mute",
            "delete /v1/chats/{id}/participants/{userId}",
            "delete /v1/devices/{id}",
            "delete /v1/devices/{id}/push",
            "delete /v1/server/chats/{id}/messages/{messageId}",
            "delete /v1/server/chats/{id}/participants/{userId}",
            "delete /v1/server/users/{id}/devices/{deviceId}",
            "delete /v1/users/me",
            "delete /v1/users/{id}/block",
            "get /v1/blocks",
            "get /v1/chats",
            "get /v1/chats/unread",
            "get /v1/chats/{id}",
            "get /v1/chats/{id}/bans",
            "get /v1/chats/{id}/export",
            "get /v1/chats/{id}/invites",
            "get /v1/chats/{id}/messages",
            "get /v1/chats/{id}/messages/{messageId}/downloads",
            "get /v1/chats/{id}/messages/{messageId}/media",
            "get /v1/chats/{id}/messages/{messageId}/media/thumbnail",
            "get /v1/chats/{id}/participants",
            "get /v1/chats/{id}/receipts",
            "get /v1/devices",
            "get /v1/devices/{id}/push",
            "get /v1/imported/{kind}/{oldId}",
            "get /v1/invites/{code}",
            "get /v1/messages/{id}/delivery",
            "get /v1/push/key",
            "get /v1/search/messages",
            "get /v1/server/chats/{id}",
            "get /v1/server/chats/{id}/messages",
            "get /v1/server/chats/{id}/participants",
            "get /v1/server/users",
            "get /v1/server/users/{id}",
            "get /v1/users",
            "get /v1/users/me",
            "get /v1/users/me/export",
            "get /v1/users/me/notifications",
            "head /v1/chats/{id}/messages/{messageId}/media",
            "patch /v1/chats/{id}",
            "patch /v1/chats/{id}/messages/{messageId}",
            "patch /v1/chats/{id}/participants/{userId}",
            "patch /v1/server/chats/{id}/participants/{userId}",
            "patch /v1/server/users/{id}",
            "patch /v1/users/me",
            "patch /v1/users/me/notifications",
            "post /v1/auth/login",
            "post /v1/auth/logout",
            "post /v1/auth/password",
            "post /v1/auth/refresh",
            "post /v1/auth/register",
            "post /v1/chats",
            "post /v1/chats/{id}/delivered",
            "post /v1/chats/{id}/hide",
            "post /v1/chats/{id}/invites",
            "post /v1/chats/{id}/join",
            "post /v1/chats/{id}/leave",
            "post /v1/chats/{id}/media",
            "post /v1/chats/{id}/media/uploads",
            "post /v1/chats/{id}/media/{mediaId}/complete",
            "post /v1/chats/{id}/messages",
            "post /v1/chats/{id}/participants",
            "post /v1/chats/{id}/read",
            "post /v1/devices/{id}/push/test",
            "post /v1/invites/{code}/join",
            "post /v1/server/chats",
            "post /v1/server/chats/{id}/messages",
            "post /v1/server/chats/{id}/participants",
            "post /v1/server/users",
            "post /v1/server/users/{id}/devices",
            "post /v1/server/users/{id}/disable",
            "post /v1/server/users/{id}/enable",
            "put /v1/chats/{id}/messages/{messageId}/reactions/{emoji}",
            "put /v1/chats/{id}/mute",
            "put /v1/devices/{id}/push",
            "put /v1/users/{id}/block",
        ];
        assert_eq!(calls.iter().map(String::as_str).collect::<Vec<_>>(), expected);
        assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
        Ok(())
    }

    /// What `routes!` adds is described, and nothing else is: so whatever is routed otherwise has to
    /// be known here as no call.
    #[test]
    fn every_route_is_a_described_call_or_known_to_be_none() -> anyhow::Result<()> {
        fn read(folder: &Path, found: &mut BTreeSet<(String, String)>) -> anyhow::Result<()> {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    read(&path, found)?;
                    continue;
                }
                let name = path.strip_prefix(SOURCE)?.to_string_lossy().into_owned();
                let text = fs::read_to_string(&path)?;
                // Tests serve what they like.
                let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
                for way in [".route(", ".route_service(", ".nest_service("] {
                    for rest in text.split(way).skip(1) {
                        let route = rest.split([',', ')']).next().unwrap_or_default();
                        found.insert((name.clone(), route.trim().to_owned()));
                    }
                }
            }
            Ok(())
        }
        let mut found = BTreeSet::new();
        read(Path::new(SOURCE), &mut found)?;
        found.retain(|(name, _)| name != "rest/openapi.rs");
        let found: Vec<_> = found.iter().map(|(file, route)| format!("{file} {route}")).collect();
        assert_eq!(found, ROUTED_OTHERWISE);
        Ok(())
    }

    #[test]
    fn every_refusal_names_its_codes() -> anyhow::Result<()> {
        let document = serde_json::to_value(document())?;
        let mut names = BTreeSet::new();
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                let name = operation["operationId"].as_str().context("no name")?;
                assert!(names.insert(name), "{method} {path}: {name} is another one's too");
                for (status, response) in operation["responses"].as_object().into_iter().flatten() {
                    let about = response["description"].as_str().unwrap_or_default();
                    let mut named =
                        ErrorCode::MEANINGS.iter().map(|(code, _)| code).filter(|code| {
                            // 416 is the one status that is no code's own.
                            let its_own = status == "416" || *status == code.status().to_string();
                            its_own && about.contains(&format!("`{}`", code.as_str()))
                        });
                    let refusal = response["content"].get(PROBLEM_JSON).is_some();
                    assert_eq!(
                        named.next().is_some(),
                        refusal,
                        "{method} {path} {status}: {about}"
                    );
                }
            }
        }
        Ok(())
    }

    #[test]
    fn every_reference_leads_somewhere() -> anyhow::Result<()> {
        fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str));
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let document = serde_json::to_value(document())?;
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for reference in found {
            let pointer = reference.trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        Ok(())
    }
}
