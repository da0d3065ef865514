//! What a deployment may decide the other way round.

use anyhow::Result;
use natter_e2e::{Person, Stage};
use serde_json::{Value, json};

static STAGE: Stage = Stage::with(|builder| {
    builder
        .gateway_env("NATTER_OWN_DEVICES_GET_MESSAGES", "false")
        .gateway_env("NATTER_OWN_DEVICES_SEE_TYPING", "true")
});

#[tokio::test]
async fn own_devices_get_no_messages() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let tablet = ana.device("tablet").await?;
    let (phone, here, there) =
        (ana.connect(0).await?, tablet.connect(0).await?, tablet.connect(1).await?);
    let bens = ben.connect(1).await?;
    let cursor = there.cursor()?;
    phone.say(chat, "for Ben").await?;
    bens.hears(chat, "for Ben").await?;
    ana.api(1).say(chat, "by post").await?;
    bens.hears(chat, "by post").await?;
    // What Ben says comes after that on the same way.
    bens.say(chat, "thanks").await?;
    for own in [&phone, &here, &there] {
        own.hears(chat, "thanks").await?;
        assert_eq!(own.events("message").len(), 1, "{}", own.failure("its user's own"));
    }
    // Nor are they replayed; the history has them all.
    let back = tablet.resume(0, &cursor).await?;
    back.expect("resume_done", |_| true).await?;
    assert_eq!(back.events("message").len(), 1, "{}", back.failure("its user's own"));
    let page = ana.api(0).history(chat, "limit=3").await?;
    let told: Vec<&str> = page.messages.iter().map(|message| message.content.as_str()).collect();
    assert_eq!(told, ["for Ben", "by post", "thanks"]);
    Ok(())
}

#[tokio::test]
async fn own_devices_see_typing() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let tablet = ana.device("tablet").await?;
    let phone = ana.connect(0).await?;
    let others = [tablet.connect(0).await?, tablet.connect(1).await?, ben.connect(1).await?];
    for (event, typing) in [("typing_start", true), ("typing_stop", false)] {
        phone.tell(event, chat).await?;
        for other in &others {
            let told = json!({"chatId": chat, "userId": ana.id, "typing": typing});
            other.expect("user_typing", |data| *data == told).await?;
        }
    }
    // The one that types does not see itself; what Ben says came after on the same way.
    others[2].say(chat, "I see").await?;
    phone.hears(chat, "I see").await?;
    assert_eq!(phone.events("user_typing"), [Value::Null; 0]);
    Ok(())
}
