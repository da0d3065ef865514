//! The server ends a connection, and says what its client is to do.

use anyhow::{Result, ensure};
use natter_e2e::{Mode, balancer::Kind, peers::Dial, peers::Language, soon::soon};
use serde_json::{Value, json};

use crate::socketio::{APART, CLIENTS, STAGE, Scenery, heard_from};

#[tokio::test]
async fn a_device_that_is_revoked_is_told_and_does_not_come_back() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    for (language, mode) in CLIENTS {
        let scenery = Scenery::new(&cluster, language).await?;
        let stolen = scenery.ana.device("stolen").await?;
        let dial = Dial::new(&scenery.balancer.url(), &stolen.access_token, mode);
        let peer = scenery.peers.connect("stolen", &dial).await?;
        if (language, mode) == (Language::JavaScript, Mode::Upgrade) {
            peer.expect("upgrade", |_| true).await?;
            // The client says so first; once it is answered the server has moved the session too.
            peer.request("presence_subscribe", json!({"userIds": []})).await?;
        }
        scenery.ana.api(1).delete(&format!("/devices/{}", stolen.id)).await?.expect(204)?;
        peer.expect("device_revoked", |data| data["deviceId"] == json!(stolen.id)).await?;
        peer.expect("closing", |data| data["code"] == 4403 && data["reason"].is_string()).await?;
        let gone = peer.expect("disconnect", |_| true).await?;
        if language == Language::JavaScript {
            ensure!(gone == json!({"reason": "io server disconnect", "active": false}), "{gone}");
        } else {
            ensure!(gone["reason"] == "server disconnect", "{gone}");
        }
        // Whoever tries all the same is refused.
        let again = scenery.peers.dial("stolen", &dial).await?;
        again.expect("connect_error", |data| data["data"]["code"] == "unauthenticated").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_node_that_drains_sends_its_clients_elsewhere_and_they_miss_nothing() -> Result<()> {
    for (language, mode) in CLIENTS {
        let cluster = APART.alone().await?;
        let scenery = Scenery::new(&cluster, language).await?;
        let anas = scenery.peers.connect("Ana", &scenery.dial(&scenery.ana, mode)).await?;
        if (language, mode) == (Language::JavaScript, Mode::Upgrade) {
            anas.expect("upgrade", |_| true).await?;
        }
        let owner = scenery.owner(mode)?;
        let bens = scenery.ben.connect(1 - owner).await?;
        bens.say(scenery.chat, "before").await?;
        anas.hears(scenery.chat, "before").await?;
        let node = cluster.gateway(owner).clone();
        let draining = tokio::spawn(async move { node.terminate().await });
        let reconnect = anas.expect("reconnect", |_| true).await?;
        ensure!(reconnect["afterMs"].is_u64(), "{reconnect}");
        bens.say(scenery.chat, "meanwhile").await?;
        anas.expect("closing", |data| data["code"] == 1012).await?;
        anas.disconnected().await?;
        if language == Language::JavaScript {
            anas.recovered().await?;
        } else {
            let cursor = anas.cursor()?;
            anas.connected().await?;
            anas.expect("ready", |_| true).await?;
            anas.request("resume", json!({"cursor": cursor})).await?;
            anas.expect("resume_done", |_| true).await?;
        }
        bens.say(scenery.chat, "after").await?;
        anas.hears(scenery.chat, "after").await?;
        let told = heard_from(&anas, &scenery.ben);
        assert_eq!(told, ["before", "meanwhile", "after"], "{language:?}, {mode:?}");
        let status = draining.await??;
        ensure!(status.is_some_and(|status| status.success()), "{status:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_node_that_drains_takes_no_session_of_another_along() -> Result<()> {
    for language in [Language::JavaScript, Language::Python] {
        let cluster = APART.alone().await?;
        let scenery = Scenery::new(&cluster, language).await?;
        let anas = scenery.ana(Mode::Polling).await?;
        let owner = scenery.owner(Mode::Polling)?;
        let other = 1 - owner;
        // The next poll waits at the other node.
        scenery.balancer.send_next(Kind::Poll, other);
        let bens = scenery.ben.connect(owner).await?;
        bens.say(scenery.chat, "before").await?;
        anas.hears(scenery.chat, "before").await?;
        soon("the next poll", async || {
            Ok((scenery.balancer.last(Kind::Poll)? == other).then_some(()))
        })
        .await?;
        let status = cluster.gateway(other).terminate().await?;
        ensure!(status.is_some_and(|status| status.success()), "{status:?}");
        bens.say(scenery.chat, "after").await?;
        anas.hears(scenery.chat, "after").await?;
        assert_eq!(anas.events("disconnect"), [Value::Null; 0], "{language:?}");
    }
    Ok(())
}
