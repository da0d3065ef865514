//! What comes unasked, in order, on whichever way.

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use natter_e2e::{
    Person,
    engine::{Frame, KINDS, Kind, Link, Next},
};
use natter_protocol::ids::ChatId;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{
    Ground,
    session::{connected, usable},
};

/// How many messages are sent, and after how many of them the session moves.
const SENT: usize = 60;
const MOVES_AFTER: usize = 15;

/// Somebody who has a chat with Ana, and says numbers in it over REST.
async fn chat(ground: &Ground) -> Result<(Person, ChatId)> {
    let ben = Person::register(&ground.scene, "Ben").await?;
    let chat = ben.api(1).direct(&ground.ana).await?.id;
    Ok((ben, chat))
}

async fn say_all(ben: &Person, chat: ChatId) -> Result<()> {
    for n in 0..SENT {
        ben.api(n % 2).say(chat, &n.to_string()).await?;
    }
    Ok(())
}

/// Takes a message in, where it is one.
fn take(heard: &mut Vec<String>, packet: &str) -> Result<()> {
    let Some(body) = packet.strip_prefix("42[\"message\",") else { return Ok(()) };
    let body: Vec<Value> = serde_json::from_str(&format!("[{body}")).context(packet.to_owned())?;
    let [message, Value::String(cursor)] = body.as_slice() else { bail!("{packet}") };
    ensure!(!cursor.is_empty(), "{packet}");
    heard.push(message["content"].as_str().context("no content")?.to_owned());
    Ok(())
}

fn all() -> Vec<String> {
    (0..SENT).map(|n| n.to_string()).collect()
}

async fn hear(link: &mut Link, heard: &mut Vec<String>, count: usize) -> Result<()> {
    while heard.len() < count {
        match link.next().await? {
            Next::Packet(packet) => take(heard, &packet)?,
            Next::Ended(code) => bail!("it ended with {code:?} after {heard:?}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn messages_come_in_order() -> Result<()> {
    let ground = Ground::new().await?;
    let (ben, chat) = chat(&ground).await?;
    let mut links = Vec::new();
    for kind in KINDS {
        links.push((connected(&ground, kind).await?, Vec::new()));
    }
    // Who is not listened to does not answer pings, and is dead in the end.
    let listen = try_join_all(links.iter_mut().map(|(link, heard)| hear(link, heard, SENT)));
    tokio::try_join!(say_all(&ben, chat), listen)?;
    for (link, heard) in &mut links {
        assert_eq!(*heard, all());
        usable(link).await?;
    }
    ground.finish()
}

#[tokio::test]
async fn messages_come_in_order_while_the_session_moves() -> Result<()> {
    let ground = Ground::new().await?;
    let (ben, chat) = chat(&ground).await?;
    for _ in 0..3 {
        let mut link = connected(&ground, Kind::Polling).await?;
        let mut heard = Vec::new();
        let listen = async {
            hear(&mut link, &mut heard, MOVES_AFTER).await?;
            let Link::Polling(polling) = &link else { bail!("{link:?}") };
            let mut wire = ground.engine.upgrade(&polling.open.sid).await?;
            wire.send("2probe").await;
            // A client goes on asking until it has been answered, and hears its last poll out.
            let deadline = Instant::now() + polling.open.patience();
            let probed = loop {
                let reply = polling.poll().await?;
                for packet in reply.packets()? {
                    match packet.as_str() {
                        "2" => polling.post("3").await?.accepted()?,
                        packet => take(&mut heard, packet)?,
                    }
                }
                if let Ok(frame) = timeout_at(Instant::now(), wire.frame()).await {
                    break frame?;
                }
                ensure!(Instant::now() < deadline, "the probe is not answered");
            };
            ensure!(probed == Frame::Text("3probe".to_owned()), "{probed:?}");
            wire.send("5").await;
            link = Link::WebSocket(wire);
            hear(&mut link, &mut heard, SENT).await
        };
        tokio::try_join!(listen, say_all(&ben, chat))?;
        assert_eq!(heard, all());
        usable(&mut link).await?;
    }
    ground.finish()
}
