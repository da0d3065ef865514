//! The servers of a product that Natter is embedded in, and its bots.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::{try_join, try_join_all};
use natter_e2e::{
    Device, Person, Product, Socket,
    person::anonymous,
    socket::{Dialled, Presenting},
    soon, tokens,
};
use natter_protocol::{
    feed::{OutboxItem, OutboxUser, UserChange},
    ids::{ChatId, UserId},
    rest::{ParticipantPage, User},
    server::{Chat, Message, Sent},
    service::ServerUser,
};
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use crate::stories::STAGE;

/// Within this a token that is revoked is refused, and a disabled user cut off, on every node: promised is a second,
/// and a machine that is busy with other stories has some more.
const TOLD: Duration = Duration::from_secs(3);
/// Questions that bots are asked, and after how many of them each falls over.
const QUESTIONS: usize = 200;
const FALL: usize = 120;
/// How far the fallen bot has to go back.
const BACK: usize = 10;
/// Questions on their way at the same time.
const AT_ONCE: usize = 25;

#[tokio::test]
async fn a_product_connects_its_user_who_never_has_a_password_here() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let product = Product::new(&cluster).await?;
    let (ana, bot) = (product.user("Ana", false).await?, product.user("Helper", true).await?);
    // Made by any node, made once.
    let again = json!({"name": "Ana", "externalId": ana.external_id});
    let again: ServerUser = product.api(1).post("/server/users", again).await?.read(200)?;
    assert_eq!(again, ana);
    let device = product.device(&ana).await?;
    let me: User = device.api(0).get("/users/me").await?.read(200)?;
    assert_eq!((me.id, me.phone, me.email, me.bot), (ana.id, None, None, false));

    let anas = device.connect(0).await?;
    let chat = product.group(&[ana.id, bot.id]).await?.id;
    let added: Chat = anas.expect_as("chat_added", |added: &Chat| added.id == chat).await?;
    let of = |id| added.participants.iter().find(|one| one.id == id);
    assert_eq!(of(bot.id).map(|bot| bot.bot), Some(true));
    assert_eq!(of(ana.id).map(|ana| ana.bot), Some(false));

    // Said as the system, as the bot and as Ana herself: all devices hear it, in this order.
    let said = [
        (json!("system"), "Your order has left"),
        (json!(bot.id), "Can I help?"),
        (json!(ana.id), "said by her shop"),
    ];
    for (send_as, content) in &said {
        product.say(send_as, chat, content).await?;
    }
    let mut heard = Vec::new();
    for (_, content) in &said {
        let message = anas.hears(chat, content).await?;
        assert_eq!(message.device_id, None);
        heard.push((message.sender.id, message.sender.name, message.sender.bot));
    }
    assert_eq!(
        heard,
        [
            (UserId::SYSTEM, "System".to_owned(), true),
            (bot.id, "Helper".to_owned(), true),
            (ana.id, "Ana".to_owned(), false),
        ]
    );
    let own = anas.say(chat, "said by herself").await?;
    anas.check_feeds()?;

    // The product reads it all, though it takes no part; the worker keeps what a bot is, too.
    soon("what was said is written", async || {
        let place = product.store.sent_before(chat, ana.id, &own.client_msg_id).await?;
        Ok(place.map(drop))
    })
    .await?;
    let told: Vec<_> = product
        .history(chat)
        .await?
        .into_iter()
        .map(|message| (message.content, message.sender.name, message.sender.bot))
        .collect();
    let expected = [
        ("Your order has left", "System", true),
        ("Can I help?", "Helper", true),
        ("said by her shop", "Ana", false),
        ("said by herself", "Ana", false),
    ];
    let expected = expected.map(|(content, name, bot)| (content.to_owned(), name.to_owned(), bot));
    assert_eq!(told, expected);

    // A moderator's hand.
    let path = format!("/server/chats/{chat}/messages/{}", own.id);
    product.api(1).delete(&path).await?.expect(200)?;
    let gone = anas.expect("message_deleted", |gone| gone["messageId"] == json!(own.id)).await?;
    assert_eq!(gone["actorId"], json!(UserId::SYSTEM));

    // A bot is one in every list.
    let found = device.api(0).get("/users?search=Helper").await?.expect(200)?;
    let found = found["items"].as_array().context("a list")?.clone();
    ensure!(found.iter().any(|one| *one == json!({"id": bot.id, "name": "Helper", "bot": true})));
    let page: ParticipantPage =
        device.api(1).get(&format!("/chats/{chat}/participants")).await?.read(200)?;
    assert!(page.items.iter().all(|one| one.bot == (one.id == bot.id)));
    let none = device.api(0).get("/users?search=System").await?.expect(200)?;
    ensure!(!none.to_string().contains(&Uuid::nil().to_string()), "the system is nobody: {none}");
    Ok(())
}

