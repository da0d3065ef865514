//! Many people at once, for the benches: users of an outside issuer, in groups by chance.

use std::env;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use natter_protocol::{
    ids::{ChatId, UserId},
    rest::User,
    server::Chat,
};
use rand::seq::SliceRandom;
use serde_json::json;

use crate::{Api, soon, tokens};

/// Requests and handshakes under way at once.
pub const AT_ONCE: usize = 32;

/// One of many.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The account.
    pub id: UserId,
    /// What it shows.
    pub token: String,
}

/// A number out of the environment.
///
/// # Errors
/// When it is none.
pub fn setting(name: &str, default: usize) -> Result<usize> {
    match env::var(name) {
        Ok(value) => value.parse().with_context(|| format!("{name} is no number")),
        Err(_) => Ok(default),
    }
}

/// Users of an outside issuer are made by their first request.
///
/// # Errors
/// When a gateway refuses one.
pub async fn invite(apis: &[Api], count: usize) -> Result<Vec<Guest>> {
    let guests = (0..count).map(async |n| {
        let claims = tokens::outside_claims(&format!("guest {n}"), "phone");
        let token =
            tokens::outside(&tokens::altered(&claims, "name", json!(format!("Guest {n}"))))?;
        let api = apis[n % apis.len()].with_token(&token);
        // So many first times at once may be more than a machine with other things to do can take.
        let user: User = soon("a guest is let in", async || {
            let answer = api.get("/users/me").await?;
            if answer.status() == 503 { Ok(None) } else { answer.read(200).map(Some) }
        })
        .await?;
        anyhow::Ok(Guest { id: user.id, token })
    });
    stream::iter(guests).buffered(AT_ONCE).try_collect().await
}

/// Everybody gets into the same number of chats, with others each time. Tells the chats and who
/// made them.
///
/// # Errors
/// When a gateway refuses one.
pub async fn introduce(
    apis: &[Api],
    guests: &[Guest],
    rounds: usize,
    participants: usize,
) -> Result<Vec<(ChatId, usize)>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for _ in 0..rounds {
        let mut order: Vec<usize> = (0..guests.len()).collect();
        order.shuffle(&mut rand::rng());
        groups.extend(order.chunks_exact(participants).map(<[usize]>::to_vec));
    }
    let made = groups.iter().enumerate().map(async |(n, group)| {
        let (first, others) = group.split_first().context("nobody")?;
        let ids: Vec<_> = others.iter().map(|other| guests[*other].id).collect();
        let body = json!({"isGroup": true, "title": format!("Chat {n}"), "participantIds": ids});
        let api = apis[n % apis.len()].with_token(&guests[*first].token);
        let chat: Chat = api.post("/chats", body).await?.read(201)?;
        anyhow::Ok((chat.id, *first))
    });
    stream::iter(made).buffered(AT_ONCE).try_collect().await
}
