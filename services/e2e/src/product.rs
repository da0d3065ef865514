//! A product that Natter is embedded in: its servers, which call by a service token.

use anyhow::Result;
use natter_cluster::Cluster;
use natter_gateway::auth::service::NewToken;
use natter_protocol::{
    ids::{ChatId, ServiceTokenId, UserId},
    rest::Session,
    server::{Chat, HistoryPage, Message, Sent},
    service::{Scope, ServerUser},
};
use natter_store::{NewServiceToken, Store, StoreConfig};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Api, Device, person::anonymous};

/// The product's servers.
pub struct Product<'a> {
    cluster: &'a Cluster,
    /// The token, to revoke it by.
    pub id: ServiceTokenId,
    /// Operators' way to the database.
    pub store: Store,
    gateways: Vec<Api>,
}

impl<'a> Product<'a> {
    /// With a token that may do all.
    ///
    /// # Errors
    /// When Postgres does not take it.
    pub async fn new(cluster: &'a Cluster) -> Result<Self> {
        let store = Store::connect(&StoreConfig::new(cluster.database_url()))?;
        let NewToken { id, text, hash } = NewToken::generate();
        let scopes = Scope::MEANINGS.iter().map(|(scope, _)| *scope).collect();
        let new = NewServiceToken {
            id,
            name: "the product".to_owned(),
            hash,
            scopes,
            calls_per_second: Some(1_000_000),
        };
        store.create_service_token(&new).await?;
        let gateways = (0..cluster.gateways().len())
            .map(|gateway| Ok(anonymous(cluster, gateway)?.with_token(&text)))
            .collect::<Result<_>>()?;
        Ok(Self { cluster, id, store, gateways })
    }

    /// REST of a gateway, as the product's servers use it.
    pub fn api(&self, gateway: usize) -> &Api {
        &self.gateways[gateway]
    }

    /// Somebody whom only the product knows.
    ///
    /// # Errors
    /// When a gateway refuses it.
    pub async fn user(&self, name: &str, bot: bool) -> Result<ServerUser> {
        let external_id = format!("{name}-{}", Uuid::now_v7());
        let body = json!({"name": name, "externalId": external_id, "bot": bot});
        self.api(0).post("/server/users", body).await?.read(201)
    }

    /// Logs a device of theirs in.
    ///
    /// # Errors
    /// When a gateway refuses it.
    pub async fn device(&self, user: &ServerUser) -> Result<Device> {
        let body = json!({"device": {"name": "made by the product", "platform": "web"}});
        let path = format!("/server/users/{}/devices", user.id);
        let session: Session = self.api(1).post(&path, body).await?.read(201)?;
        Device::given(self.cluster, session, &format!("{}'s device", user.name))
    }

    /// Lets nobody in as this user any more.
    ///
    /// # Errors
    /// When the gateway refuses it.
    pub async fn disable(&self, gateway: usize, user: UserId) -> Result<()> {
        self.tell(gateway, user, "disable").await
    }

    /// Lets the user in again.
    ///
    /// # Errors
    /// When the gateway refuses it.
    pub async fn enable(&self, gateway: usize, user: UserId) -> Result<()> {
        self.tell(gateway, user, "enable").await
    }

    async fn tell(&self, gateway: usize, user: UserId, what: &str) -> Result<()> {
        let path = format!("/server/users/{user}/{what}");
        self.api(gateway).post_text(&path, "").await?.expect(200)?;
        Ok(())
    }

    /// A group of the first one's.
    ///
    /// # Errors
    /// When a gateway refuses it.
    pub async fn group(&self, users: &[UserId]) -> Result<Chat> {
        let body = json!({
            "isGroup": true, "title": "Order 1138", "ownerId": users[0], "participantIds": users,
        });
        self.api(0).post("/server/chats", body).await?.read(201)
    }

    /// Says something as somebody.
    ///
    /// # Errors
    /// When a gateway refuses it.
    pub async fn say(&self, send_as: &Value, chat: ChatId, content: &str) -> Result<Sent> {
        let body = json!({"sendAs": send_as, "content": content});
        self.api(0).post(&format!("/server/chats/{chat}/messages"), body).await?.read(201)
    }

    /// All that is said in a chat, page by page, system entries aside.
    ///
    /// # Errors
    /// When a gateway refuses a page.
    pub async fn history(&self, chat: ChatId) -> Result<Vec<Message>> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let path = format!("/server/chats/{chat}/messages?limit=100&after={after}");
            let page: HistoryPage = self.api(1).get(&path).await?.read(200)?;
            all.extend(page.messages.into_iter().filter(|message| message.system.is_none()));
            after = page.to_seq;
            if !page.has_more {
                return Ok(all);
            }
        }
    }
}
