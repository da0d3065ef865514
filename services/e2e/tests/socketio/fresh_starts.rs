//! Recoveries that cannot be: the client is told so, and starts afresh.

use anyhow::{Context, Result, ensure};
use natter_e2e::{Mode, Peer, peers::Language};
use serde_json::{Value, json};

use crate::socketio::{STAGE, Scenery, heard_from};

/// Comes back with something made up, and is no more than connected.
async fn starts_afresh(scenery: &Scenery, anas: &Peer, forged: Value, reason: &str) -> Result<()> {
    let before = anas.state().await?.pid.context("no pid")?;
    anas.forge(forged.clone()).await?;
    anas.drop_transport().await?;
    anas.disconnected().await?;
    let missed = format!("missed for {forged}");
    scenery.ben.api(1).say(scenery.chat, &missed).await?;
    let connected = anas.connected().await?;
    ensure!(!connected.recovered, anas.failure(&format!("recovered with {forged}")));
    let ready = anas.expect("ready", |data| data["resumed"] == false).await?;
    ensure!(ready["resumeReason"] == reason, "{forged}: {ready}");
    let state = anas.state().await?;
    ensure!(state.pid.as_ref() != Some(&before) && state.pid.is_some(), "{forged}: {state:?}");

    // All goes on from here, the next recovery too.
    let live = format!("live after {forged}");
    scenery.ben.api(0).say(scenery.chat, &live).await?;
    anas.hears(scenery.chat, &live).await?;
    anas.drop_transport().await?;
    anas.disconnected().await?;
    let later = format!("missed later, after {forged}");
    scenery.ben.api(0).say(scenery.chat, &later).await?;
    anas.recovered().await?;
    let mut told = heard_from(anas, &scenery.ben);
    told.retain(|told| told.contains(&forged.to_string()));
    // What it missed when it could not recover may have come live, if it was back by then.
    if told.first() == Some(&missed) {
        told.remove(0);
    }
    assert_eq!(told, [live, later]);
    Ok(())
}

#[tokio::test]
async fn what_nobody_gave_it_recovers_nothing() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let scenery = Scenery::new(&cluster, Language::JavaScript).await?;
    let bens = scenery.peers.connect("Ben", &scenery.dial(&scenery.ben, Mode::WebSocket)).await?;
    let of_ben = bens.state().await?;
    for mode in Mode::ALL {
        let anas = scenery.ana(mode).await?;
        for (forged, reason) in [
            (json!({"offset": "nonsense"}), "malformed"),
            (json!({"pid": "nonsense", "offset": null}), "malformed"),
            (json!({"offset": of_ben.offset}), "foreign"),
            (json!({"pid": of_ben.pid, "offset": of_ben.offset}), "foreign"),
            (json!({"pid": of_ben.pid, "offset": null}), "foreign"),
        ] {
            let told = starts_afresh(&scenery, &anas, forged.clone(), reason).await;
            told.with_context(|| format!("{mode:?}, {forged}"))?;
        }
        anas.disconnect().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_without_recovery_resumes_by_asking() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    for mode in [Mode::WebSocket, Mode::Upgrade] {
        let scenery = Scenery::new(&cluster, Language::Python).await?;
        let anas = scenery.peers.connect("Ana", &scenery.dial(&scenery.ana, mode)).await?;
        let bens = scenery.ben.connect(0).await?;
        bens.say(scenery.chat, "before").await?;
        anas.hears(scenery.chat, "before").await?;
        let cursor = anas.cursor()?;
        anas.drop_transport().await?;
        anas.disconnected().await?;
        bens.say(scenery.chat, "missed").await?;
        anas.connected().await?;
        anas.expect("ready", |data| data["resumed"] == false).await?;
        let answer = anas.request("resume", json!({"cursor": cursor})).await?;
        ensure!(answer == json!({"resumed": true}), "{answer}");
        anas.expect("resume_done", |_| true).await?;
        assert_eq!(heard_from(&anas, &scenery.ben), ["before", "missed"]);
    }
    Ok(())
}
