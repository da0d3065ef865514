//! The queue of one push service and shard: as much of it is taken as the service has places for.

use std::{sync::Arc, time::Duration};

use natter_bus::{BusError, Handed, Intake, Queued, intake::Token, push};
use natter_protocol::{ids::Shard, push::Provider};
use natter_runtime::{causes, context};
use natter_store::{Claimed, ToSend};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::info_span;

use crate::{
    config::PushConfig, keeping::Outcomes, measures, providers::Outcome, wording::notice,
    worker::Parts,
};

/// Notifications taken at once.
const BATCH: usize = 256;
/// How long there is nothing to do but to wait for the next.
const WAIT: Duration = Duration::from_secs(5);
/// Where few places are free, this is how long more are waited for: a batch costs as much for one.
const GATHERING: Duration = Duration::from_millis(3);
/// After a failure.
const AGAIN: Duration = Duration::from_millis(500);
/// Between two looks at a service that is left alone.
const LOOK: Duration = Duration::from_secs(1);
/// What another has is looked at again after this time at least.
const LATER: Duration = Duration::from_millis(250);

/// What came of one attempt, on its way to be written.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) push: Box<ToSend>,
    pub(crate) provider: Provider,
    pub(crate) outcome: Outcome,
    pub(crate) token: Token,
}

/// Sends a shard's notifications by one push service.
pub struct Sender {
    shard: Shard,
    provider: Provider,
    config: Arc<PushConfig>,
    parts: Parts,
    /// Of the service, for all shards.
    places: Arc<Semaphore>,
    outcomes: Outcomes,
    intake: Option<Intake>,
    under_way: JoinSet<()>,
}

impl Sender {
    /// For a shard and a push service, which has so many places for all shards.
    #[must_use]
    pub(crate) fn new(
        shard: Shard,
        provider: Provider,
        config: Arc<PushConfig>,
        parts: Parts,
        places: Arc<Semaphore>,
        outcomes: Outcomes,
    ) -> Self {
        let under_way = JoinSet::new();
        Self { shard, provider, config, parts, places, outcomes, intake: None, under_way }
    }

