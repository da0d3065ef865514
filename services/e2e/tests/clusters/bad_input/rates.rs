//! Too much of everything.

use anyhow::Result;
use futures::future::try_join_all;
use natter_e2e::{Person, person::anonymous, soon, stage::nothing_panicked};
use natter_protocol::error::ErrorCode;
use serde_json::json;

use super::{STAGE, Scenery, scenery, usable};

#[tokio::test]
async fn too_much_is_refused_for_a_while_and_far_too_much_ends_the_connection() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let Scenery { ana, direct, .. } = scenery(&cluster).await?;
    let (socket, other) = (ana.connect(0).await?, ana.connect(0).await?);
    let mut limited = 0;
    // On a busy machine 250 may take longer than they are let through in.
    for _ in 0..40 {
        let mut asked = Vec::new();
        for _ in 0..250 {
            asked.push(socket.post("typing_ping", json!({"chatId": direct})).await?);
        }
        for id in asked {
            if let Err(error) = socket.reply(id).await? {
                assert_eq!(error.code, ErrorCode::RateLimited);
                let after = error.retry_after_ms;
                assert!(after.is_some_and(|ms| (1..5_000).contains(&ms)), "{error:?}");
                limited += 1;
            }
        }
        if limited > 0 {
            break;
        }
    }
    assert!(limited > 0, "250 at once, again and again");
    assert!(socket.is_open());
    soon("it is let through again", async || {
        Ok(socket.ask("typing_stop", json!({"chatId": direct})).await?.ok())
    })
    .await?;
    // The other connection has a measure of its own, and fills it until it overflows.
    usable(&other).await?;
    for _ in 0..20_000 {
        if other.post("typing_ping", json!({"chatId": direct})).await.is_err() || !other.is_open() {
            break;
        }
    }
    other.expect_close(4429).await?;
    usable(&ana.connect(0).await?).await?;
    nothing_panicked(&cluster)
}

#[tokio::test]
async fn a_device_has_so_many_connections_and_the_oldest_goes() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let mut sockets = Vec::new();
    for _ in 0..5 {
        sockets.push(ana.connect(0).await?);
    }
    sockets[0].expect_close(4409).await?;
    for socket in &sockets[1..] {
        usable(socket).await?;
    }
    nothing_panicked(&cluster)
}

#[tokio::test]
async fn passwords_cannot_be_tried_at_will() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let api = anonymous(&cluster, 0)?;
    for n in 0..40 {
        let body = json!({"phone": ana.phone, "password": format!("try number {n}")});
        let answer = api.post("/auth/login", body).await?;
        if answer.status == 429 {
            let body = answer.refused(429, "rate_limited")?;
            assert!(body["retryAfterMs"].as_u64().is_some_and(|ms| ms > 0), "{body}");
            return nothing_panicked(&cluster);
        }
        answer.refused(401, "unauthenticated")?;
    }
    anyhow::bail!("40 tries, and no end")
}

#[tokio::test]
async fn rest_cannot_be_called_at_will() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let api = ana.api(1);
    let (mut let_through, mut limited) = (0, 0);
    // On a busy machine 200 may take longer than they are let through in.
    for _ in 0..40 {
        for answer in try_join_all((0..200).map(|_| api.get("/users/me"))).await? {
            if answer.status == 200 {
                let_through += 1;
            } else {
                answer.refused(429, "rate_limited")?;
                limited += 1;
            }
        }
        if limited > 0 {
            break;
        }
    }
    assert!(let_through >= 100, "{let_through} of a burst of 100");
    assert!(limited > 0, "200 at once, again and again");
    // Each user has a measure of their own.
    let ben = Person::register(&cluster, "Ben").await?;
    ben.api(1).get("/users/me").await?.expect(200)?;
    soon("it is let through again", async || {
        Ok((api.get("/users/me").await?.status == 200).then_some(()))
    })
    .await?;
    nothing_panicked(&cluster)
}
