//! Receipts, as stock clients ask for them and hear of them.

use anyhow::Result;
use natter_e2e::{Mode, peers::Language};
use serde_json::json;

use crate::socketio::{STAGE, Scenery};

#[tokio::test]
async fn reading_shows_on_both_transports() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    for mode in [Mode::WebSocket, Mode::Polling] {
        let scenery = Scenery::new(&cluster, Language::JavaScript).await?;
        let (chat, ana, ben) = (scenery.chat, scenery.ana.id, scenery.ben.id);
        let anas = scenery.ana(mode).await?;
        let tablet = scenery.ana.device("tablet").await?.connect(0).await?;
        let bens = scenery.ben.connect(1).await?;
        let said = bens.say(chat, "hello").await?.seq;
        anas.hears(chat, "hello").await?;
        let up_to = |seq| json!({"chatId": chat, "seq": seq});

        assert_eq!(anas.request("delivered", up_to(said)).await?, json!({}));
        assert_eq!(anas.request("read", up_to(said)).await?, json!({}));
        let told = json!({"chatId": chat, "userId": ana, "seq": said});
        for event in ["delivered", "read"] {
            bens.expect(event, |data| *data == told).await?;
        }
        tablet.expect("read", |data| *data == told).await?;

        let answer = tablet.say(chat, "I see").await?.seq;
        bens.hears(chat, "I see").await?;
        bens.request("read", up_to(answer)).await?;
        let told = json!({"chatId": chat, "userId": ben, "seq": answer});
        anas.expect("read", |data| *data == told).await?;
        assert_eq!(anas.events("read").len(), 1, "{}", anas.failure("not its own"));

        let muted = anas.request("mute_chat", json!({"chatId": chat, "forever": true})).await?;
        assert_eq!(muted["me"]["muted"], true);
        anas.request("hide_chat", json!({"chatId": chat})).await?;
        for socket in [&*anas, &*tablet] {
            socket.expect("chat_updated", |data| data["me"]["muted"] == true).await?;
            socket.expect("chat_updated", |data| data["me"]["hidden"] == true).await?;
        }
        assert_eq!(anas.refused("read", up_to(0)).await?.code.as_str(), "bad_request");
    }
    Ok(())
}
