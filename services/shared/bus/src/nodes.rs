//! What one node asks of another: a session's requests may reach any of them. At most once, and
//! nothing is kept: who asks hears soon when the other node is gone.

use std::time::Duration;

use async_nats::{Client, Message, RequestErrorKind, Subscriber};
use futures::StreamExt;
use natter_protocol::node::{NodeDescription, NodeQuestion};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{client::Bus, error::BusError, subjects};

/// How long to wait before the broker is listened to again.
const AGAIN: Duration = Duration::from_secs(1);

/// Why another node did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No such node is there, any more.
    #[error("there is no such node")]
    Gone,
    /// It cannot be reached just now, or did not answer in time.
    #[error("the node was not reached")]
    Bus(#[from] BusError),
}

impl Bus {
    /// What is asked of this node from now on, also after the connection has been lost and made
    /// again.
    ///
    /// # Errors
    /// When the connection is closed for good.
    pub async fn asked(&self, node: Uuid) -> Result<Asked, BusError> {
        let client = self.inner.client.clone();
        let subject = subjects::node(node);
        let questions = client.subscribe(subject).await.map_err(|_| BusError::Closed)?;
        Ok(Asked { questions, client })
    }

    /// Answers an operator who asks all nodes what they are. For nodes of which nothing else is
    /// asked; runs until dropped.
    pub async fn describe(self, node: NodeDescription) {
        loop {
            match self.asked_of_all().await {
                Ok(mut asked) => {
                    while let Some(question) = asked.next().await {
                        // The rest is of gateways, or of a newer version.
                        if let Ok(NodeQuestion::Describe) = question.read()
                            && let Err(error) = question.answer(&node).await
                        {
                            tracing::warn!(%error, "an operator is not answered");
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "what an operator asks is not heard"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// What is asked of every node from now on; as [`Bus::asked`].
    ///
    /// # Errors
    /// When the connection is closed for good.
    pub async fn asked_of_all(&self) -> Result<Asked, BusError> {
        let client = self.inner.client.clone();
        let questions = client.subscribe(subjects::NODES).await.map_err(|_| BusError::Closed)?;
        Ok(Asked { questions, client })
    }

    /// Asks every node, and returns the answers that come within `limit`, or the first `most`
    /// of them. One that does not know the question does not answer.
    ///
    /// # Errors
    /// When there is no connection, or it is lost meanwhile.
    pub async fn ask_all<T: DeserializeOwned>(
        &self,
        question: &impl Serialize,
        limit: Duration,
        most: usize,
    ) -> Result<Vec<T>, BusError> {
        let lost = self.inner.acks.lost();
        let inbox = self.inner.client.new_inbox();
        let replies = self.subscribe(inbox.clone()).await?;
        let payload = serde_json::to_vec(question)?.into();
        let asking = self.inner.client.publish_with_reply(subjects::NODES, inbox, payload);
        asking.await.map_err(|_| BusError::Closed)?;
        // With nobody to answer the server says so, by a message without a body.
        let answers = replies
            .take_while(|reply| std::future::ready(reply.status.is_none()))
            .filter_map(async |reply| serde_json::from_slice(&reply.payload).ok())
            .take(most)
            .take_until(tokio::time::sleep(limit));
        tokio::select! {
            answers = answers.collect() => Ok(answers),
            () = lost => Err(BusError::Disconnected),
        }
    }

    /// Asks another node, which has this long to answer.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask<T: DeserializeOwned>(
        &self,
        node: Uuid,
        question: &impl Serialize,
        limit: Duration,
    ) -> Result<T, AskError> {
        // Whatever is on its way then may be lost, and the answer may take its time.
        let lost = self.inner.acks.lost();
        self.require_connection()?;
        let payload = serde_json::to_vec(question).map_err(BusError::from)?;
        let request = async_nats::Request::new().payload(payload.into()).timeout(Some(limit));
        let asked = tokio::select! {
            asked = self.inner.client.send_request(subjects::node(node), request) => asked,
            () = lost => return Err(BusError::Disconnected.into()),
        };
        let answer = asked.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => AskError::Gone,
            _ => AskError::Bus(error.into()),
        })?;
        serde_json::from_slice(&answer.payload)
            .map_err(|error| AskError::Bus(BusError::Unreadable(error.to_string())))
    }

    /// Waits until what was answered and told is on its way, for this long at most.
    pub async fn hand_over_all(&self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.inner.client.flush()).await;
    }

    /// Tells another node something that needs no answer.
    ///
    /// # Errors
    /// When it cannot be handed to the connection at once.
    pub fn tell_node(&self, node: Uuid, what: &impl Serialize) -> Result<(), BusError> {
        self.hand_over(subjects::node(node), serde_json::to_vec(what)?.into())
    }
}

/// What is asked of a node.
pub struct Asked {
    questions: Subscriber,
    client: Client,
}

impl Asked {
    /// The next question; none when the connection is closed for good.
    pub async fn next(&mut self) -> Option<Question> {
        let message = self.questions.next().await?;
        Some(Question { message, client: self.client.clone() })
    }
}

/// A question; its first answer counts.
pub struct Question {
    message: Message,
    client: Client,
}

impl Question {
    /// What is asked.
    ///
    /// # Errors
    /// [`BusError::Encoding`] when it is nothing that this version knows.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, BusError> {
        Ok(serde_json::from_slice(&self.message.payload)?)
    }

    /// Answers; whoever has not asked for that is told nothing.
    ///
    /// # Errors
    /// When the answer cannot be handed to the connection, or is larger than the broker takes.
    pub async fn answer(&self, answer: &impl Serialize) -> Result<(), BusError> {
        let Some(reply) = self.message.reply.clone() else { return Ok(()) };
        let payload = serde_json::to_vec(answer)?;
        self.client.publish(reply, payload.into()).await.map_err(|_| BusError::Closed)
    }
}
