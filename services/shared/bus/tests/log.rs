//! The bus against a real server: what the log promises to those who publish and read.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use natter_bus::{
    Bus, BusConfig, BusError, Live, LiveWatch, LogConfig, LogReader, PublishError, Published, Raw,
    nodes::AskError, subjects,
};
use natter_cluster::testing;
use natter_protocol::{
    feed::{Entry, Event, Feed, MessageSent, Signal},
    ids::{ChatId, DeviceId, MessageId, Seq, UserId},
    server::UserCard,
};
use time::OffsetDateTime;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(15);

fn message(chat: Feed, text: &str) -> (String, Entry) {
    let sender = UserCard { id: UserId::generate(), name: "Ada".to_owned(), bot: false };
    let client_msg_id = MessageId::generate().to_string();
    let msg_id = format!("{}.{}.{client_msg_id}", chat.id, sender.id);
    let id = MessageId::derive(ChatId(chat.id), sender.id, &client_msg_id);
    let content = text.to_owned();
    let event = Event::Message(MessageSent {
        id,
        sender,
        device_id: Some(DeviceId::generate()),
        content,
        replaced: false,
        media: None,
        client_msg_id,
        reply_to: None,
        quote: None,
        mentions: Vec::new(),
    });
    (msg_id, Entry { origin: None, event })
}

async fn publish(bus: &Bus, feed: Feed, text: &str) -> Result<Seq> {
    let (msg_id, entry) = message(feed, text);
    Ok(bus.publish(feed, &msg_id, &entry)?.await?.seq)
}

/// Until it succeeds; the last error when it does not.
async fn eventually<T, F: Future<Output = Result<T>>>(mut attempt: impl FnMut() -> F) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn connect(url: &str) -> Result<Bus> {
    let bus = Bus::connect(&BusConfig::new(url, "test")).await?;
    eventually(async || Ok(bus.ping().await?)).await?;
    Ok(bus)
}

fn small() -> LogConfig {
    LogConfig { max_bytes: 64 * 1024 * 1024, ..LogConfig::default() }
}

#[tokio::test]
async fn entries_are_acked_in_order_once_and_read_back() -> Result<()> {
    let server = testing::nats_fresh().await?;
    let bus = connect(server.url()).await?;
    let made = bus.ensure_log(0, &small(), None).await?;
    assert_eq!((made.first_seq, made.last_seq, made.sealed), (1, 0, false));
    assert_eq!(bus.ensure_log(0, &small(), Some(7)).await?, made, "it is there");

    let (chat, other) = (Feed::chat(0, ChatId::generate()), Feed::user(0, UserId::generate()));
    let entries: Vec<_> = (0..600).map(|n| message(chat, &n.to_string())).collect();
    let waiting: Vec<_> = entries
        .iter()
        .map(|(msg_id, entry)| bus.publish(chat, msg_id, entry))
        .collect::<Result<_, _>>()?;
    for (expected, publishing) in (1..).zip(waiting) {
        assert_eq!(publishing.await?, Published { seq: expected, duplicate: false });
    }
    let (msg_id, entry) = &entries[41];
    let again = bus.publish(chat, msg_id, entry)?.await?;
    assert_eq!(again, Published { seq: 42, duplicate: true });
    assert_eq!(publish(&bus, other, "elsewhere").await?, 601);

    let read = bus.read(chat, 0, 1_000).await?;
    assert_eq!(read.len(), 600, "over several batches");
    for ((expected, stored), (_, entry)) in (1..).zip(&read).zip(&entries) {
        assert_eq!((stored.seq, stored.feed), (expected, chat));
        assert_eq!(&stored.entry()?, entry);
    }
    let page = bus.read(chat, 590, 5).await?;
    assert_eq!(page.iter().map(|stored| stored.seq).collect::<Vec<_>>(), [591, 592, 593, 594, 595]);
    assert!(bus.read(chat, 600, 10).await?.is_empty());

    let one = bus.entry(0, 601).await?.context("stored")?;
    assert_eq!(one.feed, Some(other));
    assert!(one.msg_id.is_some());
    assert_eq!(bus.entry(0, 602).await?, None);
    assert_eq!(bus.stored_at(0, 601).await?, Some(one.at));
    assert_eq!(bus.stored_at(0, 602).await?, None);
    let unknown = Feed::chat(0, ChatId::generate());
    let heads = bus.heads(&[other, unknown, chat]).await?;
    assert_eq!(heads, [(other, 601), (unknown, 0), (chat, 600)]);
    Ok(())
}

