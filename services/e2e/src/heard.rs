//! What one connection has received, and waiting for what is going to come.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use natter_protocol::{
    error::WireError,
    ids::{ChatId, UserId},
    server::Message,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::{
    record::{Closed, Content, Got, Mark, Record},
    soon::SOON,
};

/// The record of a connection, while it is being written.
#[derive(Debug)]
pub struct Heard {
    label: String,
    record: Arc<watch::Sender<Record>>,
}

impl Heard {
    pub(crate) fn new(label: String) -> Self {
        Self { label, record: Arc::new(watch::Sender::new(Record::new())) }
    }

    pub(crate) fn set_label(&mut self, label: String) {
        self.label = label;
    }

    /// For whoever writes it.
    pub(crate) fn record(&self) -> Arc<watch::Sender<Record>> {
        Arc::clone(&self.record)
    }

    /// Waits for an event that has not been waited for before.
    ///
    /// # Errors
    /// When it does not come within [`SOON`], with everything that did.
    pub async fn expect(&self, event: &str, matches: impl Fn(&Value) -> bool) -> Result<Value> {
        self.expect_within(SOON, event, matches).await
    }

    /// As [`Socket::expect`], for at most `limit`.
    ///
    /// # Errors
    /// When it does not come within `limit`, with everything that did.
    pub async fn expect_within(
        &self,
        limit: Duration,
        event: &str,
        matches: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let what = format!("{event:?}");
        let pick = |content: &Content| content.event(event).filter(|data| matches(data)).cloned();
        self.take(limit, &what, pick).await
    }

    /// As [`Socket::expect`], with the cursor that came beside the payload.
    ///
    /// # Errors
    /// As there.
    pub async fn expect_placed(&self, event: &str) -> Result<(Value, Option<String>)> {
        let what = format!("{event:?}");
        let pick = |content: &Content| {
            let data = content.event(event)?.clone();
            Some((data, content.cursor().map(str::to_owned)))
        };
        self.take(SOON, &what, pick).await
    }

    /// As [`Socket::expect`], read as a `T`.
    ///
    /// # Errors
    /// When it does not come within [`SOON`], with everything that did.
    pub async fn expect_as<T: DeserializeOwned>(
        &self,
        event: &str,
        matches: impl Fn(&T) -> bool,
    ) -> Result<T> {
        let what = format!("{event:?}");
        let pick = |content: &Content| {
            let read = serde_json::from_value::<T>(content.event(event)?.clone()).ok()?;
            matches(&read).then_some(read)
        };
        self.take(SOON, &what, pick).await
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn hears(&self, chat: ChatId, content: &str) -> Result<Message> {
        let is_it = |message: &Message| message.chat_id == chat && message.content == content;
        self.expect_as("message", is_it).await.with_context(|| format!("{content:?} in {chat}"))
    }

    /// Waits until the connection is closed, by this code.
    ///
    /// # Errors
    /// When it is not closed within [`SOON`], or otherwise.
    pub async fn expect_close(&self, code: u16) -> Result<()> {
        let closed = self.closed(SOON).await?;
        ensure!(
            closed.code == Some(code),
            self.failure(&format!("a close with {code} was expected, not {closed}"))
        );
        Ok(())
    }

    /// As [`Socket::expect_close`], and it must have happened by then.
    ///
    /// # Errors
    /// When it is closed later, or otherwise.
    pub async fn expect_close_by(&self, by: Instant, code: u16) -> Result<()> {
        self.expect_close(code).await?;
        let late = self.closed(SOON).await?.at.saturating_duration_since(by);
        ensure!(late.is_zero(), self.failure(&format!("it was closed {late:?} late")));
        Ok(())
    }

    /// Waits until the connection ends, however it does.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub async fn closed(&self, limit: Duration) -> Result<Closed> {
        let mut changes = self.record.subscribe();
        let closed = timeout(limit, changes.wait_for(|record| record.closed().is_some())).await;
        let closed = closed.map(|record| record.ok().and_then(|record| record.closed().cloned()));
        closed.ok().flatten().ok_or_else(|| self.failure("it is not closed"))
    }

    /// Whether the connection still stands, as far as is known here.
    pub fn is_open(&self) -> bool {
        self.record.borrow().closed().is_none()
    }

    /// This point in what came.
    pub fn mark(&self) -> Mark {
        self.record.borrow().mark()
    }

    /// The events of this name that came after `mark`.
    pub fn since(&self, mark: Mark, event: &str) -> Vec<Value> {
        self.record.borrow().since(mark, event)
    }

    /// All events of this name.
    pub fn events(&self, event: &str) -> Vec<Value> {
        self.record.borrow().events(event)
    }

    /// Where the connection stands.
    ///
    /// # Errors
    /// When it was never told.
    pub fn cursor(&self) -> Result<String> {
        self.record.borrow().cursor().context("no cursor has come")
    }

    /// All entries of chats' feeds that came, in order.
    ///
    /// # Errors
    /// When one is not whole.
    pub fn entries(&self) -> Result<Vec<Got>> {
        let entries = self.record.borrow().entries(self.user()?);
        entries.map_err(|error| self.failure(&format!("{error:#}")))
    }

    /// That every chat's feed came whole; see [`Record::check_feeds`].
    ///
    /// # Errors
    /// When it did not.
    pub fn check_feeds(&self) -> Result<()> {
        let checked = self.record.borrow().check_feeds(self.user()?);
        checked.map_err(|error| self.failure(&format!("{error:#}")))
    }

    /// Why a story failed, with everything that this connection saw.
    pub fn failure(&self, what: &str) -> anyhow::Error {
        self.record.borrow().failure(&self.label, what)
    }

    /// Waits for a frame that `pick` makes something of.
    async fn take<T>(
        &self,
        limit: Duration,
        what: &str,
        pick: impl Fn(&Content) -> Option<T>,
    ) -> Result<T> {
        let mut changes = self.record.subscribe();
        let taken = timeout(limit, async {
            loop {
                let mut taken = None;
                let mut closed = false;
                self.record.send_if_modified(|record| {
                    taken = record.take(&pick);
                    closed = record.closed().is_some();
                    false
                });
                if taken.is_some() || closed || changes.changed().await.is_err() {
                    return taken;
                }
            }
        });
        match taken.await {
            Ok(Some(taken)) => Ok(taken),
            Ok(None) => Err(self.failure(&format!("it was closed before {what} came"))),
            Err(_) => Err(self.failure(&format!("{what} did not come within {limit:?}"))),
        }
    }

    /// The reply to a request.
    ///
    /// # Errors
    /// When none comes within `limit`.
    pub(crate) async fn reply_within(
        &self,
        limit: Duration,
        id: u64,
    ) -> Result<Result<Value, WireError>> {
        self.take(limit, &format!("the reply {id}"), |content| content.reply(id).cloned()).await
    }

    /// Whether the reply to a request has come.
    pub fn replied(&self, id: u64) -> bool {
        self.record.borrow().replied(id)
    }

    /// Who it is that hears, as the handshake told.
    fn user(&self) -> Result<UserId> {
        let ready = self.events("ready").into_iter().next().context("the handshake is not over")?;
        Ok(serde_json::from_value(ready["userId"].clone())?)
    }
}
