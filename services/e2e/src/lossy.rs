//! A way to the broker on which republished events get lost, as they may: they come at most once.
//!
//! It passes everything on but those messages of the `out.` subjects, and those digests, that it is
//! told to drop. It
//! lives in threads of its own, since a cluster outlives the test that started it.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use anyhow::Result;

/// See the module. Lives as long as the process of the tests.
#[derive(Debug, Default)]
pub struct Lossy {
    /// One message in so many gets lost; none at 0.
    one_in: AtomicU64,
    seen: AtomicU64,
    dropped: AtomicU64,
    /// Subjects that end so get lost.
    ending: Mutex<Option<String>>,
    digests: AtomicBool,
}

impl Lossy {
    /// Nothing gets lost yet.
    pub const fn new() -> Self {
        Self {
            one_in: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            ending: Mutex::new(None),
            digests: AtomicBool::new(false),
        }
    }

    /// Leads to `target` by another address.
    ///
    /// # Errors
    /// When there is no port for it.
    pub fn lead_to(&'static self, target: SocketAddr) -> Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                thread::spawn(move || self.pass(&client, target));
            }
        });
        Ok(address)
    }

    /// From here on one republished event in so many gets lost, spread as by chance; none at 0.
    pub fn lose_one_in(&self, count: u64) {
        self.one_in.store(count, Ordering::Relaxed);
    }

    /// From here on every republished event on a subject that ends so gets lost.
    pub fn lose_all_of(&self, ending: Option<String>) {
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = ending;
    }

    /// From here on digests get lost as well, or do not any more: without them what is missing is
    /// found later.
    pub fn lose_digests(&self, lost: bool) {
        self.digests.store(lost, Ordering::Relaxed);
    }

    /// How many events have got lost.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn pass(&self, client: &TcpStream, target: SocketAddr) {
        let Ok(server) = TcpStream::connect(target) else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = io::copy(&mut &*client, &mut &server);
                let _ = server.shutdown(Shutdown::Both);
            });
            let _ = self.filter(&server, client);
            let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
        });
    }

    /// From the server to the client, operation by operation.
    fn filter(&self, server: &TcpStream, mut client: &TcpStream) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(64 * 1024, server);
        let mut operation = Vec::new();
        loop {
            operation.clear();
            if reader.read_until(b'\n', &mut operation)? == 0 {
                return Ok(());
            }
            let line = String::from_utf8_lossy(&operation).into_owned();
            let mut words = line.split_ascii_whitespace();
            let kind = words.next().unwrap_or_default();
            if kind == "MSG" || kind == "HMSG" {
                let subject = words.next().unwrap_or_default().to_owned();
                let size = words.last().and_then(|size| size.parse::<u64>().ok()).unwrap_or(0);
                (&mut reader).take(size + 2).read_to_end(&mut operation)?;
                if subject.starts_with("digest.") && self.digests.load(Ordering::Relaxed) {
                    continue;
                }
                if subject.starts_with("out.") && self.loses(&subject) {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            }
            client.write_all(&operation)?;
        }
    }

    fn loses(&self, subject: &str) -> bool {
        let ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        if ending.as_ref().is_some_and(|ending| subject.ends_with(ending)) {
            return true;
        }
        let one_in = self.one_in.load(Ordering::Relaxed);
        // A stride without a rhythm of its own, and the same in every run.
        let seen = self.seen.fetch_add(1, Ordering::Relaxed);
        one_in > 0 && (seen.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).is_multiple_of(one_in)
    }
}
