//! The search over messages.

use axum::{Json, extract::State};
use natter_protocol::{client::SearchMessages, rest::SearchPage};
use natter_store::Store;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::Query,
    problem::{PROBLEM_JSON, Problem, ProblemBody},
};
use crate::{app::App, auth::Caller, search};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(messages))
}

/// Messages of the caller's chats by their words, sender, time, file and mentions.
#[utoipa::path(
    get, path = "/search/messages", tag = "messages", operation_id = "search_messages",
    params(SearchMessages),
    responses(
        (status = 200, description = "A page of what was found.", body = SearchPage),
        (status = 403, description = "`chatId`: not a participant, or no such chat (`not_member`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn messages(
    State(store): State<Store>,
    caller: Caller,
    Query(asked): Query<SearchMessages>,
) -> Result<Json<SearchPage>, Problem> {
    Ok(Json(search::page(&store, &caller, &asked).await?))
}
