//! Requests that manage groups.

use axum::extract::FromRef;
use natter_protocol::{
    client::{AddParticipants, ChatTarget, JoinByInvite, RemoveParticipant, SetRole, UpdateChat},
    error::WireError,
    limits,
    server::Empty,
};

use super::commands::{Outcome, Who, answer, opened};
use crate::{app::App, groups::Groups, history};

pub(super) async fn add(
    app: &App,
    who: &Who,
    request: Option<u64>,
    add: AddParticipants,
) -> Result<Outcome, WireError> {
    let chat = Groups::from_ref(app).add(&who.caller, add.chat_id, &add.user_ids).await?;
    Ok(answer(who, request, &chat))
}

pub(super) async fn remove(
    app: &App,
    who: &Who,
    request: Option<u64>,
    remove: RemoveParticipant,
) -> Result<Outcome, WireError> {
    let RemoveParticipant { chat_id, participant_id, ban } = remove;
    Groups::from_ref(app).remove(who.caller.user_id, chat_id, participant_id, ban).await?;
    Ok(answer(who, request, &Empty {}))
}

pub(super) async fn set_role(
    app: &App,
    who: &Who,
    request: Option<u64>,
    set: SetRole,
) -> Result<Outcome, WireError> {
    let SetRole { chat_id, participant_id, role, transfer } = set;
    Groups::from_ref(app)
        .set_role(who.caller.user_id, chat_id, participant_id, role, transfer)
        .await?;
    Ok(answer(who, request, &Empty {}))
}

pub(super) async fn update(
    app: &App,
    who: &Who,
    request: Option<u64>,
    update: UpdateChat,
) -> Result<Outcome, WireError> {
    let chat = Groups::from_ref(app).update(&who.caller, update.chat_id, &update.change).await?;
    Ok(answer(who, request, &chat))
}

pub(super) async fn delete(
    app: &App,
    who: &Who,
    request: Option<u64>,
    target: ChatTarget,
) -> Result<Outcome, WireError> {
    Groups::from_ref(app).delete(&who.caller, target.chat_id).await?;
    Ok(answer(who, request, &Empty {}))
}

pub(super) async fn join(
    app: &App,
    who: &Who,
    request: Option<u64>,
    join: JoinByInvite,
) -> Result<Outcome, WireError> {
    let limit = join.history.and_then(|history| history.limit).unwrap_or(limits::PAGE_DEFAULT);
    let chat = Groups::from_ref(app).join(&who.caller, &join.code).await?;
    let joined = history::opened(app, &who.caller, chat, limit).await?;
    Ok(opened(who, request, &joined))
}
