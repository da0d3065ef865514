//! One `clientMsgId` is one message: on any node, across restarts, and after the broker has
//! forgotten it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use natter_bus::{Bus, BusConfig};
use natter_e2e::{Person, Stage, soon};
use natter_protocol::{
    feed::{Entry, Event, Feed, ProfileChanged},
    ids::UserId,
    server::Sent,
};
use serde_json::json;
use uuid::{ContextV7, Timestamp, Uuid};

/// The broker remembers a message's id for a second only.
static STAGE: Stage = Stage::with(|builder| builder.env("NATTER_UNSAFE_DUPLICATE_WINDOW", "1"));

/// A UUIDv7 of a while ago.
fn old_id() -> Result<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let then = now.saturating_sub(Duration::from_mins(10));
    let stamp = Timestamp::from_unix(ContextV7::new(), then.as_secs(), then.subsec_nanos());
    Ok(Uuid::new_v7(stamp).to_string())
}

/// Waits until the broker has forgotten everything that was published before.
async fn forgotten(cluster: &natter_cluster::Cluster) -> Result<()> {
    let url = format!("nats://{}", cluster.nats().address());
    let bus = Bus::connect(&BusConfig::new(url, "probe")).await?;
    soon("the broker is reached", async || Ok(bus.ping().await.ok())).await?;
    let nobody = UserId::generate();
    let event = Event::ProfileChanged(ProfileChanged { name: "Nobody".to_owned() });
    let (feed, entry) = (Feed::user(0, nobody), Entry { origin: None, event });
    let id = nobody.to_string();
    let first = bus.publish(feed, &id, &entry)?.await?.seq;
    soon("it has forgotten", async || {
        Ok((bus.publish(feed, &id, &entry)?.await?.seq != first).then_some(()))
    })
    .await
}

#[tokio::test]
async fn it_is_one_message_after_restarts_and_when_the_broker_has_forgotten_it() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let bens = ben.connect(1).await?;
    let path = format!("/chats/{chat}/messages");
    let mut firsts = Vec::new();
    for id in [old_id()?, Uuid::new_v4().to_string(), "my own numbering: 1".to_owned()] {
        // On both nodes at once.
        let body = json!({"content": "once", "clientMsgId": id});
        let (here, there) = (ana.api(0), ana.api(1));
        let (one, two) = tokio::try_join!(here.post(&path, body.clone()), there.post(&path, body))?;
        let (one, two) = match one.status() {
            201 => (one.read::<Sent>(201)?, two.read::<Sent>(200)?),
            _ => (one.read::<Sent>(200)?, two.read::<Sent>(201)?),
        };
        ensure!((one.id, one.seq) == (two.id, two.seq) && one.duplicate != two.duplicate);
        firsts.push((id, one));
    }
    let again = async |gateway: usize| -> Result<()> {
        for (id, first) in &firsts {
            let body = json!({"content": "once", "clientMsgId": id});
            let answer = ana.api(gateway).post(&path, body).await?;
            let retry = answer.read::<Sent>(200).with_context(|| id.clone())?;
            ensure!(retry.duplicate && (retry.id, retry.seq) == (first.id, first.seq), "{retry:?}");
        }
        Ok(())
    };
    again(1).await?;
    forgotten(&cluster).await?;
    // Postgres knows them, or will in a moment.
    soon("it is written", async || Ok(again(0).await.ok())).await?;
    again(1).await?;
    cluster.gateway(0).restart().await?;
    again(0).await?;
    let last = bens.say(chat, "the last").await?;
    bens.hears(chat, "once").await?;
    let here = ana.connect(0).await?;
    here.say(chat, "marker").await?;
    bens.hears(chat, "marker").await?;
    let heard = bens.events("message").iter().filter(|data| data["content"] == "once").count();
    assert_eq!(heard, firsts.len());
    let page = ana.api(1).history(chat, "limit=50").await?;
    assert_eq!(page.messages.iter().filter(|message| message.content == "once").count(), 3);
    ensure!(page.messages.iter().any(|message| message.seq == last.seq));
    // Without Postgres nobody can tell, and nothing is sent a second time. Made just now, it can
    // only be the first.
    cluster.postgres().terminate().await?;
    let body = json!({"chatId": chat, "content": "once", "clientMsgId": firsts[2].0});
    let refused = here.refused("send_message", body).await?;
    let refused = serde_json::to_value(refused)?;
    assert_eq!(
        (&refused["code"], &refused["outcome"]),
        (&json!("unavailable"), &json!("not_sent"))
    );
    ensure!(!here.say(chat, "made just now").await?.duplicate);
    Ok(())
}
