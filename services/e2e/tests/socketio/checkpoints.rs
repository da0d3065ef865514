//! Clients that are asked whether they have dealt with what they were sent.

use anyhow::Result;
use natter_e2e::{Mode, peers::Language};
use serde_json::json;

use crate::socketio::{CLIENTS, STAGE, Scenery, heard_from, text};

/// Checkpoints that may be unacknowledged: see the gateway's `socket/checkpoints.rs`.
const UNACKNOWLEDGED: usize = 4;

async fn at_its_own_pace(language: Language, mode: Mode) -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let scenery = Scenery::new(&cluster, language).await?;
    let (ana, ben, chat) = (&scenery.ana, &scenery.ben, scenery.chat);
    let dial = scenery.dial(ana, mode).auth("checkpoints", true);
    let anas = match language {
        Language::JavaScript => scenery.settled(&dial, mode).await?,
        // It connects once it has upgraded.
        Language::Python => scenery.peers.connect("Ana", &dial).await?,
    };
    let others = [ana.connect(0).await?, ana.connect(1).await?];
    let mut cursors = Vec::new();
    for n in 0..UNACKNOWLEDGED {
        let word = n.to_string();
        ben.api(0).say(chat, &word).await?;
        anas.hears(chat, &word).await?;
        let checkpoint = anas.expect("checkpoint", |_| true).await?;
        cursors.push(text(&checkpoint, "cursor")?);
    }
    ben.api(0).say(chat, "later").await?;
    for other in &others {
        other.hears(chat, "later").await?;
    }
    // What it asks is answered all the same.
    for _ in 0..3 {
        anas.request("presence_subscribe", json!({"userIds": []})).await?;
    }
    assert_eq!(heard_from(&anas, ben), ["0", "1", "2", "3"], "{language:?}, {mode:?}");
    anas.acknowledge().await?;
    anas.hears(chat, "later").await?;
    for n in 0..UNACKNOWLEDGED * 2 {
        ben.api(1).say(chat, &format!("more {n}")).await?;
    }
    anas.hears(chat, &format!("more {}", UNACKNOWLEDGED * 2 - 1)).await?;
    anas.check_feeds()?;
    // Whoever keeps what a checkpoint said goes on from there, started anew.
    let kept = scenery.dial(ana, mode).auth("cursor", cursors[1].as_str());
    let anew = scenery.peers.dial("anew", &kept).await?;
    anew.connected().await?;
    anew.expect("ready", |data| data["resumed"] == true).await?;
    anew.expect("resume_done", |_| true).await?;
    anew.hears(chat, "later").await?;
    assert_eq!(heard_from(&anew, ben)[..3], ["2", "3", "later"], "{language:?}, {mode:?}");
    if language == Language::JavaScript {
        anas.drop_transport().await?;
        anas.disconnected().await?;
        anas.recovered().await?;
        ben.api(0).say(chat, "at last").await?;
        anas.hears(chat, "at last").await?;
        anas.check_feeds()?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_wants_to_be_asked_is_sent_no_more_than_it_deals_with() -> Result<()> {
    for (language, mode) in CLIENTS {
        at_its_own_pace(language, mode).await?;
    }
    Ok(())
}

#[tokio::test]
async fn whoever_says_something_before_it_acknowledges_is_answered() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    for language in [Language::JavaScript, Language::Python] {
        let scenery = Scenery::new(&cluster, language).await?;
        let dial = scenery.dial(&scenery.ana, Mode::WebSocket).auth("checkpoints", true);
        let anas = scenery.peers.connect("Ana", &dial).await?;
        for n in 0..UNACKNOWLEDGED {
            scenery.ben.api(0).say(scenery.chat, &n.to_string()).await?;
            anas.expect("checkpoint", |_| true).await?;
        }
        anas.say(scenery.chat, "wait").await?;
        anas.acknowledge().await?;
        anas.say(scenery.chat, "go on").await?;
    }
    Ok(())
}
