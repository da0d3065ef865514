//! What no client sends: whatever becomes of the session, nobody else notices.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use natter_e2e::{
    engine::{KINDS, Kind, Link, Next, Polling, SEPARATOR, answer},
    soon::{SOON, within},
};
use reqwest::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    Ground,
    session::{
        ECHO, Wrong, ack, acked, connect, connected, ended, ended_or_usable, next, packet, refused,
        turned_away, usable,
    },
};

async fn polled(ground: &Ground) -> Result<Polling> {
    match connected(ground, Kind::Polling).await? {
        Link::Polling(polling) => Ok(polling),
        link @ Link::WebSocket(_) => bail!("{link:?}"),
    }
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

#[tokio::test]
async fn an_ack_has_the_id_that_was_asked_with() -> Result<()> {
    let ground = Ground::new().await?;
    for kind in KINDS {
        for id in [
            "9007199254740993".to_owned(),
            "18446744073709551615".to_owned(),
            "18446744073709551616".to_owned(),
            "340282366920938463463374607431768211456".to_owned(),
            "9".repeat(10_000),
            "007".to_owned(),
        ] {
            let mut link = connected(&ground, kind).await?;
            link.send(format!("42{id}{ECHO}")).await?;
            // Refused it may be, but never be answered by another.
            if let Next::Packet(packet) = next(&mut link).await? {
                let same = acked(&packet, &id).or_else(|_| acked(&packet, id.trim_matches('0')));
                same.with_context(|| id.chars().take(50).collect::<String>())?;
                usable(&mut link).await?;
            }
        }
    }
    ground.finish()
}

#[tokio::test]
async fn nesting_exhausts_nothing() -> Result<()> {
    let ground = Ground::new().await?;
    let mut wrong = Wrong::default();
    for kind in KINDS {
        for depth in [200, 20_000] {
            let deep = nested(depth);
            let objects = format!("{}1{}", r#"{"a":"#.repeat(depth / 2), "}".repeat(depth / 2));
            for said in [
                format!("421[\"history\",{deep}]"),
                format!("421[\"history\",{{\"chatId\":{deep}}}]"),
                format!("421[\"no_such_event\",{objects}]"),
                format!("421{deep}"),
                format!("431{deep}"),
                format!("40{objects}"),
                format!("40/other,{objects}"),
                "42[".repeat(depth / 3),
            ] {
                let mut link = connected(&ground, kind).await?;
                let shown = format!("{kind:?}, {depth} deep: {said}");
                link.send(said).await?;
                wrong.note(shown, ended_or_usable(&mut link).await);
            }
            let mut link = ground.engine.link(kind).await?;
            link.send(format!("40{{\"token\":{deep}}}")).await?;
            match next(&mut link).await? {
                Next::Ended(_) => {}
                Next::Packet(packet) => ensure!(packet.starts_with("44{"), "{packet}"),
            }
        }
    }
    wrong.nothing()?;
    usable(&mut connected(&ground, Kind::Polling).await?).await?;
    ground.finish()
}

#[tokio::test]
async fn a_megabyte_is_too_much() -> Result<()> {
    const MEGABYTE: usize = 1_100_000;
    let ground = Ground::new().await?;
    for text in [format!("42[\"{}\"]", "x".repeat(MEGABYTE)), "3\u{1e}".repeat(MEGABYTE / 2)] {
        let mut link = Link::Polling(polled(&ground).await?);
        let Link::Polling(polling) = &link else { bail!("{link:?}") };
        // It may hang up while it is still being sent to.
        if let Ok(reply) = polling.post(text.clone()).await {
            ensure!(reply.status == 413, "{reply:?}");
        }
        ended(&mut link).await?;
        for frame in [Message::text(text.clone()), Message::binary(text.into_bytes())] {
            let mut link = connected(&ground, Kind::WebSocket).await?;
            let Link::WebSocket(wire) = &mut link else { bail!("{link:?}") };
            wire.send(frame).await;
            ended(&mut link).await?;
        }
    }
    // Nor does it help not to say how much it will be.
    let polling = polled(&ground).await?;
    let node = ground.engine.node();
    let mut stream = TcpStream::connect(node).await?;
    let head = format!(
        "POST /socket.io/?{} HTTP/1.1\r\nHost: {node}\r\nTransfer-Encoding: chunked\r\n\r\n",
        polling.query()
    );
    stream.write_all(head.as_bytes()).await?;
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..MEGABYTE.div_ceil(0x10000) {
        if stream.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    stream.write_all(b"0\r\n\r\n").await.ok();
    ended(&mut Link::Polling(polling)).await?;
    ground.finish()
}

#[tokio::test]
async fn a_request_of_another_protocol_changes_nothing() -> Result<()> {
    let ground = Ground::new().await?;
    let mut link = Link::Polling(polled(&ground).await?);
    let sid = link.open()?.sid.clone();
    for (query, codes) in [
        (format!("EIO=3&transport=polling&sid={sid}"), &[3, 5][..]),
        (format!("EIO=abc&transport=polling&sid={sid}"), &[3, 5]),
        (format!("transport=polling&sid={sid}"), &[3, 5]),
        (format!("EIO=4&transport=abc&sid={sid}"), &[0]),
        (format!("EIO=4&sid={sid}"), &[0]),
        (format!("EIO=4&transport=websocket&sid={sid}"), &[3]),
    ] {
        // Each node, each way.
        for _ in 0..2 {
            ground.engine.get(&query).await?.refused(codes).with_context(|| query.clone())?;
        }
        for _ in 0..2 {
            let reply = ground.engine.post(&query, format!("421{ECHO}")).await?;
            reply.refused(codes).with_context(|| query.clone())?;
        }
    }
    for query in [
        format!("EIO=3&transport=websocket&sid={sid}"),
        format!("transport=websocket&sid={sid}"),
        format!("EIO=4&transport=polling&sid={sid}"),
        format!("EIO=4&transport=abc&sid={sid}"),
    ] {
        turned_away(&ground.engine, &query).await?;
    }
    for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::HEAD] {
        let query = format!("EIO=4&transport=polling&sid={sid}");
        let reply = answer(ground.engine.request(method.clone(), &query).body("1")).await?;
        ensure!((400..=500).contains(&reply.status), "{method}: {reply:?}");
    }
    usable(&mut link).await?;
    ground.finish()
}

#[tokio::test]
async fn a_session_is_known_by_its_whole_sid_only() -> Result<()> {
    let ground = Ground::new().await?;
    let polling = ground.engine.polling().await?;
    let sid = polling.open.sid.clone();
    let mut link = Link::Polling(polling);
    let connected = connect(&mut link, &ground.token).await?;
    let mut made_up = vec![
        connected.sid,
        connected.pid,
        sid[1..].to_owned(),
        sid[..sid.len() - 1].to_owned(),
        format!("{sid}{sid}"),
        format!("{sid}A"),
        format!("A{sid}"),
        format!("{sid}%00"),
        format!("{sid}%0a"),
        format!("%20{sid}"),
        format!("{sid}%3d"),
        format!("{sid}%2f.."),
        "%00".to_owned(),
        "%ff%fe".to_owned(),
        "%F0%9F%A6%8A".to_owned(),
        "..%2f..%2fetc".to_owned(),
        "*".to_owned(),
        ">".to_owned(),
        "a.b.c".to_owned(),
        "%25".to_owned(),
        "%".to_owned(),
        "%zz".to_owned(),
        "__proto__".to_owned(),
        "toString".to_owned(),
        "x".repeat(4_000),
        sid.to_uppercase(),
        sid.to_lowercase(),
    ];
    // Not one character more or less of it is for show.
    for (n, old) in sid.char_indices() {
        let new = if old == 'A' { 'B' } else { 'A' };
        made_up.push(format!("{}{new}{}", &sid[..n], &sid[n + 1..]));
    }
    let mut wrong = Wrong::default();
    for (n, other) in made_up.iter().filter(|other| **other != sid).enumerate() {
        if n % 10 == 0 {
            usable(&mut link).await?;
        }
        let query = format!("EIO=4&transport=polling&sid={other}");
        let outcome = async {
            // Some of it is no query.
            ground.engine.get(&query).await?.refused(&[1, 3])?;
            ground.engine.post(&query, "1").await?.refused(&[1, 3])
        };
        wrong.note(format!("{other:?} for {sid:?}"), outcome.await);
    }
    wrong.nothing()?;
    for other in [&made_up[0], &made_up[1], &made_up[3], &made_up[7], &made_up[16]] {
        turned_away(&ground.engine, &format!("EIO=4&transport=websocket&sid={other}")).await?;
    }
    usable(&mut link).await?;
    // The same in other words is the same.
    let encoded: Vec<_> = sid.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let encoded = encoded.concat();
    let query = format!("sid={encoded}&transport=polling&t=1&EIO=4");
    ground.engine.post(&query, format!("4277{ECHO}")).await?.accepted()?;
    ack(&mut link, "77").await?;
    // Twice something else is at most refused.
    let twice = format!("EIO=4&transport=polling&sid={sid}&sid=nobodys");
    let reply = ground.engine.post(&twice, "3").await?;
    ensure!([200, 400].contains(&reply.status), "{reply:?}");
    let far_too_long = format!("EIO=4&transport=polling&sid={}", "x".repeat(60_000));
    let reply = ground.engine.get(&far_too_long).await?;
    ensure!((400..500).contains(&reply.status), "{reply:?}");
    usable(&mut link).await?;
    ground.finish()
}

#[tokio::test]
async fn a_session_over_a_websocket_is_not_polled() -> Result<()> {
    let ground = Ground::new().await?;
    let mut link = connected(&ground, Kind::WebSocket).await?;
    let query = format!("EIO=4&transport=polling&sid={}", link.open()?.sid);
    for body in ["3", "1", "abc", "42[\"x\"]", ""] {
        for _ in 0..2 {
            ground.engine.get(&query).await?.refused(&[1, 3])?;
            ground.engine.post(&query, body).await?.refused(&[1, 3])?;
        }
    }
    usable(&mut link).await?;
    // Nobody becomes somebody else by it.
    let other = connected(&ground, Kind::Polling).await?;
    let query = format!("EIO=4&transport=polling&sid={}", other.open()?.sid);
    let mut polling = Link::Polling(ground.engine.polling().await?);
    let stranger = ground.engine.request(Method::POST, &query).bearer_auth("x");
    answer(stranger.body(format!("42{ECHO}"))).await?.accepted()?;
    polling.send("40").await?;
    let refusal = packet(&mut polling).await?;
    ensure!(refusal.starts_with("44{"), "{refusal}");
    ground.finish()
}

#[tokio::test]
async fn thousands_of_packets_at_once_hold_up_nobody() -> Result<()> {
    let ground = Ground::new().await?;
    let mut others =
        [connected(&ground, Kind::Polling).await?, connected(&ground, Kind::WebSocket).await?];
    let max = others[0].open()?.max_payload;
    for packet in ["3", "6", "431[]", "42[\"x\"]", "421[\"x\"]", "40", "1", "2", "b", "45"] {
        let mut link = connected(&ground, Kind::Polling).await?;
        let many = (max / (packet.len() + 1)).clamp(1, 20_000);
        let payload = vec![packet; many].join(SEPARATOR);
        let begun = Instant::now();
        link.send(payload).await.ok();
        for other in &mut others {
            usable(other).await.with_context(|| format!("beside {many} of {packet:?}"))?;
        }
        drained(&mut link).await.with_context(|| format!("{many} of {packet:?}"))?;
        for other in &mut others {
            usable(other).await?;
        }
        ensure!(begun.elapsed() < 2 * SOON, "{many} of {packet:?}: {:?}", begun.elapsed());
    }
    // What is asked at once is answered, as far as that is allowed, and nothing twice. Answers are
    // fetched meanwhile, as any client does: a session does not let them pile up.
    let mut link = Link::Polling(polled(&ground).await?);
    let Link::Polling(polling) = &mut link else { bail!("{link:?}") };
    let payload: Vec<_> = (0..1_000).map(|id| format!("42{id}[\"x\"]")).collect();
    let query = polling.query();
    let post = ground.engine.post(&query, payload.join(SEPARATOR));
    let mut answered = Vec::new();
    let all = timeout(2 * SOON, async {
        while answered.len() < 1_000 {
            match polling.next().await? {
                Next::Packet(packet) => {
                    let Some(rest) = packet.strip_prefix("43") else { continue };
                    let id = rest.split('[').next().unwrap_or_default();
                    answered.push(id.parse::<u32>().with_context(|| packet.clone())?);
                }
                Next::Ended(_) => break,
            }
        }
        anyhow::Ok(())
    });
    let (posted, all) = tokio::join!(post, all);
    all.context("neither all nor an end")??;
    ensure!([200, 400].contains(&posted?.status));
    answered.sort_unstable();
    let distinct = answered.windows(2).all(|two| two[0] != two[1]);
    ensure!(distinct && answered.iter().all(|id| *id < 1_000), "{answered:?}");
    for other in &mut others {
        usable(other).await.context("beside a thousand that are answered")?;
    }
    ground.finish()
}

/// That a session goes on, or has ended.
async fn drained(link: &mut Link) -> Result<()> {
    link.send(format!("4298765{ECHO}")).await.ok();
    let end = timeout(2 * SOON, async {
        loop {
            match link.next().await? {
                Next::Ended(_) => return anyhow::Ok(()),
                Next::Packet(packet) if packet.starts_with("4398765[") => return Ok(()),
                Next::Packet(_) => {}
            }
        }
    });
    end.await.context("neither an answer nor an end")?
}

#[tokio::test]
async fn packets_in_odd_places() -> Result<()> {
    let ground = Ground::new().await?;
    let mut wrong = Wrong::default();
    for kind in KINDS {
        // Harmless, so that it has to be borne.
        let mut link = connected(&ground, kind).await?;
        for said in ["3", "6", "3"] {
            link.send(said).await?;
            usable(&mut link).await.with_context(|| format!("{kind:?}: {said}"))?;
        }
        // For servers to say, or for another moment.
        for said in ["0", "0{}", "2", "2probe", "3probe", "5", "5x", "6x", "0{\"sid\":\"x\"}"] {
            let mut link = connected(&ground, kind).await?;
            link.send(said).await?;
            wrong.note(format!("{kind:?}: {said}"), ended_or_usable(&mut link).await);
        }
        for said in ["1", "1x"] {
            let mut link = connected(&ground, kind).await?;
            link.send(said).await?;
            wrong.note(format!("{kind:?}: {said}"), ended(&mut link).await.map(drop));
        }
        // Before anything else.
        for said in ["2", "3", "5", "6", "0"] {
            let mut link = ground.engine.link(kind).await?;
            link.send(said).await?;
            link.send("40").await?;
            let outcome = match next(&mut link).await {
                Ok(Next::Ended(_)) => Ok(()),
                Ok(Next::Packet(packet)) if packet.starts_with("44{") => Ok(()),
                Ok(Next::Packet(packet)) => Err(anyhow!("{packet}")),
                Err(error) => Err(error),
            };
            wrong.note(format!("{kind:?}, at first: {said}"), outcome);
        }
    }
    wrong.nothing()?;
    // Frames that are no packets at all.
    for frame in [Message::Ping(vec![1].into()), Message::Pong(vec![1].into())] {
        let mut link = connected(&ground, Kind::WebSocket).await?;
        let Link::WebSocket(wire) = &mut link else { bail!("{link:?}") };
        wire.send(frame).await;
        usable(&mut link).await?;
    }
    ground.finish()
}

#[tokio::test]
async fn names_have_any_length_up_to_that_of_a_payload() -> Result<()> {
    let ground = Ground::new().await?;
    let mut wrong = Wrong::default();
    for kind in KINDS {
        let mut link = connected(&ground, kind).await?;
        let long = "n".repeat(30_000);
        link.send(format!("421[\"{long}\"]")).await?;
        ensure!(refused(&mut link, "1").await? == "bad_request");
        link.send("422[\"\\u0000\\ud83e\\udd8a\\n\"]").await?;
        ensure!(refused(&mut link, "2").await? == "bad_request");
        for said in [
            "423[\"\\ud800\"]".to_owned(),
            format!("42/{long}[\"x\"]"),
            format!("42/{long},[\"x\"]"),
            format!("45{}-[\"x\"]", "9".repeat(30_000)),
            format!("4{long}"),
        ] {
            let mut link = connected(&ground, kind).await?;
            let shown = format!("{kind:?}: {said}");
            link.send(said).await?;
            wrong.note(shown, ended_or_usable(&mut link).await);
        }
        // Promised attachments cost nothing, and are not waited for.
        for count in ["11", "100000", "4294967297", "18446744073709551617"] {
            let mut link = connected(&ground, kind).await?;
            link.send(format!("45{count}-1[\"x\",{{\"_placeholder\":true,\"num\":0}}]")).await?;
            wrong.note(format!("{kind:?}: {count}"), ended_or_usable(&mut link).await);
        }
    }
    wrong.nothing()?;
    ground.finish()
}

#[tokio::test]
async fn a_post_that_never_ends_is_nobodys_trouble() -> Result<()> {
    let ground = Ground::new().await?;
    let mut other = connected(&ground, Kind::WebSocket).await?;
    let mut halves = Vec::new();
    for _ in 0..20 {
        let polling = ground.engine.polling().await?;
        let node = ground.engine.node();
        let mut stream = TcpStream::connect(node).await?;
        let head = format!(
            "POST /socket.io/?{} HTTP/1.1\r\nHost: {node}\r\nContent-Length: 1000\r\n\r\n40",
            polling.query()
        );
        stream.write_all(head.as_bytes()).await?;
        halves.push((polling, stream));
    }
    usable(&mut other).await?;
    // Their sessions end as any does that nobody connects with.
    let by = Instant::now() + 3 * SOON;
    for (polling, _half) in halves {
        let mut link = Link::Polling(polling);
        loop {
            ensure!(Instant::now() < by, "a session waits for half a request");
            usable(&mut other).await?;
            match timeout(Duration::from_secs(1), link.next()).await {
                Ok(Ok(Next::Ended(_))) => break,
                Ok(Ok(Next::Packet(packet))) => bail!("{packet}"),
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }
    usable(&mut other).await?;
    ground.finish()
}

#[tokio::test]
async fn whoever_reads_nothing_and_is_nobody_is_not_kept() -> Result<()> {
    let ground = Ground::new().await?;
    let polling = ground.engine.polling().await?;
    // What is answered fills what waits to be fetched, and nobody fetches it.
    let nowhere = format!("40/{}", "x".repeat(60_000));
    for _ in 0..2 {
        polling.post(nowhere.clone()).await?.accepted()?;
    }
    polling.post("40").await?.accepted()?;
    // Posts that wait for the session would end it themselves, were they many.
    let mut looks = 0;
    within(SOON * 2, "nobody knows the session", async || {
        looks += 1;
        if looks % 50 > 0 {
            return Ok(None);
        }
        Ok((polling.post("3").await?.status == 400).then_some(()))
    })
    .await?;
    ground.finish()
}

#[tokio::test]
async fn a_body_that_does_not_come_holds_no_connection() -> Result<()> {
    let ground = Ground::new().await?;
    let polling = ground.engine.polling().await?;
    let mut socket = TcpStream::connect(ground.engine.node()).await?;
    let head = format!(
        "POST /socket.io/?{} HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n4",
        polling.query()
    );
    socket.write_all(head.as_bytes()).await?;
    let mut heard = Vec::new();
    timeout(SOON, socket.read_to_end(&mut heard)).await??;
    let heard = String::from_utf8(heard)?;
    ensure!(heard.starts_with("HTTP/1.1 408 "), "{heard}");
    ground.finish()
}

#[tokio::test]
async fn a_request_that_comes_twice_ends_its_session() -> Result<()> {
    let ground = Ground::new().await?;
    for method in [Method::GET, Method::POST] {
        let polling = ground.engine.polling().await?;
        polling.post(format!("40{}", serde_json::json!({"token": ground.token}))).await?;
        let again = format!("{}&t=abc", polling.query());
        let request = || {
            let request = ground.engine.request(method.clone(), &again);
            if method == Method::POST { request.body("3") } else { request }
        };
        let first = answer(request()).await?;
        ensure!(first.status == 200, "{method}: {first:?}");
        answer(request()).await?.refused(&[1])?;
        polling.gone().await?;
    }
    ground.finish()
}
