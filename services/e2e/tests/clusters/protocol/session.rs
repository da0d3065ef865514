//! Socket.IO over a link: who has connected, and what they are told.

use std::{
    fmt::Display,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, bail, ensure};
use natter_e2e::{
    Presenting,
    engine::{Dialled, Engine, Frame, Kind, Link, Next, Wire},
    soon::SOON,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::Ground;

/// An event that changes nothing and is always answered, and its answer.
pub const ECHO: &str = r#"["presence_subscribe",{"userIds":[]}]"#;

/// What has gone wrong so far, so that one case does not hide the next.
#[derive(Default)]
pub struct Wrong(Vec<String>);

impl Wrong {
    /// What became of a case.
    pub fn note(&mut self, case: impl Display, outcome: Result<()>) {
        if let Err(error) = outcome {
            let case: String = case.to_string().chars().take(80).collect();
            self.0.push(format!("{case}: {error:#}"));
        }
    }

    /// That nothing has.
    pub fn nothing(self) -> Result<()> {
        ensure!(self.0.is_empty(), "{}", self.0.join("\n"));
        Ok(())
    }
}

/// What a `CONNECT` packet is answered with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connected {
    /// The connection, which is not the session.
    pub sid: String,
    /// What recovers it.
    pub pid: String,
}

/// A link whose session is past `ready`.
pub async fn connected(ground: &Ground, kind: Kind) -> Result<Link> {
    let mut link = ground.engine.link(kind).await?;
    connect(&mut link, &ground.token).await?;
    Ok(link)
}

/// Connects to the main namespace, and waits for `ready`.
pub async fn connect(link: &mut Link, token: &str) -> Result<Connected> {
    link.send(format!("40{}", json!({"token": token}))).await?;
    let connected = accepted(link).await?;
    event(link, "ready").await?;
    Ok(connected)
}

/// That the next packet says that the link is connected.
pub async fn accepted(link: &mut Link) -> Result<Connected> {
    let packet = packet(link).await?;
    let body = packet.strip_prefix("40").with_context(|| format!("not connected: {packet}"))?;
    serde_json::from_str(body).context(packet)
}

/// The next packet, which there must be.
pub async fn packet(link: &mut Link) -> Result<String> {
    match link.next().await? {
        Next::Packet(packet) => Ok(packet),
        Next::Ended(code) => bail!("the session has ended: {code:?}"),
    }
}

/// The arguments of an event, whatever comes before it.
pub async fn event(link: &mut Link, name: &str) -> Result<Vec<Value>> {
    let found = timeout(SOON, async {
        loop {
            let packet = packet(link).await?;
            let Some(body) = packet.strip_prefix("42") else { continue };
            let mut event: Vec<Value> = serde_json::from_str(body).context(packet.clone())?;
            ensure!(!event.is_empty(), "an event without a name: {packet}");
            if event.remove(0) == name {
                return Ok(event);
            }
        }
    });
    found.await.with_context(|| format!("no {name} came"))?
}

/// The ack with this id, whatever comes before it.
pub async fn ack(link: &mut Link, id: &str) -> Result<Value> {
    let found = timeout(SOON, async {
        loop {
            let packet = packet(link).await?;
            if packet.starts_with("43") {
                return acked(&packet, id);
            }
            ensure!(packet.starts_with("42"), "neither an event nor an ack: {packet}");
        }
    });
    found.await.with_context(|| format!("no ack {id} came"))?
}

/// What an ack says, which must have this id.
pub fn acked(packet: &str, id: &str) -> Result<Value> {
    let body = packet.strip_prefix("43").and_then(|rest| rest.strip_prefix(id));
    let answers = body.and_then(|body| serde_json::from_str::<Vec<Value>>(body).ok());
    match answers.as_deref() {
        Some([answer]) if answer["ok"].is_boolean() => Ok(answer.clone()),
        _ => bail!("the ack {id} with one answer was expected: {packet}"),
    }
}

/// The code of a refusal.
pub async fn refused(link: &mut Link, id: &str) -> Result<String> {
    let answer = ack(link, id).await?;
    let code = answer["error"]["code"].as_str().filter(|_| answer["ok"] == false);
    Ok(code.with_context(|| format!("it was not refused: {answer}"))?.to_owned())
}

/// That the link is connected, and of use.
pub async fn usable(link: &mut Link) -> Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(1_000_000);
    let id = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
    link.send(format!("42{id}{ECHO}")).await?;
    let answer = ack(link, &id).await?;
    ensure!(answer == json!({"ok": true, "data": {"items": []}}), "{answer}");
    Ok(())
}

/// What the last event of a session is called.
const FAREWELL: &str = "42[\"closing\",";

/// What comes next, or the end after no more than a farewell.
pub async fn next(link: &mut Link) -> Result<Next> {
    match link.next().await? {
        Next::Packet(packet) if packet.starts_with(FAREWELL) => ended(link).await.map(Next::Ended),
        other => Ok(other),
    }
}

/// The next frame, or the end after no more than a farewell.
pub async fn frame(wire: &mut Wire) -> Result<Frame> {
    match wire.frame().await? {
        Frame::Text(packet) if packet.starts_with(FAREWELL) => {
            wire.closed(SOON).await.map(Frame::Closed)
        }
        other => Ok(other),
    }
}

/// That a WebSocket is refused, or closed with nothing said to a probe.
pub async fn turned_away(engine: &Engine, query: &str) -> Result<()> {
    match engine.dial(query, Presenting::Nothing).await? {
        Dialled::Refused(refusal) => {
            ensure!(refusal.status.is_client_error(), "{query:?}: {refusal}");
        }
        Dialled::Open(mut wire) => {
            wire.send("2probe").await;
            match frame(&mut wire).await? {
                Frame::Closed(_) => {}
                other => bail!("{query:?}: {other:?}"),
            }
        }
    }
    Ok(())
}

/// Waits for the end, whatever comes before; with the code of it.
pub async fn ended(link: &mut Link) -> Result<Option<u16>> {
    let end = timeout(SOON, async {
        loop {
            if let Next::Ended(code) = link.next().await? {
                return anyhow::Ok(code);
            }
        }
    });
    let code = end.await.context("the session has not ended")??;
    if let Link::Polling(polling) = link {
        polling.gone().await?;
    }
    Ok(code)
}

/// That the session has ended, or goes on as if nothing had been said: for what no client says,
/// where no rule says which.
pub async fn ended_or_usable(link: &mut Link) -> Result<()> {
    link.send(format!("42999{ECHO}")).await?;
    let end = timeout(SOON, async {
        loop {
            match link.next().await? {
                Next::Packet(packet) if packet.starts_with("43999[") => return anyhow::Ok(()),
                // What it has to say of it; but it never answers as a client would.
                Next::Packet(packet) => {
                    let told = ["41", "42", "43", "44"].iter().any(|kind| packet.starts_with(kind));
                    ensure!(told, "unexpected: {packet}");
                }
                Next::Ended(_) => return Ok(()),
            }
        }
    });
    end.await.context("neither an answer nor an end")?
}
