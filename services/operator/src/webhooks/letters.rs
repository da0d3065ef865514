//! Events that an endpoint could not be told of: listed, and told after all.

use natter_protocol::webhook::HookCursor;
use natter_store::WebhookLetter;
use serde::Serialize;

use super::named;
use crate::{
    config::{EndpointLettersArgs, ReplayLettersArgs},
    outcome::{Failure, Outcome},
    text::{Table, age, moment, print, print_json, since},
};

/// A letter, as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    id: i64,
    event_id: String,
    r#type: String,
    cursor: HookCursor,
    feed: String,
    at: String,
    died_at: String,
    age_seconds: u64,
    attempts: u16,
    answer: String,
    replaying: bool,
}

impl From<WebhookLetter> for Shown {
    fn from(letter: WebhookLetter) -> Self {
        let of = letter.of;
        let kind = if of.feed.chat_id().is_some() { "chat" } else { "user" };
        Self {
            id: letter.id,
            event_id: of.event_id,
            r#type: of.r#type,
            cursor: HookCursor { shard: letter.shard, seq: of.seq },
            feed: format!("{kind} {}", of.feed.id),
            at: moment(of.at),
            died_at: moment(letter.died_at),
            age_seconds: since(letter.died_at).as_secs(),
            attempts: of.attempts,
            answer: of.answer,
            replaying: letter.replaying,
        }
    }
}

/// `webhook dead-letters`.
///
/// # Errors
/// When there is no such endpoint, or Postgres does not answer.
pub async fn list(args: &EndpointLettersArgs) -> Result<Outcome, Failure> {
    let store = args.servers.store()?;
    let endpoint = named(&store, &args.endpoint).await?;
    let letters = store.webhook_letters(endpoint.id, args.after, args.limit).await?;
    let letters: Vec<Shown> = letters.into_iter().map(Into::into).collect();
    if args.json {
        print_json(&letters);
        return Ok(Outcome::Well);
    }
    let mut table = Table::new(&["ID", "TYPE", "CURSOR", "AGE", "TRIES", "FEED", "ANSWER"]);
    for letter in &letters {
        table.row([
            letter.id.to_string(),
            letter.r#type.clone(),
            letter.cursor.to_string(),
            age(std::time::Duration::from_secs(letter.age_seconds)),
            letter.attempts.to_string(),
            letter.feed.clone(),
            letter.answer.clone(),
        ]);
    }
    let more = match letters.last() {
        Some(last) if letters.len() == args.limit as usize => {
            format!("more may follow: --after {}\n", last.id)
        }
        _ => String::new(),
    };
    print(&format!("{table}{more}"));
    Ok(Outcome::Well)
}

/// `webhook replay-letters`.
///
/// # Errors
/// When there is no such endpoint or letter, or Postgres does not answer.
pub async fn replay(args: &ReplayLettersArgs) -> Result<Outcome, Failure> {
    #[derive(Serialize)]
    struct Asked {
        letters: u64,
    }
    let store = args.servers.store()?;
    let endpoint = named(&store, &args.endpoint).await?;
    let ids = (!args.all).then_some(args.ids.as_slice());
    let letters = store.replay_letters(endpoint.id, ids).await?;
    if args.json {
        print_json(&Asked { letters });
    } else {
        let plural = if letters == 1 { "" } else { "s" };
        print(&format!("{letters} letter{plural} will be told, or stay with the new answer\n"));
    }
    let all = args.all || letters == args.ids.len() as u64;
    Ok(if all { Outcome::Well } else { Outcome::Wrong })
}
