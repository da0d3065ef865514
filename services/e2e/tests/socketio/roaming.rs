//! No request need come where the one before came.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use natter_e2e::{Mode, Peer, Socket, balancer::Kind, peers::Language};
use natter_protocol::ids::ChatId;

use crate::socketio::{STAGE, Scenery, heard_from};

/// Says these one after the other.
async fn client_says(peer: &Peer, chat: ChatId, words: &[String]) -> Result<()> {
    for word in words {
        peer.say(chat, word).await?;
    }
    Ok(())
}

/// As [`client_says`], on the other transport.
async fn socket_says(socket: &Socket, chat: ChatId, words: &[String]) -> Result<()> {
    for word in words {
        socket.say(chat, word).await?;
    }
    Ok(())
}

fn words(of: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{of} {n}")).collect()
}

#[tokio::test]
async fn each_request_of_a_polling_client_may_come_to_another_node() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    for language in [Language::JavaScript, Language::Python] {
        let scenery = Scenery::new(&cluster, language).await?;
        let anas = scenery.ana(Mode::Polling).await?;
        let bens = [scenery.ben.connect(0).await?, scenery.ben.connect(1).await?];
        let (from_ana, from_ben) = (words("Ana", 30), words("Ben", 30));
        tokio::try_join!(
            client_says(&anas, scenery.chat, &from_ana),
            socket_says(&bens[0], scenery.chat, &from_ben),
        )?;
        bens[1].say(scenery.chat, "the end").await?;
        anas.hears(scenery.chat, "the end").await?;
        anas.check_feeds()?;
        assert_eq!(heard_from(&anas, &scenery.ben)[..30], from_ben);
        for ben in &bens {
            ben.hears(scenery.chat, "Ana 29").await?;
        }
        bens[1].hears(scenery.chat, "Ben 29").await?;
        bens[1].check_feeds()?;

        let routed = scenery.balancer.routed();
        let sessions: HashSet<_> = routed.iter().filter_map(|r| r.session.as_ref()).collect();
        ensure!(sessions.len() == 1, "it was one session: {routed:?}");
        for kind in [Kind::Poll, Kind::Post] {
            let nodes: HashSet<usize> =
                routed.iter().filter(|routed| routed.kind == kind).map(|r| r.node).collect();
            ensure!(nodes.len() == 2, "{kind:?} came to {nodes:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_upgrade_moves_the_session_to_the_node_where_it_lands() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let scenery = Scenery::new(&cluster, Language::JavaScript).await?;
    let bens = scenery.ben.connect(0).await?;
    for round in 0..10 {
        let (here, there) = (round % 2, (round + 1) % 2);
        scenery.balancer.send_next(Kind::Handshake, here);
        scenery.balancer.send_next(Kind::Upgrade, there);
        // Both talk from the first moment, so that the move falls into the middle of it.
        let anas = scenery.peers.connect("Ana", &scenery.dial(&scenery.ana, Mode::Upgrade)).await?;
        let from_ana = words(&format!("Ana, round {round}:"), 15);
        let from_ben = words(&format!("Ben, round {round}:"), 15);
        tokio::try_join!(
            client_says(&anas, scenery.chat, &from_ana),
            socket_says(&bens, scenery.chat, &from_ben),
        )?;
        anas.expect("upgrade", |data| data["transport"] == "websocket").await?;
        bens.say(scenery.chat, "the end").await?;
        anas.hears(scenery.chat, "the end").await?;
        anas.check_feeds()?;
        assert_eq!(heard_from(&anas, &scenery.ben)[..15], from_ben);
        let moved =
            (scenery.balancer.last(Kind::Handshake)?, scenery.balancer.last(Kind::Upgrade)?);
        ensure!(moved == (here, there), "{moved:?}");
        anas.disconnect().await?;
    }
    // He heard what she said, too, each of it once.
    bens.check_feeds()
}

#[tokio::test]
async fn a_python_client_upgrades_on_another_node_before_it_says_anything() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let scenery = Scenery::new(&cluster, Language::Python).await?;
    let bens = scenery.ben.connect(0).await?;
    for round in 0..4 {
        scenery.balancer.send_next(Kind::Handshake, round % 2);
        scenery.balancer.send_next(Kind::Upgrade, (round + 1) % 2);
        let anas = scenery.peers.connect("Ana", &scenery.dial(&scenery.ana, Mode::Upgrade)).await?;
        let state = anas.state().await?;
        ensure!(state.transport.as_deref() == Some("websocket"), "{state:?}");
        let (from_ana, from_ben) = (words(&format!("Ana {round}:"), 5), words("Ben", 5));
        tokio::try_join!(
            client_says(&anas, scenery.chat, &from_ana),
            socket_says(&bens, scenery.chat, &from_ben),
        )?;
        bens.say(scenery.chat, "the end").await?;
        anas.hears(scenery.chat, "the end").await?;
        anas.check_feeds()?;
        ensure!(scenery.balancer.last(Kind::Upgrade)? == (round + 1) % 2, "it did not move");
        anas.disconnect().await?;
    }
    bens.check_feeds()
}
