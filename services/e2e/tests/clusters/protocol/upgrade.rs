//! From polling to a WebSocket, at whichever node; and attempts at it that come to nothing.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use natter_e2e::{
    Presenting,
    engine::{Dialled, Frame, Kind, Link, Polling, SEPARATOR, Wire},
    soon::{SOON, soon},
};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::{
    Ground,
    session::{ECHO, ack, acked, connected, frame, packet, turned_away, usable},
};

/// A connected session, and what its requests are made with.
async fn polled(ground: &Ground) -> Result<Polling> {
    match connected(ground, Kind::Polling).await? {
        Link::Polling(polling) => Ok(polling),
        link @ Link::WebSocket(_) => bail!("{link:?}"),
    }
}

async fn probed(wire: &mut Wire) -> Result<()> {
    wire.send("2probe").await;
    let answer = wire.frame().await?;
    ensure!(answer == Frame::Text("3probe".to_owned()), "{answer:?}");
    Ok(())
}

/// A session that was upgraded, with its sid.
async fn upgraded(ground: &Ground) -> Result<(Polling, Link)> {
    let polling = polled(ground).await?;
    let mut wire = ground.engine.upgrade(&polling.open.sid).await?;
    probed(&mut wire).await?;
    wire.send("5").await;
    let mut link = Link::WebSocket(wire);
    usable(&mut link).await?;
    Ok((polling, link))
}

#[tokio::test]
async fn a_session_moves_to_a_websocket() -> Result<()> {
    let ground = Ground::new().await?;
    for _ in 0..2 {
        let polling = polled(&ground).await?;
        let mut wire = ground.engine.upgrade(&polling.open.sid).await?;
        probed(&mut wire).await?;
        // Polls are let go, so that nothing gets lost on the way.
        let reply = polling.poll().await?;
        ensure!(reply.packets()? == ["6"], "{reply:?}");
        wire.send("5").await;
        wire.send(format!("421{ECHO}")).await;
        let mut link = Link::WebSocket(wire);
        ack(&mut link, "1").await?;
        usable(&mut link).await?;
    }
    ground.finish()
}

#[tokio::test]
async fn a_poll_that_waits_is_let_go_by_the_probe() -> Result<()> {
    let ground = Ground::new().await?;
    let polling = polled(&ground).await?;
    let upgrade = async {
        let mut wire = ground.engine.upgrade(&polling.open.sid).await?;
        probed(&mut wire).await?;
        anyhow::Ok(wire)
    };
    // Whichever of the two is there first.
    let (poll, mut wire) = tokio::try_join!(polling.poll(), upgrade)?;
    ensure!(poll.packets()? == ["6"], "{poll:?}");
    wire.send("5").await;
    usable(&mut Link::WebSocket(wire)).await?;
    ground.finish()
}

#[tokio::test]
async fn what_was_not_polled_comes_over_the_websocket() -> Result<()> {
    let ground = Ground::new().await?;
    let polling = polled(&ground).await?;
    let payload = [1, 2, 3].map(|id| format!("42{id}{ECHO}")).join(SEPARATOR);
    polling.post(payload).await?.accepted()?;
    let mut wire = ground.engine.upgrade(&polling.open.sid).await?;
    probed(&mut wire).await?;
    wire.send("5").await;
    wire.send(format!("424{ECHO}")).await;
    let mut link = Link::WebSocket(wire);
    for id in 1..=4 {
        ack(&mut link, &id.to_string()).await?;
    }
    ground.finish()
}

#[tokio::test]
async fn a_session_that_has_moved_is_not_polled() -> Result<()> {
    let ground = Ground::new().await?;
    let (polling, mut link) = upgraded(&ground).await?;
    for _ in 0..2 {
        polling.poll().await?.refused(&[1, 3])?;
        polling.post("3").await?.refused(&[1, 3])?;
        polling.post(format!("429{ECHO}")).await?.refused(&[1, 3])?;
        polling.post("1").await?.refused(&[1, 3])?;
    }
    usable(&mut link).await?;
    // Without waiting for answers, as the specification's own test does it.
    let polling = polled(&ground).await?;
    let mut wire = ground.engine.upgrade(&polling.open.sid).await?;
    wire.send("2probe").await;
    wire.send("5").await;
    ensure!(wire.frame().await? == Frame::Text("3probe".to_owned()));
    let mut link = Link::WebSocket(wire);
    usable(&mut link).await?;
    polling.poll().await?.refused(&[1, 3])?;
    usable(&mut link).await?;
    ground.finish()
}

