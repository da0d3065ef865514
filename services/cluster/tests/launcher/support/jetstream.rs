//! JetStream's API in NATS's own protocol.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};

/// Of one answer; nobody gives one while there is no leader.
const PATIENCE: Duration = Duration::from_secs(5);

/// One request.
pub fn jetstream(server: SocketAddr, call: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB $JS.API.{call} answer {}\r\n{body}\r\n",
        body.len()
    )?;
    let mut lines = BufReader::new(stream).lines();
    loop {
        let line = lines.next().context("no answer")??;
        if line.starts_with("MSG answer") {
            return Ok(lines.next().context("half an answer")??);
        }
    }
}
