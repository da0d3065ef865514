//! Engine.IO: handshakes, packets both ways, the heartbeat, and the end that a client wants.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use natter_e2e::{
    Presenting,
    engine::{Frame, KINDS, Kind, Link, Next, Open, SEPARATOR, answer},
    soon::{SOON, soon},
};
use reqwest::{
    Method,
    header::{ACCESS_CONTROL_ALLOW_ORIGIN, ORIGIN},
};
use serde_json::json;
use tokio::time::Instant;

use super::{
    Ground, PING_INTERVAL,
    session::{
        ECHO, Wrong, accepted, ack, connect, connected, ended, ended_or_usable, event, next,
        packet, turned_away, usable,
    },
};

/// Queries that are no handshake, with the codes that say so.
const NO_HANDSHAKES: [(&str, &[u64]); 15] = [
    ("", &[0, 5]),
    ("EIO=4", &[0]),
    ("EIO=4&transport=", &[0]),
    ("EIO=4&transport=abc", &[0]),
    ("EIO=4&transport=POLLING", &[0]),
    ("EIO=4&transport=webtransport", &[0]),
    ("EIO=4&transport=__proto__", &[0]),
    ("EIO=4&transport=polling%00", &[0]),
    ("EIO=3&transport=flashsocket", &[0, 5]),
    ("transport=polling", &[5]),
    ("EIO=&transport=polling", &[5]),
    ("EIO=abc&transport=polling", &[5]),
    ("EIO=3&transport=polling", &[5]),
    ("EIO=5&transport=polling", &[5]),
    ("EIO=44&transport=polling", &[5]),
];

fn as_configured(open: &Open) -> Result<()> {
    ensure!(open.ping_interval == PING_INTERVAL && open.ping_timeout > 0, "{open:?}");
    ensure!((1_000..=10_000_000).contains(&open.max_payload), "{open:?}");
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
    ensure!(open.sid.len() >= 16 && open.sid.chars().all(plain), "{open:?}");
    Ok(())
}

#[tokio::test]
async fn a_handshake_opens_a_session() -> Result<()> {
    let ground = Ground::new().await?;
    let engine = &ground.engine;
    let first = engine.polling().await?.open;
    let second = engine.polling().await?.open;
    for open in [&first, &second] {
        as_configured(open)?;
        ensure!(open.upgrades == ["websocket"], "{open:?}");
    }
    ensure!(first.sid != second.sid);
    let third = engine.wire(Presenting::Nothing).await?;
    as_configured(third.open()?)?;
    ensure!(third.open()?.upgrades.is_empty(), "{third:?}");

    // What nobody asks for does not matter, nor how it is written, nor the slash.
    let usual = "EIO=%34&transport=p%6Flling&b64=1&t=Pxyz1";
    engine.polling_by(&engine.get(usual).await?)?;
    let bare = format!("http://{}/socket.io?EIO=4&transport=polling", engine.node());
    engine.polling_by(&engine.fetch(Method::GET, &bare).await?)?;
    let reply = engine.get("EIO=4&transport=polling").await?;
    let kept = reply.headers.get("cache-control").context("anybody may keep it")?;
    ensure!(kept == "no-store", "{reply:?}");
    ground.finish()
}

#[tokio::test]
async fn what_is_no_handshake_opens_none() -> Result<()> {
    let ground = Ground::new().await?;
    let engine = &ground.engine;
    let mut wrong = Wrong::default();
    for (query, codes) in NO_HANDSHAKES {
        wrong.note(format!("GET {query:?}"), engine.get(query).await?.refused(codes));
        let query = query.replace("=polling", "=websocket");
        wrong.note(format!("WebSocket {query:?}"), turned_away(engine, &query).await);
    }
    // Frames are for WebSockets only, and those for nothing else.
    engine.get("EIO=4&transport=websocket").await?.refused(&[3])?;
    turned_away(engine, "EIO=4&transport=polling").await?;
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let request = engine.request(method.clone(), "EIO=4&transport=polling");
        let reply = answer(request.body("40")).await?;
        wrong.note(method, reply.refused(&[2]));
    }
    wrong.nothing()?;
    ground.finish()
}

#[tokio::test]
async fn a_session_that_nobody_has_opened_is_unknown() -> Result<()> {
    let ground = Ground::new().await?;
    let engine = &ground.engine;
    let query = "EIO=4&transport=polling&sid=nobodys";
    engine.get(query).await?.refused(&[1])?;
    engine.post(query, "40").await?.refused(&[1])?;
    turned_away(engine, "EIO=4&transport=websocket&sid=nobodys").await?;
    ground.finish()
}