#[tokio::test]
async fn the_live_mirror_sends_on_with_the_logs_sequences_and_is_made_anew_when_gone() -> Result<()>
{
    let server = testing::nats_fresh().await?;
    let bus = connect(server.url()).await?;
    let first = 1_000_000_001;
    let log = bus.ensure_log(3, &small(), Some(first)).await?;
    assert_eq!((log.first_seq, log.last_seq), (first, first - 1));

    let raw = async_nats::connect(server.url()).await?;
    let mut live = raw.subscribe(subjects::live_all(3)).await?;
    raw.flush().await?;
    let mut watch = LiveWatch::default();
    assert_eq!(bus.ensure_live(3, &mut watch).await?, Live::MadeAnew { after: first - 1 });

    let chat = Feed::chat(3, ChatId::generate());
    for (seq, last) in [(first, 0), (first + 1, first)] {
        assert_eq!(publish(&bus, chat, "hello").await?, seq);
        let heard = next(&mut live).await?;
        assert_eq!(subjects::parse_live(&heard.subject), Some(chat));
        assert_eq!(number(&heard, subjects::SEQUENCE)?, seq);
        assert_eq!(number(&heard, subjects::LAST_SEQUENCE)?, last);
        let stored = bus.entry(3, seq).await?.context("stored")?;
        assert_eq!(stored.body, heard.payload);
    }
    eventually(async || {
        ensure!(bus.ensure_live(3, &mut watch.clone()).await? == Live::Following { lag: 0 });
        Ok(())
    })
    .await?;

    let jetstream = async_nats::jetstream::new(raw.clone());
    jetstream.delete_stream(subjects::live_stream(3)).await?;
    assert_eq!(publish(&bus, chat, "unheard").await?, first + 2);
    assert_eq!(bus.ensure_live(3, &mut watch).await?, Live::MadeAnew { after: first + 2 });
    let seq = publish(&bus, chat, "heard again").await?;
    let heard = next(&mut live).await?;
    assert_eq!(number(&heard, subjects::SEQUENCE)?, seq, "from the head on");

    // A log made anew: its mirror, ahead of it or not, must follow the new one.
    let stale = bus.replace_log(3, &small(), 5, time::OffsetDateTime::UNIX_EPOCH).await;
    assert!(matches!(stale, Err(BusError::MadeAnew)), "{stale:?}");
    let made_at = bus.log_state(3).await?.context("a log")?.made_at;
    bus.replace_log(3, &small(), 5, made_at).await?;
    bus.open_log(3).await?;
    eventually(async || {
        let found = bus.ensure_live(3, &mut watch.clone()).await?;
        ensure!(matches!(found, Live::MadeAnew { after: 4 }), "{found:?}");
        Ok(())
    })
    .await?;
    assert_eq!(publish(&bus, chat, "another life").await?, 5);
    assert_eq!(number(&next(&mut live).await?, subjects::SEQUENCE)?, 5);
    Ok(())
}

async fn next(subscriber: &mut async_nats::Subscriber) -> Result<async_nats::Message> {
    let next = futures::StreamExt::next(subscriber);
    tokio::time::timeout(PATIENCE, next).await?.context("subscription ended")
}

fn number(message: &async_nats::Message, header: &str) -> Result<Seq> {
    let headers = message.headers.as_ref().context("no headers")?;
    Ok(headers.get(header).context("no such header")?.as_str().parse()?)
}

