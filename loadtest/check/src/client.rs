//! REST, and the frames of the socket, as any client would read them.

use std::time::{Duration, Instant};

use futures::{StreamExt, future::try_join_all};
use natter_protocol::ids::{ChatId, Seq, UserId};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{client::IntoClientRequest, http::HeaderValue},
};

use crate::{
    observations::{Entry, Text, What, digest},
    run::CheckError,
};

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How long one answer may take.
pub const ANSWER: Duration = Duration::from_secs(10);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(500);
/// How often something is tried: for 2 minutes, when nobody answers.
const TRIES: usize = 240;
/// Entries of a page of history.
const PAGE: usize = 200;
/// Pages of one chat's history.
const PAGES: usize = 10_000;

/// REST of all gateways.
#[derive(Clone)]
pub struct Rest {
    http: reqwest::Client,
    pub gateways: Vec<String>,
}

/// What came of a call.
pub enum Answer {
    /// 2xx.
    Ok(Value),
    /// A problem, by its code.
    Refused(u16, Value),
    /// None, or 5xx.
    None,
}

impl Rest {
    pub fn new(gateways: Vec<String>) -> Result<Self, CheckError> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(ANSWER).build()?;
        Ok(Self { http, gateways })
    }

    pub async fn call(
        &self,
        gateway: usize,
        method: reqwest::Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Answer {
        let gateway = &self.gateways[gateway % self.gateways.len()];
        let mut request = self.http.request(method, format!("{gateway}/v1{path}"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let Ok(response) = request.send().await else { return Answer::None };
        let status = response.status();
        let body = response.bytes().await.ok();
        let body = body.and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or(Value::Null);
        match status.as_u16() {
            200..300 => Answer::Ok(body),
            429 | 500.. => Answer::None,
            code => Answer::Refused(code, body),
        }
    }

    /// That there is a gateway at each address: whoever mistyped one is not to wait for minutes.
    pub async fn greet(&self) -> Result<(), CheckError> {
        let greet = self.gateways.iter().map(async |gateway| {
            let path = format!("{gateway}/v1/openapi.json");
            let began = Instant::now();
            while self.http.get(&path).send().await.is_err() {
                if began.elapsed() > ANSWER {
                    return Err(CheckError::NoAnswer { path });
                }
                sleep(AGAIN).await;
            }
            Ok(())
        });
        try_join_all(greet).await.map(drop)
    }

    /// Again and again until it is answered, on one gateway after the other; for about 2 minutes.
    pub async fn insist(
        &self,
        method: reqwest::Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Result<Value, CheckError> {
        for attempt in 0..TRIES {
            match self.call(attempt, method.clone(), path, token, body.clone()).await {
                Answer::Ok(value) => return Ok(value),
                Answer::Refused(status, problem) => {
                    let code = problem["code"].as_str().unwrap_or_default().to_owned();
                    let (path, unsure) = (path.to_owned(), attempt > 0);
                    return Err(CheckError::Refused { path, status, code, unsure });
                }
                Answer::None => sleep(AGAIN).await,
            }
        }
        Err(CheckError::NoAnswer { path: path.to_owned() })
    }

    /// A chat's history after a place, through one gateway, whole: an answer that is partial, as
    /// while Postgres is away, is asked for again.
    pub async fn history(
        &self,
        gateway: usize,
        token: &str,
        chat: ChatId,
        mut after: Seq,
    ) -> Result<Vec<Entry>, CheckError> {
        let mut entries = Vec::new();
        let mut patience = TRIES;
        for _ in 0..PAGES {
            let path = format!("/chats/{chat}/messages?after={after}&limit={PAGE}");
            let get = reqwest::Method::GET;
            let page = match self.call(gateway, get, &path, Some(token), None).await {
                Answer::Ok(page) if page["partial"] != true => page,
                Answer::Refused(status, problem) => {
                    let code = problem["code"].as_str().unwrap_or_default().to_owned();
                    return Err(CheckError::Refused { path, status, code, unsure: false });
                }
                Answer::Ok(_) | Answer::None if patience > 0 => {
                    patience -= 1;
                    sleep(AGAIN).await;
                    continue;
                }
                Answer::Ok(_) | Answer::None => return Err(CheckError::NoAnswer { path }),
            };
            for message in page["messages"].as_array().into_iter().flatten() {
                entries.extend(entry(message));
            }
            after = page["toSeq"].as_u64().unwrap_or(after);
            if page["hasMore"] != true {
                return Ok(entries);
            }
        }
        Err(CheckError::NoAnswer { path: format!("/chats/{chat}/messages") })
    }
}

/// A connection, before its `ready`.
pub async fn connect(gateway: &str, token: &str, cursor: Option<&str>) -> Option<Socket> {
    let ws = gateway.replacen("http", "ws", 1);
    let query = cursor.map(|cursor| format!("?cursor={cursor}")).unwrap_or_default();
    let mut request = format!("{ws}/v1/ws{query}").into_client_request().ok()?;
    let bearer = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    request.headers_mut().insert("authorization", bearer);
    let (socket, _) = timeout(ANSWER, connect_async(request)).await.ok()?.ok()?;
    Some(socket)
}

/// The next frame; none when the connection has ended.
pub async fn next(socket: &mut Socket) -> Option<Value> {
    loop {
        match socket.next().await {
            Some(Ok(tokio_tungstenite::tungstenite::Message::Text(text))) => {
                return serde_json::from_str(&text).ok();
            }
            Some(Ok(tokio_tungstenite::tungstenite::Message::Close(_)) | Err(_)) | None => {
                return None;
            }
            Some(Ok(_)) => {}
        }
    }
}

/// An entry out of a `message`, a `system`, or a message of a history.
pub fn entry(data: &Value) -> Option<Entry> {
    let (seq, prev) = (data["seq"].as_u64()?, data["prevSeq"].as_u64().unwrap_or(0));
    let system = data.get("system").filter(|system| system.is_object());
    let system = system.or_else(|| data.get("kind").map(|_| data));
    let what = match system {
        Some(system) => {
            let user = || id::<UserId>(&system["userId"]);
            match system["kind"].as_str()? {
                "created" => What::Created,
                "joined" | "added" => What::Joined(user()?),
                "left" | "removed" => What::Left(user()?),
                _ => What::Other,
            }
        }
        None => What::Message {
            id: id(&data["id"])?,
            text: Text {
                sender: id(&data["senderId"])?,
                client_msg_id: data["clientMsgId"].as_str()?.to_owned(),
                digest: digest(data["content"].as_str()?),
            },
        },
    };
    Some(Entry { seq, prev, what })
}

pub fn id<T: std::str::FromStr>(value: &Value) -> Option<T> {
    value.as_str()?.parse().ok()
}

pub fn send_body(client_msg_id: &str, content: &str) -> Value {
    json!({"content": content, "clientMsgId": client_msg_id})
}