#[tokio::test]
async fn a_token_that_is_revoked_is_refused_by_the_other_node_within_a_second() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let product = Product::new(&cluster).await?;
    let user = product.user("Ana", false).await?;
    let path = format!("/server/users/{}", user.id);
    // Both nodes know it, and one is asked without a pause.
    for gateway in 0..2 {
        product.api(gateway).get(&path).await?.expect(200)?;
    }
    ensure!(product.store.revoke_service_token(product.id).await?);
    let revoked = Instant::now();
    for gateway in [1, 0] {
        soon("the token is refused", async || {
            let answer = product.api(gateway).get(&path).await?;
            if answer.status() == 200 {
                return Ok(None);
            }
            answer.refused(401, "unauthenticated").map(Some)
        })
        .await?;
        let late = revoked.elapsed();
        ensure!(late < TOLD, "gateway {gateway} has refused it after {late:?}");
    }
    Ok(())
}

/// Nobody is let in by this token, whichever way they come.
async fn shut_out(device: &Device, cluster: &natter_cluster::Cluster) -> Result<()> {
    for (n, gateway) in cluster.gateways().iter().enumerate() {
        device.api(n).get("/users/me").await?.refused(403, "account_disabled")?;
        let Dialled::Open(socket) =
            Socket::dial(gateway.address(), Presenting::Header(&device.access_token)).await?
        else {
            continue;
        };
        socket.expect_close(4423).await?;
        ensure!(socket.events("ready").is_empty(), "it was let in first");
    }
    Ok(())
}

#[tokio::test]
async fn a_user_who_is_disabled_is_cut_off_everywhere_and_enabled_comes_back() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let product = Product::new(&cluster).await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let ana = product.user("Ana", false).await?;
    let (phone, laptop) = try_join(product.device(&ana), product.device(&ana)).await?;
    let chat = product.group(&[ana.id, ben.id]).await?.id;
    let (anas, other) = (phone.connect(1).await?, laptop.connect(0).await?);
    let bens = ben.connect(1).await?;
    bens.say(chat, "before").await?;
    anas.hears(chat, "before").await?;
    let cursor = anas.cursor()?;

    product.disable(0, ana.id).await?;
    let by = Instant::now() + TOLD;
    for socket in [&anas, &other] {
        socket.expect_close_by(by, 4423).await?;
        let told = socket.events("exception");
        ensure!(told.iter().any(|told| told["code"] == "account_disabled"), "told {told:?}");
    }
    shut_out(&phone, &cluster).await?;
    shut_out(&laptop, &cluster).await?;
    let refresh = json!({"refreshToken": phone.refresh_token});
    let refused = anonymous(&cluster, 1)?.post("/auth/refresh", refresh).await?;
    refused.refused(403, "account_disabled")?;
    ensure!(bens.is_open(), "who is not disabled is left alone");
    bens.say(chat, "meanwhile").await?;

    product.enable(1, ana.id).await?;
    // Nothing was lost but the time.
    let back = phone.resume(0, &cursor).await?;
    ensure!(back.ready()?.resumed, back.failure("it was not resumed"));
    back.hears(chat, "meanwhile").await?;
    back.say(chat, "back again").await?;
    bens.hears(chat, "back again").await?;
    back.check_feeds()
}