#[tokio::test]
async fn a_publish_that_cannot_be_stored_says_so() -> Result<()> {
    let server = testing::nats_fresh().await?;
    let bus = connect(server.url()).await?;
    let chat = Feed::chat(0, ChatId::generate());
    let (msg_id, entry) = message(chat, "into the void");
    let outcome = bus.publish(chat, &msg_id, &entry)?.await;
    assert!(matches!(outcome, Err(PublishError::NotSent(_))), "no log: {outcome:?}");
    assert!(matches!(bus.read(chat, 0, 1).await, Err(BusError::NoStream)));

    let tiny = LogConfig { max_bytes: 100 * 1024, ..LogConfig::default() };
    bus.ensure_log(0, &tiny, None).await?;
    let text = "x".repeat(10_000);
    let full = eventually(async || {
        let (msg_id, entry) = message(chat, &text);
        let outcome = bus.publish(chat, &msg_id, &entry)?.await;
        ensure!(outcome == Err(PublishError::Full), "{outcome:?}");
        bus.log_state(0).await?.context("exists")
    })
    .await?;
    assert!(full.fullness() > 0.8 && full.fullness() <= 1.0, "{full:?}");
    assert_eq!(bus.purge(0, full.last_seq - 2).await?, full.entries - 2);
    publish(&bus, chat, "room again").await?;
    let state = bus.log_state(0).await?.context("exists")?;
    assert_eq!((state.first_seq, state.last_seq), (full.last_seq - 1, full.last_seq + 1));

    let (msg_id, entry) = message(chat, &"x".repeat(2_000_000));
    assert!(matches!(bus.publish(chat, &msg_id, &entry), Err(PublishError::NotSent(_))));

    // A server that hears and does not answer. It may take a moment to stand still.
    server.pause()?;
    let (msg_id, entry) = eventually(async || {
        let (msg_id, entry) = message(chat, "on its way");
        let started = Instant::now();
        let outcome = bus.publish(chat, &msg_id, &entry)?.await;
        ensure!(matches!(outcome, Err(PublishError::Unknown(_))), "{outcome:?}");
        ensure!(started.elapsed() < Duration::from_secs(7), "{:?}", started.elapsed());
        Ok((msg_id, entry))
    })
    .await?;
    server.resume()?;
    eventually(async || Ok(bus.publish(chat, &msg_id, &entry)?.await?)).await?;

    server.kill().await?;
    eventually(async || {
        ensure!(!bus.connected());
        Ok(())
    })
    .await?;
    let started = Instant::now();
    assert!(matches!(bus.publish(chat, &msg_id, &entry), Err(PublishError::NotSent(_))));
    let typing =
        Signal::Typing { user_id: UserId::generate(), device_id: DeviceId::generate(), ttl_ms: 0 };
    assert!(matches!(bus.signal(chat, &typing), Err(BusError::Disconnected)));
    assert!(bus.read(chat, 0, 1).await.is_err());
    assert!(started.elapsed() < Duration::from_secs(2), "refused at once");

    server.start().await?;
    eventually(async || publish(&bus, chat, "back").await).await?;
    Ok(())
}

#[tokio::test]
async fn the_log_reader_misses_nothing_over_restarts() -> Result<()> {
    misses_nothing_over_restarts(|reader| reader).await
}

#[tokio::test]
async fn nor_does_one_that_reads_in_gulps() -> Result<()> {
    misses_nothing_over_restarts(|reader| reader.paced(Duration::from_millis(20))).await
}

#[tokio::test]
async fn a_paced_reader_takes_what_a_pause_brings_at_once() -> Result<()> {
    let server = testing::nats_fresh().await?;
    let bus = connect(server.url()).await?;
    bus.ensure_log(0, &small(), Some(1)).await?;
    let chat = Feed::chat(0, ChatId::generate());
    let mut reader = bus.log_reader(0, 1).paced(Duration::from_secs(3));
    publish(&bus, chat, "first").await?;
    assert_eq!(reader.next_batch(100, PATIENCE).await?.len(), 1);
    for n in 0..20 {
        publish(&bus, chat, &format!("{n}")).await?;
    }
    let early = reader.next_batch(100, Duration::from_millis(50)).await?;
    assert!(early.is_empty(), "asked before its time: {}", early.len());
    assert_eq!(reader.next_batch(100, PATIENCE).await?.len(), 20);
    Ok(())
}