#[tokio::test]
async fn a_session_has_one_websocket() -> Result<()> {
    let ground = Ground::new().await?;
    let (polling, mut moved) = upgraded(&ground).await?;
    let mut born = connected(&ground, Kind::WebSocket).await?;
    for sid in [polling.open.sid.clone(), born.open()?.sid.clone()] {
        for _ in 0..2 {
            turned_away(&ground.engine, &format!("EIO=4&transport=websocket&sid={sid}")).await?;
        }
    }
    usable(&mut moved).await?;
    usable(&mut born).await?;
    ground.finish()
}

#[tokio::test]
async fn a_bad_upgrade_leaves_the_session_to_polling() -> Result<()> {
    let ground = Ground::new().await?;
    let mut polling = Link::Polling(polled(&ground).await?);
    let sid = polling.open()?.sid.clone();
    // With one that asks nothing of an upgrade, closed before it says anything.
    drop(ground.engine.upgrade(&sid).await?);
    let echo = format!("421{ECHO}");
    for packets in [
        &[echo.as_str()][..],
        &["2"],
        &["2prob"],
        &["2probe2"],
        &["6"],
        &["3probe"],
        &["abc"],
        &[""],
        &["1"],
        &["2probe", &echo],
        &["2probe", "1"],
        &["2probe", "x"],
    ] {
        // The one before may not have been seen to go.
        soon("another WebSocket", async || {
            let Ok(mut wire) = ground.engine.upgrade(&sid).await else { return Ok(None) };
            for packet in packets {
                wire.send(*packet).await;
            }
            let first = frame(&mut wire).await?;
            let probing = packets[0] == "2probe";
            if probing && matches!(first, Frame::Closed(_)) {
                return Ok(None);
            }
            if probing {
                ensure!(first == Frame::Text("3probe".to_owned()), "{first:?}");
                wire.closed(SOON).await?;
            } else {
                ensure!(matches!(first, Frame::Closed(_)), "{packets:?}: {first:?}");
            }
            Ok(Some(()))
        })
        .await
        .with_context(|| format!("{packets:?}"))?;
        usable(&mut polling).await.with_context(|| format!("after {packets:?}"))?;
    }
    // Binary says nothing of the kind either.
    let mut wire = ground.engine.upgrade(&sid).await?;
    wire.send(Message::binary(&b"2probe"[..])).await;
    wire.closed(SOON).await?;
    usable(&mut polling).await?;
    ground.finish()
}

#[tokio::test]
async fn a_probe_that_is_cut_off_leaves_the_session_to_polling() -> Result<()> {
    let ground = Ground::new().await?;
    let mut link = Link::Polling(polled(&ground).await?);
    let sid = link.open()?.sid.clone();
    for _ in 0..2 {
        let mut wire = ground.engine.upgrade(&sid).await?;
        probed(&mut wire).await?;
        usable(&mut link).await?;
        drop(wire);
        usable(&mut link).await?;
    }
    ground.finish()
}

#[tokio::test]
async fn a_probe_and_nothing_more_is_not_waited_for_long() -> Result<()> {
    let ground = Ground::new().await?;
    let mut link = Link::Polling(polled(&ground).await?);
    let mut wire = ground.engine.upgrade(&link.open()?.sid).await?;
    probed(&mut wire).await?;
    // The session is where it was, all the while.
    let mut closed = std::pin::pin!(wire.closed(3 * SOON));
    loop {
        usable(&mut link).await?;
        if let Ok(code) = timeout(Duration::from_millis(100), &mut closed).await {
            code?;
            break;
        }
    }
    usable(&mut link).await?;
    ground.finish()
}

