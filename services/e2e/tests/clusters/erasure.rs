//! A worker dies over what a deleted account has said. Another may go on half a minute later, so this is told
//! early, beside many others.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use natter_e2e::{Person, soon, soon::within};
use serde_json::json;

use crate::stories::{
    APART,
    rights::{ERASED, all, deleted, react, sent, until_written, upload},
};

#[tokio::test]
async fn what_an_account_has_said_is_erased_though_a_worker_dies_over_it() -> Result<()> {
    /// So many that it takes a while, and as many as are not written yet.
    const SAID: usize = 900;
    const UNWRITTEN: usize = 60;
    let cluster = APART.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let group = ben.api(0).group("Talk", &[&ana]).await?.id;
    let left = ben.api(0).group("Left before", &[&ana]).await?.id;
    let direct = ana.api(0).direct(&ben).await?.id;
    let bens = ben.connect(1).await?;
    let anas = ana.connect(0).await?;
    anas.say(left, "said before leaving").await?;
    ana.api(0).post(&format!("/chats/{left}/leave"), json!({})).await?.expect(200)?;
    let his = ben.api(0).say(group, "his own zebra").await?;
    react(&ana.api(1), group, his.id).await?;
    let file = upload(&ana.api(0), group, "hers.txt", b"hers".to_vec()).await?;
    let mut last = 0;
    for some in (0..SAID).collect::<Vec<_>>().chunks(50) {
        let said = some.iter().map(|n| {
            let api = ana.api(n % 2);
            async move { api.say(group, &format!("her zebra {n}")).await }
        });
        last = try_join_all(said).await?.iter().map(|sent| sent.seq).max().context("said")?;
    }
    anas.say(direct, "between us").await?;
    until_written(&ben.api(0), group, last).await?;

    // What was said just before is in the log alone.
    cluster.worker(0).kill().await?;
    for n in 0..UNWRITTEN {
        ana.api(n % 2).say(group, &format!("unwritten {n}")).await?;
    }
    deleted(&ana, 1).await?;
    anas.expect_close(4403).await?;
    cluster.worker(0).start().await?;
    let mine = ana.id;
    let count = |what: &str| -> Result<usize> {
        let statement =
            format!("SELECT count(*) FROM messages WHERE sender_id = '{mine}' AND {what}");
        Ok(cluster.sql(&statement)?.trim().parse()?)
    };
    within(ERASED, "it has begun", async || {
        Ok((count("kind = 'message' AND deleted_at IS NOT NULL")? >= 100).then_some(()))
    })
    .await?;
    cluster.worker(0).kill().await?;
    let so_far = count("kind = 'message' AND deleted_at IS NOT NULL")?;
    ensure!(so_far < SAID, "it was killed in the middle, not after {so_far}");
    cluster.worker(0).start().await?;
    let all_of_it = SAID + UNWRITTEN + 1 + 1 + 1;
    within(ERASED, "all of it is erased", async || {
        Ok((count("kind = 'message' AND deleted_at IS NOT NULL")? == all_of_it).then_some(()))
    })
    .await?;

    let done = format!("SELECT step FROM erasures WHERE user_id = '{}'", ana.id);
    within(ERASED, "the erasure is done", async || {
        Ok((cluster.sql(&done)?.trim() == "done").then_some(()))
    })
    .await?;
    ensure!(count("kind = 'message' AND (content <> '' OR media IS NOT NULL)")? == 0);
    for (gateway, chat) in [(0, group), (1, group), (0, direct), (1, left)] {
        for message in all(&ben.api(gateway), chat).await? {
            if message["senderId"] == json!(ana.id) && message["contentType"] != "system" {
                ensure!(message["deleted"] == true && message["content"] == "", "{message}");
                ensure!(message["sender"]["name"] == "Deleted user", "{message}");
            } else if message["id"] == json!(his.id) {
                ensure!(message["content"] == "his own zebra", "{message}");
                ensure!(message["reactions"].as_array().is_none_or(Vec::is_empty), "{message}");
            }
        }
    }
    // Whoever was there has heard of all of it.
    soon("he is told of the last", async || {
        let told = bens.events("message_deleted");
        let told = told.iter().filter(|data| data["actorId"] == json!(ana.id));
        let mut told: Vec<_> = told.map(|data| data["messageId"].to_string()).collect();
        told.sort_unstable();
        told.dedup();
        Ok((told.len() == all_of_it).then_some(()))
    })
    .await?;
    let path = format!("/chats/{group}/messages/{}/media", sent(&file)?);
    ben.api(0).get(&path).await?.refused(404, "not_found")?;
    soon("only his is found", async || {
        let found = ben.api(1).search("zebra", "limit=50").await?;
        Ok((found.items.len() == 1).then_some(()))
    })
    .await?;
    bens.check_feeds()
}
