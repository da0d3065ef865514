//! What is kept: by the broker, by the worker in Postgres, and read from there.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use natter_bus::{Bus, publish::Publishing};
use natter_e2e::api::client;
use natter_protocol::{
    feed::{Entry, Event, Feed, MessageSent},
    ids::{ChatId, MessageId, UserId},
    server::UserCard,
};
use rand::RngExt;
use serde::{Deserialize, de::IgnoredAny};
use uuid::Uuid;

use super::Extent;
use crate::{
    results::{Goal, Sheet},
    used,
    wire::CONTENT,
    world::{Plan, World},
};

/// Publishes without an ack at once; a gateway's clients have 64 each.
const IN_FLIGHT: usize = 1_024;

fn message(sender: UserId) -> Entry {
    let sent = MessageSent {
        id: MessageId(Uuid::new_v4()),
        sender: UserCard { id: sender, name: "Somebody".to_owned(), bot: false },
        device_id: None,
        content: "x".repeat(CONTENT),
        replaced: false,
        media: None,
        client_msg_id: Uuid::now_v7().to_string(),
        reply_to: None,
        quote: None,
        mentions: Vec::new(),
    };
    Entry { origin: None, event: Event::Message(sent) }
}

/// Publishes a message to each of these.
async fn publish(bus: &Bus, to: impl Iterator<Item = (Feed, UserId)>) -> Result<u64> {
    publish_all(bus, to.map(|(feed, sender)| (feed, message(sender)))).await
}

