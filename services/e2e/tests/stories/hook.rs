//! The deployment's own check of messages: what it lets through, refuses or gives another text, and what
//! happens when it fails.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use natter_e2e::{
    Person, Product, Socket, Stage,
    censor::{Does, censor, checked},
    metrics, soon,
};
use natter_protocol::{
    error::{ErrorCode, Outcome, WireError},
    ids::ChatId,
    server::Sent,
};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

/// For how long gateways wait for an answer: long enough for a busy machine.
const LIMIT: Duration = Duration::from_secs(2);
/// Messages that are sent while the check is left alone.
const SENDS: usize = 40;

/// Where a message that cannot be checked is refused.
static STRICT: Stage = Stage::with(|builder| checked(builder, 2_000, "refuse"));
/// Where it is let through.
static LENIENT: Stage = Stage::with(|builder| checked(builder, 2_000, "allow"));

/// A text of this story's only.
fn text(about: &str) -> String {
    format!("{about} {}", Uuid::now_v7())
}

fn draft(chat: ChatId, content: &str, client_msg_id: Uuid) -> Value {
    json!({"chatId": chat, "content": content, "clientMsgId": client_msg_id})
}

/// Two people in a group, she on one node and he on the other.
async fn two(cluster: &natter_cluster::Cluster) -> Result<(Person, Person, ChatId)> {
    let (ana, ben) =
        (Person::register(cluster, "Ana").await?, Person::register(cluster, "Ben").await?);
    let chat = ana.api(0).group("Checked", &[&ben]).await?.id;
    Ok((ana, ben, chat))
}

#[tokio::test]
async fn it_lets_through_refuses_and_replaces_whichever_way_a_message_comes() -> Result<()> {
    let cluster = STRICT.among_others().await?;
    let product = Product::new(&cluster).await?;
    let (ana, ben, chat) = two(&cluster).await?;
    let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    let path = format!("/chats/{chat}/messages");
    let (spam, curse) = (text("spam"), text("curse"));
    let refuse = json!({"action": "refuse", "code": "spam", "message": "No advertising."});
    censor().about(&spam, Does::Answers(refuse));
    censor().about(&curse, Does::Answers(json!({"action": "replace", "content": "***"})));

    let fine = text("fine");
    let sent = anas.say(chat, &fine).await?;
    assert_eq!(sent.content, None);
    bens.hears(chat, &fine).await?;
    let asked = censor().asked(&fine);
    let [asked] = &asked[..] else { anyhow::bail!("asked {asked:?}") };
    assert_eq!((&*asked.kind, &asked.data["messageId"]), ("message.sending", &json!(sent.id)));
    assert_eq!(asked.data["sender"], json!({"id": ana.id, "name": "Ana"}));
    assert_eq!(asked.data["deviceId"], json!(ana.first.id));

    // Refused over the socket, over REST, and said by a server.
    let refused = anas.refused("send_message", draft(chat, &spam, Uuid::now_v7())).await?;
    let expected = WireError {
        reason: Some("spam".to_owned()),
        ..WireError::new(ErrorCode::Refused, "No advertising.")
    };
    assert_eq!(refused, expected);
    let body = json!({"content": spam});
    let refused = ana.api(1).post(&path, body).await?.refused(422, "refused")?;
    assert_eq!(
        (&refused["reason"], &refused["detail"]),
        (&json!("spam"), &json!("No advertising."))
    );
    let body = json!({"sendAs": ana.id, "content": spam});
    let by_server = product.api(0).post(&format!("/server/chats/{chat}/messages"), body).await?;
    by_server.refused(422, "refused")?;

    // Another text for everybody, whom it was sent by included.
    let reply = anas.request("send_message", draft(chat, &curse, Uuid::now_v7())).await?;
    let replaced: Sent = serde_json::from_value(reply)?;
    assert_eq!(replaced.content.as_deref(), Some("***"));
    let heard = bens.hears(chat, "***").await?;
    assert_eq!(heard.id, replaced.id);
    let by_rest: Sent = ana.api(1).post(&path, json!({"content": curse})).await?.read(201)?;
    assert_eq!(by_rest.content.as_deref(), Some("***"));

    // An edit is asked about too.
    let edit = |content: &str| json!({"chatId": chat, "messageId": sent.id, "content": content});
    let refused = anas.refused("edit_message", edit(&spam)).await?;
    assert_eq!((refused.code, refused.reason.as_deref()), (ErrorCode::Refused, Some("spam")));
    let url = format!("{path}/{}", sent.id);
    ana.api(1).patch(&url, json!({"content": spam})).await?.refused(422, "refused")?;
    anas.request("edit_message", edit(&curse)).await?;
    let edited =
        bens.expect("message_edited", |edited| edited["messageId"] == json!(sent.id)).await?;
    assert_eq!(edited["content"], "***");
    let asked = censor().asked(&curse);
    let editing = asked.iter().find(|asked| asked.kind == "message.editing");
    let editing = editing.context("it was not asked about the edit")?;
    assert_eq!(editing.data["messageId"], json!(sent.id));

    // What the deployment itself says is not asked about.
    product.say(&json!("system"), chat, &format!("the system on {spam}")).await?;
    bens.hears(chat, &format!("the system on {spam}")).await?;
    ensure!(censor().asked("the system on").is_empty());

    let contents: Vec<_> =
        product.history(chat).await?.into_iter().map(|message| message.content).collect();
    assert_eq!(contents, ["***", "***", "***", &format!("the system on {spam}")]);
    bens.check_feeds()?;
    anas.check_feeds()?;
    censor().nothing_wrong()
}

