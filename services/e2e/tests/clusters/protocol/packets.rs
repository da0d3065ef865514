//! Socket.IO: connecting, events and acks, what is no packet, and the end of a connection.

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use natter_e2e::{
    Presenting,
    engine::{KINDS, Kind, Link, Next, SEPARATOR, answer},
    soon::soon,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{
    Ground,
    session::{
        ECHO, Wrong, accepted, ack, acked, connect, connected, ended, ended_or_usable, event, next,
        packet, refused, usable,
    },
};

#[tokio::test]
async fn who_has_a_token_connects() -> Result<()> {
    let ground = Ground::new().await?;
    for kind in KINDS {
        let mut link = ground.engine.link(kind).await?;
        link.send(format!("40{}", json!({"token": ground.token, "whatever": [1]}))).await?;
        let connected = accepted(&mut link).await?;
        ensure!(!connected.sid.is_empty() && !connected.pid.is_empty(), "{connected:?}");
        // Others see the one; whoever has the other speaks for the session.
        ensure!(connected.sid != link.open()?.sid, "{connected:?}");
        ensure!(connected.sid != connected.pid, "{connected:?}");
        let next = packet(&mut link).await?;
        let ready: Vec<Value> = serde_json::from_str(next.trim_start_matches("42"))?;
        match ready.as_slice() {
            [Value::String(name), ready, Value::String(cursor)] => {
                ensure!(name == "ready" && ready["resumed"] == false, "{next}");
                ensure!(!cursor.is_empty(), "{next}");
            }
            _ => bail!("{next}"),
        }
        usable(&mut link).await?;
        // The namespace has a name of its own.
        let mut link = ground.engine.link(kind).await?;
        link.send(format!("40/,{}", json!({"token": ground.token}))).await?;
        accepted(&mut link).await?;
        usable(&mut link).await?;
    }
    ground.finish()
}

#[tokio::test]
async fn the_token_may_be_in_the_handshake() -> Result<()> {
    let ground = Ground::new().await?;
    let wire = ground.engine.wire(Presenting::Header(&ground.token)).await?;
    let request = ground.engine.request(Method::GET, "EIO=4&transport=polling");
    let handshake = answer(request.bearer_auth(&ground.token)).await?;
    let polling = ground.engine.polling_by(&handshake)?;
    for (mut link, payload) in [(Link::WebSocket(wire), ""), (Link::Polling(polling), "{}")] {
        link.send(format!("40{payload}")).await?;
        accepted(&mut link).await?;
        event(&mut link, "ready").await?;
        usable(&mut link).await?;
    }
    ground.finish()
}

#[tokio::test]
async fn who_has_no_good_token_is_refused_and_may_try_again() -> Result<()> {
    let ground = Ground::new().await?;
    for kind in KINDS {
        for two in [["", "{}"], [r#"{"token":"x"}"#, r#"{"token":null}"#]] {
            let mut link = ground.engine.link(kind).await?;
            for payload in two {
                link.send(format!("40{payload}")).await?;
                let packet = packet(&mut link).await.with_context(|| payload.to_owned())?;
                let error = packet.strip_prefix("44").context(packet.clone())?;
                let error: Value = serde_json::from_str(error)?;
                ensure!(error["message"].is_string(), "{payload}: {error}");
                ensure!(error["data"]["code"] == "unauthenticated", "{payload}: {error}");
            }
            connect(&mut link, &ground.token).await?;
            usable(&mut link).await?;
        }
        // What no token can be is refused like one, or is no packet.
        for payload in [r#"{"token":7}"#, r#"{"token":["x"]}"#, r#"{"token":"x","echo":7}"#] {
            let mut link = ground.engine.link(kind).await?;
            link.send(format!("40{payload}")).await?;
            match next(&mut link).await? {
                Next::Ended(_) => {}
                Next::Packet(packet) => ensure!(packet.starts_with("44{"), "{payload}: {packet}"),
            }
        }
    }
    ground.finish()
}

#[tokio::test]
async fn there_is_one_namespace() -> Result<()> {
    let ground = Ground::new().await?;
    let token = json!({"token": ground.token}).to_string();
    let long = format!("/{}", "n".repeat(5_000));
    let mut wrong = Wrong::default();
    for kind in KINDS {
        let mut link = ground.engine.link(kind).await?;
        for again in [false, true] {
            for (name, payload) in [
                ("/random", ""),
                ("/custom,", token.as_str()),
                ("/a/b?c=d&e,", ""),
                ("/\u{1f98a},", "{}"),
                ("/__proto__,", token.as_str()),
                (&long, ""),
            ] {
                link.send(format!("40{name}{payload}")).await?;
                let packet = packet(&mut link).await?;
                let name = name.trim_end_matches(',');
                let refusal = format!(r#"44{name},{{"message":"Invalid namespace"}}"#);
                ensure!(packet == refusal, "{name}: {packet}");
            }
            if !again {
                connect(&mut link, &token_of(&token)?).await?;
            }
            usable(&mut link).await?;
        }
        // Nobody is there who could hear.
        link.send("42/custom,1[\"history\",{}]").await?;
        wrong.note(format!("{kind:?}"), ended(&mut link).await.map(drop));
    }
    wrong.nothing()?;
    ground.finish()
}

fn token_of(payload: &str) -> Result<String> {
    let payload: Value = serde_json::from_str(payload)?;
    Ok(payload["token"].as_str().context("no token")?.to_owned())
}

#[tokio::test]
async fn who_has_not_connected_can_say_nothing() -> Result<()> {
    let ground = Ground::new().await?;
    let echo = format!("421{ECHO}");
    let binary = r#"451-1["history",{"_placeholder":true,"num":0}]"#;
    let mut wrong = Wrong::default();
    for kind in KINDS {
        for said in
            [&echo, "42[\"x\"]", "41", "431[]", "44{\"message\":\"x\"}", binary, "4abc", "4"]
        {
            let mut link = ground.engine.link(kind).await?;
            if said == binary {
                send_binary(&mut link, said, &ATTACHED[..1]).await.ok();
            } else {
                link.send(said).await?;
            }
            let outcome = match next(&mut link).await {
                Ok(Next::Ended(_)) => Ok(()),
                Ok(Next::Packet(packet)) => Err(anyhow!("it is answered: {packet}")),
                Err(error) => Err(error),
            };
            wrong.note(format!("{kind:?}: {said}"), outcome);
        }
        // Nor say first who they are, and that badly.
        for bad in ["40[]", "40\"x\"", "40null", "40{", "40{}x", "407x", "40{\"token\":\"x\"}}"] {
            let mut link = ground.engine.link(kind).await?;
            link.send(bad).await?;
            wrong.note(format!("{kind:?}: {bad}"), ended(&mut link).await.map(drop));
        }
    }
    wrong.nothing()?;
    ground.finish()
}

/// An attachment as a packet over polling; over a WebSocket it is a frame of its own kind.
fn attachment(bytes: &[u8]) -> String {
    format!("b{}", BASE64_STANDARD.encode(bytes))
}

#[tokio::test]
async fn nobody_connects_twice() -> Result<()> {
    let ground = Ground::new().await?;
    for kind in KINDS {
        for payload in [json!({"token": ground.token}).to_string(), String::new()] {
            let mut link = connected(&ground, kind).await?;
            link.send(format!("40{payload}")).await?;
            link.send(format!("421{ECHO}")).await?;
            // The reference server ends the session. Who goes on does so as if it were not said.
            if let Next::Packet(packet) = next(&mut link).await? {
                acked(&packet, "1")?;
                usable(&mut link).await?;
            }
        }
    }
    ground.finish()
}

/// The server may keep a session that nobody is connected through, and this one does not.
#[tokio::test]
async fn who_disconnects_ends_the_session() -> Result<()> {
    let ground = Ground::new().await?;
    for kind in KINDS {
        let mut link = connected(&ground, kind).await?;
        link.send("41").await?;
        ended(&mut link).await?;
    }
    ground.finish()
}

#[tokio::test]
async fn what_is_asked_with_an_ack_is_answered_by_it() -> Result<()> {
    let ground = Ground::new().await?;
    let mut wrong = Wrong::default();
    for kind in KINDS {
        let mut link = connected(&ground, kind).await?;
        for id in ["0", "1", "456", "456", "2147483647", "4294967296", "9007199254740991"] {
            link.send(format!("42{id}{ECHO}")).await?;
            let answer = ack(&mut link, id).await?;
            ensure!(answer == json!({"ok": true, "data": {"items": []}}), "{answer}");
        }
        // Whatever JSON leaves open.
        link.send("427[ \"presence_subscribe\" ,\n {\"userId\\u0073\" : [ ]} ]\r\n").await?;
        ensure!(ack(&mut link, "7").await?["ok"] == true);
        for (said, code) in [
            (r#"["no_such_event"]"#, "bad_request"),
            (r#"["message",1,"2",{"3":[true]}]"#, "bad_request"),
            (r#"["presence_subscribe",{"userIds":[]},{}]"#, "bad_request"),
            (r#"["history",null]"#, "bad_request"),
            (r#"["history"]"#, "bad_request"),
            (r#"["ready",{}]"#, "bad_request"),
            (r#"["",{}]"#, "bad_request"),
            (r#"["history",{"chatId":"00000000-0000-0000-0000-000000000000"}]"#, "not_member"),
        ] {
            link.send(format!("4255{said}")).await?;
            let outcome = async {
                let told = refused(&mut link, "55").await?;
                ensure!(told == code, "{told}");
                link.send(format!("42{said}")).await?;
                let exception = event(&mut link, "exception").await?;
                ensure!(exception.len() == 1, "{exception:?}");
                let error = &exception[0];
                ensure!(error["status"] == "error" && error["code"] == code, "{error}");
                ensure!(error["message"].is_string(), "{error}");
                Ok(())
            };
            wrong.note(format!("{kind:?}: {said}"), outcome.await);
        }
        // Nobody has asked for an answer to an answer.
        for said in ["431[]", "437[{\"ok\":true}]", "43123456789[null,[1]]"] {
            link.send(said).await?;
        }
        usable(&mut link).await?;
    }
    wrong.nothing()?;
    ground.finish()
}

#[tokio::test]
async fn what_is_no_packet_ends_the_session() -> Result<()> {
    let ground = Ground::new().await?;
    let mut wrong = Wrong::default();
    for kind in KINDS {
        for said in [
            "4",
            "4abc",
            "47",
            "47[\"x\"]",
            "42",
            "421",
            "42{}",
            "42[]",
            "421[]",
            "42null",
            "42\"x\"",
            "42[null]",
            "42[{}]",
            "42[[\"x\"]]",
            "42[\"x\"",
            "42[\"x\"]]",
            "42[\"x\",]",
            "42['x']",
            "42abc[\"history\",1,\"2\",{\"3\":[false]}]",
            "42-1[\"history\"]",
            "421.5[\"history\"]",
            "421e3[\"history\"]",
            "42\u{0661}[\"history\"]",
            "42/[\"history\"]",
            "43",
            "431",
            "431{}",
            "43x[]",
            "44",
            "44{\"message\":\"x\"}",
            "41{}",
            "45[\"history\"]",
            "45-[\"history\"]",
            "45x-[\"history\"]",
            "45-1-[\"history\"]",
            "451.5-[\"history\"]",
            "451[\"history\"]",
            "46-1[]",
        ] {
            let mut link = connected(&ground, kind).await?;
            link.send(said).await?;
            wrong.note(format!("{kind:?}: {said}"), ended(&mut link).await.map(drop));
        }
        // What no client may call an event is one that nobody knows, if it is a packet at all.
        // And what announces no attachments is an event, or badly made.
        for said in [
            "42[1]",
            "42[\"connect\"]",
            "42[\"disconnect\"]",
            "42[\"newListener\"]",
            "450-[\"history\"]",
            "41/custom,",
        ] {
            let mut link = connected(&ground, kind).await?;
            link.send(said).await?;
            wrong.note(format!("{kind:?}: {said}"), ended_or_usable(&mut link).await);
        }
    }
    wrong.nothing()?;
    ground.finish()
}

/// Sends a packet with what is attached to it.
async fn send_binary(link: &mut Link, packet: &str, attached: &[&[u8]]) -> Result<()> {
    match link {
        Link::Polling(polling) => {
            let parts = attached.iter().map(|bytes| attachment(bytes));
            let payload: Vec<_> = [packet.to_owned()].into_iter().chain(parts).collect();
            polling.post(payload.join(SEPARATOR)).await?.accepted()
        }
        Link::WebSocket(wire) => {
            wire.send(packet).await;
            for bytes in attached {
                wire.send(Message::binary(bytes.to_vec())).await;
            }
            Ok(())
        }
    }
}

const ATTACHED: &[&[u8]] = &[&[1, 2, 3], &[]];

#[tokio::test]
async fn binary_is_refused_and_the_session_stays() -> Result<()> {
    const HOLES: &str = r#"{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}"#;
    let ground = Ground::new().await?;
    let mut wrong = Wrong::default();
    for kind in KINDS {
        let mut link = connected(&ground, kind).await?;
        let event_packet = format!(r#"["history",{HOLES}]"#);
        send_binary(&mut link, &format!("452-789{event_packet}"), ATTACHED).await?;
        ensure!(refused(&mut link, "789").await? == "unsupported_media");
        usable(&mut link).await?;
        send_binary(&mut link, &format!("452-{event_packet}"), ATTACHED).await?;
        let exception = event(&mut link, "exception").await?;
        ensure!(exception[0]["code"] == "unsupported_media", "{exception:?}");
        usable(&mut link).await?;
        // The heartbeat does not wait for what is attached.
        send_binary(&mut link, &format!("452-790{event_packet}"), &ATTACHED[..1]).await?;
        link.send("3").await?;
        match &mut link {
            Link::Polling(polling) => polling.post(attachment(&[7; 300])).await?.accepted()?,
            Link::WebSocket(wire) => wire.send(Message::binary(vec![7; 300])).await,
        }
        ensure!(refused(&mut link, "790").await? == "unsupported_media");
        usable(&mut link).await?;
        // An answer that nobody has asked for, or at most something to complain of.
        let answer = async {
            send_binary(&mut link, &format!("462-7[{HOLES}]"), ATTACHED).await?;
            usable(&mut link).await
        };
        wrong.note(format!("{kind:?}: a binary ack"), answer.await);
    }
    wrong.nothing()?;
    ground.finish()
}

#[tokio::test]
async fn what_is_attached_to_nothing_ends_the_session() -> Result<()> {
    let ground = Ground::new().await?;
    let announced = r#"452-1["history",{"_placeholder":true,"num":0}]"#;
    for kind in KINDS {
        let mut link = connected(&ground, kind).await?;
        match &mut link {
            Link::Polling(polling) => drop(polling.post(attachment(&[1])).await),
            Link::WebSocket(wire) => wire.send(Message::binary(vec![1])).await,
        }
        ended(&mut link).await.with_context(|| format!("{kind:?}: out of nothing"))?;
        // Something else where an attachment has to be.
        let mut link = connected(&ground, kind).await?;
        send_binary(&mut link, announced, &ATTACHED[..1]).await?;
        link.send(format!("425{ECHO}")).await?;
        ended_or_usable(&mut link).await.with_context(|| format!("{kind:?}: text"))?;
    }
    ground.finish()
}

#[tokio::test]
async fn an_attachment_is_base64() -> Result<()> {
    let ground = Ground::new().await?;
    let announced = r#"451-1["history",{"_placeholder":true,"num":0}]"#;
    // As lenient as the reference server, or not; but nothing is left half done.
    for data in ["", "!!!!", "AQI", "AQ==AQ==", "\u{20ac}", "AQID\n"] {
        let mut link = connected(&ground, Kind::Polling).await?;
        let payload = format!("{announced}{SEPARATOR}b{data}");
        let Link::Polling(polling) = &link else { bail!("{link:?}") };
        if let Ok(reply) = polling.post(payload).await {
            ensure!([200, 400].contains(&reply.status), "{data:?}: {reply:?}");
        }
        link.send("3").await?;
        let outcome = soon("an answer or an end", async || match link.next().await? {
            Next::Ended(_) => Ok(Some(false)),
            Next::Packet(packet) => Ok(packet.starts_with("431[").then_some(true)),
        });
        if outcome.await.with_context(|| format!("{data:?}"))? {
            usable(&mut link).await?;
        }
    }
    ground.finish()
}
