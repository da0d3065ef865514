//! Typing: seen by the others, on whichever gateway, and always over in the end.

use std::time::Duration;

use anyhow::Result;
use natter_e2e::{Person, Socket, soon::within};
use natter_protocol::{
    ids::{ChatId, UserId},
    server::Joined,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::stories::{APART, STAGE};

/// Typing lasts 5 s after the last start or ping; a little less by another clock,
const EARLIEST: Duration = Duration::from_millis(4_800);

/// and a little more with the timers and the way there, on a machine that is busy with other stories.
const LATEST: Duration = Duration::from_secs(10);

/// Half way.
const HALF: Duration = Duration::from_millis(2_500);

async fn sees(socket: &Socket, chat: ChatId, user: UserId, typing: bool) -> Result<Instant> {
    let told = json!({"chatId": chat, "userId": user, "typing": typing});
    socket.expect("user_typing", |data| *data == told).await?;
    Ok(Instant::now())
}

fn ended_by_itself(start: Instant, end: Instant) {
    let took = end - start;
    assert!(EARLIEST < took && took < LATEST, "{took:?}");
}

#[tokio::test]
async fn the_others_see_it_start_and_stop_on_both_gateways() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let chat = ana.api(0).group("Three", &[&ben, &cleo]).await?.id;
    let phone = ana.connect(0).await?;
    let tablet = ana.device("tablet").await?.connect(1).await?;
    let others = [ben.connect(1).await?, cleo.connect(0).await?];

    assert_eq!(phone.tell("typing_start", chat).await?, json!({}));
    for other in &others {
        sees(other, chat, ana.id, true).await?;
    }
    assert_eq!(phone.tell("typing_stop", chat).await?, json!({}));
    for other in &others {
        sees(other, chat, ana.id, false).await?;
    }

    // Sending ends it too, and by the time the message is there it has ended.
    phone.tell("typing_ping", chat).await?;
    for other in &others {
        sees(other, chat, ana.id, true).await?;
    }
    phone.say(chat, "what I was typing").await?;
    for other in &others {
        other.hears(chat, "what I was typing").await?;
        sees(other, chat, ana.id, false).await?;
    }

    // Her own devices saw nothing of it: what is said after it comes on the same way.
    others[0].say(chat, "I see").await?;
    for own in [&phone, &tablet] {
        own.hears(chat, "I see").await?;
        assert_eq!(own.events("user_typing"), [Value::Null; 0]);
    }
    for other in &others {
        assert_eq!(other.events("user_typing").len(), 4);
    }
    Ok(())
}

#[tokio::test]
async fn it_ends_by_itself_five_seconds_after_the_last_ping() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let once = ana.api(0).direct(&ben).await?.id;
    let extended = ana.api(0).direct(&cleo).await?.id;
    let anas = ana.connect(0).await?;
    let (bens, cleos) = (ben.connect(1).await?, cleo.connect(1).await?);

    let first = Instant::now();
    anas.tell("typing_start", once).await?;
    anas.tell("typing_start", extended).await?;
    sees(&bens, once, ana.id, true).await?;
    sees(&cleos, extended, ana.id, true).await?;
    // The one is pinged until the other has ended by itself.
    let mut pinged = first;
    within(2 * LATEST, "the one that is not pinged ends", async || {
        let ended = bens.events("user_typing").len() > 1;
        if !ended {
            pinged = Instant::now();
            anas.tell("typing_ping", extended).await?;
        }
        Ok(ended.then_some(()))
    })
    .await?;
    ended_by_itself(first, sees(&bens, once, ana.id, false).await?);
    assert_eq!(cleos.events("user_typing").len(), 1, "a ping extends it, and is no news");
    ended_by_itself(pinged, sees(&cleos, extended, ana.id, false).await?);
    assert_eq!(cleos.events("user_typing").len(), 2);
    Ok(())
}

#[tokio::test]
async fn on_two_devices_it_ends_when_both_have_stopped() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let phone = ana.connect(0).await?;
    let tablet = ana.device("tablet").await?.connect(1).await?;
    for gateway in [0, 1] {
        let bens = ben.device("another").await?.connect(gateway).await?;
        phone.tell("typing_start", chat).await?;
        sees(&bens, chat, ana.id, true).await?;
        tablet.tell("typing_start", chat).await?;
        phone.tell("typing_stop", chat).await?;
        phone.tell("typing_start", chat).await?;
        phone.tell("typing_stop", chat).await?;
        tablet.tell("typing_stop", chat).await?;
        sees(&bens, chat, ana.id, false).await?;
        // What came before the message is all there was.
        ana.api(0).say(chat, "done").await?;
        bens.hears(chat, "done").await?;
        let seen = bens.events("user_typing").len();
        assert_eq!(seen, 2, "{}", bens.failure("one start and one stop"));
    }
    Ok(())
}

#[tokio::test]
async fn it_ends_when_the_connection_does() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let bens = [ben.connect(0).await?, ben.connect(1).await?];
    for in_good_order in [true, false] {
        let anas = ana.connect(0).await?;
        let start = Instant::now();
        anas.tell("typing_start", chat).await?;
        for other in &bens {
            sees(other, chat, ana.id, true).await?;
        }
        if in_good_order {
            anas.close().await?;
        } else {
            drop(anas);
        }
        for other in &bens {
            let end = sees(other, chat, ana.id, false).await?;
            assert!(end - start < EARLIEST, "by the end of the connection, not by itself");
        }
    }
    Ok(())
}

#[tokio::test]
async fn who_comes_in_the_middle_sees_who_types() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let chat = ana.api(0).open_group("Open", &[&ben]).await?.id;
    let anas = ana.connect(0).await?;
    let cleos = cleo.connect(1).await?;
    anas.tell("typing_start", chat).await?;

    // Ben connects, Cleo joins; no one on gateway 1 followed the chat when it started.
    let bens = ben.connect(1).await?;
    for socket in [&bens, &cleos] {
        let joined = socket.request("join_chat", json!({"chatId": chat})).await?;
        let joined: Joined = serde_json::from_value(joined)?;
        assert_eq!(joined.typing, [ana.id]);
    }
    // Oneself is none of them.
    let own = ana.device("tablet").await?.connect(1).await?;
    let joined = own.request("join_chat", json!({"chatId": chat})).await?;
    assert_eq!(joined["typing"], json!([]));

    anas.tell("typing_stop", chat).await?;
    for socket in [&bens, &cleos] {
        sees(socket, chat, ana.id, false).await?;
        let joined = socket.request("join_chat", json!({"chatId": chat})).await?;
        assert_eq!(joined["typing"], json!([]));
    }
    Ok(())
}

#[tokio::test]
async fn it_ends_though_the_gateway_that_took_it_was_killed() -> Result<()> {
    let cluster = APART.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let anas = ana.connect(0).await?;
    let bens = ben.connect(1).await?;
    let start = Instant::now();
    anas.tell("typing_start", chat).await?;
    sees(&bens, chat, ana.id, true).await?;

    cluster.gateway(0).kill().await?;
    let closed = anas.closed(Duration::from_secs(5)).await?;
    assert_eq!(closed.code, None, "killed, it says no good-bye");
    // Who asks in the meantime still sees it.
    let joined = bens.tell("join_chat", chat).await?;
    assert!(start.elapsed() > HALF || joined["typing"] == json!([ana.id]), "{joined}");
    ended_by_itself(start, sees(&bens, chat, ana.id, false).await?);
    Ok(())
}
