//! Media files: uploaded to a chat, fetched from its messages.
//!
//! - `uploads`, `form`: files on their way into a chat
//! - `fetching`: the files of messages
//! - `downloads`: who has fetched them

mod downloads;
mod fetching;
mod form;
mod uploads;

use natter_protocol::ids::ChatId;
use natter_store::Member;
use utoipa_axum::router::OpenApiRouter;

use super::problem::Problem;
use crate::{
    app::App,
    auth::Caller,
    chats::{not_member, shut},
};

pub(super) fn routes() -> OpenApiRouter<App> {
    uploads::routes().merge(fetching::routes()).merge(downloads::routes())
}

async fn member(app: &App, caller: &Caller, chat: ChatId) -> Result<Member, Problem> {
    Ok(app.store.membership(caller.user_id, chat).await?.ok_or_else(not_member)?)
}

/// That the caller may send what is uploaded.
async fn writer(app: &App, caller: &Caller, chat: ChatId) -> Result<(), Problem> {
    let member = member(app, caller, chat).await?;
    if member.shut { Err(shut().into()) } else { Ok(()) }
}
