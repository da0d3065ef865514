//! What people look at: their chats, the messages of one, and what they search for in all of them.

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use natter_e2e::{Api, api::client, soon::within};
use natter_protocol::{
    feed::{Entry, Event, Feed, MessageSent},
    ids::{ChatId, MessageId, UserId},
    server::UserCard,
};
use rand::{RngExt, seq::IndexedRandom};
use uuid::Uuid;

use super::{Extent, kept::publish_all};
use crate::{
    results::{Goal, Sheet},
    world::{Plan, World},
};

/// Messages sent before the worker is waited for.
const CHUNK: usize = 100_000;
const CLIENTS: usize = 4;
const CALLS: usize = 1_000;
/// How long the index may take for all of it.
const INDEXED: Duration = Duration::from_mins(20);
/// Words that anybody uses.
const VOCABULARY: usize = 20_000;
/// The most frequent words, which nobody searches for alone.
const FREQUENT: usize = 20;

/// Words, the most frequent first.
struct Language(Vec<String>);

impl Language {
    fn new() -> Self {
        const SYLLABLES: [&str; 32] = [
            "ba", "ke", "li", "mo", "nu", "ra", "se", "ti", "vo", "zu", "chan", "dre", "fil",
            "gor", "hu", "ja", "kri", "lom", "mer", "nas", "pel", "quo", "rin", "sta", "tor", "ul",
            "ven", "wis", "yar", "zel", "sh", "en",
        ];
        let words = (0..VOCABULARY).map(|n| {
            // Frequent words are short.
            let mut rest = n + 1;
            let mut word = String::new();
            while rest > 0 {
                word.push_str(SYLLABLES[rest % SYLLABLES.len()]);
                rest /= SYLLABLES.len();
            }
            word
        });
        Self(words.collect())
    }

    /// The second most frequent word is used half as often as the first, and so on.
    fn word(&self, from: usize) -> &str {
        let (most, least) = ((from as f64).max(1.0), self.0.len() as f64);
        let rank = most * (least / most).powf(rand::rng().random::<f64>());
        &self.0[(rank as usize - 1).min(self.0.len() - 1)]
    }

    fn sentence(&self) -> String {
        let words = rand::rng().random_range(3..=20);
        (0..words).map(|_| self.word(1)).collect::<Vec<_>>().join(" ")
    }
}

fn said(sender: UserId, content: String) -> Entry {
    Entry {
        origin: None,
        event: Event::Message(MessageSent {
            id: MessageId(Uuid::new_v4()),
            sender: UserCard { id: sender, name: "Somebody".to_owned(), bot: false },
            device_id: None,
            content,
            replaced: false,
            media: None,
            client_msg_id: Uuid::now_v7().to_string(),
            reply_to: None,
            quote: None,
            mentions: Vec::new(),
        }),
    }
}

/// What is asked, as a path.
type Question = fn(&World, &Language) -> (String, usize);

/// By whom, and what: everybody has 20 chats, the last guest half of all.
const QUESTIONS: [(&str, Question, bool); 9] = [
    ("a list of chats", |world, _| ("/chats?limit=50".to_owned(), anybody(world)), true),
    ("a list of 5,000 chats", |world, _| ("/chats?limit=50".to_owned(), busy(world)), false),
    (
        "a page of history",
        |world, _| {
            let group = world.groups.choose(&mut rand::rng()).expect("there are chats");
            (format!("/chats/{}/messages?limit=50", group.id), group.members[0])
        },
        true,
    ),
    ("two words, of 20 chats", |world, language| (two_words(language), anybody(world)), true),
    ("two words, of 5,000 chats", |world, language| (two_words(language), busy(world)), true),
    (
        "two frequent words, of 20 chats",
        |world, language| (search(&language.0[0], &language.0[1]), anybody(world)),
        true,
    ),
    (
        "two frequent words, of 5,000 chats",
        |world, language| (search(&language.0[0], &language.0[1]), busy(world)),
        true,
    ),
    (
        "two words, the best first",
        |world, language| (format!("{}&sort=rank", two_words(language)), anybody(world)),
        true,
    ),
    (
        "two words, mistyped",
        |world, language| (format!("{}&fuzzy=true", two_words(language)), anybody(world)),
        false,
    ),
];

