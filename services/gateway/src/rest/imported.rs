//! What was brought in from another system, for clients that hold its ids.

use axum::{
    Json,
    extract::{FromRequestParts, RawPathParams, State},
    http::request::Parts,
};
use natter_protocol::{
    error::{ErrorCode, WireError},
    imported::{Imported, ImportedKind, OLD_ID_CHARS},
};
use natter_store::Store;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::problem::{PROBLEM_JSON, Problem, ProblemBody};
use crate::{app::App, auth::Caller, text::bad_request};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(resolve))
}

/// What another system named, as its path says.
struct OldName(ImportedKind, String);

impl<S: Send + Sync> FromRequestParts<S> for OldName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let mut named = None;
        if let Ok(params) = &params {
            let mut texts = params.iter().map(|(_, text)| text);
            named = texts.next().zip(texts.next());
        }
        let (kind, old) = named.ok_or_else(|| bad_request("oldId: is not UTF-8"))?;
        let kind = ImportedKind::parse(kind)
            .ok_or_else(|| bad_request("kind: is not user, device, chat, message or media"))?;
        if old.contains('\0') || old.chars().count() > OLD_ID_CHARS {
            return Err(bad_request("oldId: is no id").into());
        }
        Ok(Self(kind, old.to_owned()))
    }
}

/// What an id of the system that the deployment has moved over from is called here. For clients that
/// still hold such ids; a UUID has stayed what it was.
#[utoipa::path(
    get, path = "/imported/{kind}/{oldId}", tag = "imported", operation_id = "resolve_imported",
    params(
        ("kind" = ImportedKind, Path, description = "What it names."),
        ("oldId" = String, Path, description = "The id there."),
    ),
    responses(
        (status = 200, description = "What it is here.", body = Imported),
        (status = 404, description = "Nothing that was imported, or that the caller may see: oneself and whom one shares a chat with, one's own devices, chats that one takes part in and what is in them (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn resolve(
    State(store): State<Store>,
    caller: Caller,
    OldName(kind, old): OldName,
) -> Result<Json<Imported>, Problem> {
    let found = store.imported(caller.user_id, kind, &old).await?;
    let none = || WireError::new(ErrorCode::NotFound, "nothing of that name was imported");
    Ok(Json(found.ok_or_else(none)?))
}
