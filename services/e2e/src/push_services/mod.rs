//! The push services that devices are notified by, on loopback: what they take, real ones would.
//!
//! | module | holds |
//! |---|---|
//! | [`desk`] | what each answers when told to, and what came |
//! | [`web_push`] | a browser's push service, with its subscriptions |
//! | [`fcm`] | Firebase Cloud Messaging, with Google's token endpoint |
//! | [`apns`] | Apple's, over HTTP/2 without TLS |
//! | [`webhook`] | what an operator runs |
//! | [`endpoint`] | somebody's server that is told of events |
//! | [`keys`] | keys made for them |
//! | [`crowd`] | many people whom the webhook reaches |
//!
//! Each verifies a request before anything else; what a real one would refuse is refused, and noted in
//! [`Desk::violations`]. Then it answers as [`Desk::next`] said, or well.

pub mod apns;
pub mod crowd;
pub mod desk;
pub mod endpoint;
pub mod fcm;
pub mod keys;
pub mod web_push;
pub mod webhook;

use std::net::SocketAddr;

use anyhow::Result;
use apns::Apns;
use axum::Router;
pub use desk::{Desk, Pushed, Step};
use fcm::Fcm;
use natter_protocol::push::{Provider, Target};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use web_push::WebPush;
use webhook::Webhook;

/// All of them, until dropped.
pub struct PushServices {
    /// A browser's.
    pub web_push: WebPush,
    /// Google's.
    pub fcm: Fcm,
    /// Apple's.
    pub apns: Apns,
    /// The operator's.
    pub webhook: Webhook,
    /// Keys, as files.
    files: TempDir,
}

impl PushServices {
    /// Starts them, with new keys.
    ///
    /// # Errors
    /// When a port, a key or a file cannot be made.
    pub async fn start() -> Result<Self> {
        let files = TempDir::new()?;
        Ok(Self {
            web_push: WebPush::start(files.path()).await?,
            fcm: Fcm::start(files.path()).await?,
            apns: Apns::start(files.path()).await?,
            webhook: Webhook::start().await?,
            files,
        })
    }

    /// The settings with which natter-push uses them.
    #[must_use]
    pub fn env(&self) -> Vec<(&'static str, String)> {
        let all = [self.web_push.env(), self.fcm.env(), self.apns.env(), self.webhook.env()];
        all.concat()
    }

    /// A browser's new subscription.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn subscribe(&self) -> Result<Target> {
        self.web_push.subscribe()
    }

    /// A new target of a provider.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn register(&self, provider: Provider) -> Result<Target> {
        Ok(match provider {
            Provider::WebPush => self.web_push.subscribe()?,
            Provider::Fcm => self.fcm.register(),
            Provider::Apns => self.apns.register(false),
            Provider::Webhook => self.webhook.register(),
        })
    }

    /// It is none any more.
    pub fn unregister(&self, target: &Target) {
        match target.provider() {
            Provider::WebPush => self.web_push.unsubscribe(target),
            Provider::Fcm => self.fcm.unregister(target),
            Provider::Apns => self.apns.unregister(target),
            Provider::Webhook => self.webhook.unregister(target),
        }
    }

    /// What a provider's service answers, and what came.
    #[must_use]
    pub fn desk(&self, provider: Provider) -> &Desk {
        match provider {
            Provider::WebPush => &self.web_push.desk,
            Provider::Fcm => &self.fcm.desk,
            Provider::Apns => &self.apns.desk,
            Provider::Webhook => &self.webhook.desk,
        }
    }

    /// Where the keys are.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.files.path()
    }
}

/// A server of one of them, until dropped.
struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Where it will be.
    async fn bind() -> Result<(TcpListener, SocketAddr)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    }

    fn run(listener: TcpListener, address: SocketAddr, router: Router) -> Self {
        let task = tokio::spawn(async move {
            // Ends when it is aborted.
            let _ = axum::serve(listener, router).await;
        });
        Self { address, task }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
