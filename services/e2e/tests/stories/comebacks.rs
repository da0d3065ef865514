//! Ways to come back that are out of the ordinary, and what must not come with them.

use std::time::Duration;

use anyhow::{Result, ensure};
use natter_e2e::{Person, Presenting, Socket, person, soon, tokens};
use natter_protocol::{
    error::{ErrorCode, Outcome},
    ids::Seq,
    rest::User,
    server::Chat,
};
use serde_json::json;

use crate::stories::{APART, STAGE};

#[tokio::test]
async fn what_came_live_before_resuming_is_not_told_again() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let group = ana.api(0).group("Quiet", &[&ben]).await?.id;
    let phone = ana.connect(0).await?;
    let bens = ben.connect(1).await?;
    bens.say(chat, "before").await?;
    phone.hears(chat, "before").await?;
    let cursor = phone.cursor()?;
    drop(phone);
    let mut missed: Vec<Seq> = Vec::new();
    for n in 0..5 {
        missed.push(bens.say(chat, &format!("missed {n}")).await?.seq);
    }
    let later = ana.connect(1).await?;
    // Live: a message, one of her own, a chat that is added and a message in it.
    let live = bens.say(chat, "live").await?;
    later.hears(chat, "live").await?;
    let own = later.say(chat, "my own").await?;
    let added = ben.api(0).group("Added", &[&ana]).await?.id;
    bens.say(added, "there").await?;
    later.hears(added, "there").await?;
    later.request("resume", json!({"cursor": cursor})).await?;
    bens.say(group, "held meanwhile, perhaps").await?;
    later.expect("resume_done", |_| true).await?;
    bens.say(chat, "after").await?;
    let after = later.hears(chat, "after").await?.seq;
    later.hears(group, "held meanwhile, perhaps").await?;

    let entries = later.entries()?;
    let mut got: Vec<Seq> = entries.iter().filter(|g| g.chat == chat).map(|g| g.seq).collect();
    assert_eq!(got[..2], [live.seq, own.seq], "in the order in which they came");
    got.sort_unstable();
    missed.extend([live.seq, own.seq, after]);
    assert_eq!(got, missed, "each of them once");
    assert_eq!(later.events("chat_added").len(), 1);
    assert_eq!(entries.iter().filter(|got| got.chat == added).count(), 2);
    // What it says at its end resumes exactly.
    let back = ana.first.resume(0, &later.cursor()?).await?;
    back.expect("resume_done", |_| true).await?;
    assert_eq!(back.entries()?, []);
    Ok(())
}

/// Somebody of the outside issuer, on two gateways.
struct Outsider {
    token: String,
    user: User,
}

impl Outsider {
    async fn new(cluster: &natter_cluster::Cluster, name: &str) -> Result<Self> {
        let token = tokens::outside(&tokens::outside_claims(name, "phone"))?;
        let api = person::anonymous(cluster, 0)?.with_token(&token);
        Ok(Self { user: api.get("/users/me").await?.read(200)?, token })
    }
}

#[tokio::test]
async fn an_outside_device_comes_back_after_it_has_logged_out() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let outsider = Outsider::new(&cluster, "oona").await?;
    let body = json!({"isGroup": false, "participantIds": [outsider.user.id]});
    let chat: Chat = ana.api(0).post("/chats", body).await?.read(201)?;
    let (here, there) = (cluster.gateway(0).address(), cluster.gateway(1).address());
    let phone = Socket::present(here, Presenting::Header(&outsider.token)).await?;
    ana.api(1).say(chat.id, "before").await?;
    phone.hears(chat.id, "before").await?;
    let cursor = phone.cursor()?;
    let api = person::anonymous(&cluster, 0)?.with_token(&outsider.token);
    api.post("/auth/logout", json!({})).await?.expect(204)?;
    phone.expect_close(4403).await?;
    ana.api(1).say(chat.id, "meanwhile").await?;
    // Its token is the issuer's, and still good: also at once, while the logging out is on its way.
    for gateway in [there, here] {
        let back = Socket::resume(gateway, &outsider.token, &cursor).await?;
        ensure!(back.ready()?.resumed, back.failure("it was not resumed"));
        back.hears(chat.id, "meanwhile").await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_outside_device_is_let_in_by_a_node_that_has_never_seen_it_while_postgres_is_away()
-> Result<()> {
    let cluster = APART.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let outsider = Outsider::new(&cluster, "olaf").await?;
    let body = json!({"isGroup": false, "participantIds": [outsider.user.id]});
    let chat: Chat = ana.api(0).post("/chats", body).await?.read(201)?;
    let (here, there) = (cluster.gateway(0).address(), cluster.gateway(1).address());
    let phone = Socket::present(here, Presenting::Header(&outsider.token)).await?;
    let anas = ana.connect(0).await?;
    anas.say(chat.id, "before").await?;
    phone.hears(chat.id, "before").await?;
    let cursor = phone.cursor()?;
    cluster.postgres().kill().await?;
    anas.say(chat.id, "meanwhile").await?;
    let back = soon("it is let in", async || {
        Ok(Socket::resume(there, &outsider.token, &cursor).await.ok())
    })
    .await?;
    back.hears(chat.id, "meanwhile").await?;
    Ok(())
}

#[tokio::test]
async fn a_request_that_needs_a_postgres_that_hangs_is_given_up_and_the_connection_goes_on()
-> Result<()> {
    let cluster = APART.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let open = ben.api(0).open_group("Open", &[]).await?.id;
    let anas = ana.connect(0).await?;
    let bens = ben.connect(1).await?;
    cluster.postgres().pause()?;
    let joining = anas.post("join_chat", json!({"chatId": open})).await?;
    // One that needs the look-up of an old client id, and one that needs nothing.
    let old = json!({"chatId": chat, "content": "old", "clientMsgId": "an id without a time"});
    let (old, fresh) = (
        anas.post("send_message", old).await?,
        anas.post("send_message", json!({"chatId": chat, "content": "fresh"})).await?,
    );
    for (request, outcome) in [(joining, None), (old, Some(Outcome::NotSent))] {
        let answer = anas.reply_within(Duration::from_secs(15), request).await?;
        let Err(refused) = answer else { anyhow::bail!("it was done") };
        assert_eq!((refused.code, refused.outcome), (ErrorCode::Unavailable, outcome));
    }
    bens.hears(chat, "fresh").await?;
    anas.reply(fresh).await?.map_err(|error| anyhow::anyhow!("{error}"))?;
    cluster.postgres().resume()?;
    Ok(())
}