#[tokio::test]
async fn an_upgrade_without_a_probe_is_one_or_none() -> Result<()> {
    let ground = Ground::new().await?;
    let polling = polled(&ground).await?;
    let mut wire = ground.engine.upgrade(&polling.open.sid).await?;
    wire.send("5").await;
    wire.send(format!("421{ECHO}")).await;
    match frame(&mut wire).await? {
        // The reference server does not ask for a probe.
        Frame::Text(packet) => {
            ensure!(packet.starts_with("431["), "{packet}");
            polling.poll().await?.refused(&[1, 3])?;
            usable(&mut Link::WebSocket(wire)).await?;
        }
        Frame::Closed(_) => usable(&mut Link::Polling(polling)).await?,
        other @ Frame::Binary(_) => bail!("{other:?}"),
    }
    ground.finish()
}

#[tokio::test]
async fn of_two_upgrades_at_once_one_wins() -> Result<()> {
    let ground = Ground::new().await?;
    for _ in 0..5 {
        let polling = polled(&ground).await?;
        let query = format!("EIO=4&transport=websocket&sid={}", polling.open.sid);
        let attempt = async || {
            let dialled = ground.engine.dial(&query, Presenting::Nothing).await?;
            let Dialled::Open(mut wire) = dialled else { return Ok(None) };
            wire.send("2probe").await;
            match frame(&mut wire).await? {
                Frame::Text(packet) if packet == "3probe" => {
                    wire.send("5").await;
                    wire.send(format!("427{ECHO}")).await;
                }
                Frame::Closed(_) => return Ok(None),
                other => bail!("{other:?}"),
            }
            let mut link = Link::WebSocket(wire);
            // It ends here where the other had won meanwhile.
            let Ok(answer) = ack(&mut link, "7").await else { return Ok(None) };
            ensure!(answer["ok"] == true, "{answer}");
            Ok(Some(link))
        };
        let (one, other) = tokio::try_join!(attempt(), attempt())?;
        let mut winners: Vec<Link> = one.into_iter().chain(other).collect();
        ensure!(winners.len() == 1, "{winners:?}");
        usable(&mut winners[0]).await?;
        polling.poll().await?.refused(&[1, 3])?;
        usable(&mut winners[0]).await?;
    }
    ground.finish()
}

#[tokio::test]
async fn a_session_that_was_closed_meanwhile_moves_nowhere() -> Result<()> {
    let ground = Ground::new().await?;
    let polling = polled(&ground).await?;
    let mut wire = ground.engine.upgrade(&polling.open.sid).await?;
    probed(&mut wire).await?;
    polling.post("1").await?.accepted()?;
    wire.send("5").await;
    wire.send(format!("421{ECHO}")).await;
    wire.closed(SOON).await?;
    polling.gone().await?;
    ground.finish()
}

#[tokio::test]
async fn who_sends_while_moving_is_heard_once() -> Result<()> {
    let ground = Ground::new().await?;
    // More than once, since it takes a moment in which the session is on its way.
    for round in 0..100 {
        heard_while_moving(&ground).await.with_context(|| format!("round {round}"))?;
    }
    ground.finish()
}

async fn heard_while_moving(ground: &Ground) -> Result<()> {
    let polling = polled(ground).await?;
    let mut wire = ground.engine.upgrade(&polling.open.sid).await?;
    probed(&mut wire).await?;
    let post = polling.post(format!("421{ECHO}"));
    let upgrade = async {
        wire.send("5").await;
        wire.send(format!("422{ECHO}")).await;
        Ok(())
    };
    let (reply, ()) = tokio::try_join!(post, upgrade)?;
    // A request that is under way meanwhile is served, or refused.
    let mut expected = vec!["2"];
    if reply.accepted().is_ok() {
        expected.push("1");
    } else {
        reply.refused(&[1, 3])?;
    }
    let mut link = Link::WebSocket(wire);
    // In whichever order.
    while !expected.is_empty() {
        let packet = packet(&mut link).await.with_context(|| format!("no ack of {expected:?}"))?;
        let id = expected.iter().position(|id| packet.starts_with(&format!("43{id}[")));
        let id = expected.swap_remove(id.with_context(|| packet.clone())?);
        acked(&packet, id)?;
    }
    usable(&mut link).await
}
