//! Firebase Cloud Messaging, and the token endpoint that its callers log in at (RFC 7523).

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Result;
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Form, Path as Segments, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::post,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use natter_protocol::push::{Registration, Target};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Server,
    desk::{Desk, Pushed, Refusal, Step, header},
    keys,
};

const PROJECT: &str = "natter-tests";
const ACCOUNT: &str = "push@natter-tests.iam.gserviceaccount.com";
const KEY: &str = "key-1";
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
/// Bytes of notification and data.
const MESSAGE: usize = 4_096;

/// The service, until dropped.
pub struct Fcm {
    /// What it answers, and what came.
    pub desk: Desk,
    /// The same of the token endpoint.
    pub oauth: Desk,
    account_file: PathBuf,
    server: Server,
    inner: Arc<Inner>,
}

struct Inner {
    desk: Desk,
    oauth: Desk,
    token_uri: String,
    verifier: DecodingKey,
    state: Mutex<Registered>,
}

struct Registered {
    tokens: HashSet<String>,
    granted: HashSet<String>,
    /// Of tokens that are granted.
    life: u64,
}

#[derive(Deserialize)]
struct Assertion {
    scope: String,
    iat: i64,
    exp: i64,
}

impl Fcm {
    pub(super) async fn start(folder: &Path) -> Result<Self> {
        let (private, verifier) = keys::rs256()?;
        let (listener, address) = Server::bind().await?;
        let token_uri = format!("http://{address}/token");
        let account = json!({
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": KEY,
            "private_key": private,
            "client_email": ACCOUNT,
            "token_uri": token_uri,
        });
        let account_file = keys::write(folder, "fcm.json", &account.to_string())?;
        let state = Registered { tokens: HashSet::new(), granted: HashSet::new(), life: 3_600 };
        let inner = Arc::new(Inner {
            desk: Desk::default(),
            oauth: Desk::default(),
            token_uri,
            verifier,
            state: Mutex::new(state),
        });
        let router = Router::new()
            .route("/token", post(token))
            .route("/v1/projects/{project}/{call}", post(send))
            .with_state(inner.clone());
        let server = Server::run(listener, address, router);
        let (desk, oauth) = (inner.desk.clone(), inner.oauth.clone());
        Ok(Self { desk, oauth, account_file, server, inner })
    }

    pub(super) fn env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("NATTER_PUSH_FCM_ACCOUNT_FILE", self.account_file.display().to_string()),
            ("NATTER_PUSH_FCM_URL", self.server.url()),
        ]
    }

    /// An app's new registration.
    #[must_use]
    pub fn register(&self) -> Target {
        let token = format!("{}:{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        self.inner.state().tokens.insert(token.clone());
        Target::Fcm(Registration { token })
    }

    /// The app was removed.
    pub fn unregister(&self, target: &Target) {
        if let Target::Fcm(device) = target {
            self.inner.state().tokens.remove(&device.token);
        }
    }

    /// No access token that was granted is good any more.
    pub fn revoke(&self) {
        self.inner.state().granted.clear();
    }

    /// Access tokens are granted for so many seconds from now on.
    pub fn grant_for(&self, seconds: u64) {
        self.inner.state().life = seconds;
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, Registered> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grant(&self, form: &HashMap<String, String>) -> Result<Response, String> {
        let field = |name: &str| form.get(name).ok_or_else(|| format!("{name} is missing"));
        if field("grant_type")? != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
            return Err("another grant_type".to_owned());
        }
        let assertion = field("assertion")?;
        let head = jsonwebtoken::decode_header(assertion).map_err(|error| error.to_string())?;
        if head.kid.as_deref() != Some(KEY) {
            return Err("another key".to_owned());
        }
        let mut validation = Validation::new(Algorithm::RS256);
        validation.leeway = 0;
        validation.set_audience(&[&self.token_uri]);
        validation.set_issuer(&[ACCOUNT]);
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        let said = jsonwebtoken::decode::<Assertion>(assertion, &self.verifier, &validation);
        let said = said.map_err(|error| format!("the assertion: {error}"))?.claims;
        let now = OffsetDateTime::now_utc().unix_timestamp();
        if said.iat > now || said.exp - said.iat > 3_600 || said.scope != SCOPE {
            return Err("iat, exp or scope".to_owned());
        }
        let token = format!("ya29.{}", Uuid::new_v4().simple());
        let mut state = self.state();
        state.granted.insert(token.clone());
        let granted =
            json!({"access_token": token, "expires_in": state.life, "token_type": "Bearer"});
        Ok(Json(granted).into_response())
    }

    fn verify(
        &self,
        project: &str,
        call: &str,
        headers: HeaderMap,
        body: &[u8],
    ) -> Result<Pushed, Refusal> {
        if project != PROJECT || call != "messages:send" {
            return Err(Refusal::of(Step::status(404), format!("{project}/{call}")));
        }
        let bearer = header(&headers, "authorization").ok();
        let bearer = bearer.and_then(|given| given.strip_prefix("Bearer "));
        if !bearer.is_some_and(|token| self.state().granted.contains(token)) {
            return Err(refusal(401, "UNAUTHENTICATED", "no token of ours"));
        }
        let invalid = |why: String| refusal(400, "INVALID_ARGUMENT", &why);
        let (notice, about, token) = read(body).map_err(invalid)?;
        if !self.state().tokens.contains(&token) {
            return Err(Refusal::gone(Step::fcm(404, "UNREGISTERED")));
        }
        Ok(Pushed { target: token, about: Some(about), id: None, notice, headers, lost: false })
    }
}