#[tokio::test]
async fn that_a_user_was_disabled_ends_nothing_when_it_is_heard_of_too_late() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let product = Product::new(&cluster).await?;
    let ana = product.user("Ana", false).await?;
    let device = product.device(&ana).await?;
    let (anas, other) = (device.connect(0).await?, device.connect(1).await?);
    // As a relay leaves it that dies, and whose change has been taken back since.
    let late = OutboxItem {
        chat: None,
        users: vec![OutboxUser { user_id: ana.id, shard: 0, change: UserChange::Disabled }],
    };
    let late = serde_json::to_string(&late)?;
    let shard = "jsonb_set(payload, '{users,0,shard}', to_jsonb(shard))";
    cluster.sql(&format!(
        "INSERT INTO outbox (lane, payload)
         SELECT id, {shard} FROM users, (SELECT '{late}'::jsonb AS payload) late
         WHERE id = '{}'",
        ana.id
    ))?;
    soon("a worker relays it", async || {
        let left = format!("SELECT count(*) FROM outbox WHERE lane = '{}'", ana.id);
        Ok((cluster.sql(&left)?.trim() == "0").then_some(()))
    })
    .await?;
    // What comes later on the same feed has come, and so has what is said then.
    let chat = product.group(&[ana.id]).await?.id;
    for socket in [&anas, &other] {
        socket.expect("chat_added", |added| added["id"] == json!(chat)).await?;
    }
    product.say(&json!("system"), chat, "still there?").await?;
    for socket in [&anas, &other] {
        socket.hears(chat, "still there?").await?;
        ensure!(socket.is_open() && socket.events("exception").is_empty());
    }

    let by = Instant::now() + TOLD;
    product.disable(0, ana.id).await?;
    for socket in [&anas, &other] {
        socket.expect_close_by(by, 4423).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_outside_issuers_user_is_disabled_too() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let product = Product::new(&cluster).await?;
    let subject = format!("user {}", Uuid::now_v7());
    let token = tokens::outside(&tokens::outside_claims(&subject, "phone"))?;
    let api = anonymous(&cluster, 0)?.with_token(&token);
    let me: User = api.get("/users/me").await?.read(200)?;
    let socket = Socket::connect(cluster.gateway(1).address(), &token).await?;
    product.disable(0, me.id).await?;
    let by = Instant::now() + TOLD;
    socket.expect_close_by(by, 4423).await?;
    api.get("/users/me").await?.refused(403, "account_disabled")?;
    // Nor on a device that nobody has seen before.
    let tablet = tokens::outside(&tokens::outside_claims(&subject, "tablet"))?;
    let tablet = anonymous(&cluster, 1)?.with_token(&tablet);
    tablet.get("/users/me").await?.refused(403, "account_disabled")?;
    product.enable(0, me.id).await?;
    api.get("/users/me").await?.expect(200)?;
    tablet.get("/users/me").await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn a_servers_retries_through_any_node_are_one_message() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let product = Product::new(&cluster).await?;
    let (ana, bot) = (product.user("Ana", false).await?, product.user("Helper", true).await?);
    let chat = product.group(&[ana.id, bot.id]).await?.id;
    let anas = product.device(&ana).await?.connect(1).await?;
    let path = format!("/server/chats/{chat}/messages");
    for (send_as, client_msg_id) in [
        (json!("system"), Uuid::now_v7().to_string()),
        (json!(bot.id), "order-1138/paid".to_owned()),
        (json!(ana.id), Uuid::now_v7().to_string()),
    ] {
        let content = format!("once as {send_as}");
        let body = json!({"sendAs": send_as, "content": content, "clientMsgId": client_msg_id});
        let sends = (0..6).map(async |n| {
            let answer = product.api(n % 2).post(&path, body.clone()).await?;
            let status = answer.status();
            Ok::<_, anyhow::Error>((status, answer.read::<Sent>(status)?))
        });
        let sent = try_join_all(sends).await?;
        let new = sent.iter().filter(|(status, sent)| *status == 201 && !sent.duplicate).count();
        assert_eq!(new, 1, "{sent:?}");
        assert!(sent.iter().all(|(status, sent)| (*status == 200) == sent.duplicate), "{sent:?}");
        assert!(sent.iter().all(|(_, one)| (one.id, one.seq) == (sent[0].1.id, sent[0].1.seq)));
        anas.hears(chat, &content).await?;
    }
    product.say(&json!("system"), chat, "the end").await?;
    anas.hears(chat, "the end").await?;
    let contents: Vec<_> =
        product.history(chat).await?.into_iter().map(|message| message.content).collect();
    assert_eq!(contents.len(), 4, "{contents:?}");
    assert_eq!(anas.events("message").len(), 4);
    anas.check_feeds()
}

