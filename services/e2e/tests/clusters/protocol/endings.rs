//! Ends that are not the client's wish.

use anyhow::{Context, Result, ensure};
use natter_e2e::{
    Person,
    engine::{KINDS, Kind},
};
use serde_json::json;

use super::{
    Ground,
    session::{connected, ended, event, packet},
};

#[tokio::test]
async fn who_says_nothing_at_all_is_gone() -> Result<()> {
    let ground = Ground::new().await?;
    let ben = Person::register(&ground.scene, "Ben").await?;
    ground.ana.api(0).direct(&ben).await?;
    let bens = ben.connect(0).await?;
    let mut link = connected(&ground, Kind::Polling).await?;
    let watched = bens.request("presence_subscribe", json!({"userIds": [ground.ana.id]})).await?;
    ensure!(watched["items"][0]["online"] == true, "{watched}");
    let patience = link.open()?.patience();
    bens.expect_within(patience, "presence", |data| data["online"] == false).await?;
    ended(&mut link).await?;
    ground.finish()
}

#[tokio::test]
async fn a_device_that_is_revoked_is_told_so_and_need_not_come_back() -> Result<()> {
    for kind in KINDS {
        let ground = Ground::new().await?;
        let tablet = ground.ana.device("tablet").await?;
        let mut link = connected(&ground, kind).await?;
        let path = format!("/devices/{}", ground.ana.first.id);
        tablet.api(1).delete(&path).await?.expect(204)?;
        let closing = event(&mut link, "closing").await?;
        ensure!(closing.len() == 1 && closing[0]["code"] == 4403, "{closing:?}");
        // Stock clients do not try again after this packet.
        ensure!(packet(&mut link).await? == "41");
        let code = ended(&mut link).await.with_context(|| format!("{kind:?}"))?;
        ensure!(kind == Kind::Polling || code == Some(4403), "{code:?}");
        ground.finish()?;
    }
    Ok(())
}
