//! A log's backup, taken and put back as an operator does it: what it held is there with its
//! sequences and times, what came later is lost.

use anyhow::{Context, Result, ensure};
use async_nats::Client;
use bytes::Bytes;
use futures::StreamExt;
use natter_bus::subjects;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::PATIENCE;

pub struct Backup {
    stream: String,
    config: Value,
    state: Value,
    chunks: Vec<Bytes>,
}

impl Backup {
    /// Of shard 0's log.
    pub async fn take(nats: &Client) -> Result<Self> {
        let stream = subjects::log_stream(0);
        let inbox = nats.new_inbox();
        let mut incoming = nats.subscribe(inbox.clone()).await?;
        let request = json!({ "deliver_subject": inbox, "no_consumers": true });
        let info = ask(nats, format!("$JS.API.STREAM.SNAPSHOT.{stream}"), &request).await?;
        let mut chunks = Vec::new();
        loop {
            let chunk = timeout(PATIENCE, incoming.next()).await?.context("no end")?;
            if chunk.payload.is_empty() {
                break;
            }
            chunks.push(chunk.payload);
            if let Some(reply) = chunk.reply {
                nats.publish(reply, Bytes::new()).await?;
            }
        }
        let (config, state) = (info["config"].clone(), info["state"].clone());
        Ok(Self { stream, config, state, chunks })
    }

    /// In place of the log that is there.
    pub async fn put_back(&self, nats: &Client) -> Result<()> {
        let Self { stream, config, state, chunks } = self;
        ask(nats, format!("$JS.API.STREAM.DELETE.{stream}"), &json!({})).await?;
        let request = json!({ "config": config, "state": state });
        let answer = ask(nats, format!("$JS.API.STREAM.RESTORE.{stream}"), &request).await?;
        let to = answer["deliver_subject"].as_str().context("nowhere to send it")?.to_owned();
        for chunk in chunks.iter().cloned().chain([Bytes::new()]) {
            let answer = nats.request(to.clone(), chunk).await?;
            let said = String::from_utf8_lossy(&answer.payload);
            ensure!(!said.contains("error"), "{said}");
        }
        Ok(())
    }
}

async fn ask(nats: &Client, subject: String, request: &Value) -> Result<Value> {
    let answer = nats.request(subject, serde_json::to_vec(request)?.into()).await?;
    let answer: Value = serde_json::from_slice(&answer.payload)?;
    ensure!(answer.get("error").is_none(), "{answer}");
    Ok(answer)
}