/// The next question, with the cursor at its place.
async fn asked(socket: &Socket, chat: ChatId) -> Result<(Message, String)> {
    loop {
        let (data, cursor) = socket.expect_placed("message").await?;
        let message: Message = serde_json::from_value(data)?;
        if message.chat_id == chat && message.content.starts_with("question") {
            return Ok((message, cursor.context("no cursor")?));
        }
    }
}

/// A bot that answers each question before it reads the next. Once it falls over, and remembers only
/// where it stood a while before: it answers again what it has answered already, on the other node.
async fn answer(
    bot: &ServerUser,
    device: &Device,
    mut socket: Socket,
    gateway: usize,
    chat: ChatId,
) -> Result<()> {
    let mut stood = Vec::new();
    let mut falls = true;
    while stood.len() < QUESTIONS {
        let (message, cursor) = asked(&socket, chat).await?;
        let question = format!("question {}", stood.len());
        assert_eq!(message.content, question, "{} is asked in order", bot.name);
        let answer = json!({
            "chatId": chat, "content": format!("{} to {question}", bot.name),
            "replyTo": message.id, "clientMsgId": format!("re:{}", message.id),
        });
        socket.request("send_message", answer).await?;
        stood.push(cursor);
        if falls && stood.len() == FALL {
            falls = false;
            stood.truncate(FALL - BACK);
            let last = stood.last().context("it stood nowhere")?;
            socket = device.resume(1 - gateway, last).await?;
            ensure!(socket.ready()?.resumed, socket.failure("it was not resumed"));
        }
    }
    Ok(())
}

/// Asks all questions, one after the other, as fast as one may for long.
async fn ask(socket: &Socket, chat: ChatId) -> Result<()> {
    let mut waiting = Vec::new();
    for n in 0..QUESTIONS {
        let id = Uuid::now_v7();
        let data = json!({"chatId": chat, "content": format!("question {n}"), "clientMsgId": id});
        waiting.push(socket.post("send_message", data).await?);
        if waiting.len() == AT_ONCE {
            for request in waiting.drain(..) {
                let reply = socket.reply(request).await?;
                reply.map_err(|error| socket.failure(&format!("refused: {error:?}")))?;
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn two_bots_answer_each_question_once_and_in_order() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let product = Product::new(&cluster).await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let bots = try_join(product.user("Right", true), product.user("Left", true)).await?;
    let chat = product.group(&[ana.id, bots.0.id, bots.1.id]).await?.id;
    let devices = try_join(product.device(&bots.0), product.device(&bots.1)).await?;
    let anas = ana.connect(0).await?;
    // Both are here before anything is asked: what was said before that is history.
    let sockets = try_join(devices.0.connect(0), devices.1.connect(1)).await?;
    let answering = try_join(
        answer(&bots.0, &devices.0, sockets.0, 0, chat),
        answer(&bots.1, &devices.1, sockets.1, 1, chat),
    );
    try_join(ask(&anas, chat), answering).await?;
    let said = product.history(chat).await?;
    for bot in [&bots.0, &bots.1] {
        let answers: Vec<_> = said
            .iter()
            .filter(|message| message.sender_id == bot.id)
            .map(|message| message.content.clone())
            .collect();
        let expected: Vec<_> =
            (0..QUESTIONS).map(|n| format!("{} to question {n}", bot.name)).collect();
        assert_eq!(answers, expected);
    }
    assert_eq!(said.len(), 3 * QUESTIONS);
    anas.check_feeds()
}