fn anybody(world: &World) -> usize {
    rand::rng().random_range(0..world.guests.len() - 1)
}

fn busy(world: &World) -> usize {
    world.guests.len() - 1
}

fn two_words(language: &Language) -> String {
    search(language.word(FREQUENT), language.word(FREQUENT))
}

fn search(one: &str, other: &str) -> String {
    format!("/search/messages?q={one}%20{other}")
}

/// The scenario.
pub async fn conversation(extent: Extent) -> Result<Sheet> {
    let mut sheet = Sheet::new(
        "1,000,000 messages of 3 to 20 words in 10,000 chats, sent through the log, of a language of \
         20,000 words of which each is used half as often as the one of half its rank; the two most \
         frequent ones are in half and a third of all messages. Four clients make 1,000 calls of \
         each kind, each one after the other. Everybody has 20 chats, one person half of all.",
    );
    let messages = 1_000_000 / extent.smaller;
    let plan = Plan {
        gateways: 1,
        people: 1_000 / extent.smaller,
        size: 2,
        rounds: 20,
        ..Plan::default()
    };
    let world = World::build(&plan).await?;
    let language = Language::new();
    // No call makes somebody a participant of so many chats at once.
    let everywhere = world.guests[busy(&world)].id;
    world.cluster.sql(&format!(
        "INSERT INTO chat_members (chat_id, user_id, role, joined_at, version, from_seq)
         SELECT id, '{everywhere}', 'member', now(), 1, 1
         FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM chats) c
         WHERE n % 2 = 0 ON CONFLICT DO NOTHING"
    ))?;
    let began = Instant::now();
    let mut left = messages;
    while left > 0 {
        let chunk = CHUNK.min(left);
        let entries = (0..chunk).map(|_| {
            let group = world.groups.choose(&mut rand::rng()).expect("there are chats");
            let sender = group.members.choose(&mut rand::rng()).expect("somebody");
            (Feed::chat(0, group.id), said(world.guests[*sender].id, language.sentence()))
        });
        publish_all(&world.bus, entries).await?;
        world.written().await?;
        left -= chunk;
    }
    sheet.note("written", "messages/s", messages as f64 / began.elapsed().as_secs_f64());
    found(&world).await?;
    sheet.note("found", "messages/s", messages as f64 / began.elapsed().as_secs_f64());
    // As autovacuum does in a while.
    world.cluster.sql("VACUUM ANALYZE")?;
    let size = |of: &str| -> Result<f64> {
        let bytes = world.cluster.sql(&format!("SELECT {of}"))?;
        Ok(bytes.trim().parse::<f64>()? / messages as f64)
    };
    for (name, of) in [
        ("what a message is found by: its row", "pg_table_size('message_search')"),
        (
            "what a message is found by: the index of words",
            "pg_relation_size('message_search_words')",
        ),
        ("what a message is found by: all indexes", "pg_indexes_size('message_search')"),
    ] {
        sheet.note(name, "bytes", size(of)?);
    }
    sheet.note("a new message is found after, at most", "ms", until_found(&world).await?);
    let api = Api::new(client()?, world.cluster.gateway(0).address());
    for _ in 0..extent.repeat {
        for (name, question, promised) in QUESTIONS {
            let took =
                ask(&world, &language, &api, question, CALLS / extent.smaller.min(10)).await?;
            for (at, quantile, most) in [("p50", 0.5, 20.0), ("p99", 0.99, 50.0)] {
                let value = took.value_at_quantile(quantile) as f64 / 1e3;
                let name = format!("{name}, {at}");
                if promised {
                    sheet.promise(name, "ms", Goal::AtMost(most), value);
                } else {
                    sheet.note(name, "ms", value);
                }
            }
        }
    }
    show_plans(&world, &language).await?;
    world.cluster.stop().await?;
    Ok(sheet)
}

