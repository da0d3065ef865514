//! A cluster whose push workers know the services here, and what stories ask for again and again.

use std::{
    sync::{OnceLock, mpsc},
    thread,
};

use anyhow::{Context, Result, ensure};
use natter_cluster::{Builder, Cluster, Node};
use natter_e2e::{
    Api, Device, Person, Stage,
    push_services::{PushServices, Pushed, web_push::WebPush},
    soon,
};
use natter_protocol::{
    ids::{ChatId, DeviceId, MessageId, UserId},
    notify::{Delivery, DeliveryPage, PushReason, PushState},
    push::Target,
    server::Sent,
};
use serde_json::{Value, json};

/// Seconds that a message waits: enough for a story to come in between.
pub(crate) const WAIT: &str = "1";

/// The services of this process. Their tasks outlive each story's runtime.
pub(crate) fn services() -> &'static PushServices {
    static SERVICES: OnceLock<PushServices> = OnceLock::new();
    SERVICES.get_or_init(started)
}

/// Others, for stories that say what a service does next: one of them at a time.
pub(crate) fn scripted() -> &'static PushServices {
    static SERVICES: OnceLock<PushServices> = OnceLock::new();
    SERVICES.get_or_init(started)
}

fn started() -> PushServices {
    let (told, started) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            told.send(PushServices::start().await).expect("somebody waits");
            std::future::pending::<()>().await;
        });
    });
    started.recv().expect("the thread tells").expect("the services start")
}

/// With the services here, and little patience.
pub(crate) fn configured(builder: Builder) -> Builder {
    knowing(builder, services())
}

fn knowing(builder: Builder, services: &PushServices) -> Builder {
    let env = services.env();
    let builder = env.into_iter().fold(builder, |builder, (key, value)| builder.env(key, value));
    builder
        .push_env("NATTER_PUSH_WAIT", WAIT)
        .push_env("NATTER_PUSH_RETRY_SECONDS", "1")
        .push_env("NATTER_PUSH_DEADLINE_SECONDS", "3")
}

/// Where stories may ask as often as they like.
pub(crate) fn sociable(builder: Builder) -> Builder {
    builder
        .gateways(2)
        .gateway_env("NATTER_ATTEMPTS_PER_ADDRESS", "0")
        .gateway_env("NATTER_CALLS_PER_SECOND", "0")
}

/// What most stories are told on; alone where they hold the push worker.
pub(crate) static STAGE: Stage = Stage::with(configured);

/// What those are told on that say what a service does next.
pub(crate) static SCRIPTED: Stage = Stage::with(|builder| knowing(builder, scripted()));

/// Somebody whose device has registered with the browsers' push service.
pub(crate) struct Offline {
    pub(crate) person: Person,
    pub(crate) target: Target,
    pub(crate) services: &'static PushServices,
}

impl Offline {
    pub(crate) async fn register(cluster: &Cluster, name: &str) -> Result<Self> {
        Self::register_with(services(), cluster, name).await
    }

    pub(crate) async fn register_with(
        services: &'static PushServices,
        cluster: &Cluster,
        name: &str,
    ) -> Result<Self> {
        let person = Person::register(cluster, name).await?;
        let target = services.subscribe()?;
        register(&person.first, &target).await?;
        Ok(Self { person, target, services })
    }

    /// What the device was sent.
    pub(crate) fn pushed(&self) -> Vec<Pushed> {
        pushed_by(self.services, &self.target)
    }

    /// What it has shown.
    pub(crate) fn shown(&self) -> Vec<Pushed> {
        let name = WebPush::name(&self.target);
        self.services
            .web_push
            .desk
            .shown()
            .into_iter()
            .filter(|pushed| pushed.target == name)
            .collect()
    }

    /// Waits until it is notified of this message.
    pub(crate) async fn notified(&self, message: MessageId) -> Result<Pushed> {
        soon("a notification", async || {
            Ok(self
                .pushed()
                .into_iter()
                .find(|pushed| pushed.notice["messageId"] == json!(message)))
        })
        .await
    }
}