#[tokio::test]
async fn pages_from_elsewhere_are_told_apart() -> Result<()> {
    let ground = Ground::new().await?;
    let asked = async |query: &str, origin: &str| {
        answer(ground.engine.request(Method::GET, query).header(ORIGIN, origin)).await
    };
    let handshake = asked("EIO=4&transport=polling", super::ORIGIN).await?;
    ground.engine.polling_by(&handshake)?;
    // A page has to be able to read why it was refused.
    let refusal = asked("EIO=4&transport=polling&sid=nobodys", super::ORIGIN).await?;
    refusal.refused(&[1])?;
    for reply in [&handshake, &refusal] {
        let allowed = reply.headers.get(ACCESS_CONTROL_ALLOW_ORIGIN);
        ensure!(allowed.is_some_and(|value| value == super::ORIGIN), "{reply:?}");
    }
    let reply = asked("EIO=4&transport=polling", "https://elsewhere.example").await?;
    let allowed = reply.headers.get(ACCESS_CONTROL_ALLOW_ORIGIN);
    ensure!(allowed.is_none_or(|value| value == super::ORIGIN), "{reply:?}");
    ground.finish()
}

#[tokio::test]
async fn a_payload_has_one_packet_or_several() -> Result<()> {
    let ground = Ground::new().await?;
    let polling = ground.engine.polling().await?;
    polling.post(format!("40{}", json!({"token": ground.token}))).await?.accepted()?;
    let mut link = Link::Polling(polling);
    accepted(&mut link).await?;
    event(&mut link, "ready").await?;
    let payload = [1, 2, 3].map(|id| format!("42{id}{ECHO}")).join(SEPARATOR);
    link.send(payload).await?;
    for id in 1..=3 {
        ack(&mut link, &id.to_string()).await?;
    }
    // Whether they are text is for the body to say.
    let Link::Polling(polling) = &link else { bail!("{link:?}") };
    for kind in ["text/plain;charset=UTF-8", "text/plain", "application/x-www-form-urlencoded"] {
        let request = ground.engine.request(Method::POST, &polling.query());
        let request = request.header("content-type", kind).body("3");
        answer(request).await?.accepted().with_context(|| kind.to_owned())?;
    }
    usable(&mut link).await?;
    ground.finish()
}

#[tokio::test]
async fn what_is_no_payload_ends_the_session() -> Result<()> {
    let ground = Ground::new().await?;
    let packet = format!("421{ECHO}");
    let payloads = [
        Vec::new(),
        b"abc".to_vec(),
        b"7".to_vec(),
        b"-1".to_vec(),
        " 3".into(),
        "\u{0664}3".into(),
        SEPARATOR.into(),
        format!("{packet}{SEPARATOR}").into(),
        format!("{SEPARATOR}{packet}").into(),
        format!("{packet}{SEPARATOR}{SEPARATOR}{packet}").into(),
        format!("{packet}{SEPARATOR}x{SEPARATOR}{packet}").into(),
        b"4abc".to_vec(),
        b"\xff\xfe".to_vec(),
        b"4\xff".to_vec(),
    ];
    let mut wrong = Wrong::default();
    for payload in payloads {
        let shown = format!("{:?}", String::from_utf8_lossy(&payload));
        let outcome = async {
            let mut link = connected(&ground, Kind::Polling).await?;
            let Link::Polling(polling) = &mut link else { bail!("{link:?}") };
            // In some only the packet is bad, which may show later.
            let wrapped = payload.first() == Some(&b'4') && !payload.contains(&0x1e);
            // The reference server hangs up on some of them.
            if let Ok(reply) = polling.post(payload).await {
                ensure!(reply.status == 400 || wrapped, "{reply:?}");
            }
            ended(&mut link).await.map(drop)
        };
        wrong.note(shown, outcome.await);
    }
    wrong.nothing()?;
    ground.finish()
}

#[tokio::test]
async fn what_is_no_packet_closes_a_websocket() -> Result<()> {
    let ground = Ground::new().await?;
    let mut wrong = Wrong::default();
    for packet in ["", "abc", "7", " 4", "4abc", "\u{1e}", "b", "bAQID"] {
        let mut link = connected(&ground, Kind::WebSocket).await?;
        link.send(packet).await?;
        wrong.note(format!("{packet:?}"), ended(&mut link).await.map(drop));
    }
    wrong.nothing()?;
    ground.finish()
}