/// Asks so often, by four clients.
async fn ask(
    world: &World,
    language: &Language,
    api: &Api,
    question: Question,
    calls: usize,
) -> Result<Histogram<u64>> {
    let clients = (0..CLIENTS).map(async |_| {
        let mut took = Vec::new();
        for _ in 0..calls / CLIENTS {
            let (path, who) = question(world, language);
            let api = api.with_token(&world.guests[who].token);
            let began = Instant::now();
            let answer = api.get(&path).await?;
            took.push(began.elapsed());
            ensure!(answer.status() == 200, "{path}: {} {}", answer.status(), answer.body);
        }
        Ok(took)
    });
    let took: Vec<Vec<Duration>> =
        stream::iter(clients).buffer_unordered(CLIENTS).try_collect().await?;
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    for took in took.into_iter().flatten() {
        histogram.saturating_record(took.as_micros() as u64);
    }
    Ok(histogram)
}

/// Waits until all that is written is found.
async fn found(world: &World) -> Result<()> {
    let question = "SELECT bool_and(COALESCE(p.indexed_seq, 0) >= s.persisted_seq)
                    FROM shards s LEFT JOIN search_progress p USING (shard)";
    within(INDEXED, "all can be found", async || {
        Ok((world.cluster.sql(question)?.trim() == "t").then_some(()))
    })
    .await
}

/// Sends messages one after the other, and looks for each until it is found; the longest, in ms.
async fn until_found(world: &World) -> Result<f64> {
    let api = Api::new(client()?, world.cluster.gateway(0).address());
    let mut longest = Duration::ZERO;
    for n in 0..20 {
        let group = world.groups.choose(&mut rand::rng()).context("no chats")?;
        let guest = &world.guests[group.members[0]];
        let word = format!("needle{n}x{}", Uuid::new_v4().simple());
        let chat: ChatId = group.id;
        let api = api.with_token(&guest.token);
        api.say(chat, &word).await?;
        let began = Instant::now();
        within(Duration::from_secs(10), "it is found", async || {
            let page = api.get(&format!("/search/messages?q={word}")).await?.expect(200)?;
            Ok((page["items"].as_array().map_or(0, Vec::len) == 1).then_some(()))
        })
        .await?;
        longest = longest.max(began.elapsed());
    }
    Ok(longest.as_secs_f64() * 1e3)
}

/// Has Postgres tell what it does for one question of each kind.
async fn show_plans(world: &World, language: &Language) -> Result<()> {
    let database = world.cluster.sql("SELECT current_database()")?;
    let database = database.trim();
    for (setting, value) in [
        ("session_preload_libraries", "auto_explain"),
        ("auto_explain.log_min_duration", "0"),
        ("auto_explain.log_analyze", "on"),
        ("auto_explain.log_timing", "off"),
    ] {
        world.cluster.sql(&format!("ALTER DATABASE {database} SET {setting} = '{value}'"))?;
    }
    // Connections that are there do not hear of it.
    let gateway = world.cluster.gateway(0);
    gateway.terminate().await?;
    gateway.start().await?;
    let api = Api::new(client()?, gateway.address());
    let log = world.cluster.postgres().log();
    for (name, question, _) in QUESTIONS {
        let from = fs::metadata(log)?.len();
        let (path, who) = question(world, language);
        api.with_token(&world.guests[who].token).get(&path).await?.expect(200)?;
        let mut told = fs::File::open(log)?;
        told.seek(SeekFrom::Start(from))?;
        let mut text = Vec::new();
        told.read_to_end(&mut text)?;
        println!("# {name}: {path}\n{}", String::from_utf8_lossy(&text));
    }
    Ok(())
}
