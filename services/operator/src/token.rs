//! Tokens for tests of a deployment, signed as a gateway signs its own.

use std::time::Duration;

use natter_gateway::{auth::token::Signer, chats::shard_of};
use natter_protocol::ids::{Shard, UserId};
use natter_store::{Conflict, DeviceState, Store, StoreError};
use uuid::Uuid;

use crate::{
    config::MintArgs,
    outcome::{Failure, Outcome},
    servers::given,
    text::print,
};

const SECRET: &str = "NATTER_JWT_SECRET";

/// `token mint`.
///
/// # Errors
/// When there is no such user, device or login, and none may be made.
pub async fn mint(args: &MintArgs) -> Result<Outcome, Failure> {
    let secret = given(args.jwt_secret.as_ref(), (SECRET, "--jwt-secret"))?.into();
    let names = (args.jwt_issuer.as_str(), args.jwt_audience.as_str());
    let signer = Signer::new(&secret, None, names, Duration::from_secs(args.seconds))
        .map_err(|error| Failure::settings(SECRET, error))?;
    let store = args.servers.store()?;
    let session = if args.create {
        create(&store, args).await?
    } else {
        login(store.device_state(args.user, args.device).await?)?
    };
    let signed = signer.sign(args.user, args.device, session);
    let (token, _) = signed.map_err(|error| Failure::settings(SECRET, error.message))?;
    print(&format!("{token}\n"));
    Ok(Outcome::Well)
}

fn login(device: Option<DeviceState>) -> Result<Uuid, Failure> {
    match device {
        None => Err(Failure::refused(
            "--user has no such --device; --create makes what is missing of both",
        )),
        Some(device) if device.revoked => Err(revoked()),
        Some(DeviceState { session: Some(session), .. }) => Ok(session),
        Some(_) => Err(Failure::refused(
            "the device is signed out, or an outside issuer's; --create logs in one that is signed out",
        )),
    }
}

fn revoked() -> Failure {
    Failure::refused("the device is revoked, or an outside issuer's")
}

/// Where the feed of a new user is to live.
///
/// # Errors
/// When there is no shard yet.
pub(crate) async fn shard_for(store: &Store, user: UserId) -> Result<Shard, Failure> {
    let shards = store.shards().await?.into_iter().filter(|row| row.epoch > 0);
    let shards: Vec<Shard> = shards.map(|row| row.shard).collect();
    if shards.is_empty() {
        return Err(Failure::refused("there is no shard yet: run `natter migrate`"));
    }
    Ok(shards[usize::from(shard_of(user.0, shards.len() as Shard))])
}

async fn create(store: &Store, args: &MintArgs) -> Result<Uuid, Failure> {
    let shard = shard_for(store, args.user).await?;
    let login = store.ensure_login(args.user, args.device, &args.name, shard).await;
    login.map_err(|error| match error {
        StoreError::Conflict(Conflict::Device) => {
            Failure::refused("--device belongs to another user")
        }
        StoreError::Forbidden => revoked(),
        error => error.into(),
    })
}
