//! A message: sent on one gateway, acked, delivered on the other, retried, read again.

use anyhow::{Context, Result};
use natter_e2e::Person;
use natter_protocol::server::{Message, Sent};
use serde_json::json;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::stories::STAGE;

#[tokio::test]
async fn it_goes_from_one_gateway_to_the_other() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let phone = ana.connect(0).await?;
    let tablet = ana.device("tablet").await?.connect(1).await?;
    let bens = ben.connect(1).await?;

    let client_id = Uuid::now_v7().to_string();
    let before = OffsetDateTime::now_utc() - Duration::SECOND;
    let sent = phone
        .request(
            "send_message",
            json!({"chatId": chat, "content": "Grüße, 你好, 👋🏽", "clientMsgId": client_id}),
        )
        .await?;

    assert_eq!(sent["chatId"], json!(chat));
    assert_eq!(sent["clientMsgId"], json!(client_id));
    assert_eq!(sent["duplicate"], false);
    let seq = sent["seq"].as_u64().context("no seq")?;
    assert!(sent["prevSeq"].as_u64().context("no prevSeq")? < seq);
    Uuid::parse_str(sent["id"].as_str().context("no id")?)?;
    let created_at = sent["createdAt"].as_str().context("no createdAt")?;
    assert_eq!(created_at.len(), "2026-01-02T03:04:05.678Z".len(), "milliseconds in UTC");
    let created = OffsetDateTime::parse(created_at, &Rfc3339)?;
    assert!(before < created && created < OffsetDateTime::now_utc() + Duration::SECOND);

    for other in [&bens, &tablet] {
        let heard = other.expect("message", |data| data["id"] == sent["id"]).await?;
        for field in ["chatId", "seq", "prevSeq", "createdAt", "clientMsgId"] {
            assert_eq!(heard[field], sent[field], "{field}");
        }
        assert_eq!(heard["content"], "Grüße, 你好, 👋🏽");
        assert_eq!(heard["contentType"], "text");
        assert_eq!(heard["senderId"], json!(ana.id));
        assert_eq!(heard["sender"], json!({"id": ana.id, "name": "Ana"}));
        assert_eq!(heard["deviceId"], json!(ana.first.id));
    }

    // Ben's answer arrives later on the same feed: had the phone been sent its own message, it
    // would have come before.
    let answer = bens.say(chat, "Hello Ana").await?;
    assert_eq!(answer.prev_seq, seq);
    phone.hears(chat, "Hello Ana").await?;
    tablet.hears(chat, "Hello Ana").await?;
    assert_eq!(phone.events("message").len(), 1);
    for socket in [&phone, &tablet, &bens] {
        socket.check_feeds()?;
    }

    for gateway in [0, 1] {
        let page = ben.api(gateway).history(chat, "limit=2").await?;
        let told: Vec<_> = page.messages.iter().map(|m| (m.seq, m.content.as_str())).collect();
        assert_eq!(told, [(seq, "Grüße, 你好, 👋🏽"), (answer.seq, "Hello Ana")]);
        assert_eq!(page.messages[0].sender.name, "Ana");
        assert_eq!(json!(page.messages[0])["createdAt"], sent["createdAt"]);
        assert_eq!(json!(page.messages[0].id), sent["id"]);
    }
    let page = bens.request("history", json!({"chatId": chat, "limit": 1})).await?;
    assert_eq!(page["messages"][0]["content"], "Hello Ana");
    assert_eq!(page["hasMore"], true);
    Ok(())
}

