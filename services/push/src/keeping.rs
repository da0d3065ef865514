//! What came of attempts, written in batches. The queue hears of it only then.

use std::{sync::Arc, time::Duration};

use natter_outbound::backoff::pause;
use natter_protocol::notify::{PushReason, PushState};
use natter_runtime::causes;
use natter_store::{Attempted, Store};
use time::OffsetDateTime;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use crate::{
    config::PushConfig,
    measures,
    providers::Outcome,
    sending::{Kept, Sent},
};

/// Outcomes written at once.
const BATCH: usize = 512;
/// Between two tries to write them.
const AGAIN: Duration = Duration::from_millis(250);

/// Where [`Sent`]s go.
pub(crate) type Outcomes = mpsc::Sender<Sent>;

/// Writes what comes, until all who send have ended.
pub(crate) async fn keep(store: Store, config: Arc<PushConfig>, mut sent: Kept) {
    let mut batch = Vec::with_capacity(BATCH);
    while sent.recv_many(&mut batch, BATCH).await > 0 {
        let now = OffsetDateTime::now_utc();
        let came: Vec<(Attempted, Sent)> = batch
            .drain(..)
            .map(|sent| (attempted(&config, &sent, now, rand::random_range(0.0..1.0)), sent))
            .collect();
        let attempts: Vec<Attempted> =
            came.iter().map(|(attempted, _)| attempted.clone()).collect();
        if !write(&store, &attempts, config.lease).await {
            // They are handed out again, and are sent again under the same names.
            continue;
        }
        for (attempted, sent) in came {
            if let Some(again) = attempted.again {
                sent.token.again(again);
            } else {
                measures::ended(sent.provider, attempted.state).increment(1);
                sent.token.done();
            }
            if let (PushState::Delivered, Some(about)) = (attempted.state, &sent.push.about) {
                let took = Duration::try_from(now - about.sent_at).unwrap_or_default();
                measures::latency_seconds().record(took);
            }
        }
    }
}

/// Tries for as long as nobody else may take them over.
async fn write(store: &Store, attempts: &[Attempted], lease: Duration) -> bool {
    let until = Instant::now() + lease;
    loop {
        let Err(error) = store.keep_attempts(attempts).await else { return true };
        measures::failures().increment(1);
        tracing::warn!(error = %causes(&error), "outcomes cannot be written");
        if Instant::now() >= until {
            return false;
        }
        sleep(AGAIN).await;
    }
}

/// What becomes of a notification by the outcome of an attempt; `luck` is 0 to 1.
fn attempted(config: &PushConfig, sent: &Sent, now: OffsetDateTime, luck: f64) -> Attempted {
    let push = &sent.push;
    let mut attempted = Attempted {
        key: (push.message, push.device),
        attempt: push.attempt,
        state: PushState::Delivered,
        reason: None,
        again: None,
        sent: true,
        answer: sent.outcome.answer().as_str().to_owned(),
    };
    attempted.state = match &sent.outcome {
        Outcome::Accepted { .. } => PushState::Delivered,
        Outcome::Gone { .. } => PushState::Gone,
        Outcome::Refused { .. } => PushState::Refused,
        Outcome::Retry { after, sent, .. } => {
            attempted.sent = *sent;
            let pause = pause(config.retry, if *sent { push.attempt } else { 1 }, luck);
            let again = pause.max(after.unwrap_or_default());
            let too_late = now + again > push.queued_at + config.max_age;
            let often = *sent && push.attempt >= config.attempts;
            if often || too_late {
                let reason = if often { PushReason::Attempts } else { PushReason::TooOld };
                attempted.reason = Some(reason);
                PushState::GivenUp
            } else {
                attempted.again = Some(again);
                PushState::Retrying
            }
        }
    };
    attempted
}