async fn misses_nothing_over_restarts(paced: fn(LogReader) -> LogReader) -> Result<()> {
    let server = testing::nats_fresh().await?;
    let bus = connect(server.url()).await?;
    bus.ensure_log(0, &small(), Some(101)).await?;
    let chat = Feed::chat(0, ChatId::generate());
    let mut reader = paced(bus.log_reader(0, 101));
    assert!(reader.next_batch(10, Duration::from_millis(50)).await?.is_empty());

    // Idle: an entry is there at once.
    let waiting = tokio::spawn(async move {
        let batch = reader.next_batch(10, PATIENCE).await;
        (reader, batch, Instant::now())
    });
    let seq = publish(&bus, chat, "first").await?;
    let acked = Instant::now();
    let (mut reader, batch, read) = waiting.await?;
    assert_eq!(batch?.iter().map(|raw| raw.seq).collect::<Vec<_>>(), [seq]);
    let latency = read.saturating_duration_since(acked);
    assert!(latency < Duration::from_secs(2), "{latency:?}");

    let text = "y".repeat(8_000);
    let publishing: Vec<_> = (0..2_500)
        .map(|_| {
            let (msg_id, entry) = message(chat, &text);
            bus.publish(chat, &msg_id, &entry)
        })
        .collect::<Result<_, _>>()?;
    for publishing in publishing {
        publishing.await?;
    }
    let mut expected = 102;
    while expected < 101 + 2_501 {
        let batch = reader.next_batch(1_000, Duration::from_secs(5)).await?;
        assert!(batch.len() <= 1_000);
        let bytes: usize = batch.iter().map(|raw| raw.body.len()).sum();
        assert!(bytes < 5 * 1024 * 1024, "{bytes}");
        for raw in batch {
            assert_eq!((raw.seq, raw.feed), (expected, Some(chat)));
            expected += 1;
        }
    }
    let mut second = paced(bus.log_reader(0, 2_000));
    let again = second.next_batch(1, PATIENCE).await?;
    assert_eq!(again[0].seq, 2_000, "from anywhere");

    server.kill().await?;
    eventually(async || {
        ensure!(!bus.connected());
        Ok(())
    })
    .await?;
    assert!(reader.next_batch(10, Duration::from_millis(10)).await.is_err());
    server.start().await?;
    let seq = eventually(async || publish(&bus, chat, "after the restart").await).await?;
    let deadline = Instant::now() + PATIENCE;
    let last = loop {
        match reader.next_batch(10, Duration::from_millis(200)).await {
            Ok(batch) if !batch.is_empty() => break batch,
            _ => ensure!(Instant::now() < deadline, "nothing read after the restart"),
        }
    };
    assert_eq!(last[0].seq, expected);
    assert!(seq >= expected);
    Ok(())
}

#[tokio::test]
async fn a_dead_letter_is_kept_once_with_its_reason() -> Result<()> {
    let server = testing::nats_fresh().await?;
    let bus = connect(server.url()).await?;
    bus.ensure_dead_letters(1).await?;
    bus.ensure_dead_letters(1).await?;
    let raw = Raw {
        subject: "in.2.chat.x".to_owned(),
        feed: None,
        seq: 77,
        at: OffsetDateTime::UNIX_EPOCH,
        body: b"{{".as_slice().into(),
        traceparent: None,
        msg_id: None,
    };
    assert!(!bus.dead_letter(2, &raw, "not\r\nJSON").await?.duplicate);
    assert!(bus.dead_letter(2, &raw, "not\r\nJSON").await?.duplicate);
    let huge = Raw { seq: 78, body: vec![b'x'; 1_048_500].into(), ..raw.clone() };
    bus.dead_letter(2, &huge, "huge").await?;
    // A log that lost its end gives a sequence to something else.
    let another = Raw { at: OffsetDateTime::now_utc(), ..raw };
    assert!(!bus.dead_letter(2, &another, "another").await?.duplicate);
    let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await?);
    let stored = jetstream.get_stream(subjects::DEAD_STREAM).await?.get_raw_message(1).await?;
    assert_eq!(stored.payload.as_ref(), b"{{");
    let header = |name: &str| stored.headers.get(name).map(ToString::to_string);
    assert_eq!(header(natter_bus::dead_letter::REASON).as_deref(), Some("not  JSON"));
    assert_eq!(header(natter_bus::dead_letter::ORIGIN_SEQ).as_deref(), Some("77"));
    Ok(())
}

