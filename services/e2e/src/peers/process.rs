//! A process that holds official clients: told what to do, and telling what happens, in lines of
//! JSON.

use std::{
    collections::HashMap,
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result};
use natter_cluster::{
    install::{self, Tool},
    progress::Progress,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{Mutex as AsyncMutex, watch},
    task::spawn_blocking,
    time::Instant,
};

use super::Language;
use crate::record::{Closed, Content, Record};

/// Where the scripts are.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// Whose record is written by what the process tells.
type Records = Arc<Mutex<HashMap<u64, Arc<watch::Sender<Record>>>>>;

/// The process; it ends with this, and when it loses its input.
#[derive(Debug)]
pub(super) struct Process {
    // Held, since dropping it ends the process.
    _child: Child,
    input: AsyncMutex<ChildStdin>,
    records: Records,
    names: AtomicU64,
}

impl Process {
    pub(super) async fn start(language: Language) -> Result<Self> {
        let mut command = spawn_blocking(move || command(language)).await??;
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start the clients")?;
        let input = child.stdin.take().context("no input")?;
        let output = child.stdout.take().context("no output")?;
        let records = Records::default();
        tokio::spawn(read(output, Arc::clone(&records)));
        let names = AtomicU64::new(1);
        Ok(Self { _child: child, input: AsyncMutex::new(input), records, names })
    }

    /// A name for one more client, whose record this is.
    pub(super) fn name(&self, record: Arc<watch::Sender<Record>>) -> u64 {
        let name = self.names.fetch_add(1, Ordering::Relaxed);
        self.records.lock().unwrap_or_else(PoisonError::into_inner).insert(name, record);
        name
    }

    /// Has the client of this name do something.
    pub(super) async fn tell(&self, name: u64, action: &str, mut what: Value) -> Result<()> {
        what["action"] = json!(action);
        what["name"] = json!(name);
        let line = format!("{what}\n");
        let mut input = self.input.lock().await;
        input.write_all(line.as_bytes()).await.context("the clients are gone")
    }
}

/// What runs the clients, installed if need be.
fn command(language: Language) -> Result<Command> {
    let needed: &[Tool] = match language {
        Language::JavaScript => &[Tool::NodeJs, Tool::SocketIoClient],
        Language::Python => &[Tool::PythonSocketIo],
    };
    install::ensure(needed, Progress::Lines)?;
    Ok(match language {
        Language::JavaScript => {
            let node = install::node_js().context("Node.js is not installed")?.node;
            let packages = install::socket_io_client().context("no socket.io-client")?;
            let mut command = Command::new(node);
            command.arg(Path::new(SCRIPTS).join("client.mjs")).arg(packages);
            command
        }
        Language::Python => {
            let client = install::python_socketio().context("no python-socketio")?;
            let mut command = Command::new(client.python);
            command.arg(Path::new(SCRIPTS).join("client.py")).env("PYTHONPATH", client.packages);
            command
        }
    })
}

/// Something that happened to a client.
#[derive(Deserialize)]
struct Told {
    name: u64,
    #[serde(default)]
    event: Option<String>,
    #[serde(default)]
    ack: Option<u64>,
    args: Vec<Value>,
}

async fn read(output: ChildStdout, records: Records) {
    let mut lines = BufReader::new(output).lines();
    let end = loop {
        match lines.next_line().await {
            Ok(Some(line)) => match serde_json::from_str::<Told>(&line) {
                Ok(told) => write(&records, told),
                Err(error) => break format!("the clients said {line:?}: {error}"),
            },
            Ok(None) => break "the process of the clients has ended".to_owned(),
            Err(error) => break error.to_string(),
        }
    };
    for record in records.lock().unwrap_or_else(PoisonError::into_inner).values() {
        close(record, end.clone());
    }
}

fn write(records: &Records, told: Told) {
    let records = records.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(record) = records.get(&told.name) else { return };
    let mut added = Ok(());
    record.send_modify(|record| added = content(told).and_then(|content| record.add(content)));
    if let Err(error) = added {
        close(record, format!("{error:#}"));
    }
}

fn close(record: &watch::Sender<Record>, reason: String) {
    let closed = Closed { code: None, reason, at: Instant::now() };
    record.send_modify(|record| record.close(closed));
}

/// As the other transport says the same: the payload, the cursor of what is on a feed as its
/// last argument, and in answers beside them.
fn content(told: Told) -> Result<Content> {
    let Told { event, ack, mut args, .. } = told;
    if let Some(event) = event {
        let marked = args.len() > 1 || event == "cursor";
        let cursor = args.last().filter(|_| marked).and_then(Value::as_str).map(str::to_owned);
        let data = if args.is_empty() { Value::Null } else { args.swap_remove(0) };
        return Ok(Content::Event { event, data, cursor });
    }
    let id = ack.context("neither an event nor an answer")?;
    let mut answer = args.pop().context("an answer without anything")?;
    let cursor = answer["cursor"].as_str().map(str::to_owned);
    let answer = match answer["ok"].as_bool() {
        Some(true) => Ok(answer["data"].take()),
        Some(false) => Err(serde_json::from_value(answer["error"].take()).context("the error")?),
        None => anyhow::bail!("an answer that is neither good nor bad: {answer}"),
    };
    Ok(Content::Reply { id, answer, cursor })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &Value) -> Result<Content> {
        content(serde_json::from_value(line.clone())?)
    }

    #[test]
    fn a_cursor_is_told_apart_from_the_payload() -> Result<()> {
        let event = |data: Value, cursor: Option<&str>| Content::Event {
            event: "message".to_owned(),
            data,
            cursor: cursor.map(str::to_owned),
        };
        let told = |args: Value| read(&json!({"name": 1, "event": "message", "args": args}));
        assert_eq!(told(json!([{"seq": 1}, "c"]))?, event(json!({"seq": 1}), Some("c")));
        assert_eq!(told(json!([{"seq": 1}]))?, event(json!({"seq": 1}), None));
        assert_eq!(told(json!(["only"]))?, event(json!("only"), None));
        let answer = json!({"ok": true, "data": {"seq": 1}, "cursor": "c"});
        let reply = read(&json!({"name": 1, "ack": 4, "args": [answer]}))?;
        let (id, answer) = (4, Ok(json!({"seq": 1})));
        assert_eq!(reply, Content::Reply { id, answer, cursor: Some("c".to_owned()) });
        assert!(read(&json!({"name": 1, "ack": 4, "args": [{}]})).is_err());
        Ok(())
    }
}