/// The push worker stands still until this is dropped, so that what a story does meanwhile is done within the
/// time that a message waits, however long it takes.
pub(crate) struct Held<'a>(&'a Node);

impl<'a> Held<'a> {
    pub(crate) fn of(cluster: &'a Cluster) -> Result<Self> {
        let worker = cluster.pusher(0);
        worker.pause()?;
        Ok(Self(worker))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.resume() {
            eprintln!("the push worker stands still: {error:#}");
        }
    }
}

/// Waits until this query finds something.
pub(crate) async fn written(cluster: &Cluster, query: &str) -> Result<()> {
    soon("it is written", async || Ok((!cluster.sql(query)?.trim().is_empty()).then_some(()))).await
}

/// What a browser's subscription was sent.
pub(crate) fn pushed(target: &Target) -> Vec<Pushed> {
    pushed_by(services(), target)
}

fn pushed_by(services: &PushServices, target: &Target) -> Vec<Pushed> {
    let name = WebPush::name(target);
    services.web_push.desk.pushed().into_iter().filter(|pushed| pushed.target == name).collect()
}

/// Registers a device.
pub(crate) async fn register(device: &Device, target: &Target) -> Result<Value> {
    let path = format!("/devices/{}/push", device.id);
    soon("the push workers have said what is set up", async || {
        let answer = device.api(0).put(&path, json!(target)).await?;
        let early = answer.status() == 400 && answer.body["detail"].to_string().contains("set up");
        if early { Ok(None) } else { answer.expect(200).map(Some) }
    })
    .await
}

/// What became of a message, as its sender sees it: all pages.
pub(crate) async fn delivery(api: &Api, message: MessageId) -> Result<DeliveryPage> {
    let mut whole: Option<DeliveryPage> = None;
    let mut cursor = String::new();
    loop {
        let page: DeliveryPage =
            api.get(&format!("/messages/{message}/delivery?limit=200{cursor}")).await?.read(200)?;
        let next = page.next_cursor.clone();
        match &mut whole {
            Some(whole) => whole.items.extend(page.items),
            None => whole = Some(page),
        }
        match next {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return whole.context("no page"),
        }
    }
}

/// The same once it is decided.
pub(crate) async fn decided(api: &Api, message: MessageId) -> Result<DeliveryPage> {
    soon("it is decided", async || {
        // Before it is written nobody knows of it.
        if api.get(&format!("/messages/{message}/delivery")).await?.status() == 404 {
            return Ok(None);
        }
        let page = delivery(api, message).await?;
        Ok(page.decided.then_some(page))
    })
    .await
}

/// What became of it for somebody: their one line.
pub(crate) fn of(page: &DeliveryPage, user: UserId) -> Result<&Delivery> {
    let mut lines = page.items.iter().filter(|line| line.user.id == user);
    let line = lines.next().with_context(|| format!("nothing of {user}: {page:?}"))?;
    ensure!(lines.next().is_none(), "several of {user}: {page:?}");
    Ok(line)
}

/// Waits until a device's notification has come to this.
pub(crate) async fn comes_to(
    api: &Api,
    message: MessageId,
    device: DeviceId,
    state: PushState,
) -> Result<Delivery> {
    soon("the notification has come so far", async || {
        let page = decided(api, message).await?;
        let line = page.items.into_iter().find(|line| line.device_id == Some(device));
        Ok(line.filter(|line| line.state == state))
    })
    .await
    .with_context(|| format!("{state:?}"))
}

/// Somebody is not notified of a message, and why.
pub(crate) async fn skips(api: &Api, sent: &Sent, user: UserId, reason: PushReason) -> Result<()> {
    let page = decided(api, sent.id).await?;
    let line = of(&page, user)?;
    ensure!((line.state, line.reason) == (PushState::Skipped, Some(reason)), "{line:?}");
    Ok(())
}

/// Says something that names somebody.
pub(crate) async fn mention(api: &Api, chat: ChatId, whom: UserId) -> Result<Sent> {
    let body = json!({"content": "look", "mentions": [whom]});
    api.post(&format!("/chats/{chat}/messages"), body).await?.read(201)
}