#[tokio::test]
async fn what_a_sealed_log_holds_goes_over_into_the_next() -> Result<()> {
    let server = testing::nats_fresh().await?;
    let bus = connect(server.url()).await?;
    assert_eq!(bus.update_log(0, &small()).await?, None, "an update makes none");
    assert_eq!(bus.log_state(0).await?, None);
    let made_at = bus.ensure_log(0, &small(), None).await?.made_at;
    let chat = Feed::chat(0, ChatId::generate());
    let (msg_id, entry) = message(chat, "kept");
    bus.publish(chat, &msg_id, &entry)?.await?;
    bus.ensure_kept(0, 1).await?;
    assert_eq!(bus.kept(0).await?, None);

    let stale = bus.seal_log(0, OffsetDateTime::UNIX_EPOCH).await;
    assert!(matches!(stale, Err(BusError::MadeAnew)), "{stale:?}");
    let sealed = bus.seal_log(0, made_at).await?;
    assert_eq!((sealed.sealed, sealed.last_seq), (true, 1));
    assert_eq!(bus.seal_log(0, made_at).await?, sealed, "once more");
    let (other_id, other) = message(chat, "too late");
    let refused = bus.publish(chat, &other_id, &other)?.await;
    assert!(matches!(refused, Err(PublishError::NotSent(_))), "{refused:?}");
    let wider = LogConfig { max_bytes: 2 * small().max_bytes, ..small() };
    assert_eq!(bus.update_log(0, &wider).await?, Some(sealed), "as it was");

    let raw = bus.log_reader(0, 1).next_batch(10, PATIENCE).await?.remove(0);
    assert!(!bus.keep(&raw)?.await?.duplicate);
    assert!(bus.keep(&raw)?.await?.duplicate, "it is kept once");
    let closed = bus.replace_log(0, &small(), 1_000, made_at).await?;
    assert_eq!((closed.closed, closed.sealed), (true, false));
    let refused = bus.publish(chat, &other_id, &other)?.await;
    assert!(matches!(refused, Err(PublishError::NotSent(_))), "{refused:?}");
    let closed = bus.update_log(0, &wider).await?.context("a log")?;
    assert!(closed.closed, "another limit opens nothing");
    let kept = bus.kept(0).await?.context("one is kept")?;
    let again = bus.kept_reader(0, kept.first).next_batch(10, PATIENCE).await?.remove(0);
    assert_eq!((&again.subject, again.feed, &again.body), (&raw.subject, raw.feed, &raw.body));
    assert_eq!(bus.carry(&again)?.await?, Published { seq: 1_000, duplicate: false });
    bus.open_log(0).await?;
    bus.open_log(0).await?;
    assert!(!bus.log_state(0).await?.context("a log")?.closed);
    let carried = bus.log_reader(0, 1).next_batch(10, PATIENCE).await?.remove(0);
    assert_eq!(
        (&carried.subject, carried.feed, &carried.body),
        (&raw.subject, raw.feed, &raw.body)
    );
    assert_eq!(bus.publish_again(&again)?.await?, Published { seq: 1_000, duplicate: true });
    assert_eq!(bus.publish(chat, &msg_id, &entry)?.await?.seq, 1_000, "the same message");
    bus.forget_kept(0, kept.last).await?;
    assert_eq!(bus.kept(0).await?, None);
    Ok(())
}

#[tokio::test]
async fn a_node_asks_another_and_hears_when_it_is_gone() -> Result<()> {
    let server = testing::nats_fresh().await?;
    let (here, there) = (connect(server.url()).await?, connect(server.url()).await?);
    let (node, nobody) = (Uuid::new_v4(), Uuid::new_v4());
    let mut asked = there.asked(node).await?;
    there.ping().await?;
    let answers = tokio::spawn(async move {
        while let Some(question) = asked.next().await {
            let text: String = question.read()?;
            if text == "the last" {
                return anyhow::Ok(());
            }
            question.answer(&format!("{text}!")).await?;
        }
        Ok(())
    });
    let answer: String = here.ask(node, &"hello", PATIENCE).await?;
    ensure!(answer == "hello!", "{answer}");
    let gone = here.ask::<String>(nobody, &"hello", PATIENCE).await;
    ensure!(matches!(gone, Err(AskError::Gone)), "{gone:?}");
    let unreadable = here.ask::<u64>(node, &"hello", PATIENCE).await;
    ensure!(matches!(unreadable, Err(AskError::Bus(_))), "{unreadable:?}");
    // What needs no answer arrives as well.
    here.tell_node(node, &"the last")?;
    answers.await?
}
