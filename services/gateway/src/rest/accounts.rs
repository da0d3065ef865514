//! Registering, logging in and out, refreshing, changing the password.

use axum::{Json, extract::State, http::StatusCode};
use natter_protocol::{
    error::{ErrorCode, WireError},
    ids::{DeviceId, UserId},
    rest::{ChangePassword, Device, DeviceSpec, Login, Refresh, Register, Session, User},
};
use natter_runtime::causes;
use natter_store::{Credentials, Login as StoreLogin, NewDevice, NewUser, Rotation, Store};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    extract::{Body, CallLimit, ClientAddress},
    problem::{PROBLEM_JSON, Problem, ProblemBody},
};
use crate::{
    app::App,
    auth::{self, Auth, Caller, Refusal, password::is_bcrypt, refresh, refused},
    chats::shard_of,
    config::Config,
    measures,
    relay::Relay,
    text,
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(log_in))
        .routes(routes!(refresh_session))
        .routes(routes!(log_out))
        .routes(routes!(change_password))
}

/// Make an account, and log its first device in.
#[utoipa::path(
    post, path = "/auth/register", tag = "accounts", security(()),
    request_body = Register,
    responses(
        (status = 201, description = "Logged in.", body = Session),
        (status = 409, description = "Phone, e-mail or device is somebody else's (`conflict`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn register(
    State(store): State<Store>,
    State(auth): State<Auth>,
    State(config): State<std::sync::Arc<Config>>,
    ClientAddress(address): ClientAddress,
    Body(request): Body<Register>,
) -> Result<(StatusCode, Json<Session>), Problem> {
    if request.phone.is_none() && request.email.is_none() {
        return Err(text::bad_request("phone, email: one of them is needed").into());
    }
    let name = text::line("name", &request.name)?;
    let device = device(request.device)?;
    auth.attempts().from_address(address)?;
    let password_hash = auth.passwords().hash(request.password).await?;
    let id = UserId::generate();
    let refresh = auth.new_refresh();
    let session = device.session;
    let new = NewUser {
        id,
        name,
        phone: request.phone,
        email: request.email,
        password_hash,
        shard: shard_of(id.0, config.shards),
        device,
        refresh: refresh.stored,
    };
    let (user, device) = store.create_user(&new).await?;
    let answer = session_of(&auth, user, device, session, refresh.text)?;
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Log a device in with phone or e-mail and password.
///
/// A device that gives the id from an earlier login is the same device again; tokens of the login
/// before are void.
#[utoipa::path(
    post, path = "/auth/login", tag = "accounts", security(()),
    request_body = Login,
    responses(
        (status = 200, description = "Logged in.", body = Session),
        (status = 401, description = "Phone, e-mail or password is wrong (`unauthenticated`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 403, description = "The account is disabled (`account_disabled`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 409, description = "The device is somebody else's (`conflict`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn log_in(
    State(store): State<Store>,
    State(auth): State<Auth>,
    State(relay): State<Relay>,
    ClientAddress(address): ClientAddress,
    Body(request): Body<Login>,
) -> Result<Json<Session>, Problem> {
    let (login, account) = match (&request.phone, &request.email) {
        (Some(phone), None) => (StoreLogin::Phone(phone), phone),
        (None, Some(email)) => (StoreLogin::Email(email), email),
        _ => return Err(text::bad_request("phone, email: exactly one of them is needed").into()),
    };
    auth.attempts().from_address(address)?;
    auth.attempts().at_account(account)?;
    let credentials = store.credentials(login).await?;
    let known_device = request.device.as_ref().is_some_and(|device| device.id.is_some());
    let device = device(request.device)?;
    let wrong = || refused(Refusal::Password, "phone, e-mail or password is wrong");
    let hash = credentials.as_ref().map(|found| found.password_hash.clone());
    let imported = hash.as_deref().is_some_and(is_bcrypt).then(|| request.password.clone());
    let right = auth.passwords().verify(request.password, hash).await?;
    let found = credentials.filter(|_| right).ok_or_else(wrong)?;
    let Credentials { user, password_hash, disabled } = found;
    // Only now: whoever does not know the password is not told either.
    if disabled {
        return Err(auth::disabled().into());
    }
    let refresh = auth.new_refresh();
    // None: the password was changed while this one was checked.
    let logged_in = store.log_in(user.id, &password_hash, &device, &refresh.stored).await?;
    let logged_in = logged_in.ok_or_else(wrong)?;
    if let Some(password) = imported {
        hash_anew(&store, &auth, user.id, &password_hash, password).await;
    }
    // The login before, if there was one, has ended: its connections close.
    if known_device {
        relay.lane(user.id.0).await;
    }
    Ok(Json(session_of(&auth, user, logged_in, device.session, refresh.text)?))
}

/// The password of an imported user is hashed as all are. If that fails, it is done at the next login.
async fn hash_anew(store: &Store, auth: &Auth, user: UserId, current: &str, password: String) {
    match auth.passwords().hash(password).await {
        Ok(new) => {
            if let Err(error) = store.hash_anew(user, current, &new).await {
                tracing::warn!(%user, error = %causes(&error), "an imported password stays as it is");
            }
        }
        Err(error) => {
            tracing::warn!(%user, error = %causes(&error), "an imported password stays as it is");
        }
    }
}

/// Exchange a refresh token for a new access token and a new refresh token.
///
/// A refresh token is good for one use: a second use is taken for theft and signs the device out.
/// So a client refreshes once at a time and keeps the new token before it uses it.
#[utoipa::path(
    post, path = "/auth/refresh", tag = "accounts", security(()),
    request_body = Refresh,
    responses(
        (status = 200, description = "New tokens.", body = Session),
        (status = 401, description = "The token is unknown, expired or was used before (`unauthenticated`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 403, description = "The account is disabled (`account_disabled`): the token stays good.",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn refresh_session(
    State(store): State<Store>,
    State(auth): State<Auth>,
    State(relay): State<Relay>,
    State(calls): State<CallLimit>,
    ClientAddress(address): ClientAddress,
    Body(request): Body<Refresh>,
) -> Result<Json<Session>, Problem> {
    calls.from_address(address)?;
    let next = auth.new_refresh();
    match store.rotate_refresh(&refresh::hash(&request.refresh_token), &next.stored).await? {
        Rotation::Rotated { user, device, session } => {
            Ok(Json(session_of(&auth, user, device, session, next.text)?))
        }
        Rotation::Replayed { user, device, lane } => {
            tracing::warn!(%user, %device, "a refresh token was used twice; the device is signed out");
            measures::refresh_replays().increment(1);
            relay.lane_if_any(lane).await;
            let used = "the refresh token was used before; log in again";
            Err(refused(Refusal::RefreshToken, used).into())
        }
        Rotation::Disabled => Err(auth::disabled().into()),
        Rotation::Unknown => {
            let unknown = "the refresh token is unknown or has expired";
            Err(refused(Refusal::RefreshToken, unknown).into())
        }
    }
}

/// End this device's login. Its sockets close.
#[utoipa::path(
    post, path = "/auth/logout", tag = "accounts",
    responses((status = 204, description = "Logged out."))
)]
async fn log_out(
    State(store): State<Store>,
    State(relay): State<Relay>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    let lane = store.sign_out(caller.user_id, caller.device_id).await?;
    relay.lane_if_any(lane).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Change the password. All other devices are signed out.
#[utoipa::path(
    post, path = "/auth/password", tag = "accounts",
    request_body = ChangePassword,
    responses(
        (status = 204, description = "Changed."),
        (status = 403, description = "The current password is wrong, or there is none here (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn change_password(
    State(store): State<Store>,
    State(auth): State<Auth>,
    State(relay): State<Relay>,
    caller: Caller,
    ClientAddress(address): ClientAddress,
    Body(request): Body<ChangePassword>,
) -> Result<StatusCode, Problem> {
    auth.attempts().from_address(address)?;
    auth.attempts().at_account(&caller.user_id.to_string())?;
    let forbidden = |why: &str| WireError::new(ErrorCode::Forbidden, why);
    let credentials = store.credentials_of(caller.user_id).await?;
    let current =
        credentials.ok_or_else(|| forbidden("the account has no password here"))?.password_hash;
    let wrong = || forbidden("the current password is wrong");
    if !auth.passwords().verify(request.current, Some(current.clone())).await? {
        return Err(wrong().into());
    }
    let new = auth.passwords().hash(request.new).await?;
    // None: somebody else has changed it meanwhile.
    let lane = store.set_password(caller.user_id, &current, &new, caller.device_id).await?;
    relay.lane(lane.ok_or_else(wrong)?).await;
    Ok(StatusCode::NO_CONTENT)
}

/// The device that logs in, with a new login.
pub(super) fn device(spec: Option<DeviceSpec>) -> Result<NewDevice, WireError> {
    let spec = spec.unwrap_or_default();
    Ok(NewDevice {
        id: spec.id.unwrap_or_else(DeviceId::generate),
        name: text::optional_line("device.name", spec.name.as_deref())?,
        platform: text::optional_line("device.platform", spec.platform.as_deref())?,
        session: Uuid::new_v4(),
    })
}

pub(super) fn session_of(
    auth: &Auth,
    user: User,
    device: Device,
    session: Uuid,
    refresh_token: String,
) -> Result<Session, WireError> {
    let (access_token, expires_at) = auth.sign(user.id, device.id, session)?;
    let device = Device { current: true, ..device };
    Ok(Session { user, device, access_token, refresh_token, expires_at })
}
