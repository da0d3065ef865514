//! Oneself, and looking others up.

use std::sync::Arc;

use axum::{Json, extract::State};
use natter_protocol::{
    error::{ErrorCode, WireError},
    rest::{UpdateUser, User, UserList},
};
use natter_store::{Store, UserSearch};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{Body, Query, limit},
    problem::{PROBLEM_JSON, Problem, ProblemBody},
};
use crate::{
    app::App,
    auth::Caller,
    config::{Config, RestArgs},
    relay::Relay,
    text,
};

const FOUND_DEFAULT: u32 = 20;
const FOUND_MOST: u32 = 50;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(me, update)).routes(routes!(search))
}

/// Oneself.
#[utoipa::path(
    get, path = "/users/me", tag = "users", operation_id = "get_me",
    responses((status = 200, description = "The caller.", body = User))
)]
async fn me(State(store): State<Store>, caller: Caller) -> Result<Json<User>, Problem> {
    let user = store.user(caller.user_id).await?;
    Ok(Json(user.ok_or_else(|| WireError::new(ErrorCode::NotFound, "there is no such user"))?))
}

/// Change one's name, phone or e-mail: what is missing stays, `null` takes phone or e-mail away.
#[utoipa::path(
    patch, path = "/users/me", tag = "users", operation_id = "update_me",
    request_body = UpdateUser,
    responses(
        (status = 200, description = "The caller, changed.", body = User),
        (status = 409, description = "Phone or e-mail is taken, or neither would be left (`conflict`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn update(
    State(store): State<Store>,
    State(relay): State<Relay>,
    caller: Caller,
    Body(change): Body<UpdateUser>,
) -> Result<Json<User>, Problem> {
    let name = text::optional_line("name", change.name.as_deref())?;
    let phone = change.phone.as_ref().map(Option::as_deref);
    let email = change.email.as_ref().map(Option::as_deref);
    let (user, lane) = store.update_user(caller.user_id, name.as_deref(), phone, email).await?;
    relay.lane_if_any(lane).await;
    Ok(Json(user))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SearchQuery {
    /// The start of a name, or a whole phone number (`+…`) or e-mail address.
    search: String,
    /// 1 to 50; 20 by default.
    #[param(minimum = 1, maximum = 50)]
    limit: Option<u32>,
}

/// Look users up. A deployment may switch each of the three ways off.
#[utoipa::path(
    get, path = "/users", tag = "users", operation_id = "search_users",
    params(SearchQuery),
    responses(
        (status = 200, description = "Those found, by name.", body = UserList),
        (status = 403, description = "This way of looking up is switched off (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn search(
    State(store): State<Store>,
    State(config): State<Arc<Config>>,
    _: Caller,
    Query(query): Query<SearchQuery>,
) -> Result<Json<UserList>, Problem> {
    let limit = limit(query.limit, FOUND_DEFAULT, FOUND_MOST)?;
    let search = text::line("search", &query.search)?;
    let search = way(&search, &config.rest)?;
    Ok(Json(UserList { items: store.search_users(search, limit).await? }))
}

/// What is meant by the words, where that may be asked.
fn way<'a>(words: &'a str, allowed: &RestArgs) -> Result<UserSearch<'a>, WireError> {
    if words.len() > 254 {
        return Err(text::bad_request("search: is longer than 254 bytes"));
    }
    let (search, on) = if words.starts_with('+') {
        (UserSearch::Phone(words), allowed.search_by_phone)
    } else if words.contains('@') {
        (UserSearch::Email(words), allowed.search_by_email)
    } else {
        (UserSearch::NamePrefix(words), allowed.search_by_name)
    };
    if on {
        Ok(search)
    } else {
        Err(WireError::new(ErrorCode::Forbidden, "this way of looking users up is switched off"))
    }
}