/// Publishes these, as a gateway does, without waiting for one before the next.
pub(super) async fn publish_all(
    bus: &Bus,
    entries: impl Iterator<Item = (Feed, Entry)>,
) -> Result<u64> {
    let mut waiting: VecDeque<Publishing> = VecDeque::new();
    let mut count = 0;
    for (feed, entry) in entries {
        if waiting.len() >= IN_FLIGHT
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.await?;
        }
        loop {
            match bus.publish(feed, &Uuid::new_v4().to_string(), &entry) {
                Ok(publishing) => {
                    waiting.push_back(publishing);
                    break;
                }
                // The connection takes no more just now.
                Err(_) if !waiting.is_empty() => {
                    if let Some(oldest) = waiting.pop_front() {
                        oldest.await?;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        count += 1;
    }
    for publishing in waiting {
        publishing.await?;
    }
    Ok(count)
}

/// From a gateway to the broker.
pub async fn acks(extent: Extent) -> Result<Sheet> {
    let mut sheet = Sheet::new(
        "One connection publishes messages of 100 characters as a gateway does, 1,024 without an \
         ack at once, to one broker (R1, file storage); nobody else talks. The default sync is \
         nats-server's: acked is what has been handed to the system, which keeps it through a \
         crash of the server, not of the machine. `always`: acked is what is on the disk.",
    );
    let quiet = 100_000 / extent.smaller;
    let messages = 200_000 / extent.smaller;
    let with =
        |shards, sync| Plan { gateways: 1, people: 2, size: 2, shards, sync, ..Plan::default() };
    let world = World::build(&with(1, None)).await?;
    // What it cannot write into Postgres, since there are no such chats, is not for the worker.
    world.cluster.worker(0).terminate().await?;
    let nobody = UserId(Uuid::nil());
    let chats: Vec<Feed> = (0..quiet).map(|_| Feed::chat(0, ChatId(Uuid::new_v4()))).collect();
    publish(&world.bus, chats.iter().map(|feed| (*feed, nobody))).await?;
    for _ in 0..extent.repeat {
        for (name, among) in
            [("1,000 chats", 1_000.min(quiet)), ("100,000 chats long quiet", quiet)]
        {
            let to = (0..messages).map(|_| (chats[rand::rng().random_range(0..among)], nobody));
            let rate = timed(&world, to).await?;
            sheet.promise(format!("{name}, default sync"), "acks/s", Goal::AtLeast(30_000.0), rate);
        }
    }
    world.cluster.stop().await?;
    for (shards, sync) in [(1, "always"), (4, "always")] {
        let world = World::build(&with(shards, Some(sync))).await?;
        world.cluster.worker(0).terminate().await?;
        for _ in 0..extent.repeat {
            let to = (0..messages / 10).map(|n| {
                let shard = u16::try_from(n % usize::from(shards)).unwrap_or_default();
                (Feed::chat(shard, ChatId(chats[n % 1_000].id)), nobody)
            });
            let rate = timed(&world, to).await?;
            sheet.note(format!("sync {sync}, {shards} shards"), "acks/s", rate);
        }
        world.cluster.stop().await?;
    }
    Ok(sheet)
}

async fn timed(world: &World, to: impl Iterator<Item = (Feed, UserId)>) -> Result<f64> {
    let began = Instant::now();
    let count = publish(&world.bus, to).await?;
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// Messages for the world's own chats, which the worker can write.
fn for_everybody(world: &World, messages: usize) -> impl Iterator<Item = (Feed, UserId)> {
    (0..messages).map(|n| {
        let group = &world.groups[n % world.groups.len()];
        (Feed::chat(0, group.id), world.guests[group.members[0]].id)
    })
}

/// From the log into Postgres.
pub async fn backlog(extent: Extent) -> Result<Sheet> {
    let mut sheet = Sheet::new(
        "While the worker is away 300,000 messages are stored in 200 chats; from its start until \
         it has written all of them.",
    );
    let messages = 300_000 / extent.smaller;
    let plan = Plan { gateways: 1, people: 400, size: 2, ..Plan::default() };
    let world = World::build(&plan).await?;
    let worker = world.cluster.worker(0);
    for _ in 0..extent.repeat {
        world.written().await?;
        worker.terminate().await?;
        publish(&world.bus, for_everybody(&world, messages)).await?;
        let before = used::by_process(used::pid(world.cluster.postgres())?)?;
        let began = Instant::now();
        worker.start().await?;
        world.written().await?;
        let took = began.elapsed().as_secs_f64();
        let rate = messages as f64 / took;
        sheet.promise("written", "messages/s", Goal::AtLeast(40_000.0), rate);
        let postgres = used::by_process(used::pid(world.cluster.postgres())?)? - before;
        let own = used::by_process(used::pid(worker)?)?;
        let each = |seconds: f64| seconds / messages as f64 * 1e6;
        sheet.note("CPU of the worker", "µs/message", each(own));
        sheet.note("CPU of Postgres", "µs/message", each(postgres));
    }
    world.cluster.stop().await?;
    Ok(sheet)
}

/// What is to be seen of a page: making trees of it would take the cores as much time as a server's
/// part does.
#[derive(Deserialize)]
struct PageOfAny {
    messages: Vec<IgnoredAny>,
}

/// Read over REST.
pub async fn history(extent: Extent) -> Result<Sheet> {
    let mut sheet = Sheet::new(
        "10,000,000 messages in 1,000 chats, sent through the log; four clients fetch pages of 50 \
         from anywhere in a chat chosen at random, each one after the other. Nothing else is done \
         meanwhile.",
    );
    let messages = 10_000_000 / extent.smaller;
    // Chats are as long, however few they are.
    let people = 2_000 / extent.smaller;
    let plan = Plan { gateways: 1, people, size: 2, ..Plan::default() };
    let world = World::build(&plan).await?;
    // What messages are found by would take longer than all the rest, and nobody searches here.
    world.cluster.sql("ALTER TABLE message_search RENAME TO message_search_not_now")?;
    let chunk = 200_000.min(messages);
    for n in 0..messages / chunk {
        publish(&world.bus, for_everybody(&world, chunk)).await?;
        world.written().await?;
        if n % 10 == 9 {
            eprintln!("  {} messages", (n + 1) * chunk);
        }
    }
    let last = world.cluster.sql("SELECT max(persisted_seq) FROM shards")?;
    let last: u64 = last.trim().parse().context("no position")?;
    world.cluster.worker(0).terminate().await?;
    // Nor does anybody wait for what Postgres does by itself within a minute.
    world.cluster.sql("VACUUM (ANALYZE) messages")?;
    let (http, gateway) = (client()?, world.cluster.gateway(0).address());
    for _ in 0..extent.repeat {
        let clients = (0..4).map(async |_| {
            let mut took = Vec::new();
            for _ in 0..1_000 / extent.smaller.min(10) {
                let group = &world.groups[rand::rng().random_range(0..world.groups.len())];
                let token = &world.guests[group.members[0]].token;
                let before = rand::rng().random_range(last / 10..=last);
                let url = format!(
                    "http://{gateway}/v1/chats/{}/messages?limit=50&before={before}",
                    group.id
                );
                let began = Instant::now();
                let answer = http.get(url).bearer_auth(token).send().await?;
                let status = answer.status();
                let body = answer.bytes().await?;
                took.push(began.elapsed());
                ensure!(status == 200, "history: {status}");
                let page: PageOfAny = serde_json::from_slice(&body)?;
                ensure!(page.messages.len() == 50, "a page of {}", page.messages.len());
            }
            Ok(took)
        });
        let took: Vec<Vec<Duration>> =
            stream::iter(clients).buffer_unordered(4).try_collect().await?;
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
        for took in took.into_iter().flatten() {
            histogram.saturating_record(took.as_micros() as u64);
        }
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        sheet.note("a page, p50", "ms", at(0.5));
        sheet.promise("a page, p99", "ms", Goal::AtMost(5.0), at(0.99));
    }
    world.cluster.stop().await?;
    Ok(sheet)
}
