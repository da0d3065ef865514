//! Somebody with an account, and their devices.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Result;
use natter_cluster::Cluster;
use natter_protocol::{
    ids::{DeviceId, UserId},
    rest::Session,
};
use serde_json::json;

use crate::{
    api::{Api, client},
    socket::Socket,
};

/// Where the gateways of a cluster are, and a way to get there.
#[derive(Clone, Debug)]
struct Gateways {
    client: reqwest::Client,
    addresses: Arc<[SocketAddr]>,
}

impl Gateways {
    fn of(cluster: &Cluster) -> Result<Self> {
        let addresses = cluster.gateways().iter().map(natter_cluster::Node::address).collect();
        Ok(Self { client: client()?, addresses })
    }

    fn api(&self, gateway: usize) -> Api {
        Api::new(self.client.clone(), self.addresses[gateway])
    }
}

/// Somebody with an account and at least one device.
#[derive(Clone, Debug)]
pub struct Person {
    /// The account.
    pub id: UserId,
    /// The name shown.
    pub name: String,
    /// What they log in with.
    pub phone: String,
    /// What else they need for it.
    pub password: String,
    /// The device that they registered with.
    pub first: Device,
    gateways: Gateways,
}

/// One of a person's devices, logged in.
#[derive(Clone, Debug)]
pub struct Device {
    /// The device.
    pub id: DeviceId,
    /// Whose it is.
    pub user: UserId,
    /// `Ana's phone`.
    pub label: String,
    /// Its token.
    pub access_token: String,
    /// What it gets the next one with.
    pub refresh_token: String,
    gateways: Gateways,
}

/// A phone number that nobody else in this cluster has.
pub fn fresh_phone() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let process = u64::from(std::process::id()) % 10_000_000;
    format!("+49{process:07}{:05}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The REST interface of a gateway, for somebody without an account.
///
/// # Errors
/// When there is no HTTP client to be had.
pub fn anonymous(cluster: &Cluster, gateway: usize) -> Result<Api> {
    Ok(Api::new(client()?, cluster.gateway(gateway).address()))
}

impl Person {
    /// Logs somebody in who has an account already, on their first device.
    ///
    /// # Errors
    /// When the gateway refuses.
    pub async fn log_in(cluster: &Cluster, phone: &str, password: &str) -> Result<Self> {
        let gateways = Gateways::of(cluster)?;
        let body = json!({"phone": phone, "password": password});
        let session = gateways.api(0).post("/auth/login", body).await?.read::<Session>(200)?;
        let (id, name) = (session.user.id, session.user.name.clone());
        let first = Device::new(session, format!("{name}'s first"), gateways.clone());
        let (phone, password) = (phone.to_owned(), password.to_owned());
        Ok(Self { id, name, phone, password, first, gateways })
    }

    /// Registers somebody, with their first device.
    ///
    /// # Errors
    /// When the gateway refuses.
    pub async fn register(cluster: &Cluster, name: &str) -> Result<Self> {
        let gateways = Gateways::of(cluster)?;
        let (phone, password) = (fresh_phone(), format!("the password of {name}"));
        let device = json!({"name": format!("{name}'s first"), "platform": "web"});
        let body = json!({"name": name, "phone": phone, "password": password, "device": device});
        let session = gateways.api(0).post("/auth/register", body).await?.read::<Session>(201)?;
        let id = session.user.id;
        let first = Device::new(session, format!("{name}'s first"), gateways.clone());
        Ok(Self { id, name: name.to_owned(), phone, password, first, gateways })
    }

    /// Logs in on another device.
    ///
    /// # Errors
    /// When the gateway refuses.
    pub async fn device(&self, name: &str) -> Result<Device> {
        let device = json!({"name": name, "platform": "web"});
        let body = json!({"phone": self.phone, "password": self.password, "device": device});
        let session = self.gateways.api(0).post("/auth/login", body).await?.read::<Session>(200)?;
        let label = format!("{}'s {name}", self.name);
        Ok(Device::new(session, label, self.gateways.clone()))
    }

    /// REST of a gateway, as the first device.
    pub fn api(&self, gateway: usize) -> Api {
        self.first.api(gateway)
    }

    /// A connection of the first device.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn connect(&self, gateway: usize) -> Result<Socket> {
        self.first.connect(gateway).await
    }
}

impl Device {
    /// A device that somebody else has logged in.
    ///
    /// # Errors
    /// When there is no HTTP client to be had.
    pub fn given(cluster: &Cluster, session: Session, label: &str) -> Result<Self> {
        let addresses = cluster.gateways().iter().map(natter_cluster::Node::address).collect();
        Ok(Self::new(session, label.to_owned(), Gateways { client: client()?, addresses }))
    }

    fn new(session: Session, label: String, gateways: Gateways) -> Self {
        let Session { user, device, access_token, refresh_token, .. } = session;
        Self { id: device.id, user: user.id, label, access_token, refresh_token, gateways }
    }

    /// The same device with the tokens of a later session.
    #[must_use]
    pub fn renewed(&self, session: Session) -> Self {
        Self::new(session, self.label.clone(), self.gateways.clone())
    }

    /// REST of a gateway.
    pub fn api(&self, gateway: usize) -> Api {
        self.gateways.api(gateway).with_token(&self.access_token)
    }

    /// A connection that resumes from a cursor.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn resume(&self, gateway: usize, cursor: &str) -> Result<Socket> {
        let address = self.gateways.addresses[gateway];
        let label = format!("{}, resumed on gateway {gateway}", self.label);
        Ok(Socket::resume(address, &self.access_token, cursor).await?.labelled(label))
    }

    /// A connection to a gateway.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn connect(&self, gateway: usize) -> Result<Socket> {
        let address = self.gateways.addresses[gateway];
        let label = format!("{} on gateway {gateway}", self.label);
        Ok(Socket::connect(address, &self.access_token).await?.labelled(label))
    }
}
