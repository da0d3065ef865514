//! Up to where shards were written when somebody looked last.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use natter_bus::BusError;
use natter_protocol::{
    feed::Feed,
    ids::{Seq, Shard},
};

use crate::app::App;

/// For so long a place is asked from. What the log holds behind an older one may have to be read from
/// its disk.
const FRESH: Duration = Duration::from_secs(10);

/// The places, by shard. One that has moved on since, or was set back with Postgres, costs a look-up
/// more.
#[derive(Debug, Default)]
pub struct Written(Mutex<HashMap<Shard, (Seq, Instant)>>);

impl Written {
    /// What Postgres has just told.
    pub fn note(&self, shard: Shard, persisted: Seq) {
        self.known().insert(shard, (persisted, Instant::now()));
    }

    fn of(&self, shard: Shard) -> Option<Seq> {
        let (place, noted) = self.known().get(&shard).copied()?;
        (noted.elapsed() < FRESH).then_some(place)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Shard, (Seq, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place after which the log holds nothing of a feed, if that is so of the place known. Asked while
/// Postgres reads, since most feeds are quiet; it holds for the moment of the question, and says nothing
/// about what comes later.
///
/// # Errors
/// When the log cannot be read just now.
pub async fn quiet_since(app: &App, feed: Feed) -> Result<Option<Seq>, BusError> {
    let Some(place) = app.written.of(feed.shard) else { return Ok(None) };
    let nothing = app.bus.nothing_after(feed, place).await?;
    Ok(nothing.then_some(place))
}
