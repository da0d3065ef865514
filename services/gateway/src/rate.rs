//! Token buckets by key, in bounded memory.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Keys that are remembered at once; a bucket takes some 50 bytes.
const KEYS: usize = 50_000;
/// How often a full table looks for buckets that it may forget.
const SWEEP: Duration = Duration::from_secs(1);

/// How much is allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Tokens a second that come back. 0 for no limit.
    pub per_second: f64,
    /// Tokens that a bucket holds at most.
    pub burst: f64,
}

impl Rate {
    /// So many a second, and `burst` at once after a pause.
    #[must_use]
    pub fn per_second(tokens: u32, burst: u32) -> Self {
        Self { per_second: f64::from(tokens), burst: f64::from(burst.max(1)) }
    }

    /// So many a minute, all of them at once if need be.
    #[must_use]
    pub fn per_minute(tokens: u32) -> Self {
        Self { per_second: f64::from(tokens) / 60.0, burst: f64::from(tokens.max(1)) }
    }
}

/// One bucket.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn full(rate: Rate, now: Instant) -> Self {
        Self { tokens: rate.burst, at: now }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// How long until there is one again.
    pub fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        if rate.per_second <= 0.0 {
            return Ok(());
        }
        self.refill(rate, now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.tokens) / rate.per_second))
    }

    fn refill(&mut self, rate: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * rate.per_second).min(rate.burst);
        self.at = self.at.max(now);
    }
}

/// A bucket for each key. A full bucket is forgotten when room is needed, which changes nothing;
/// when that is not enough, new keys share one bucket: strict, but bounded, and nobody can wash
/// away a bucket by asking under many keys.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    table: Mutex<Table<K>>,
}

#[derive(Debug)]
struct Table<K> {
    by_key: HashMap<K, Bucket>,
    shared: Bucket,
    swept: Option<Instant>,
}

impl<K: Hash + Eq> Buckets<K> {
    /// Buckets that are all full.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        let shared = Bucket::full(rate, Instant::now());
        Self { rate, table: Mutex::new(Table { by_key: HashMap::new(), shared, swept: None }) }
    }

    /// Takes a token of this key.
    ///
    /// # Errors
    /// How long until there is one again.
    pub fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        if self.rate.per_second <= 0.0 {
            return Ok(());
        }
        // Every write leaves the table whole, so a poisoned lock is as good as any other.
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.by_key.len() >= KEYS && !table.by_key.contains_key(&key) {
            table.sweep(self.rate, now);
            if table.by_key.len() >= KEYS {
                return table.shared.take(self.rate, now);
            }
        }
        let bucket = table.by_key.entry(key).or_insert_with(|| Bucket::full(self.rate, now));
        bucket.take(self.rate, now)
    }
}

impl<K: Hash + Eq> Table<K> {
    fn sweep(&mut self, rate: Rate, now: Instant) {
        if self.swept.is_some_and(|at| now.saturating_duration_since(at) < SWEEP) {
            return;
        }
        self.swept = Some(now);
        self.by_key.retain(|_, bucket| {
            bucket.refill(rate, now);
            bucket.tokens < rate.burst
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_refills() {
        let buckets = Buckets::new(Rate::per_second(2, 3));
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(buckets.take("ana", start), Ok(()));
        }
        let Err(wait) = buckets.take("ana", start) else { panic!("a fourth at once") };
        assert_eq!(wait, Duration::from_millis(500));
        assert_eq!(buckets.take("ben", start), Ok(()));
        assert_eq!(buckets.take("ana", start + wait), Ok(()));
        assert!(buckets.take("ana", start + wait).is_err());
    }

    #[test]
    fn zero_is_no_limit() {
        let buckets = Buckets::new(Rate::per_minute(0));
        let now = Instant::now();
        assert!((0..1000).all(|_| buckets.take((), now).is_ok()));
    }

    #[test]
    fn many_keys_neither_grow_the_table_nor_wash_away_a_bucket() {
        let buckets = Buckets::new(Rate::per_second(1, 1));
        let now = Instant::now();
        assert!(buckets.take(0, now).is_ok());
        let let_in = (1..2 * KEYS).filter(|key| buckets.take(*key, now).is_ok()).count();
        assert_eq!(let_in, KEYS, "the table, and one token of the shared bucket");
        assert!(buckets.take(0, now).is_err());
        let later = now + Duration::from_secs(2);
        assert!(buckets.take(2 * KEYS, later).is_ok(), "room again");
    }
}
