//! Republished events get lost between the broker and the gateways, and nobody misses anything.

use std::{collections::HashMap, time::Duration};

use anyhow::{Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use natter_e2e::{Lossy, Person, Socket, Stage, record::Got};
use natter_protocol::ids::{ChatId, Seq};
use tokio::time::Instant;

static LOSSY: Lossy = Lossy::new();
static STAGE: Stage = Stage::with(|builder| builder.shards(2).detour(|nats| LOSSY.lead_to(nats)));

fn by_chat(entries: &[Got]) -> HashMap<ChatId, Vec<Seq>> {
    let mut chats: HashMap<ChatId, Vec<Seq>> = HashMap::new();
    for got in entries {
        chats.entry(got.chat).or_default().push(got.seq);
    }
    chats
}

/// Connections at which one device resumes at once: it has another, and may have 4 on a node.
const AT_ONCE: usize = 3;

/// The cursor at one place of all that a connection got brings exactly the rest.
async fn comes_back(person: &Person, all: &[Got], place: usize) -> Result<()> {
    let back = person.first.resume(place % 2, &all[place].cursor).await?;
    back.expect("resume_done", |_| true).await?;
    let (rest, told) = (by_chat(&all[place + 1..]), by_chat(&back.entries()?));
    ensure!(told == rest, "after {place} of {}: {told:?}, not {rest:?}", all.len());
    Ok(())
}

#[tokio::test]
async fn one_in_a_hundred_lost_and_all_is_there_and_every_cursor_resumes() -> Result<()> {
    const ROUNDS: usize = 60;
    let cluster = STAGE.alone().await?;
    let names = ["Ana", "Ben", "Cid", "Dee"];
    let people = try_join_all(names.map(|name| Person::register(&cluster, name))).await?;
    let others: Vec<&Person> = people.iter().skip(1).collect();
    let mut chats = Vec::new();
    for title in ["a", "b", "c", "d", "e"] {
        chats.push(people[0].api(0).group(title, &others).await?.id);
    }
    let sockets: Vec<Socket> =
        try_join_all(people.iter().enumerate().map(|(n, person)| person.connect(n % 2))).await?;
    // Whatever comes of the making of the chats has come.
    for (socket, chat) in sockets.iter().flat_map(|s| chats.iter().map(move |c| (s, c))) {
        sockets[0].say(*chat, "begin").await?;
        if socket.ready()?.connection_id != sockets[0].ready()?.connection_id {
            socket.hears(*chat, "begin").await?;
        }
    }
    LOSSY.lose_one_in(100);
    let before = LOSSY.dropped();
    try_join_all(sockets.iter().enumerate().map(async |(n, socket)| {
        for round in 0..ROUNDS {
            socket.say(chats[(n + round) % chats.len()], &format!("{n} {round}")).await?;
        }
        anyhow::Ok(())
    }))
    .await?;
    // The last of each chat may be among the lost.
    for chat in &chats {
        let last = sockets[0].say(*chat, "the end").await?;
        for socket in &sockets[1..] {
            let heard = socket.hears(*chat, "the end").await?;
            ensure!(heard.seq == last.seq);
        }
    }
    LOSSY.lose_one_in(0);
    ensure!(LOSSY.dropped() > before, "nothing was lost");
    for socket in &sockets {
        socket.check_feeds()?;
    }
    let told = by_chat(&sockets[0].entries()?);
    for socket in &sockets[1..] {
        let theirs = by_chat(&socket.entries()?);
        for chat in &chats {
            let (all, end) = (&told[chat], &theirs[chat]);
            ensure!(all.ends_with(end) || end.ends_with(all), "{chat}: {all:?}, and {end:?}");
            ensure!(end.len() >= ROUNDS * names.len() / chats.len(), "{chat}: {end:?}");
        }
    }
    LOSSY.lose_one_in(50);
    // Every cursor of one on each node.
    try_join_all(people.iter().zip(&sockets).take(2).map(async |(person, socket)| {
        let all = socket.entries()?;
        let each = (0..all.len()).map(|place| comes_back(person, &all, place));
        stream::iter(each).buffer_unordered(AT_ONCE).try_collect::<()>().await
    }))
    .await?;
    LOSSY.lose_one_in(0);
    Ok(())
}

/// Within this the last of a quiet chat is found, whichever way: promised are two seconds, and a machine that is
/// busy with other stories has some more.
const FOUND: Duration = Duration::from_secs(5);

#[tokio::test]
async fn the_last_of_a_quiet_chat_is_found_without_anything_after_it() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let here = ana.connect(0).await?;
    let there = ben.connect(1).await?;
    here.say(chat, "first").await?;
    there.hears(chat, "first").await?;
    LOSSY.lose_all_of(Some(format!("chat.{chat}")));
    let before = LOSSY.dropped();
    for by in ["digest", "heads"] {
        LOSSY.lose_digests(by == "heads");
        let mut slowest = [Duration::ZERO; 2];
        for round in 0..5 {
            let text = format!("lost {round}, found by {by}");
            let began = Instant::now();
            // The sender's reply stands at its place in the feed, which the ack finds.
            here.say(chat, &text).await?;
            slowest[0] = slowest[0].max(began.elapsed());
            there.hears(chat, &text).await?;
            slowest[1] = slowest[1].max(began.elapsed());
        }
        let [ack, other] = slowest;
        println!("the slowest of 5 was found after {ack:?} by the ack, {other:?} by {by}");
        ensure!(ack < FOUND && other < FOUND, "{ack:?} by the ack, {other:?} by {by}");
    }
    LOSSY.lose_digests(false);
    LOSSY.lose_all_of(None);
    ensure!(LOSSY.dropped() >= before + 10, "nothing was lost");
    here.check_feeds()?;
    there.check_feeds()
}

