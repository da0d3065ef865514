//! An endpoint as a worker sees it: where it is, what it wants, and what its lanes share.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use natter_bus::Hooked;
use natter_outbound::{
    Answer, Outcome,
    breaker::Circuit,
    exchange::exchange,
    signing::{NoSecret, Signer},
};
use natter_protocol::{
    feed::{Entry, Feed},
    webhook::{HookCursor, envelope},
};
use natter_runtime::context;
use natter_store::WebhookEndpoint;
use reqwest::{Client, StatusCode};
use time::OffsetDateTime;
use tokio::{sync::Semaphore, time::Instant};
use tracing::info_span;
use uuid::Uuid;

/// However long an endpoint asks to be left alone, it is looked again after this time whether all of it
/// still wants to be. A feed's own pause is as long as was asked for.
const LONGEST_HOLD: Duration = Duration::from_mins(15);

/// What the lanes of an endpoint share, in one worker.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Events that may be with it at the same time.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) circuit: Arc<Circuit>,
    hold: Mutex<Option<Instant>>,
}

impl Shared {
    pub(crate) fn new(places: usize, circuit: Arc<Circuit>) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), circuit, hold: Mutex::default() }
    }

    /// It asks to be left alone for so long.
    pub(crate) fn hold(&self, wait: Duration) {
        let until = Instant::now() + wait.min(LONGEST_HOLD);
        let mut hold = self.hold.lock().unwrap_or_else(PoisonError::into_inner);
        *hold = hold.max(Some(until));
    }

    /// For how long it asks to be left alone.
    pub(crate) fn held(&self) -> Option<Duration> {
        let hold = *self.hold.lock().unwrap_or_else(PoisonError::into_inner);
        let left = hold?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}

/// An endpoint, as it is now.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) endpoint: WebhookEndpoint,
    pub(crate) shared: Arc<Shared>,
    signer: Signer,
    client: Client,
}

impl Target {
    pub(crate) fn new(
        endpoint: WebhookEndpoint,
        shared: Arc<Shared>,
        client: Client,
    ) -> Result<Self, NoSecret> {
        let signer = Signer::new(&endpoint.secret)?;
        Ok(Self { endpoint, shared, signer, client })
    }

    /// The entry of an event that the endpoint wants to be told of.
    pub(crate) fn wanted(&self, event: &Hooked) -> Option<Entry> {
        // One that only a newer version knows is for a worker of that version.
        let entry: Entry = serde_json::from_slice(&event.body).ok()?;
        self.endpoint.filter.wants(event.feed, &entry.event).then_some(entry)
    }

    /// What an event is called that it is told of.
    pub(crate) fn kind_of(&self, event: &Hooked) -> String {
        let cursor = HookCursor { shard: event.feed.shard, seq: event.seq };
        let told = self.wanted(event).and_then(|entry| {
            envelope(event.feed, (event.log_seq, event.at), cursor, &entry).ok().flatten()
        });
        told.map(|told| told.r#type).unwrap_or_default()
    }

    /// Tells it of an event. None for what there is nothing to tell of.
    pub(crate) async fn tell(&self, event: &Hooked) -> Option<Outcome> {
        let entry = self.wanted(event)?;
        let cursor = HookCursor { shard: event.feed.shard, seq: event.seq };
        let told = envelope(event.feed, (event.log_seq, event.at), cursor, &entry);
        let body = told.and_then(|told| told.map(|told| serde_json::to_vec(&told)).transpose());
        let span = context::follow(
            event.traceparent.as_deref(),
            || info_span!("webhook", endpoint = %self.endpoint.name, outcome = tracing::field::Empty),
        );
        let outcome = match body {
            Ok(body) => self.send(&event_id(event.feed, &event.name), body?).await,
            Err(error) => retry(format_args!("it cannot be written: {error}")),
        };
        span.record("outcome", outcome.as_str());
        Some(outcome)
    }

    /// Sends it something that is no event.
    pub(crate) async fn test(&self, test: Uuid) -> Outcome {
        let now = OffsetDateTime::now_utc();
        let at = natter_protocol::timestamp::truncate(now);
        let at = at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
        let body = serde_json::json!({"type": "test", "timestamp": at, "data": {}});
        self.send(&format!("test_{}", test.simple()), body.to_string().into_bytes()).await
    }

    async fn send(&self, id: &str, body: Vec<u8>) -> Outcome {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let request = self.client.post(&self.endpoint.url);
        match exchange(self.signer.signed(request, id, now, body)).await {
            Ok(reply) => match reply.outcome(&[StatusCode::GONE], None) {
                // Whatever else it says, it may say otherwise once somebody has looked.
                Outcome::Refused { answer } => reply.retry(answer),
                outcome => outcome,
            },
            Err(outcome) => outcome,
        }
    }
}

fn retry(why: impl std::fmt::Display) -> Outcome {
    Outcome::Retry { after: None, answer: Answer::new(why), sent: true }
}

/// `webhook-id`: made of the feed and of what whoever published the entry called it, so that it is the same
/// each time, also where a log has an entry twice.
pub(crate) fn event_id(feed: Feed, name: &str) -> String {
    let both = [feed.id.as_bytes().as_slice(), name.as_bytes()].concat();
    format!("evt_{}", URL_SAFE_NO_PAD.encode(&digest(&SHA256, &both).as_ref()[..16]))
}

#[cfg(test)]
mod tests {
    use natter_protocol::ids::ChatId;

    use super::*;

    #[test]
    fn an_event_has_one_name_and_no_other_event_has_it() {
        let (one, other) = (Feed::chat(0, ChatId::generate()), Feed::chat(0, ChatId::generate()));
        assert_eq!(event_id(one, "a"), event_id(one, "a"));
        assert!(
            event_id(one, "a") != event_id(one, "b") && event_id(one, "a") != event_id(other, "a")
        );
        assert_eq!(event_id(one, "a").len(), 26);
    }
}
