//! Somebody leaves a chat while the broker stands still, and connects again while that is made up
//! for: nothing that is said after the leaving reaches any of their devices.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use natter_e2e::{Device, Person, Socket, soon::within};
use natter_protocol::ids::{ChatId, Seq};
use serde_json::json;

use crate::stories::APART;

/// How often it happens, and devices that come back meanwhile.
const ROUNDS: usize = 5;
const DEVICES: usize = 4;
/// Connections of one device that stay open; its gateway has room for one more.
const KEPT: usize = 3;
/// Until the leaving is told, by whoever notices that it has not been.
const TOLD: Duration = Duration::from_secs(20);

/// Connects again and again, each time from the same cursor, until one of the devices was told that
/// its user is out of the chat; then once more. Gives the connections that are still open.
async fn comes_and_goes(
    (device, gateway, cursor): (&Device, usize, &str),
    chat: ChatId,
    out: &AtomicBool,
) -> Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    loop {
        let last = out.load(Ordering::Relaxed);
        // While the broker recovers a node may not let anybody in.
        let Ok(socket) = device.resume(gateway, cursor).await else { continue };
        ensure!(socket.ready()?.resumed, socket.failure("it was not resumed"));
        socket.expect("resume_done", |_| true).await?;
        if socket.events("chat_removed").contains(&json!({"id": chat})) {
            out.store(true, Ordering::Relaxed);
        }
        sockets.push(socket);
        if sockets.len() > KEPT {
            ends_with_the_leaving(&sockets.remove(0), chat)?;
        }
        if last {
            return Ok(sockets);
        }
    }
}

/// A connection that was told of the leaving got nothing of the chat after it.
fn ends_with_the_leaving(socket: &Socket, chat: ChatId) -> Result<()> {
    let events = socket.events("system");
    let left = events.iter().find(|data| data["chatId"] == json!(chat) && data["kind"] == "left");
    let left = left.and_then(|data| data["seq"].as_u64());
    let entries = socket.entries()?;
    let got: Vec<Seq> = entries.iter().filter(|got| got.chat == chat).map(|got| got.seq).collect();
    let ends = left.is_none_or(|left| got.last() == Some(&left));
    ensure!(ends, socket.failure("it got something that was said after its user had left"));
    socket.check_feeds()
}

/// Says one thing after the other until the leaver's devices are told that they are out.
async fn go_on(speaker: &Socket, chat: ChatId, out: &AtomicBool) -> Result<()> {
    let mut said = 0;
    within(TOLD, "the leaving is told", async || {
        let data = json!({"chatId": chat, "content": format!("not for her {said}")});
        said += 1;
        // It may be refused while the broker recovers.
        speaker.ask("send_message", data).await?.ok();
        Ok(out.load(Ordering::Relaxed).then_some(()))
    })
    .await
}

#[tokio::test]
async fn nothing_is_told_after_a_leaving_that_is_told_late() -> Result<()> {
    let cluster = APART.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let names: Vec<String> = (0..DEVICES).map(|n| format!("device {n}")).collect();
    let devices = try_join_all(names.iter().map(|name| ana.device(name))).await?;
    for round in 0..ROUNDS {
        let chat = ben.api(1).open_group(&format!("Left {round}"), &[&ana]).await?.id;
        let bens = ben.connect(1).await?;
        let mut cursors = Vec::new();
        for (n, device) in devices.iter().enumerate() {
            let socket = device.connect(n % 2).await?;
            bens.say(chat, &format!("before {n}")).await?;
            socket.hears(chat, &format!("before {n}")).await?;
            cursors.push(socket.cursor()?);
        }
        // Postgres takes it, and whoever asked for it cannot tell the feeds.
        cluster.nats().pause()?;
        let left = ana.api(0).post(&format!("/chats/{chat}/leave"), json!({})).await;
        cluster.nats().resume()?;
        left?.expect(200)?;

        let out = AtomicBool::new(false);
        let come = devices.iter().zip(&cursors).enumerate();
        let come = come.map(|(n, (device, cursor))| {
            comes_and_goes((device, n % 2, cursor.as_str()), chat, &out)
        });
        let (sockets, ()) = tokio::try_join!(try_join_all(come), go_on(&bens, chat, &out))?;
        // What was under way has come by the time this has.
        let marker = ben.api(1).group("Marker", &[&ana]).await?.id;
        for socket in sockets.iter().flatten().filter(|socket| socket.is_open()) {
            socket.expect("chat_added", |data| data["id"] == json!(marker)).await?;
            ends_with_the_leaving(socket, chat)?;
        }
    }
    Ok(())
}
