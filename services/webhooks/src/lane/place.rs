//! How far a lane is: found in the stream when it is opened, written while it tells.

use std::time::Duration;

use natter_bus::{Bus, HooksState};
use natter_protocol::ids::Seq;
use natter_runtime::causes;
use natter_store::{LanePlace, LaneSave, StoreError};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{Lane, LaneError};
use crate::measures::{self, Lost};

/// Between two saves where nothing was told, and only the place has moved.
const QUIET_SAVE: Duration = Duration::from_secs(2);
/// So many looks are between two at what is too old.
const OLD: u32 = 60;

/// The place up to which a lane has told, in the stream as it is, and whether all that the lane has dealt with is
/// there: one that has lost its end, and was filled again since, may hold other events at the places that were
/// given before, or not have come so far again. The log's own places are given once; there is none where an
/// operator has moved the lane.
pub(super) async fn told_up_to(
    bus: &Bus,
    place: &LanePlace,
    state: &HooksState,
) -> Result<(Seq, bool), LaneError> {
    let (shard, seq) = (place.key.shard, place.seq.unwrap_or(0));
    if place.log_seq == 0 || seq < state.first {
        return Ok((seq, true));
    }
    let there = bus.hooked(shard, seq).await?;
    if let Some(event) = there.filter(|event| event.log_seq <= place.log_seq) {
        // Nothing that the lane has dealt with stands behind it.
        let whole = event.log_seq == place.log_seq
            || bus.hooked(shard, seq + 1).await?.is_some_and(|next| next.log_seq > place.log_seq);
        return Ok((seq, whole));
    }
    tracing::warn!(endpoint = %place.key.endpoint, shard, seq, "the stream is not as it was: looked for where an endpoint is");
    let beyond = bus.hooked_beyond(shard, place.log_seq).await?;
    Ok((beyond.saturating_sub(1), beyond <= state.last))
}

impl Lane {
    /// Writes how far it is, if that has changed.
    pub(super) async fn save(&mut self) -> Result<(), LaneError> {
        if !(self.dirty || self.moved && self.saved.elapsed() >= QUIET_SAVE) {
            return Ok(());
        }
        (self.dirty, self.moved, self.saved) = (false, false, Instant::now());
        let (changes, behind) = self.book.take_changes();
        let (seq, log_seq) = self.book.floor();
        let lag = self.last.saturating_sub(seq);
        let save = LaneSave {
            seq,
            log_seq,
            lost: self.lost,
            lag,
            oldest_at: self.oldest(),
            resting: self.resting.is_some(),
            last: self.said.clone(),
            behind,
            caught_up: changes.caught_up.iter().copied().collect(),
            letters: self.dead_letters.clone(),
            most_letters: self.parts.config.letters,
        };
        match self.parts.store.save_lane(&self.parts.worker, &self.place, &save).await {
            Ok(dropped) => {
                (self.place.seq, self.place.log_seq) = (Some(seq), log_seq);
                measures::lost(Lost::Letters).increment(dropped);
                self.lost = dropped;
                self.dirty = dropped > 0;
                self.dead_letters.clear();
                self.said = None;
                Ok(())
            }
            Err(StoreError::Fenced) => Err(LaneError::Fenced),
            Err(error) => {
                // What is told meanwhile is told again, should this worker die before it is written, or should
                // it have been written all the same.
                self.book.put_changes_back(changes);
                self.dirty = true;
                measures::failures().increment(1);
                let name = &self.target.endpoint.name;
                tracing::warn!(endpoint = %name, error = %causes(&error), "how far an endpoint was told cannot be written");
                Ok(())
            }
        }
    }

    fn oldest(&self) -> Option<OffsetDateTime> {
        self.book.oldest().into_iter().chain(self.unread_at).min()
    }

    /// Looks at how much there is to tell, and at what is too old.
    pub(super) async fn look(&mut self) -> Result<(), LaneError> {
        let shard = self.place.key.shard;
        let Ok(Some(state)) = self.parts.bus.hooks_state(shard).await else { return Ok(()) };
        if state.last < self.book.read() {
            return Err(LaneError::Cut);
        }
        let next = self.book.read() + 1;
        self.unread_at = if state.last >= next {
            let event = self.parts.bus.hooked(shard, next.max(state.first)).await;
            event.ok().flatten().map(|event| event.at)
        } else {
            None
        };
        let before = (self.last, self.resting_said);
        self.last = state.last;
        self.resting_said = self.resting.is_some();
        self.moved |= before != (self.last, self.resting_said);
        let age = self.oldest().map(|at| OffsetDateTime::now_utc() - at);
        let age = age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
        self.measures.lag.set(state.last.saturating_sub(self.book.floor().0) as f64);
        self.measures.lag_seconds.set(age.as_secs_f64());
        self.measures.behind.set(self.book.behind() as f64);
        self.looks += 1;
        if self.looks % OLD == 1
            && let Ok(gone) = self.parts.store.forget_letters(self.place.key, state.first).await
            && gone > 0
        {
            measures::lost(Lost::Letters).increment(gone);
            self.lost += gone;
            self.dirty = true;
        }
        Ok(())
    }
}