#[tokio::test]
async fn a_second_poll_ends_the_session() -> Result<()> {
    let ground = Ground::new().await?;
    let polling = ground.engine.polling().await?;
    let (one, other) = tokio::try_join!(polling.poll(), polling.poll())?;
    // Whichever came second.
    let (kept, refused) = if one.status == 400 { (other, one) } else { (one, other) };
    ensure!(kept.packets()? == ["1"], "{kept:?}");
    ensure!(refused.status == 400, "{refused:?}");
    polling.gone().await?;
    ground.finish()
}

#[tokio::test]
async fn a_poll_that_is_given_up_leaves_nothing_stuck() -> Result<()> {
    let ground = Ground::new().await?;
    for round in 0..4 {
        let mut link = connected(&ground, Kind::Polling).await?;
        let Link::Polling(polling) = &mut link else { bail!("{link:?}") };
        let query = polling.query();
        // Given up when it is certainly there: others have been answered meanwhile.
        let others = async {
            for _ in 0..5 {
                ground.engine.get("EIO=4&transport=polling&sid=nobodys").await?;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            reply = ground.engine.get(&query) => ensure!(reply?.text == "2"),
            done = others => done?,
        }
        // It counts as a client that is gone; or the next poll as the second, as long as the server
        // has not seen the end of this one; or all goes on. It may have taken a packet with it.
        link.send(format!("42{round}{ECHO}")).await?;
        ended_or_usable(&mut link).await?;
    }
    ground.finish()
}

#[tokio::test]
async fn a_payload_may_be_as_large_as_the_handshake_says() -> Result<()> {
    let ground = Ground::new().await?;
    for kind in KINDS {
        let mut link = connected(&ground, kind).await?;
        let max = link.open()?.max_payload;
        let padded = |bytes: usize| {
            let empty = r#"427["presence_subscribe",{"userIds":[],"padding":""}]"#;
            empty.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - empty.len())))
        };
        link.send(padded(max)).await?;
        let answer = ack(&mut link, "7").await?;
        ensure!(answer["ok"] == true, "{answer}");
        usable(&mut link).await?;
        match &mut link {
            Link::Polling(polling) => {
                // Several packets are one payload.
                let post = polling.post(format!("3{SEPARATOR}{}", padded(max - 1))).await;
                if let Ok(reply) = post {
                    ensure!(reply.status == 413, "{reply:?}");
                }
            }
            Link::WebSocket(wire) => wire.send(padded(max + 1)).await,
        }
        ended(&mut link).await.with_context(|| format!("{kind:?}"))?;
    }
    ground.finish()
}

#[tokio::test]
async fn text_is_utf_8_and_has_no_separators_of_its_own() -> Result<()> {
    const CONTENT: &str = "\u{20ac} \u{1d11e} \u{1e} \u{2028} \" \\ \u{7f} e\u{301}";
    let ground = Ground::new().await?;
    for kind in KINDS {
        let mut link = connected(&ground, kind).await?;
        let group =
            json!(["create_chat", {"isGroup": true, "title": "\u{1f98a}", "participantIds": []}]);
        link.send(format!("421{group}")).await?;
        let chat = ack(&mut link, "1").await?["data"].clone();
        ensure!(chat["title"] == "\u{1f98a}", "{chat}");
        let message = json!(["send_message", {"chatId": chat["id"], "content": CONTENT}]);
        link.send(format!("422{message}")).await?;
        let sent = ack(&mut link, "2").await?;
        ensure!(sent["ok"] == true, "{sent}");
        let page = json!(["history", {"chatId": chat["id"], "limit": 1}]);
        link.send(format!("423{page}")).await?;
        let page = ack(&mut link, "3").await?;
        ensure!(page["data"]["messages"][0]["content"] == CONTENT, "{page}");
    }
    ground.finish()
}

