//! What the servers of an embedding product can do: `/v1/server/…`, by service tokens.
//!
//! | module | holds |
//! |---|---|
//! | `users` | users made, changed, disabled; their devices logged in |
//! | `chats` | chats made, and who takes part in them |
//! | `messages` | messages sent as anybody, read and deleted |

mod chats;
mod messages;
mod users;

use std::{marker::PhantomData, sync::Arc};

use axum::{
    extract::{FromRef, FromRequestParts},
    http::request::Parts,
};
use axum_extra::{
    TypedHeader,
    headers::{Authorization, authorization::Bearer},
};
use natter_protocol::service::Scope;
use utoipa_axum::router::OpenApiRouter;

use super::{extract::ClientAddress, problem::Problem};
use crate::{
    app::App,
    auth::{
        Refusal, refused,
        service::{Service, Services},
    },
    config::Config,
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().merge(users::routes()).merge(chats::routes()).merge(messages::routes())
}

/// What a call needs one of, said by a type: a handler that names it cannot forget it.
trait Needs {
    const ANY: &'static [Scope];
}

macro_rules! needs {
    ($($name:ident: $($scope:ident),+;)+) => {
        $(struct $name;
        impl Needs for $name {
            const ANY: &'static [Scope] = &[$(Scope::$scope),+];
        })+
    };
}

needs! {
    Users: Users;
    Devices: Devices;
    Chats: Chats;
    Sends: Send, Impersonate;
    History: History;
    Moderates: Moderate;
}

/// A server that may make a call.
struct By<N> {
    service: Service,
    needs: PhantomData<N>,
}

/// From `Authorization: Bearer` only. Before the body is read: who may not call learns nothing of it.
impl<S, N> FromRequestParts<S> for By<N>
where
    S: Send + Sync,
    N: Needs,
    Services: FromRef<S>,
    Arc<Config>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let header = TypedHeader::<Authorization<Bearer>>::from_request_parts(parts, state).await;
        let TypedHeader(Authorization(bearer)) =
            header.map_err(|_| refused(Refusal::Missing, "a service token is needed"))?;
        let ClientAddress(address) = ClientAddress::from_request_parts(parts, state).await?;
        let service = Services::from_ref(state).admit(bearer.token(), address).await?;
        service.may(N::ANY)?;
        Ok(Self { service, needs: PhantomData })
    }
}