    /// Sends until `stop`: then finishes what is with the service.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            while self.under_way.try_join_next().is_some() {}
            if let Err(wait) = self.parts.providers.ready(self.provider) {
                tokio::select! {
                    () = sleep(wait.min(LOOK)) => continue,
                    () = stop.cancelled() => break,
                }
            }
            match self.take(&stop).await {
                // It is in hand, and is finished, or handed back at once.
                Ok((taken, _)) if stop.is_cancelled() => {
                    for handed in &taken {
                        handed.token().again(Duration::ZERO);
                    }
                }
                Ok((taken, places)) => self.send(taken, places).await,
                Err(error) => {
                    self.intake = None;
                    if !matches!(error, BusError::NoStream | BusError::Disconnected) {
                        self.failed(&error, "the queue cannot be read");
                    }
                    tokio::select! {
                        () = sleep(AGAIN) => {}
                        () = stop.cancelled() => break,
                    }
                }
            }
        }
        // What the server would still send to it goes to others.
        if let Some(intake) = self.intake.take() {
            intake.end();
        }
        while self.under_way.join_next().await.is_some() {}
    }

    fn failed(&self, error: &(dyn std::error::Error + 'static), what: &str) {
        measures::failures().increment(1);
        let (shard, provider) = (self.shard, self.provider);
        tracing::warn!(shard, %provider, error = %causes(error), "{what}");
    }

    /// Notifications, and a place for each. Places are not kept while there is nothing to send: other
    /// shards want them too.
    async fn take(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<(Vec<Handed>, Vec<OwnedSemaphorePermit>), BusError> {
        let mut places = self.places().await?;
        let intake = match &mut self.intake {
            Some(intake) => intake,
            empty => {
                // Made by upkeep alone, which puts into it what a lost one held.
                let config = push::sending(self.shard, self.provider, self.config.lease);
                empty.insert(self.parts.bus.intake(&config).await?)
            }
        };
        let taken = intake.there(places.len()).await?;
        if !taken.is_empty() {
            places.truncate(taken.len());
            return Ok((taken, places));
        }
        drop(places);
        let taken = tokio::select! {
            taken = intake.next(WAIT) => taken?,
            () = stop.cancelled() => Vec::new(),
        };
        let mut places = Vec::new();
        for _ in &taken {
            places.push(self.place().await?);
        }
        Ok((taken, places))
    }

    async fn places(&self) -> Result<Vec<OwnedSemaphorePermit>, BusError> {
        let mut places = vec![self.place().await?];
        // One that is tried whether it is well again is tried with one.
        let room = self.parts.providers.room(self.provider).clamp(1, BATCH);
        let worth_it = self.parts.providers.concurrency(self.provider).min(BATCH) / 4;
        if self.places.available_permits() < worth_it {
            sleep(GATHERING).await;
        }
        while places.len() < room
            && let Ok(place) = self.places.clone().try_acquire_owned()
        {
            places.push(place);
        }
        Ok(places)
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, BusError> {
        // Nobody closes it.
        self.places.clone().acquire_owned().await.map_err(|_| BusError::Closed)
    }

    /// Claims what was taken, and begins to send it.
    async fn send(&mut self, taken: Vec<Handed>, mut places: Vec<OwnedSemaphorePermit>) {
        let mut in_hand = Vec::with_capacity(taken.len());
        for handed in taken {
            match serde_json::from_slice::<Queued>(&handed.raw.body) {
                Ok(queued) => in_hand.push(((queued.message_id, queued.device_id), handed)),
                // Nobody of us wrote it.
                Err(_) => handed.token().done(),
            }
        }
        if in_hand.is_empty() {
            return;
        }
        let keys: Vec<_> = in_hand.iter().map(|(key, _)| *key).collect();
        let (lease, max_age) = (self.config.lease, self.config.max_age);
        let claimed = self.parts.store.claim_pushes(&keys, lease, max_age).await;
        let mut claimed = match claimed {
            Ok(claimed) => claimed,
            Err(error) => {
                self.failed(&error, "notifications cannot be taken");
                for (_, handed) in &in_hand {
                    handed.token().again(AGAIN);
                }
                return;
            }
        };
        for (key, handed) in in_hand {
            let token = handed.token();
            match claimed.remove(&key) {
                Some(Claimed::Send(push)) => {
                    let place = places.pop();
                    self.begin(push, token, handed.raw.traceparent.as_deref(), place);
                }
                Some(Claimed::Ended(ended)) => {
                    measures::ended(ended.provider, ended.state).increment(1);
                    token.done();
                }
                Some(Claimed::Later(after)) => token.again(after.max(LATER)),
                // Once more in the same batch, or over.
                Some(Claimed::Over) | None => token.done(),
            }
        }
    }

    fn begin(
        &mut self,
        push: Box<ToSend>,
        token: Token,
        traceparent: Option<&str>,
        place: Option<OwnedSemaphorePermit>,
    ) {
        let span = context::follow(traceparent, || {
            info_span!(
                "push", provider = %self.provider, attempt = push.attempt,
                outcome = tracing::field::Empty
            )
        });
        let (parts, outcomes) = (self.parts.clone(), self.outcomes.clone());
        let (provider, max_age) = (self.provider, self.config.max_age);
        let sending = async move {
            // Not within the span: a connection that is opened would keep it for as long as it lives.
            let outcome = parts.providers.send(&push.target, &notice(&push, max_age)).await;
            span.record("outcome", outcome.as_str());
            drop((span, place));
            // Ends after all who send.
            let _ = outcomes.send(Sent { push, provider, outcome, token }).await;
        };
        self.under_way.spawn(sending);
    }
}

/// The end of [`Sender`]s that takes what came of their attempts.
pub(crate) type Kept = mpsc::Receiver<Sent>;
