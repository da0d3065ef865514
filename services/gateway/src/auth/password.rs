//! Passwords by argon2id, as OWASP advises: 19 MiB, two passes, one lane.
//!
//! Imported users come with bcrypt hashes. These are checked in the same queue, and give way to one of
//! argon2 when their user logs in: see [`is_bcrypt`]. (They take another time than argon2 does, so until
//! then it can be told by a stopwatch that there is such an account.)
//!
//! A hash costs a core some tens of milliseconds and 19 MiB on purpose, so only as many run at
//! once as there are cores, a bounded number wait, and the rest are told to come back.

use std::{sync::Arc, thread};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{self, PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use natter_protocol::error::WireError;
use tokio::{sync::Semaphore, task};

use crate::{fault, measures::Limit};

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Requests that may wait for each core.
const WAITING_PER_CORE: usize = 32;
/// When one that found the queue full should come back, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// The most that bcrypt may cost, which doubles with each: a core about a second.
pub const BCRYPT_COST: u32 = 14;

/// Hashes and checks passwords, so many at a time. Cloning shares the bounds.
#[derive(Clone)]
pub struct Passwords {
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
}

impl Passwords {
    /// As many at once as there are cores.
    pub fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self {
            running: Arc::new(Semaphore::new(cores)),
            admitted: Arc::new(Semaphore::new(cores * (1 + WAITING_PER_CORE))),
        }
    }

    /// The PHC string of a password, with a new salt.
    ///
    /// # Errors
    /// `rate_limited` when too many wait already; `internal`.
    pub async fn hash(&self, password: String) -> Result<String, WireError> {
        let hashed = self.work(move || -> password_hash::Result<String> {
            let hash: PasswordHash = argon2()?.hash_password(password.as_bytes())?;
            Ok(hash.to_string())
        });
        hashed.await?.map_err(|error| fault::internal("a password could not be hashed", &error))
    }

    /// Whether the password is the one that was hashed. Without a hash (no such account) the
    /// same work is done and the answer is no: time tells nothing about who has an account.
    ///
    /// # Errors
    /// As [`Self::hash`].
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, WireError> {
        let checked = self.work(move || -> password_hash::Result<bool> {
            let argon2 = argon2()?;
            let Some(hash) = hash else {
                let _: PasswordHash = argon2.hash_password(password.as_bytes())?;
                return Ok(false);
            };
            if is_bcrypt(&hash) {
                return Ok(verify_bcrypt(&password, &hash));
            }
            let hash = PasswordHash::new(&hash).map_err(password_hash::Error::from)?;
            match argon2.verify_password(password.as_bytes(), &hash) {
                Ok(()) => Ok(true),
                Err(password_hash::Error::PasswordInvalid) => Ok(false),
                Err(error) => Err(error),
            }
        });
        checked.await?.map_err(|error| fault::internal("a password could not be checked", &error))
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, WireError> {
        let full = || fault::limited(Limit::Logins, "too many logins at once", RETRY_MS);
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| full())?;
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|_| full())?;
        let done = task::spawn_blocking(move || {
            // Held by the work, not by who waits for it: a client that hangs up frees no core.
            let _held = (admitted, running);
            work()
        });
        done.await.map_err(|error| fault::internal("password work panicked", &error))
    }
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a hash is one of bcrypt, to be replaced by one of argon2 as soon as the password is known.
#[must_use]
pub fn is_bcrypt(hash: &str) -> bool {
    ["$2a$", "$2b$", "$2y$"].iter().any(|version| hash.starts_with(version))
}

/// As the libraries of the old systems do: a password of more than 72 bytes is what its first 72 are.
/// A hash that costs more than may be, or is none after all, is nobody's.
fn verify_bcrypt(password: &str, hash: &str) -> bool {
    let cost = hash.get(4..6).and_then(|cost| cost.parse::<u32>().ok());
    if cost.is_none_or(|cost| cost > BCRYPT_COST) {
        tracing::warn!(?cost, most = BCRYPT_COST, "a bcrypt hash costs more than may be");
        return false;
    }
    bcrypt::verify(password, hash).unwrap_or_else(|error| {
        tracing::warn!(%error, "a bcrypt hash cannot be read");
        false
    })
}

fn argon2() -> password_hash::Result<Argon2<'static>> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use natter_protocol::error::ErrorCode;

    use super::*;

    #[tokio::test]
    async fn a_password_is_checked_against_its_hash() -> anyhow::Result<()> {
        let passwords = Passwords::new();
        let hash = passwords.hash("correct horse".to_owned()).await?;
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.verify("correct horse".to_owned(), Some(hash.clone())).await?);
        assert!(!passwords.verify("correct mule".to_owned(), Some(hash)).await?);
        assert!(!passwords.verify("correct horse".to_owned(), None).await?);
        Ok(())
    }

    #[tokio::test]
    async fn a_bcrypt_hash_of_any_version_is_checked_within_a_bound() -> anyhow::Result<()> {
        let passwords = Passwords::new();
        for version in [bcrypt::Version::TwoA, bcrypt::Version::TwoB, bcrypt::Version::TwoY] {
            let hash = bcrypt::hash_with_result("correct horse", 4)?.format_for_version(version);
            assert!(is_bcrypt(&hash), "{hash}");
            assert!(passwords.verify("correct horse".to_owned(), Some(hash.clone())).await?);
            assert!(!passwords.verify("correct mule".to_owned(), Some(hash)).await?);
        }
        // Known from other implementations: https://www.openwall.com/crypt/.
        let known = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
        assert!(passwords.verify("U*U".to_owned(), Some(known.to_owned())).await?);
        let (long, same) = ("a".repeat(80), "a".repeat(72) + "another end");
        let hash = bcrypt::hash(&long, 4)?;
        assert!(passwords.verify(same, Some(hash.clone())).await?);
        for bad in [hash.replacen("$04$", "$15$", 1), "$2b$04$short".into(), "$2b$".into()] {
            assert!(!passwords.verify(long.clone(), Some(bad)).await?);
        }
        Ok(())
    }

    #[tokio::test]
    async fn the_queue_is_bounded() -> anyhow::Result<()> {
        let passwords = Passwords { admitted: Arc::new(Semaphore::new(0)), ..Passwords::new() };
        let Err(error) = passwords.hash("password".to_owned()).await else { panic!("admitted") };
        assert_eq!(error.code, ErrorCode::RateLimited);
        assert!(error.retry_after_ms.is_some());
        Ok(())
    }
}
