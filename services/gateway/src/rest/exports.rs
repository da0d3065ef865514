//! Data handed out whole, and accounts that end.

use std::time::Duration;

use axum::{
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use natter_protocol::{ids::ChatId, rest::DeleteAccount};
use natter_runtime::causes;
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{ClientAddress, OptionalBody, PathId, Query},
    problem::{PROBLEM_JSON, Problem, ProblemBody},
};
use crate::{
    app::App,
    auth::{Caller, Refusal, refused},
    config::DeletedAccounts,
    export::{self, Export},
    text::bad_request,
};

/// How long the call goes on with what follows from it; workers do the rest.
const GO_ON: Duration = Duration::from_secs(4);

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(export_chat))
        .routes(routes!(export_me))
        .routes(routes!(delete_me))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ExportQuery {
    /// `false`: without files.
    media: Option<bool>,
}

/// All of a chat, as a ZIP archive that is made while it is sent.
///
/// `chat.json`, `participants.ndjson`, `messages.ndjson` (as history shows them, oldest first: all that
/// was sent until the export began), the files in `media/`, and at the end `manifest.json`. An answer
/// that ends early is no archive: whoever is removed meanwhile does not get the rest.
#[utoipa::path(
    get, path = "/chats/{id}/export", tag = "chats", operation_id = "export_chat",
    params(("id" = ChatId, Path, description = "The chat."), ExportQuery),
    responses(
        (status = 200, description = "The archive.", content_type = "application/zip"),
        (status = 403, description = "Not a participant, or no such chat (`not_member`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn export_chat(
    State(app): State<App>,
    caller: Caller,
    PathId(chat): PathId<ChatId>,
    Query(query): Query<ExportQuery>,
) -> Result<Response, Problem> {
    Ok(archive(export::chat(&app, &caller, chat, query.media.unwrap_or(true)).await?))
}

/// All that the caller has, as a ZIP archive that is made while it is sent.
///
/// `profile.json`, `devices.ndjson`, `blocks.ndjson`, `chats.ndjson` (those that the caller has left
/// too), `messages.ndjson` and `reactions.ndjson` (the caller's own, in all of them), the caller's
/// files in `media/`, and at the end `manifest.json`: `partial` there says that what was sent just
/// before may be missing.
#[utoipa::path(
    get, path = "/users/me/export", tag = "users", operation_id = "export_me",
    params(ExportQuery),
    responses((status = 200, description = "The archive.", content_type = "application/zip"))
)]
async fn export_me(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ExportQuery>,
) -> Result<Response, Problem> {
    Ok(archive(export::user(&app, &caller, query.media.unwrap_or(true)).await?))
}

fn archive(export: Export) -> Response {
    let saved = HeaderValue::try_from(format!("attachment; filename=\"{}\"", export.name));
    let headers: [(HeaderName, HeaderValue); 2] = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/zip")),
        (
            header::CONTENT_DISPOSITION,
            saved.unwrap_or_else(|_| HeaderValue::from_static("attachment")),
        ),
    ];
    (headers, export.body).into_response()
}

/// Delete the caller's account, for good.
///
/// Its devices are signed out and their sockets close (4403), it leaves all groups by the rules of
/// leaving, and nobody finds it any more. One-to-ones stay for the other, who sees a deleted user and
/// cannot write there. Messages stay too, of a deleted user, or are taken back: the deployment decides.
/// With very many chats some of that goes on after the answer.
#[utoipa::path(
    delete, path = "/users/me", tag = "users", operation_id = "delete_me",
    request_body(content = Option<DeleteAccount>, content_type = "application/json"),
    responses(
        (status = 204, description = "Deleted."),
        (status = 401, description = "The password is wrong (`unauthenticated`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn delete_me(
    State(app): State<App>,
    caller: Caller,
    ClientAddress(address): ClientAddress,
    OptionalBody(request): OptionalBody<DeleteAccount>,
) -> Result<StatusCode, Problem> {
    let user = caller.user_id;
    app.auth.attempts().from_address(address)?;
    app.auth.attempts().at_account(&user.to_string())?;
    let wrong = || refused(Refusal::Password, "the password is wrong");
    let hash = match app.store.credentials_of(user).await? {
        // Of an outside issuer: its token is all there is to show.
        None => None,
        Some(known) => {
            let missing = || bad_request("password: is needed");
            let password = request.password.ok_or_else(missing)?;
            let hash = known.password_hash;
            if !app.auth.passwords().verify(password, Some(hash.clone())).await? {
                return Err(wrong().into());
            }
            Some(hash)
        }
    };
    let erase = app.config.deleted_accounts == DeletedAccounts::Erase;
    // False: somebody else has changed the password meanwhile.
    if !app.store.delete_user(user, hash.as_deref(), erase).await? {
        return Err(wrong().into());
    }
    tracing::info!(%user, erase, "an account is deleted");
    go_on(&app, &caller).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends the user's part in everything, as far as that goes at once. Failing is no error of the call:
/// the account is deleted, and a worker goes on within seconds.
async fn go_on(app: &App, caller: &Caller) {
    let until = Instant::now() + GO_ON;
    while Instant::now() < until {
        match app.store.part(caller.user_id, 1).await {
            Ok(Some(lanes)) => {
                for lane in lanes {
                    app.relay.lane(lane).await;
                }
            }
            Ok(None) => return,
            Err(error) => {
                let (user, error) = (caller.user_id, causes(&error));
                tracing::warn!(%user, %error, "a deletion is left to the worker");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    #[test]
    fn an_archive_is_saved_by_its_name() {
        let response =
            archive(Export { name: "natter-chat-1.zip".to_owned(), body: Body::empty() });
        let headers = response.headers();
        assert_eq!(headers[header::CONTENT_TYPE], "application/zip");
        let saved = "attachment; filename=\"natter-chat-1.zip\"";
        assert_eq!(headers[header::CONTENT_DISPOSITION], saved);
    }
}
