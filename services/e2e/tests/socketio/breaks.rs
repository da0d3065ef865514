//! Connections that break, and clients that come back by themselves with all that they missed.

use anyhow::{Result, ensure};
use natter_cluster::Cluster;
use natter_e2e::{Mode, Peer, Socket, peers::Language, record::Mark, soon};
use serde_json::json;

use crate::socketio::{APART, STAGE, Scenery, heard_from};

/// Ben, on the node that stays.
async fn ben_beside(scenery: &Scenery, owner: usize) -> Result<Socket> {
    scenery.ben.connect(1 - owner).await
}

/// Kills a node, and has Ben say something while the client is away.
async fn killed(cluster: &Cluster, owner: usize, bens: &Socket, scenery: &Scenery) -> Result<()> {
    cluster.gateway(owner).kill().await?;
    for n in 0..10 {
        bens.say(scenery.chat, &format!("missed {n}")).await?;
    }
    Ok(())
}

fn missed() -> impl Iterator<Item = String> {
    (0..10).map(|n| format!("missed {n}"))
}

#[tokio::test]
async fn a_node_that_is_killed_is_a_recovery_elsewhere_for_its_clients() -> Result<()> {
    for mode in Mode::ALL {
        let cluster = APART.alone().await?;
        let scenery = Scenery::new(&cluster, Language::JavaScript).await?;
        let anas = scenery.ana(mode).await?;
        let owner = scenery.owner(mode)?;
        let bens = ben_beside(&scenery, owner).await?;
        bens.say(scenery.chat, "before").await?;
        anas.hears(scenery.chat, "before").await?;
        let mark = anas.mark();
        anas.say(scenery.chat, "own").await?;
        told_its_place(&anas, mark).await?;

        killed(&cluster, owner, &bens, &scenery).await?;
        anas.disconnected().await?;
        anas.recovered().await?;
        bens.say(scenery.chat, "after").await?;
        anas.hears(scenery.chat, "after").await?;
        let mut told = vec!["before".to_owned()];
        told.extend(missed());
        told.push("after".to_owned());
        assert_eq!(heard_from(&anas, &scenery.ben), told, "{mode:?}");
        // Its own was acknowledged, and is not told again.
        assert_eq!(heard_from(&anas, &scenery.ana), [""; 0], "{mode:?}");
        anas.check_feeds()?;
    }
    Ok(())
}

#[tokio::test]
async fn also_when_no_event_had_come_before() -> Result<()> {
    for (mode, forgets) in Mode::ALL.into_iter().flat_map(|mode| [(mode, false), (mode, true)]) {
        let cluster = APART.alone().await?;
        let scenery = Scenery::new(&cluster, Language::JavaScript).await?;
        let anas = scenery.ana(mode).await?;
        let owner = scenery.owner(mode)?;
        let bens = ben_beside(&scenery, owner).await?;
        if forgets {
            // As if it had broken before even `ready` came.
            anas.forge(json!({"offset": null})).await?;
            ensure!(anas.state().await?.offset.is_none(), "it has an offset");
        }
        killed(&cluster, owner, &bens, &scenery).await?;
        anas.disconnected().await?;
        anas.recovered().await?;
        bens.say(scenery.chat, "after").await?;
        anas.hears(scenery.chat, "after").await?;
        let told: Vec<String> = missed().chain(["after".to_owned()]).collect();
        assert_eq!(heard_from(&anas, &scenery.ben), told, "{mode:?}, {forgets}");
        anas.check_feeds()?;
    }
    Ok(())
}

/// Breaks the client's connection, in one way or the other.
async fn broken(scenery: &Scenery, anas: &Peer, mode: Mode, round: usize) -> Result<()> {
    // One that polls may have nothing under way that could be cut.
    if mode == Mode::Polling || round.is_multiple_of(2) {
        anas.drop_transport().await?;
    } else {
        scenery.balancer.cut();
    }
    anas.disconnected().await?;
    Ok(())
}

/// Waits until the client is told that its newest message is behind it.
async fn told_its_place(anas: &Peer, mark: Mark) -> Result<()> {
    soon("a cursor for an own message", async || {
        Ok((!anas.since(mark, "cursor").is_empty()).then_some(()))
    })
    .await
}

