//! Loopback ports that stay ours, also among several clusters that start side by side.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    os::{linux::net::SocketAddrExt, unix::net},
};

use anyhow::{Context, Result, bail};
use rand::RngExt;

/// Below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes one.
const RANGE: Range<u16> = 20_000..32_000;

/// Tries before giving up: with thousands of free ports, even ten in a row are unheard of.
const ATTEMPTS: usize = 200;

/// A port that no other cluster takes as long as this lives, whether or not it is listened on:
/// a server can so be away and come back to the same address.
#[derive(Debug)]
pub(crate) struct Port {
    address: SocketAddr,
    /// Bound to an abstract name made of the port. The kernel keeps such names per network
    /// namespace, as it does ports, and frees them with the process, however that ends.
    _claim: net::UnixListener,
}

impl Port {
    /// Any free port.
    pub(crate) fn any() -> Result<Self> {
        for _ in 0..ATTEMPTS {
            if let Some(port) = Self::claim(rand::rng().random_range(RANGE)) {
                return Ok(port);
            }
        }
        bail!("no free port on 127.0.0.1 between {} and {}", RANGE.start, RANGE.end)
    }

    /// Exactly this port, or an error that says that it is taken.
    pub(crate) fn exactly(port: u16) -> Result<Self> {
        Self::claim(port).with_context(|| format!("port {port} on 127.0.0.1 is taken"))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn claim(port: u16) -> Option<Self> {
        let name = format!("natter-port-{port}");
        let name = net::SocketAddr::from_abstract_name(name).ok()?;
        let claim = net::UnixListener::bind_addr(&name).ok()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        TcpListener::bind(address).ok()?;
        Some(Self { address, _claim: claim })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_handed_out_once() -> Result<()> {
        let port = Port::any()?;
        let number = port.address().port();
        assert!(Port::exactly(number).is_err());
        drop(port);
        Port::exactly(number)?;
        Ok(())
    }
}
