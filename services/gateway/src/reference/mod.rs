//! What app developers read: OpenAPI for REST, AsyncAPI for the socket, TypeScript's types, and a
//! page that shows the first two. All of it is made of the types that the gateway itself reads and
//! writes, once.
//!
//! | module | holds |
//! |---|---|
//! | `schemas` | the types' schemas, and the events that the protocol's enums name |
//! | `catalogue` | what the types do not tell of events |
//! | `samples` | examples |
//! | `calls` | examples for the calls of REST, as its document has them |
//! | `asyncapi`, `typescript` | the documents |
//! | `served` | a document as it is served |

mod asyncapi;
mod calls;
mod catalogue;
mod samples;
mod schemas;
mod served;
mod typescript;

use axum::{
    Router,
    response::{IntoResponse, Response},
    routing::get,
};
use axum_extra::{TypedHeader, headers::IfNoneMatch};
use serde_json::Value;

use crate::page;
use schemas::Schemas;
use served::Served;

/// The documents.
#[derive(Debug)]
pub struct Documents {
    /// REST, as OpenAPI.
    pub openapi: Value,
    /// The socket's events, as AsyncAPI.
    pub asyncapi: Value,
    /// The types of both, for TypeScript.
    pub typescript: String,
}

impl Documents {
    /// Makes them.
    #[must_use]
    pub fn new() -> Self {
        let schemas = Schemas::new();
        Self {
            asyncapi: asyncapi::document(&schemas),
            typescript: typescript::file(&schemas),
            openapi: calls::with_examples(schemas.openapi().clone()),
        }
    }
}

impl Default for Documents {
    fn default() -> Self {
        Self::new()
    }
}

const JSON: &str = "application/json";
/// What browsers show, rather than store.
const TEXT: &str = "text/plain; charset=utf-8";

macro_rules! file {
    ($path:literal, $name:literal, $kind:expr) => {
        ($path, $kind, include_str!(concat!("../../reference/", $name)))
    };
}

const PAGE: [(&str, &str, &str); 3] = [
    file!("/v1/docs", "docs.html", page::HTML),
    file!("/v1/docs/docs.css", "docs.css", page::STYLE),
    file!("/v1/docs/docs.js", "docs.js", page::SCRIPT),
];

/// The documents and the page, for everybody.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let documents = Documents::new();
    let served = [
        ("/v1/openapi.json", Served::new(JSON, documents.openapi.to_string())),
        ("/v1/asyncapi.json", Served::new(JSON, documents.asyncapi.to_string())),
        ("/v1/natter.d.ts", Served::new(TEXT, documents.typescript)),
    ];
    let router = served.into_iter().fold(Router::new(), |router, (path, served)| {
        let answer = async move |known: Option<TypedHeader<IfNoneMatch>>| -> Response {
            served.to(known.map(|TypedHeader(known)| known).as_ref())
        };
        router.route(path, get(answer))
    });
    PAGE.into_iter().fold(router, |router, (path, kind, text)| {
        let answer = async move || (page::headers(kind), text).into_response();
        router.route(path, get(answer))
    })
}
