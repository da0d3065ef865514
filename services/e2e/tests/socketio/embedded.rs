//! What a product that Natter is embedded in decides, as stock clients are told of it: who is let in, and
//! what may be said.

use anyhow::{Context, Result, ensure};
use natter_e2e::{
    Mode, Product, Stage,
    balancer::Kind,
    censor::{Does, censor, checked},
    peers::Language,
};
use natter_protocol::{
    error::{ErrorCode, Outcome, WireError},
    server::Sent,
};
use serde_json::json;
use uuid::Uuid;

use crate::socketio::{CLIENTS, STAGE, Scenery};

/// Where messages are checked before they are published, and refused when they cannot be.
static CHECKED: Stage = Stage::with(|builder| {
    checked(builder.gateway_env("NATTER_EVENTS_PER_SECOND", "1000"), 2_000, "refuse")
});

async fn disabled(language: Language, mode: Mode) -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let product = Product::new(&cluster).await?;
    let scenery = Scenery::new(&cluster, language).await?;
    let (ana, chat) = (&scenery.ana, scenery.chat);
    let dial = scenery.dial(ana, mode);
    let anas = scenery.peers.connect("Ana", &dial).await?;
    if (language, mode) == (Language::JavaScript, Mode::Upgrade) {
        anas.expect("upgrade", |_| true).await?;
        // The client says so first; once it is answered the server has moved the session too.
        anas.request("presence_subscribe", json!({"userIds": []})).await?;
    }
    let bens = scenery.ben.connect(1).await?;
    bens.say(chat, "before").await?;
    anas.hears(chat, "before").await?;

    product.disable(0, ana.id).await?;
    anas.expect("exception", |told| {
        told["code"] == "account_disabled" && told["status"] == "error"
    })
    .await?;
    anas.expect("closing", |told| told["code"] == 4423 && told["reason"].is_string()).await?;
    let gone = anas.expect("disconnect", |_| true).await?;
    if language == Language::JavaScript {
        ensure!(gone == json!({"reason": "io server disconnect", "active": false}), "{gone}");
    } else {
        ensure!(gone["reason"] == "server disconnect", "{gone}");
    }
    bens.say(chat, "meanwhile").await?;
    // Whoever tries all the same is refused, whichever node it is.
    let kind = if mode == Mode::WebSocket { Kind::WebSocket } else { Kind::Handshake };
    for gateway in 0..cluster.gateways().len() {
        scenery.balancer.send_next(kind, gateway);
        let again = scenery.peers.dial("again", &dial).await?;
        let refused = again.expect("connect_error", |_| true).await?;
        assert_eq!(refused["data"]["code"], "account_disabled", "{language:?}, {mode:?}");
    }

    product.enable(1, ana.id).await?;
    let back = if language == Language::JavaScript {
        // What it missed comes, as after any other break.
        anas.reconnect().await?;
        anas.recovered().await?;
        anas.hears(chat, "meanwhile").await?;
        anas
    } else {
        scenery.peers.connect("back", &dial).await?
    };
    bens.say(chat, "after").await?;
    back.hears(chat, "after").await?;
    back.check_feeds()
}

#[tokio::test]
async fn a_user_who_is_disabled_is_told_and_refused_until_enabled() -> Result<()> {
    for (language, mode) in CLIENTS {
        disabled(language, mode).await?;
    }
    Ok(())
}

async fn judged(language: Language, mode: Mode) -> Result<()> {
    let cluster = CHECKED.among_others().await?;
    let scenery = Scenery::new(&cluster, language).await?;
    let chat = scenery.chat;
    let anas = scenery.peers.connect("Ana", &scenery.dial(&scenery.ana, mode)).await?;
    let bens = scenery.ben.connect(1).await?;
    let text = |about: &str| format!("{about} {}", Uuid::now_v7());
    let (spam, curse, trouble) = (text("spam"), text("curse"), text("trouble"));
    let refuse = json!({"action": "refuse", "code": "spam", "message": "No advertising."});
    censor().about(&spam, Does::Answers(refuse));
    censor().about(&curse, Does::Answers(json!({"action": "replace", "content": "***"})));
    censor().about(&trouble, Does::Says(500, "no"));
    let draft =
        |content: &str| json!({"chatId": chat, "content": content, "clientMsgId": Uuid::now_v7()});

    // In the acknowledgement, and as an event where none was asked for.
    let refused = anas.refused("send_message", draft(&spam)).await?;
    let expected = WireError {
        reason: Some("spam".to_owned()),
        ..WireError::new(ErrorCode::Refused, "No advertising.")
    };
    assert_eq!(refused, expected, "{language:?}, {mode:?}");
    anas.emit("send_message", draft(&spam)).await?;
    let told = anas.expect("exception", |_| true).await?;
    let expected = json!({
        "status": "error", "code": "refused", "message": "No advertising.", "reason": "spam",
    });
    assert_eq!(told, expected, "{language:?}, {mode:?}");

    // The other text is in the acknowledgement, and what everybody else hears.
    let replaced: Sent =
        serde_json::from_value(anas.request("send_message", draft(&curse)).await?)?;
    assert_eq!(replaced.content.as_deref(), Some("***"), "{language:?}, {mode:?}");
    let heard = bens.hears(chat, "***").await?;
    assert_eq!((heard.id, heard.seq), (replaced.id, replaced.seq));
    let edit = json!({"chatId": chat, "messageId": replaced.id, "content": spam});
    let refused = anas.refused("edit_message", edit).await?;
    assert_eq!((refused.code, refused.reason.as_deref()), (ErrorCode::Refused, Some("spam")));

    // A check that fails: nothing was sent, and the client may try again by itself.
    let refused = anas.refused("send_message", draft(&trouble)).await?;
    assert_eq!((refused.code, refused.outcome), (ErrorCode::Unavailable, Some(Outcome::NotSent)));
    let wait = refused.retry_after_ms.context("not when to try again")?;
    ensure!(wait >= 1_000, "{refused:?}");
    censor().forget(&trouble);
    anas.request("send_message", draft(&trouble)).await?;

    bens.hears(chat, &trouble).await?;
    let contents: Vec<_> =
        bens.events("message").into_iter().map(|message| message["content"].clone()).collect();
    assert_eq!(contents, [json!("***"), json!(trouble)], "{language:?}, {mode:?}");
    anas.check_feeds()?;
    bens.check_feeds()?;
    censor().nothing_wrong()
}

#[tokio::test]
async fn what_the_check_of_messages_decides_is_in_the_acknowledgement() -> Result<()> {
    for (language, mode) in CLIENTS {
        judged(language, mode).await?;
    }
    Ok(())
}
