//! A gateway with a database of its own, and people who call it.

use std::{net::SocketAddr, sync::OnceLock, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Parser;
use natter_bus::{Bus, BusConfig, LogConfig};
use natter_cluster::testing;
use natter_gateway::config::Config;
use natter_runtime::Health;
use natter_store::{Store, StoreConfig};
use reqwest::{Client, Method, Response, header};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::OnceCell,
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// How long a gateway may take to become ready.
const READY: Duration = Duration::from_secs(30);

pub const SECRET: &str = "a secret of 32 bytes, for tests!";
pub const PASSWORD: &str = "correct horse battery";

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

/// A gateway that goes with this value.
pub struct Gateway {
    pub address: SocketAddr,
    pub client: Client,
    _stop: DropGuard,
    /// Of its files.
    _media: tempfile::TempDir,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: header::HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The body, if the status is this.
    pub fn expect(self, status: u16) -> Result<Value> {
        if self.status != status {
            bail!("{} instead of {status}: {}", self.status, self.body);
        }
        Ok(self.body)
    }

    /// Whether it is a problem of this status and code, in its documented form.
    pub fn refused(self, status: u16, code: &str) -> Result<Self> {
        let kind = self.headers.get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
        if self.status != status
            || self.body["code"] != code
            || self.body["status"] != status
            || kind != Some(b"application/problem+json")
            || self.headers.get("x-content-type-options").is_none()
        {
            bail!("{} {kind:?} instead of {status} {code}: {}", self.status, self.body);
        }
        Ok(self)
    }
}

/// A database that is migrated, for which this process migrates one, and copies it.
pub async fn migrated() -> Result<String> {
    testing::postgres_made(async |url| {
        Ok(Store::connect(&StoreConfig::new(url))?.migrate().await?)
    })
    .await
}

impl Gateway {
    /// With these settings besides the necessary ones.
    pub async fn start(settings: &[&str]) -> Result<Self> {
        Self::start_on(&migrated().await?, settings).await
    }

    /// With a database of one's own choice.
    pub async fn start_on(database: &str, settings: &[&str]) -> Result<Self> {
        let store = Store::connect(&StoreConfig::new(database))?;
        store.migrate().await?;
        let urls = [
            format!("--database-url={database}"),
            format!("--redis-url={}", testing::redis().await?),
            format!("--nats-url={}", nats().await?),
            format!("--jwt-secret={SECRET}"),
        ];
        let folder = tempfile::tempdir()?;
        let media = format!("--media-store={}", folder.path().display());
        let lenient = ["--calls-per-second=0", "--attempts-per-address=0", &media];
        let args = std::iter::once("gateway")
            .chain(urls.iter().map(String::as_str))
            .chain(lenient.into_iter().filter(|name| {
                let name = name.split('=').next().unwrap_or_default();
                !settings.iter().any(|setting| setting.starts_with(name))
            }))
            .chain(settings.iter().copied());
        let config = Cli::try_parse_from(args)?.config;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let health = Health::new();
        let running = natter_gateway::run(config, "rest", listener, health.clone(), stop.clone());
        tokio::spawn(async move {
            if let Err(error) = running.await {
                eprintln!("the gateway has ended: {error:?}");
            }
        });
        // Once it has reached the broker: what is committed before is left to a worker, and here is
        // none.
        timeout(READY, async {
            while !health.is_ready() {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .context("the gateway does not become ready")?;
        Ok(Self { address, client: client()?, _stop: stop.drop_guard(), _media: folder })
    }

    pub async fn call(&self, method: &str, path: &str, token: &str, body: Value) -> Result<Answer> {
        let url = format!("http://{}/v1{path}", self.address);
        let mut request = self.client.request(Method::from_bytes(method.as_bytes())?, url);
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if !body.is_null() {
            request = request.json(&body);
        }
        answer(request.send().await?).await
    }

    pub async fn get(&self, path: &str, token: &str) -> Result<Answer> {
        self.call("GET", path, token, Value::Null).await
    }

    pub async fn post(&self, path: &str, token: &str, body: Value) -> Result<Answer> {
        self.call("POST", path, token, body).await
    }

    /// Somebody new, with an e-mail address, logged in.
    pub async fn person(&self, name: &str) -> Result<Person> {
        let email = format!("{}@example.org", Uuid::new_v4().simple());
        let request = json!({"name": name, "email": email, "password": PASSWORD});
        let session = self.post("/auth/register", "", request).await?.expect(201)?;
        Person::of(&session, email)
    }

    pub async fn log_in(&self, email: &str, password: &str, device: Value) -> Result<Answer> {
        let request = json!({"email": email, "password": password, "device": device});
        self.post("/auth/login", "", request).await
    }
}

/// Somebody who is logged in.
#[derive(Clone, Debug)]
pub struct Person {
    pub id: String,
    pub device: String,
    pub email: String,
    pub token: String,
    pub refresh: String,
}

impl Person {
    pub fn of(session: &Value, email: impl Into<String>) -> Result<Self> {
        let text = |pointer: &str| -> Result<String> {
            let found = session.pointer(pointer).and_then(Value::as_str);
            Ok(found.with_context(|| format!("no {pointer} in {session}"))?.to_owned())
        };
        Ok(Self {
            id: text("/user/id")?,
            device: text("/device/id")?,
            email: email.into(),
            token: text("/accessToken")?,
            refresh: text("/refreshToken")?,
        })
    }
}

pub async fn answer(response: Response) -> Result<Answer> {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.bytes().await?;
    let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? };
    Ok(Answer { status, headers, body })
}

/// The process has one TLS provider, which the client asks for though it only speaks plainly.
fn client() -> Result<Client> {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        // An error means that the gateway was quicker.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
    Ok(Client::builder().build()?)
}

/// A broker with one shard's log; subjects carry random ids, so that tests can share it.
async fn nats() -> Result<String> {
    static LOG: OnceCell<()> = OnceCell::const_new();
    let url = testing::nats().await?;
    LOG.get_or_try_init(async || -> Result<()> {
        let bus = Bus::connect(&BusConfig::new(&url, "rest tests")).await?;
        while bus.ping().await.is_err() {
            tokio::task::yield_now().await;
        }
        let log =
            LogConfig { in_memory: true, max_bytes: 64 * 1024 * 1024, ..LogConfig::default() };
        bus.ensure_log(0, &log, None).await?;
        Ok(())
    })
    .await?;
    Ok(url)
}
