//! REST as one device uses it.

use std::{net::SocketAddr, sync::Once, time::Duration};

use anyhow::{Context, Result, ensure};
use natter_protocol::{
    ids::ChatId,
    rest::{ChatPage, SearchPage},
    server::{Chat, HistoryPage, Sent},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Method, RequestBuilder, StatusCode, header, multipart::Form};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::person::Person;

/// How long a connection is kept that nothing is asked over.
const UNUSED: Duration = Duration::from_secs(2);
/// How long an answer may take.
const ANSWERED: Duration = Duration::from_secs(20);
/// How long a large file may take.
const UPLOADED: Duration = Duration::from_mins(5);

/// A gateway's REST interface, with a token or without.
#[derive(Clone, Debug)]
pub struct Api {
    client: Client,
    gateway: SocketAddr,
    token: Option<String>,
}

/// What a gateway answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The media type, without parameters.
    pub content_type: String,
    /// The body; null where there is none, a string where it is no JSON.
    pub body: Value,
    asked: String,
}

/// A client without a connection yet. Connections belong to a runtime, and every test has its
/// own; so clients are not shared between stories.
///
/// # Errors
/// When it cannot be made.
pub fn client() -> Result<Client> {
    static PROVIDER: Once = Once::new();
    // Nothing here speaks TLS, but there is no client without a provider of it.
    PROVIDER.call_once(|| {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    });
    // A gateway hangs up on who asks for nothing; what is asked at that moment would fail.
    let client = Client::builder().no_proxy().tls_certs_only([]).pool_idle_timeout(UNUSED);
    let client = client.timeout(ANSWERED);
    Ok(client.build()?)
}

impl Api {
    /// Without a token.
    pub fn new(client: Client, gateway: SocketAddr) -> Self {
        Self { client, gateway, token: None }
    }

    /// The same with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// `path` is below `/v1`.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.call(Method::GET, path, None).await
    }

    /// As [`Api::get`].
    pub async fn post(&self, path: &str, body: Value) -> Result<Answer> {
        self.call(Method::POST, path, Some(body.to_string())).await
    }

    /// As [`Api::post`] with a body that need not be JSON.
    pub async fn post_text(&self, path: &str, body: impl Into<String>) -> Result<Answer> {
        self.call(Method::POST, path, Some(body.into())).await
    }

    /// As [`Api::get`].
    pub async fn patch(&self, path: &str, body: Value) -> Result<Answer> {
        self.call(Method::PATCH, path, Some(body.to_string())).await
    }

    /// As [`Api::post`].
    pub async fn put(&self, path: &str, body: Value) -> Result<Answer> {
        self.call(Method::PUT, path, Some(body.to_string())).await
    }

    /// As [`Api::get`].
    pub async fn delete(&self, path: &str) -> Result<Answer> {
        self.call(Method::DELETE, path, None).await
    }

    /// A request as this device makes it; `path` is below `/v1`.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("http://{}/v1{path}", self.gateway));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Where the gateway is.
    pub fn gateway(&self) -> SocketAddr {
        self.gateway
    }

    /// Uploads a form to a chat.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn upload(&self, chat: ChatId, form: Form) -> Result<Answer> {
        let path = format!("/chats/{chat}/media");
        let request = self.request(Method::POST, &path).multipart(form).timeout(UPLOADED);
        Self::answered(request, format!("an upload at {}", self.gateway)).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<String>) -> Result<Answer> {
        let asked = format!("{method} {path} at {}", self.gateway);
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        }
        Self::answered(request, asked).await
    }

    async fn answered(request: RequestBuilder, asked: String) -> Result<Answer> {
        let response = request.send().await.with_context(|| asked.clone())?;
        let status = response.status();
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let content_type = content_type.split(';').next().unwrap_or_default().trim().to_owned();
        let text = response.text().await.with_context(|| asked.clone())?;
        let body = match text.as_str() {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
        };
        Ok(Answer { status, content_type, body, asked })
    }
}

/// What stories ask for again and again.
impl Api {
    /// Makes a group that nobody may join by themselves.
    pub async fn group(&self, title: &str, others: &[&Person]) -> Result<Chat> {
        let ids: Vec<_> = others.iter().map(|person| person.id).collect();
        let body = json!({"isGroup": true, "title": title, "participantIds": ids});
        self.post("/chats", body).await?.read(201)
    }

    /// Makes a group that anybody may join.
    pub async fn open_group(&self, title: &str, others: &[&Person]) -> Result<Chat> {
        let ids: Vec<_> = others.iter().map(|person| person.id).collect();
        let body = json!({"isGroup": true, "title": title, "participantIds": ids, "open": true});
        self.post("/chats", body).await?.read(201)
    }

    /// Makes a one-to-one that is not there yet.
    pub async fn direct(&self, other: &Person) -> Result<Chat> {
        let body = json!({"isGroup": false, "participantIds": [other.id]});
        self.post("/chats", body).await?.read(201)
    }

    /// Sends a message.
    pub async fn say(&self, chat: ChatId, content: &str) -> Result<Sent> {
        let body = json!({"content": content});
        self.post(&format!("/chats/{chat}/messages"), body).await?.read(201)
    }

    /// One chat.
    pub async fn chat(&self, chat: ChatId) -> Result<Chat> {
        self.get(&format!("/chats/{chat}")).await?.read(200)
    }

    /// A page of chats; `query` is like `limit=3`.
    pub async fn chats(&self, query: &str) -> Result<ChatPage> {
        self.get(&format!("/chats?{query}")).await?.read(200)
    }

    /// A page of what is found; `query` is like `limit=3`, beside the text.
    pub async fn search(&self, text: &str, query: &str) -> Result<SearchPage> {
        self.search_answer(text, query).await?.read(200)
    }

    /// The same, refused perhaps.
    pub async fn search_answer(&self, text: &str, query: &str) -> Result<Answer> {
        let text = utf8_percent_encode(text, NON_ALPHANUMERIC);
        self.get(&format!("/search/messages?q={text}&{query}")).await
    }

    /// A page of messages; `query` is like `before=7`.
    pub async fn history(&self, chat: ChatId, query: &str) -> Result<HistoryPage> {
        self.get(&format!("/chats/{chat}/messages?{query}")).await?.read(200)
    }
}

impl Answer {
    /// The body of an answer with this status.
    ///
    /// # Errors
    /// When the status is another.
    pub fn expect(self, status: u16) -> Result<Value> {
        let Self { status: actual, body, asked, .. } = self;
        ensure!(actual == status, "{asked}: {status} expected, it is {actual} {body}");
        Ok(body)
    }

    /// The same, read as a `T`.
    ///
    /// # Errors
    /// When the status is another, or the body no `T`.
    pub fn read<T: DeserializeOwned>(self, status: u16) -> Result<T> {
        let asked = self.asked.clone();
        let body = self.expect(status)?;
        serde_json::from_value(body.clone()).with_context(|| format!("{asked}: {body}"))
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// Makes sure that it is a refusal as RFC 9457 has it, with this status and code.
    ///
    /// # Errors
    /// When it is not.
    pub fn refused(self, status: u16, code: &str) -> Result<Value> {
        let Self { status: actual, body, asked, content_type } = self;
        let told = format!("{actual} {content_type} {body}");
        ensure!(
            actual == status && body["code"] == code,
            "{asked}: {status} {code} expected, it is {told}"
        );
        ensure!(content_type == "application/problem+json", "{asked}: no problem+json: {told}");
        ensure!(body["status"].is_null() || body["status"] == status, "{asked}: {told}");
        Ok(body)
    }
}