#[tokio::test]
async fn what_was_said_once_stays_said_whatever_is_thought_of_it_later() -> Result<()> {
    // Nobody else is to be refused for what fails here.
    let cluster = STRICT.alone().await?;
    let (ana, ben, chat) = two(&cluster).await?;
    let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    let path = format!("/chats/{chat}/messages");
    let (said, id) = (text("said"), Uuid::now_v7());
    let first = anas.request("send_message", draft(chat, &said, id)).await?;
    let first: Sent = serde_json::from_value(first)?;
    ensure!(!first.duplicate);
    let other = json!({"action": "replace", "content": "something else"});
    for does in [
        Does::Answers(json!({"action": "allow"})),
        Does::Answers(json!({"action": "refuse"})),
        Does::Answers(other),
        Does::Says(500, "no"),
    ] {
        censor().about(&said, does.clone());
        let body = json!({"content": said, "clientMsgId": id});
        let again: Sent = ana.api(1).post(&path, body).await?.read(200)?;
        let place = (again.id, again.seq, again.duplicate, again.content);
        assert_eq!(place, (first.id, first.seq, true, None), "{does:?}");
        let again = anas.request("send_message", draft(chat, &said, id)).await?;
        assert_eq!(
            (&again["id"], &again["duplicate"]),
            (&json!(first.id), &json!(true)),
            "{does:?}"
        );
    }
    // All were one question.
    let mut ids: Vec<_> = censor().asked(&said).into_iter().map(|asked| asked.id).collect();
    ensure!(ids.len() > 4, "{ids:?}");
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");

    // Of one that was replaced a retry tells the same text.
    let (curse, id) = (text("curse"), Uuid::now_v7());
    censor().about(&curse, Does::Answers(json!({"action": "replace", "content": "***"})));
    passes(&ana, chat).await?;
    let replaced = anas.request("send_message", draft(chat, &curse, id)).await?;
    let body = json!({"content": curse, "clientMsgId": id});
    let again: Sent = ana.api(1).post(&path, body).await?.read(200)?;
    assert_eq!((json!(again.id), again.duplicate), (replaced["id"].clone(), true));
    assert_eq!(again.content.as_deref(), Some("***"));

    anas.say(chat, "the end").await?;
    bens.hears(chat, "the end").await?;
    let heard = bens.events("message");
    let of = |id: &Value| heard.iter().filter(|message| message["id"] == *id).count();
    assert_eq!((of(&json!(first.id)), of(&replaced["id"])), (1, 1));
    censor().forget(&said);
    censor().nothing_wrong()
}

