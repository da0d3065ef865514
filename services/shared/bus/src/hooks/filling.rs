//! A stream of events filled from its shard's log: up to where it is, and what is added to it.
//!
//! Two do so: a worker that tells endpoints, all the time, and the owner of a log that it makes anew, with what
//! that worker has not come to. Each names the place that it expects to be the last, so nothing stands there twice.

use natter_protocol::{
    feed::Entry,
    ids::{EPOCH_GAP, Seq, Shard},
    webhook,
};

use super::HooksState;
use crate::{client::Bus, error::BusError, publish::PublishError, stored::Raw};

/// Up to where a stream is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// All up to here of the log is looked at.
    pub log_seq: Seq,
    /// The last event; 0 where there has been none.
    pub stream_seq: Seq,
}

impl Filled {
    /// Where a stream begins that takes the place of the one that was filled so: beyond all places given.
    #[must_use]
    pub fn next_stream(self) -> Seq {
        if self.stream_seq == 0 { 1 } else { self.stream_seq + EPOCH_GAP }
    }

    /// Whether an empty stream whose last place this is has never held what was in it when it was filled so;
    /// or else all of that has become too old.
    fn is_another(self, last: Seq) -> bool {
        let saved = self.stream_seq;
        saved != 0 && (last < saved || last >= saved + EPOCH_GAP - 1)
    }
}

/// Why entries were not all added.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The stream takes nothing just now.
    #[error("the stream of events")]
    Publish(#[from] PublishError),
    /// The stream goes on beyond the place that was named: another has added to it.
    #[error("another fills the stream of events")]
    Overtaken,
}

impl Bus {
    /// Up to where a shard's stream of events is filled that stands like `state`, and of which `saved` was
    /// written last: its last event names its entry, which is newer than what was written, and what was written
    /// knows of entries that nobody is told of. None where it is another stream by now, with nothing in it.
    ///
    /// # Errors
    /// When its leader does not answer.
    pub async fn filled(
        &self,
        shard: Shard,
        state: &HooksState,
        saved: Filled,
    ) -> Result<Option<Filled>, BusError> {
        let HooksState { first, last, .. } = *state;
        let newest = if last < first { None } else { self.hooked(shard, last).await? };
        let log_seq = match newest {
            None if saved.is_another(last) => return Ok(None),
            None => saved.log_seq,
            // It has lost its end: the same entries come to the same places.
            Some(newest) if last < saved.stream_seq => newest.log_seq,
            Some(newest) => newest.log_seq.max(saved.log_seq),
        };
        Ok(Some(Filled { log_seq, stream_seq: last }))
    }

    /// Adds what endpoints are told of among a log's entries, behind the event at `last`: whoever wants to be
    /// told, so that the same entry always has the same place. Returns the last event's place.
    ///
    /// # Errors
    /// Those before may be added.
    pub async fn add_hooks(&self, batch: &[Raw], last: Seq) -> Result<Seq, HookError> {
        let mut adding = Vec::with_capacity(batch.len());
        for raw in batch.iter().filter(|raw| is_told(raw)) {
            adding.push(self.hook(raw, last + adding.len() as Seq)?);
        }
        let mut last = last;
        for added in adding {
            let added = added.await?;
            if added.duplicate || added.seq != last + 1 {
                return Err(HookError::Overtaken);
            }
            last = added.seq;
        }
        Ok(last)
    }
}

fn is_told(raw: &Raw) -> bool {
    let entry = || serde_json::from_slice::<Entry>(&raw.body).ok();
    raw.feed.is_some() && entry().is_some_and(|entry| webhook::kinds(&entry.event).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_stream_is_another_where_its_places_do_not_go_on() {
        let filled = |stream_seq| Filled { log_seq: 0, stream_seq };
        assert!(!filled(0).is_another(0), "there was none");
        assert!(!filled(7).is_another(7) && !filled(7).is_another(9), "it has become empty");
        assert!(filled(7).is_another(3) && filled(7).is_another(7 + EPOCH_GAP - 1));
        assert_eq!((filled(0).next_stream(), filled(7).next_stream()), (1, 7 + EPOCH_GAP));
    }
}
