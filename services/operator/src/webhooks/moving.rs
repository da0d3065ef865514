//! An endpoint told again of what it was told before.

use natter_bus::Bus;
use natter_protocol::ids::{Seq, Shard};
use serde::Serialize;
use time::OffsetDateTime;

use super::named;
use crate::{
    config::ReplayEventsArgs,
    outcome::{Failure, Outcome},
    text::{Table, or_dash, print, print_json},
};

/// What became of a shard's place.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Moved {
    shard: Shard,
    /// It is told again of all beyond this; none where it had not come so far.
    after: Option<Seq>,
}

/// `webhook replay`.
///
/// # Errors
/// When there is no such endpoint, or a server does not answer. Shards before that are moved.
pub async fn replay(args: &ReplayEventsArgs) -> Result<Outcome, Failure> {
    let store = args.servers.store()?;
    let endpoint = named(&store, &args.endpoint).await?;
    let mut moved = Vec::new();
    for lane in store.endpoint_lanes(endpoint.id).await? {
        let shard = lane.shard;
        let after = match (args.cursor, args.since) {
            (Some(cursor), _) if cursor.shard == shard => cursor.seq,
            (Some(_), _) | (None, None) => continue,
            (None, Some(since)) => before(&args.servers.bus().await?, shard, since).await?,
        };
        let back = store.rewind_lane(endpoint.id, shard, after).await?;
        moved.push(Moved { shard, after: back.then_some(after) });
    }
    if moved.is_empty() {
        return Err(Failure::refused("the endpoint has been told nothing of such a shard"));
    }
    if args.json {
        print_json(&moved);
    } else {
        let mut table = Table::new(&["SHARD", "AGAIN AFTER"]);
        for one in &moved {
            table.row([one.shard.to_string(), or_dash(one.after)]);
        }
        print(&table.to_string());
    }
    Ok(Outcome::Well)
}

async fn before(bus: &Bus, shard: Shard, since: OffsetDateTime) -> Result<Seq, Failure> {
    Ok(bus.hooked_since(shard, since).await?.saturating_sub(1))
}