/// The notice, its collapse key and the token of a message.
fn read(body: &[u8]) -> Result<(Value, String, String), String> {
    let body: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let message = &body["message"];
    let text = |at: &str| {
        let value = message.pointer(at).and_then(Value::as_str);
        value.map(str::to_owned).ok_or_else(|| format!("{at} is no text"))
    };
    let data = message["data"].as_object().ok_or("no data")?;
    if !data.values().all(Value::is_string) {
        return Err("data that is no text".to_owned());
    }
    let bytes = message["notification"].to_string().len() + message["data"].to_string().len();
    if bytes > MESSAGE {
        return Err("more than 4,096 bytes".to_owned());
    }
    let ttl = text("/android/ttl")?;
    if ttl.strip_suffix('s').is_none_or(|seconds| seconds.parse::<f64>().is_err()) {
        return Err("ttl is no duration".to_owned());
    }
    let about = text("/android/collapse_key")?;
    if text("/android/notification/tag")? != about {
        return Err("tag and collapse key differ".to_owned());
    }
    let notice: Value =
        serde_json::from_str(&text("/data/notice")?).map_err(|error| error.to_string())?;
    let shown = &message["notification"];
    if notice["title"] != shown["title"]
        || notice.get("body") != shown.get("body").filter(|body| !body.is_null())
    {
        return Err("notification and data differ".to_owned());
    }
    Ok((notice, about, text("/token")?))
}

async fn token(
    State(inner): State<Arc<Inner>>,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    let _arrival = inner.oauth.arrive();
    match inner.grant(&form) {
        Ok(well) => inner.oauth.deal_otherwise(well).await,
        Err(why) => {
            inner.oauth.note(why);
            let said = json!({"error": "invalid_grant"});
            (axum::http::StatusCode::BAD_REQUEST, Json(said)).into_response()
        }
    }
}

async fn send(
    State(inner): State<Arc<Inner>>,
    Segments((project, call)): Segments<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let _arrival = inner.desk.arrive();
    let verified = inner.verify(&project, &call, headers, &body);
    let name = format!("projects/{PROJECT}/messages/{}", Uuid::new_v4().simple());
    inner.desk.deal(verified, Json(json!({"name": name})).into_response()).await
}

fn refusal(status: u16, code: &str, why: &str) -> Refusal {
    Refusal::of(Step::fcm(status, code), why)
}
