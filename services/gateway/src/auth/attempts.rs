//! How often one may try a password: so many times a minute for each account, and from each
//! client address.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use natter_protocol::error::WireError;
use sha2::{Digest, Sha256};

use crate::{
    fault,
    measures::Limit,
    rate::{Buckets, Rate},
};

/// The limits and what was used of them.
#[derive(Debug)]
pub struct Attempts {
    addresses: Buckets<IpAddr>,
    accounts: Buckets<[u8; 32]>,
}

impl Attempts {
    /// So many a minute; 0 for no limit.
    pub fn new(per_address: u32, per_account: u32) -> Self {
        Self {
            addresses: Buckets::new(Rate::per_minute(per_address)),
            accounts: Buckets::new(Rate::per_minute(per_account)),
        }
    }

    /// Counts an attempt from an address.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn from_address(&self, address: IpAddr) -> Result<(), WireError> {
        self.addresses.take(network(address), Instant::now()).map_err(too_many)
    }

    /// Counts an attempt at an account: its id, phone number or e-mail, in any case.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn at_account(&self, account: &str) -> Result<(), WireError> {
        let key = Sha256::digest(account.trim().to_lowercase()).into();
        self.accounts.take(key, Instant::now()).map_err(too_many)
    }
}

/// The answer to one who has to wait.
pub(crate) fn too_many(wait: Duration) -> WireError {
    // Rounded up: a client that comes exactly then is let in.
    let ms = wait.as_millis() as u64 + 1;
    fault::limited(Limit::Calls, "too many requests", ms)
}

/// Whoever has one IPv6 address has its whole /64.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use natter_protocol::error::ErrorCode;

    use super::*;

    #[test]
    fn addresses_and_accounts_are_counted_apart() -> anyhow::Result<()> {
        let attempts = Attempts::new(2, 1);
        let home: IpAddr = "2001:db8::1".parse()?;
        let same_network: IpAddr = "2001:db8::2".parse()?;
        attempts.from_address(home)?;
        attempts.from_address(same_network)?;
        let Err(error) = attempts.from_address(home) else { panic!("a third") };
        assert_eq!(error.code, ErrorCode::RateLimited);
        assert!(error.retry_after_ms.is_some_and(|ms| (1..=30_001).contains(&ms)));
        attempts.from_address("2001:db8:0:1::1".parse()?)?;
        attempts.at_account("Ana@example.org")?;
        assert!(attempts.at_account("ana@EXAMPLE.org ").is_err());
        attempts.at_account("ben@example.org")?;
        Ok(())
    }
}