/// The check has been forgiven by both nodes what failed before.
async fn passes(person: &Person, chat: ChatId) -> Result<()> {
    for gateway in 0..2 {
        let path = format!("/chats/{chat}/messages");
        soon("the check is asked again", async || {
            let content = text("is it well?");
            let answer = person.api(gateway).post(&path, json!({"content": content})).await?;
            Ok((answer.status() == 201 && !censor().asked(&content).is_empty()).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// Sends one after the other, and gives the answers with the time that all of them took.
async fn send_many(
    socket: &Socket,
    chat: ChatId,
    content: &str,
) -> Result<(Vec<Result<Value, WireError>>, Duration)> {
    let began = Instant::now();
    let mut answers = Vec::new();
    for _ in 0..SENDS {
        answers.push(socket.ask("send_message", draft(chat, content, Uuid::now_v7())).await?);
    }
    Ok((answers, began.elapsed()))
}

#[tokio::test]
async fn a_check_that_fails_refuses_for_now_and_delays_few() -> Result<()> {
    let cluster = STRICT.alone().await?;
    let (ana, ben, chat) = two(&cluster).await?;
    let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    let trouble = text("trouble");
    for does in [
        Does::Says(500, "no"),
        Does::Says(200, "what?"),
        Does::Says(302, ""),
        Does::Answers(json!({"action": "replace", "content": ""})),
        Does::Thinks(Duration::from_mins(1)),
    ] {
        passes(&ana, chat).await?;
        censor().about(&trouble, does.clone());
        let began = Instant::now();
        let refused = anas.refused("send_message", draft(chat, &trouble, Uuid::now_v7())).await?;
        ensure!(began.elapsed() < 3 * LIMIT, "{does:?}: refused after {:?}", began.elapsed());
        assert_eq!(refused.code, ErrorCode::Unavailable, "{does:?}");
        assert_eq!(refused.outcome, Some(Outcome::NotSent), "{does:?}");
        ensure!(refused.retry_after_ms.is_some_and(|ms| ms >= 1_000), "{does:?}: {refused:?}");
    }

    // Of many messages only few wait for a check that is dead.
    let known = censor().asked(&trouble).len();
    let (answers, took) = send_many(&anas, chat, &trouble).await?;
    assert!(answers.iter().all(|answer| {
        answer.as_ref().is_err_and(|error| error.outcome == Some(Outcome::NotSent))
    }));
    let waited = censor().asked(&trouble).len() - known;
    ensure!(waited < SENDS / 2, "{waited} of {SENDS} have waited, for {took:?}");
    let open = metrics::value(cluster.gateway(0), "natter_hook_open").await?;
    assert_eq!(open, Some(1.0));

    // It is well again, and so is everything, without anybody's doing.
    censor().forget(&trouble);
    passes(&ana, chat).await?;
    anas.say(chat, &trouble).await?;
    bens.hears(chat, &trouble).await?;
    assert_eq!(metrics::value(cluster.gateway(0), "natter_hook_open").await?, Some(0.0));
    let failed = r#"natter_hook_checks_total{verdict="failed"}"#;
    let failed = metrics::value(cluster.gateway(0), failed).await?.unwrap_or_default();
    ensure!(failed >= SENDS as f64, "{failed} are counted");
    // Nothing of what was refused came.
    let came = bens.events("message").iter().filter(|m| m["content"] == json!(trouble)).count();
    assert_eq!(came, 1);
    bens.check_feeds()
}

#[tokio::test]
async fn a_check_that_fails_lets_through_where_that_is_wanted_and_delays_few() -> Result<()> {
    let cluster = LENIENT.alone().await?;
    let (ana, ben, chat) = two(&cluster).await?;
    let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    let trouble = text("trouble");
    for does in [Does::Says(500, "no"), Does::Thinks(Duration::from_mins(1))] {
        passes(&ana, chat).await?;
        censor().about(&trouble, does);
        anas.say(chat, &trouble).await?;
        bens.hears(chat, &trouble).await?;
    }
    let known = censor().asked(&trouble).len();
    let (answers, took) = send_many(&anas, chat, &trouble).await?;
    ensure!(answers.iter().all(Result::is_ok), "{answers:?}");
    let waited = censor().asked(&trouble).len() - known;
    ensure!(waited < SENDS / 2, "{waited} of {SENDS} have waited, for {took:?}");
    // It still refuses what it can.
    censor().about(&trouble, Does::Answers(json!({"action": "refuse"})));
    passes(&ana, chat).await?;
    let refused = anas.refused("send_message", draft(chat, &trouble, Uuid::now_v7())).await?;
    assert_eq!((refused.code, refused.reason), (ErrorCode::Refused, None));
    censor().forget(&trouble);
    anas.say(chat, "the end").await?;
    bens.hears(chat, "the end").await?;
    bens.check_feeds()
}