#[tokio::test]
async fn a_cursor_from_before_another_chats_event_has_come_brings_that_too() -> Result<()> {
    const ROUNDS: usize = 4;
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let missing = ana.api(0).group("Missing", &[&ben]).await?.id;
    // By chance one of these is in the same shard, and one in the other.
    let mut others = Vec::new();
    for n in 0..4 {
        others.push(ana.api(0).group(&format!("Other {n}"), &[&ben]).await?.id);
    }
    let mut taken = 0;
    for round in 0..5 * ROUNDS {
        let phone = ana.connect(0).await?;
        let bens = ben.connect(1).await?;
        bens.say(missing, "at first").await?;
        phone.hears(missing, "at first").await?;
        // On Ana's node it is found by a check of heads, which comes now and then; on Ben's his ack
        // finds it.
        LOSSY.lose_digests(true);
        LOSSY.lose_all_of(Some(format!("chat.{missing}")));
        let lost = bens.say(missing, "lost").await?;
        let other = others[round % others.len()];
        let next = bens.say(other, "next").await?;
        phone.hears(other, "next").await?;
        let cursor = phone.cursor()?;
        if by_chat(&phone.entries()?)[&missing].contains(&lost.seq) {
            // The check was quicker.
            continue;
        }
        // On the node that has it, and on the one where it is missing still.
        for gateway in [1, 0] {
            let back = ana.first.resume(gateway, &cursor).await?;
            ensure!(back.ready()?.resumed, back.failure("it was not resumed"));
            back.hears(missing, "lost").await?;
            let last = bens.say(other, &format!("to gateway {gateway}")).await?;
            back.hears(other, &format!("to gateway {gateway}")).await?;
            let got = by_chat(&back.entries()?);
            ensure!(got[&missing] == [lost.seq], back.failure("not once"));
            let since = got[&other].iter().all(|seq| *seq > next.seq && *seq <= last.seq);
            ensure!(since, back.failure("it had that already"));
        }
        LOSSY.lose_all_of(None);
        LOSSY.lose_digests(false);
        phone.hears(missing, "lost").await?;
        phone.check_feeds()?;
        taken += 1;
        if taken == ROUNDS {
            return Ok(());
        }
    }
    bail!("of {ROUNDS} such cursors {taken} could be taken")
}

#[tokio::test]
async fn who_leaves_has_all_of_the_chat_before_they_are_told_that_it_is_gone() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).open_group("Left", &[&ben]).await?.id;
    let here = ana.connect(0).await?;
    let there = ben.connect(1).await?;
    there.say(chat, "first").await?;
    here.hears(chat, "first").await?;
    // The nodes hear of the leaving on the user's feed long before they have the chat's.
    LOSSY.lose_all_of(Some(format!("chat.{chat}")));
    let mut posted = Vec::new();
    for n in 0..5 {
        let data = serde_json::json!({"chatId": chat, "content": format!("last {n}")});
        posted.push(there.post("send_message", data).await?);
    }
    there.reply(posted[4]).await?.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let path = format!("/chats/{chat}/leave");
    ensure!(ana.api(1).post(&path, serde_json::json!({})).await?.status() < 300);
    here.expect("chat_removed", |data| data["id"] == serde_json::json!(chat)).await?;
    LOSSY.lose_all_of(None);
    let got: Vec<Seq> = here.entries()?.into_iter().map(|got| got.seq).collect();
    let page = ben.api(1).history(chat, "limit=50").await?;
    // What comes after it is not hers: that Ben owns the group now.
    let all: Vec<Seq> = page.messages.iter().map(|message| message.seq).collect();
    let left = got.last().copied().unwrap_or_default();
    let all: Vec<Seq> = all.into_iter().filter(|seq| *seq <= left).collect();
    ensure!(got.len() >= 7 && all.ends_with(&got), here.failure(&format!("of {all:?}")));
    ensure!(here.events("system").last().is_some_and(|data| data["kind"] == "left"));
    Ok(())
}
