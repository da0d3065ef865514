//! Links into groups: made, listed, revoked, followed.

use axum::{Json, extract::State, http::StatusCode};
use natter_protocol::{
    ids::{ChatId, InviteId},
    rest::{CreateInvite, Invitation, InviteList, MadeInvite},
    server::Joined,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    chats::JoinRequest,
    extract::{OptionalBody, PathId, PathIds},
    problem::{PROBLEM_JSON, Problem, ProblemBody},
};
use crate::{app::App, auth::Caller, groups::Groups, history};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(revoke))
        .routes(routes!(look))
        .routes(routes!(join))
}

/// Make a link into a group. Owners and admins.
#[utoipa::path(
    post, path = "/chats/{id}/invites", tag = "groups", operation_id = "create_invite",
    params(("id" = ChatId, Path, description = "The chat.")),
    request_body(content = Option<CreateInvite>, content_type = "application/json"),
    responses(
        (status = 201, description = "Whoever knows its code may join. It is told only now.", body = MadeInvite),
        (status = 403, description = "Not a participant, or no such chat (`not_member`); not in a role for this, or a one-to-one (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 409, description = "100 of this chat are good already (`conflict`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn create(
    State(groups): State<Groups>,
    caller: Caller,
    PathId(chat): PathId<ChatId>,
    OptionalBody(request): OptionalBody<CreateInvite>,
) -> Result<(StatusCode, Json<MadeInvite>), Problem> {
    let made = groups.invite(&caller, chat, &request).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// The links into a group that are good, without their codes. Owners and admins.
#[utoipa::path(
    get, path = "/chats/{id}/invites", tag = "groups", operation_id = "list_invites",
    params(("id" = ChatId, Path, description = "The chat.")),
    responses(
        (status = 200, description = "All of them.", body = InviteList),
        (status = 403, description = "Not a participant, or no such chat (`not_member`); not in a role for this (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn list(
    State(groups): State<Groups>,
    caller: Caller,
    PathId(chat): PathId<ChatId>,
) -> Result<Json<InviteList>, Problem> {
    Ok(Json(groups.invites(&caller, chat).await?))
}

/// Revoke a link: nobody comes by it any more. Owners and admins.
#[utoipa::path(
    delete, path = "/chats/{id}/invites/{inviteId}", tag = "groups",
    operation_id = "revoke_invite",
    params(
        ("id" = ChatId, Path, description = "The chat."),
        ("inviteId" = InviteId, Path, description = "The link, by its id."),
    ),
    responses(
        (status = 204, description = "Revoked."),
        (status = 403, description = "Not a participant, or no such chat (`not_member`); not in a role for this (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "The chat has no such link (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn revoke(
    State(groups): State<Groups>,
    caller: Caller,
    PathIds(chat, invite): PathIds<ChatId, InviteId>,
) -> Result<StatusCode, Problem> {
    groups.revoke_invite(&caller, chat, invite).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a link leads to.
#[utoipa::path(
    get, path = "/invites/{code}", tag = "groups", operation_id = "get_invite",
    params(("code" = String, Path, description = "As it was shared.")),
    responses(
        (status = 200, description = "The group.", body = Invitation),
        (status = 404, description = "There is none, or it has expired, is used up or was revoked (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn look(
    State(groups): State<Groups>,
    _: Caller,
    PathId(code): PathId<String>,
) -> Result<Json<Invitation>, Problem> {
    Ok(Json(groups.invitation(&code).await?))
}

/// Become a participant of the group that a link leads to, and get its newest messages.
#[utoipa::path(
    post, path = "/invites/{code}/join", tag = "groups", operation_id = "join_by_invite",
    params(("code" = String, Path, description = "As it was shared.")),
    request_body(content = Option<JoinRequest>, content_type = "application/json"),
    responses(
        (status = 200, description = "A participant now, or as before.", body = Joined),
        (status = 403, description = "The caller is banned from the group (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "There is none, or it has expired, is used up or was revoked (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn join(
    State(app): State<App>,
    State(groups): State<Groups>,
    caller: Caller,
    PathId(code): PathId<String>,
    OptionalBody(request): OptionalBody<JoinRequest>,
) -> Result<Json<Joined>, Problem> {
    let limit = request.limit()?;
    let chat = groups.join(&caller, &code).await?;
    Ok(Json(history::opened(&app, &caller, chat, limit).await?))
}
