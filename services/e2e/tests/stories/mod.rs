//! Stories that share one cluster, most of them side by side.

mod accounts;
mod blocking;
mod chats;
mod comebacks;
mod described;
mod history;
mod hook;
mod leaving;
mod life_of_a_message;
mod page;
mod presence;
mod reads;
mod resume;
pub(crate) mod rights;
mod roles;
mod search;
mod server;
mod typing;

use natter_e2e::{Stage, Stages, tokens};

/// Participants of the largest chats that show how far others have read.
const PARTICIPANTS: usize = 4;

/// Feeds are spread over several logs, and an outside issuer is trusted.
static STAGE: Stage = Stage::with(|builder| {
    let participants = PARTICIPANTS.to_string();
    tokens::trusted(builder).shards(3).gateway_env("NATTER_RECEIPTS_PARTICIPANTS", participants)
});

/// The same for those that stop something of it, so that the others need not wait for them; and where
/// what deleted accounts have said is erased.
pub(crate) static APART: Stages = Stages::with(|builder| {
    tokens::trusted(builder).shards(3).gateway_env("NATTER_DELETED_ACCOUNTS", "erase")
});