#[tokio::test]
async fn a_retry_is_the_same_message() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let here = ana.connect(0).await?;
    let there = ana.device("tablet").await?.connect(1).await?;
    let bens = ben.connect(1).await?;

    for client_id in [Uuid::now_v7().to_string(), Uuid::new_v4().to_string(), "my first".to_owned()]
    {
        let first = here.say_as(chat, "once", &client_id).await?;
        assert!(!first.duplicate);
        let over_rest = json!({"content": "once", "clientMsgId": client_id});
        let over_rest = ana.api(0).post(&format!("/chats/{chat}/messages"), over_rest).await?;
        let retries = [
            here.say_as(chat, "once", &client_id).await?,
            there.say_as(chat, "once", &client_id).await?,
            over_rest.read::<Sent>(200)?,
        ];
        for retry in retries {
            let Sent { id, seq, created_at, .. } = first;
            assert_eq!((retry.id, retry.seq, retry.created_at), (id, seq, created_at));
            assert!(retry.duplicate);
        }
    }
    // The same id of another sender, or in another chat, is another message.
    let group = ana.api(0).group("Another", &[&ben]).await?.id;
    assert!(!bens.say_as(chat, "mine", "my first").await?.duplicate);
    assert!(!here.say_as(group, "elsewhere", "my first").await?.duplicate);

    here.say(chat, "last").await?;
    bens.hears(chat, "last").await?;
    there.hears(chat, "last").await?;
    let once = |data: &serde_json::Value| data["content"] == "once";
    assert_eq!(bens.events("message").iter().filter(|data| once(data)).count(), 3);
    assert_eq!(there.events("message").iter().filter(|data| once(data)).count(), 3);
    let page = ben.api(1).history(chat, "limit=50").await?;
    assert_eq!(page.messages.iter().filter(|message| message.content == "once").count(), 3);
    for socket in [&here, &there, &bens] {
        socket.check_feeds()?;
    }
    Ok(())
}

#[tokio::test]
async fn a_message_sent_over_rest_reaches_live_connections() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let anas = ana.connect(0).await?;
    let bens = ben.connect(1).await?;

    let sent = ana.api(1).say(chat, "by post").await?;
    let heard = bens.hears(chat, "by post").await?;
    assert_eq!((heard.id, heard.seq), (sent.id, sent.seq));
    // REST stands at no place in the feed, so it may not know what came before.
    assert!([0, heard.prev_seq].contains(&sent.prev_seq));
    // No connection has sent it, so the sender's get it all.
    assert_eq!(anas.hears(chat, "by post").await?, heard);
    assert!(!sent.client_msg_id.is_empty(), "the server makes one");

    let reply = json!({"content": "thanks", "replyTo": sent.id});
    let reply: Sent =
        ben.api(1).post(&format!("/chats/{chat}/messages"), reply).await?.read(201)?;
    assert_eq!(anas.hears(chat, "thanks").await?.reply_to, Some(sent.id));
    let page = ana.api(0).history(chat, "limit=1").await?;
    assert_eq!((page.messages[0].id, page.messages[0].reply_to), (reply.id, Some(sent.id)));
    anas.check_feeds()?;
    bens.check_feeds()
}

#[tokio::test]
async fn what_one_connection_sends_stays_in_order() -> Result<()> {
    const SENDS: usize = 200;
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let anas = ana.connect(0).await?;
    let bens = ben.connect(1).await?;

    // Somebody else writes in between, from another gateway.
    let between = async {
        for n in 0..20 {
            bens.say(chat, &format!("between {n}")).await?;
        }
        anyhow::Ok(())
    };
    let pipelined = async {
        let mut requests = Vec::new();
        for n in 0..SENDS {
            let data = json!({"chatId": chat, "content": format!("{n}")});
            requests.push(anas.post("send_message", data).await?);
        }
        let mut seqs = Vec::new();
        for id in requests {
            let sent: Sent = serde_json::from_value(anas.reply(id).await??)?;
            seqs.push(sent.seq);
        }
        anyhow::Ok(seqs)
    };
    let (seqs, ()) = tokio::try_join!(pipelined, between)?;
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");

    let last = bens.hears(chat, &format!("{}", SENDS - 1)).await?;
    anas.say(chat, "done").await?;
    bens.hears(chat, "done").await?;
    let heard: Vec<Message> =
        bens.events("message").into_iter().map(serde_json::from_value).collect::<Result<_, _>>()?;
    let heard: Vec<_> = heard.iter().map(|message| message.content.clone()).collect();
    let expected: Vec<_> = (0..SENDS).map(|n| n.to_string()).chain(["done".to_owned()]).collect();
    assert_eq!(heard, expected);
    assert_eq!(Some(&last.seq), seqs.last());
    anas.check_feeds()?;
    bens.check_feeds()
}
