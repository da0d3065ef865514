//! REST under `/v1`, described by the OpenAPI document that its code generates.
//!
//! | module | holds |
//! |---|---|
//! | [`problem`] | errors as RFC 9457 problems |
//! | [`extract`] | what handlers take from a request: caller, body, query, path |
//! | [`cursor`] | where a page ended |
//! | `accounts`, `devices`, `users`, `blocks` | the calls about people |
//! | `push`, `notifications` | where devices are notified, of what, and what became of that |
//! | `exports` | data handed out whole, accounts that end |
//! | `imported` | ids of the system that a deployment has moved over from |
//! | `chats`, `groups`, `invites`, `reads` | the calls about chats |
//! | `messages`, `edits`, `media`, `search` | the calls about messages |
//! | `server` | what the servers of an embedding product can do |
//! | [`openapi`] | the document |
//! | `ranges` | the part of a file that is asked for |
//! | `layers` | time, panics, headers, metrics, around every call |

pub mod cursor;
pub mod extract;
pub mod openapi;
pub mod problem;

mod accounts;
mod blocks;
mod chats;
mod devices;
mod edits;
mod exports;
mod groups;
mod imported;
mod invites;
mod layers;
mod media;
mod messages;
mod notifications;
mod push;
mod ranges;
mod reads;
mod search;
mod server;
mod users;

use axum::Router;
use utoipa_axum::router::OpenApiRouter;

pub use extract::CallLimit;
pub use layers::cors;

use crate::{app::App, reference};

/// All of REST, and the answer to paths that nobody serves. To be served with the peers' addresses
/// (`into_make_service_with_connect_info::<SocketAddr>()`).
pub fn router(app: App) -> Router {
    let cors = layers::cors(&app.config.rest.cors_origins);
    let (routes, _) = described().split_for_parts();
    let router = routes
        .merge(reference::router())
        .method_not_allowed_fallback(problem::wrong_method)
        .fallback(problem::not_found)
        .with_state(app);
    layers::around(router, cors)
}

/// The calls, with what is known of them.
fn described() -> OpenApiRouter<App> {
    let calls = OpenApiRouter::new()
        .merge(accounts::routes())
        .merge(devices::routes())
        .merge(users::routes())
        .merge(chats::routes())
        .merge(groups::routes())
        .merge(invites::routes())
        .merge(blocks::routes())
        .merge(messages::routes())
        .merge(edits::routes())
        .merge(reads::routes())
        .merge(media::routes())
        .merge(search::routes())
        .merge(push::routes())
        .merge(notifications::routes())
        .merge(exports::routes())
        .merge(server::routes())
        .merge(imported::routes());
    OpenApiRouter::with_openapi(openapi::head()).nest("/v1", calls)
}