#[tokio::test]
async fn many_times_in_a_row_with_own_messages_in_between() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    for mode in Mode::ALL {
        let scenery = Scenery::new(&cluster, Language::JavaScript).await?;
        let anas = scenery.ana(mode).await?;
        let bens = scenery.ben.connect(1).await?;
        let pid = anas.state().await?.pid;
        let mut from_ben = Vec::new();
        let say = async |word: String, from_ben: &mut Vec<String>| {
            bens.say(scenery.chat, &word).await?;
            from_ben.push(word);
            anyhow::Ok(())
        };
        for round in 0..8 {
            // Some rounds break with an own message as the last that was heard of, some with
            // another's, some with nothing since the last recovery.
            if round % 3 != 0 {
                let mark = anas.mark();
                anas.say(scenery.chat, &format!("acknowledged {round}")).await?;
                told_its_place(&anas, mark).await?;
                let mark = anas.mark();
                let silent = json!({"chatId": scenery.chat, "content": format!("silent {round}")});
                anas.emit("send_message", silent).await?;
                told_its_place(&anas, mark).await?;
            }
            if round % 3 == 2 {
                say(format!("live {round}"), &mut from_ben).await?;
                anas.hears(scenery.chat, &format!("live {round}")).await?;
            }
            broken(&scenery, &anas, mode, round).await?;
            say(format!("missed {round}"), &mut from_ben).await?;
            anas.recovered().await?;
            ensure!(anas.state().await?.pid == pid, "another pid");
        }
        say("the end".to_owned(), &mut from_ben).await?;
        anas.hears(scenery.chat, "the end").await?;
        assert_eq!(heard_from(&anas, &scenery.ben), from_ben, "{mode:?}");
        assert_eq!(heard_from(&anas, &scenery.ana), [""; 0], "{mode:?}");
        for round in (0..8).filter(|round| round % 3 != 0) {
            bens.hears(scenery.chat, &format!("acknowledged {round}")).await?;
            bens.hears(scenery.chat, &format!("silent {round}")).await?;
        }
        bens.check_feeds()?;
    }
    Ok(())
}

#[tokio::test]
async fn an_acknowledgement_lost_with_the_connection_comes_as_the_message() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    for mode in Mode::ALL {
        let scenery = Scenery::new(&cluster, Language::JavaScript).await?;
        let anas = scenery.ana(mode).await?;
        let bens = scenery.ben.connect(0).await?;
        for round in 0..6 {
            let content = format!("own {round}");
            let said = json!([{"chatId": scenery.chat, "content": content}]);
            let asked = anas.post("send_message", said).await?;
            anas.drop_transport().await?;
            bens.hears(scenery.chat, &content).await?;
            anas.disconnected().await?;
            anas.recovered().await?;
            bens.say(scenery.chat, &format!("marker {round}")).await?;
            anas.hears(scenery.chat, &format!("marker {round}")).await?;
            let told = heard_from(&anas, &scenery.ana);
            let told = told.iter().filter(|told| **told == content).count();
            let replied = anas.replied(asked);
            ensure!(told + usize::from(replied) == 1, "{mode:?} {round}: {told}, {replied}");
        }
        anas.check_feeds()?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_sends_again_by_itself_says_everything_once() -> Result<()> {
    for mode in Mode::ALL {
        let cluster = APART.alone().await?;
        let scenery = Scenery::new(&cluster, Language::JavaScript).await?;
        let dial = scenery.dial(&scenery.ana, mode);
        let anas =
            scenery.settled(&dial.option("retries", 20).option("ackTimeout", 500), mode).await?;
        let owner = scenery.owner(mode)?;
        let bens = ben_beside(&scenery, owner).await?;
        let mut words = Vec::new();
        let mut asked = Vec::new();
        for n in 0..60 {
            let word = format!("surely {n}");
            let id = uuid::Uuid::now_v7();
            let said = json!([{"chatId": scenery.chat, "content": word, "clientMsgId": id}]);
            asked.push(anas.post("send_message", said).await?);
            words.push(word);
            if n == 20 {
                bens.hears(scenery.chat, "surely 5").await?;
                cluster.gateway(owner).kill().await?;
            }
        }
        for id in asked {
            anas.reply(id).await?.map_err(|error| anyhow::anyhow!("{error}"))?;
        }
        bens.say(scenery.chat, "the end").await?;
        anas.hears(scenery.chat, "the end").await?;
        bens.hears(scenery.chat, "surely 59").await?;
        bens.check_feeds()?;
        let heard = bens.events("message").into_iter();
        let heard: Vec<_> = heard.map(|data| data["content"].clone()).collect();
        assert_eq!(json!(heard), json!(words), "{mode:?}");
        anas.check_feeds()?;
    }
    Ok(())
}

#[tokio::test]
async fn whoever_missed_more_than_a_session_holds_recovers_while_it_upgrades() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    for mode in Mode::ALL {
        let scenery = Scenery::new(&cluster, Language::JavaScript).await?;
        let anas = scenery.ana(mode).await?;
        scenery.ben.api(0).say(scenery.chat, "before").await?;
        anas.hears(scenery.chat, "before").await?;
        anas.disconnect().await?;
        anas.disconnected().await?;
        // Far more than waits for polls (64 KiB).
        for n in 0..100 {
            scenery.ben.api(n % 2).say(scenery.chat, &n.to_string().repeat(2_000)).await?;
        }
        anas.reconnect().await?;
        anas.recovered().await?;
        if mode == Mode::Upgrade {
            anas.expect("upgrade", |_| true).await?;
        }
        scenery.ben.api(1).say(scenery.chat, "after").await?;
        anas.hears(scenery.chat, "after").await?;
        anas.check_feeds()?;
        assert_eq!(heard_from(&anas, &scenery.ben).len(), 102, "{mode:?}");
        assert_eq!(anas.events("disconnect").len(), 1, "{mode:?}");
    }
    Ok(())
}