#[tokio::test]
async fn pings_come_and_are_answered() -> Result<()> {
    let ground = Ground::new().await?;
    let mut polled = connected(&ground, Kind::Polling).await?;
    let mut framed = connected(&ground, Kind::WebSocket).await?;
    let (Link::Polling(polling), Link::WebSocket(wire)) = (&mut polled, &mut framed) else {
        bail!("{polled:?} {framed:?}")
    };
    let by_requests = async {
        for _ in 0..3 {
            let reply = polling.poll().await?;
            ensure!(reply.packets()? == ["2"], "{reply:?}");
            polling.post("3").await?.accepted()?;
        }
        Ok(())
    };
    let by_frames = async {
        for _ in 0..3 {
            ensure!(wire.frame().await? == Frame::Text("2".to_owned()));
            wire.send("3").await;
        }
        Ok(())
    };
    tokio::try_join!(by_requests, by_frames)?;
    usable(&mut polled).await?;
    usable(&mut framed).await?;
    ground.finish()
}

#[tokio::test]
async fn who_answers_no_ping_is_gone() -> Result<()> {
    let ground = Ground::new().await?;
    let mut polled = connected(&ground, Kind::Polling).await?;
    let mut framed = connected(&ground, Kind::WebSocket).await?;
    let (Link::Polling(polling), Link::WebSocket(wire)) = (&mut polled, &mut framed) else {
        bail!("{polled:?} {framed:?}")
    };
    let patience = polling.open.patience();
    let by_requests = async {
        let deadline = Instant::now() + patience;
        let (mut pinged, mut over) = (false, false);
        while !over {
            ensure!(Instant::now() < deadline, "it is not gone");
            let reply = polling.poll().await?;
            let packets = if reply.status == 400 { Vec::new() } else { reply.packets()? };
            pinged |= packets.iter().any(|packet| packet == "2");
            over = reply.status == 400 || packets.last().is_some_and(|packet| packet == "1");
        }
        ensure!(pinged, "it was never asked");
        polling.gone().await
    };
    let by_frames = async { wire.closed(patience).await.map(drop) };
    tokio::try_join!(by_requests, by_frames)?;
    ground.finish()
}

#[tokio::test]
async fn a_client_closes_its_session_by_a_frame() -> Result<()> {
    let ground = Ground::new().await?;
    let mut link = connected(&ground, Kind::WebSocket).await?;
    let Link::WebSocket(wire) = &mut link else { bail!("{link:?}") };
    let asked = Instant::now();
    wire.send("1").await;
    wire.closed(SOON).await?;
    // By what was said, that is, and not since no ping was answered.
    ensure!(asked.elapsed() < Duration::from_millis(PING_INTERVAL), "{:?}", asked.elapsed());

    ground.finish()
}

#[tokio::test]
async fn a_client_closes_its_session_by_a_request() -> Result<()> {
    let ground = Ground::new().await?;
    // A poll that is waiting is let go. It has to be there first, for which each attempt gives it
    // longer than the one before.
    let mut attempt = 0;
    soon("a poll that waits while its session is closed", async || {
        attempt += 1;
        let polling = ground.engine.polling().await?;
        let close = async {
            for _ in 0..attempt {
                ground.engine.get("EIO=4&transport=polling&sid=nobodys").await?;
            }
            polling.post("1").await
        };
        let (poll, close) = tokio::try_join!(polling.poll(), close)?;
        close.accepted()?;
        polling.gone().await?;
        if poll.status == 400 {
            return Ok(None);
        }
        ensure!(poll.packets()? == ["6"], "{poll:?}");
        Ok(Some(()))
    })
    .await?;

    // What comes after it is not heard.
    let mut link = connected(&ground, Kind::Polling).await?;
    let group = json!(["create_chat", {"isGroup": true, "title": "late", "participantIds": []}]);
    link.send(["1", &format!("421{group}")].join(SEPARATOR)).await?;
    match next(&mut link).await? {
        Next::Ended(_) => {}
        Next::Packet(packet) => bail!("after the end: {packet}"),
    }
    ground.finish()
}

#[tokio::test]
async fn who_does_not_connect_in_time_is_sent_away() -> Result<()> {
    let ground = Ground::new().await?;
    let mut links = Vec::new();
    for kind in KINDS {
        links.push(ground.engine.link(kind).await?);
    }
    let mut refused = ground.engine.link(Kind::WebSocket).await?;
    refused.send("40/other,").await?;
    packet(&mut refused).await?;
    links.push(refused);
    for link in &mut links {
        ended(link).await?;
    }
    // Who has, stays.
    let mut link = ground.engine.link(Kind::WebSocket).await?;
    connect(&mut link, &ground.token).await?;
    usable(&mut link).await?;
    ground.finish()
}
