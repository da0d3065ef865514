//! Whether a process is ready, asked in its own language.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use crate::process::POLL;

/// Of one connection or answer: on loopback, more than this means that it is not ready.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest answer that is looked at, in bytes.
const ANSWER: u64 = 16 * 1024;

#[derive(Debug)]
pub(crate) enum Probe {
    /// What the postmaster says in `postmaster.pid`, where its pid tells ours from a stranger.
    Postgres {
        data: PathBuf,
    },
    Redis,
    /// It accepts connections.
    Listening,
    Nats,
    /// Of several that are one: `GET /healthz` of its monitoring answers 200, which it does once
    /// it has met the leader of the cluster's streams, and has caught up with its own.
    NatsCluster,
    /// `GET /ready` of the admin port answers 200.
    Http,
    /// The same, and it has nothing else to tell: it reaches all that it rests on.
    HttpAllWell,
}

impl Probe {
    /// Asks once. `pid` is the process's, `port` where it serves, `admin` where it is asked
    /// about its health, if it has such a port.
    pub(super) fn answers(&self, pid: u32, port: SocketAddr, admin: SocketAddr) -> bool {
        match self {
            Self::Postgres { data } => {
                let state = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
                let mut lines = state.lines();
                lines.next() == Some(pid.to_string().as_str())
                    && lines.nth(6).map(str::trim) == Some("ready")
            }
            Self::Redis => says(port, "PING\r\n", |line| line.starts_with("+PONG")),
            Self::Listening => TcpStream::connect_timeout(&port, PATIENCE).is_ok(),
            Self::Nats => says(port, "CONNECT {\"verbose\":false}\r\nPING\r\n", |line| {
                line.starts_with("PONG")
            }),
            Self::NatsCluster => is_ok(admin, "/healthz"),
            Self::Http => is_ok(admin, "/ready"),
            Self::HttpAllWell => is_well(admin),
        }
    }

    /// Between two looks: nats-server writes a line for every one that finds it unwell.
    pub(super) fn pause(&self) -> Duration {
        match self {
            Self::NatsCluster => Duration::from_millis(100),
            _ => POLL,
        }
    }

    /// Whether a failed start is worth another try a moment later. Postgres refuses while
    /// children of a killed postmaster still hold its shared memory, or while a predecessor is
    /// still going down.
    pub(super) fn is_passing_trouble(&self, log: &str) -> bool {
        matches!(self, Self::Postgres { .. })
            && (log.contains("still in use") || log.contains("is another postmaster"))
    }
}

fn is_ok(address: SocketAddr, path: &str) -> bool {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    says(address, &request, |line| line.starts_with("HTTP/1.1 200"))
}

fn is_well(address: SocketAddr) -> bool {
    let request = "GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.take(ANSWER).read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200") && !answer.contains("\"reasons\""))
}

/// Whether one of the lines that come back, up to the end of what is asked, is the wanted one.
fn says(address: SocketAddr, request: &str, wanted: impl Fn(&str) -> bool) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        for line in BufReader::new(stream.take(ANSWER)).lines() {
            let line = line?;
            if wanted(&line) {
                return Ok(true);
            }
            // NATS greets with INFO; any other first line is the answer, and not the wanted one.
            if !line.starts_with("INFO") {
                break;
            }
        }
        Ok::<_, std::io::Error>(false)
    };
    ask().unwrap_or(false)
}
