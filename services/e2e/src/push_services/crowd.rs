//! Many people whose devices the webhook reaches, put where REST would put them, which would take hours.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use natter_cluster::Cluster;
use natter_protocol::{ids::ChatId, push::Target};
use serde_json::json;

use super::PushServices;

/// People put there by one statement.
const PART: usize = 500;

/// Has so many people take part in a chat, each with a device that has registered.
///
/// # Errors
/// When Postgres refuses them.
pub fn take_part(
    cluster: &Cluster,
    services: &PushServices,
    chat: ChatId,
    count: usize,
) -> Result<()> {
    let numbers: Vec<usize> = (0..count).collect();
    for part in numbers.chunks(PART) {
        let mut values = String::new();
        for n in part {
            let Target::Webhook(device) = services.webhook.register() else { continue };
            let comma = if values.is_empty() { "" } else { ", " };
            let target = json!({"provider": "webhook", "token": device.token});
            write!(values, "{comma}({n}, '{target}'::jsonb)")?;
        }
        let put = format!(
            "WITH people AS (
                 SELECT n, target, gen_random_uuid() AS id FROM (VALUES {values}) AS v (n, target)
             ), users AS (
                 INSERT INTO users (id, name, name_lower, shard)
                 SELECT id, 'P' || n, 'p' || n, 0 FROM people RETURNING id
             ), devices AS (
                 INSERT INTO devices (id, user_id, session) SELECT id, id, id FROM people
                 RETURNING id
             ), targets AS (
                 INSERT INTO push_targets (device_id, user_id, id, provider, target, hash)
                 SELECT id, id, id, 'webhook', target, sha256(id::text::bytea) FROM people
                 RETURNING id
             )
             INSERT INTO chat_members (chat_id, user_id, role, joined_at, version, from_seq)
             SELECT '{chat}', id, 'member', now(), 1, 0 FROM people"
        );
        cluster.sql(&put).context("people")?;
    }
    cluster.sql(&format!("UPDATE chats SET members = members + {count} WHERE id = '{chat}'"))?;
    cluster.sql("ANALYZE").map(drop)
}
