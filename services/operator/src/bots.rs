//! Bots: users who are programs, made without a password.

use std::time::Duration;

use natter_gateway::auth::refresh::RefreshToken;
use natter_protocol::ids::{DeviceId, UserId};
use natter_store::{Conflict, NewDevice, NewManagedUser, StoreError};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    config::CreateBotArgs,
    outcome::{Failure, Outcome},
    text::{print, print_json},
    token::shard_for,
};

/// `bot create`.
///
/// # Errors
/// When somebody who is no bot is called so, or Postgres does not answer.
pub async fn create(args: &CreateBotArgs) -> Result<Outcome, Failure> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Made<'a> {
        user_id: UserId,
        device_id: DeviceId,
        refresh_token: &'a str,
    }
    let store = args.servers.store()?;
    let id = UserId::generate();
    let new = NewManagedUser {
        id,
        external_id: args.external_id.as_deref(),
        name: &args.name,
        phone: None,
        email: None,
        bot: true,
        shard: shard_for(&store, id).await?,
    };
    let (bot, _) = store.ensure_managed(&new).await?;
    if !bot.bot {
        return Err(Failure::refused(format!("{} is called so, and is no bot", bot.id)));
    }
    let device = NewDevice {
        id: DeviceId::generate(),
        name: Some(args.name.clone()),
        platform: Some("bot".to_owned()),
        session: Uuid::new_v4(),
    };
    let refresh = RefreshToken::generate(Duration::from_hours(24 * u64::from(args.days)));
    let logged_in = store.log_device_in(bot.id, &device, &refresh.stored).await;
    logged_in.map_err(|error| match error {
        StoreError::Forbidden => Failure::refused("the bot is disabled"),
        StoreError::Conflict(Conflict::Device) => {
            Failure::refused("the device is somebody else's: try again")
        }
        error => error.into(),
    })?;
    if args.json {
        let (user_id, device_id) = (bot.id, device.id);
        print_json(&Made { user_id, device_id, refresh_token: &refresh.text });
    } else {
        print(&format!("{}\n", refresh.text));
        eprintln!(
            "natter: bot {} with device {}; this is the only time that its refresh token is shown",
            bot.id, device.id
        );
    }
    Ok(Outcome::Well)
}
