//! A browser's push service (RFC 8030): it makes subscriptions, verifies who asks (RFC 8292), and
//! decrypts as the browser would (RFC 8291).

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Result, anyhow};
use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey},
    error::Unspecified,
    hkdf::{HKDF_SHA256, KeyType, Salt},
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path as Segment, State},
    http::HeaderMap,
    response::Response,
    routing::post,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use natter_protocol::push::{Subscription, SubscriptionKeys, Target};
use serde::Deserialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Server,
    desk::{Desk, Pushed, Refusal, Step, header, respond},
    keys,
};

/// RFC 8030, section 7.2: what is longer a service may refuse.
const BODY: usize = 4096;
/// RFC 8292, section 2: a token is good for a day at most.
const DAY: i64 = 24 * 3_600;
/// RFC 8030, section 5.4.
const TOPIC: usize = 32;

/// The service, until dropped.
pub struct WebPush {
    /// What it answers, and what came.
    pub desk: Desk,
    /// The application server's public key, in base64url.
    pub key: String,
    key_file: PathBuf,
    server: Server,
    inner: Arc<Inner>,
}

struct Inner {
    desk: Desk,
    origin: String,
    key: String,
    verifier: DecodingKey,
    subscriptions: Mutex<HashMap<String, Option<Arc<Browser>>>>,
}

/// What a browser keeps of a subscription.
struct Browser {
    private: PrivateKey,
    public: Vec<u8>,
    auth: [u8; 16],
}

#[derive(Deserialize)]
struct Claims {
    exp: i64,
    sub: String,
}

impl WebPush {
    pub(super) async fn start(folder: &Path) -> Result<Self> {
        let (pem, public) = keys::es256()?;
        let key_file = keys::write(folder, "vapid.pem", &pem)?;
        Self::serve(key_file, &public).await
    }

    /// A service of another browser, for the same application server.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn another(&self) -> Result<Self> {
        Self::serve(self.key_file.clone(), &URL_SAFE_NO_PAD.decode(&self.key)?).await
    }

    async fn serve(key_file: PathBuf, public: &[u8]) -> Result<Self> {
        let (listener, address) = Server::bind().await?;
        let key = URL_SAFE_NO_PAD.encode(public);
        let inner = Arc::new(Inner {
            desk: Desk::default(),
            origin: format!("http://{address}"),
            key: key.clone(),
            verifier: keys::verifier(public)?,
            subscriptions: Mutex::default(),
        });
        let router = Router::new().route("/push/{id}", post(push)).with_state(inner.clone());
        let server = Server::run(listener, address, router);
        Ok(Self { desk: inner.desk.clone(), key, key_file, server, inner })
    }

    pub(super) fn env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("NATTER_PUSH_VAPID_KEY_FILE", self.key_file.display().to_string()),
            ("NATTER_PUSH_VAPID_SUBJECT", "mailto:push@example.org".to_owned()),
            ("NATTER_PUSH_HOSTS", self.url()),
        ]
    }

    /// Where it is, as `NATTER_PUSH_HOSTS` names it.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// A new subscription.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn subscribe(&self) -> Result<Target> {
        let none = |_: Unspecified| anyhow!("no key can be made");
        let private = PrivateKey::generate(&ECDH_P256).map_err(none)?;
        let public = private.compute_public_key().map_err(none)?.as_ref().to_vec();
        let auth = *Uuid::new_v4().as_bytes();
        let id = Uuid::new_v4().simple().to_string();
        let subscription = Subscription {
            endpoint: format!("{}/push/{id}", self.inner.origin),
            keys: SubscriptionKeys {
                p256dh: URL_SAFE_NO_PAD.encode(&public),
                auth: URL_SAFE_NO_PAD.encode(auth),
            },
            expiration_time: None,
        };
        let browser = Browser { private, public, auth };
        self.inner.subscriptions().insert(id, Some(Arc::new(browser)));
        Ok(Target::WebPush(subscription))
    }

    /// The name by which [`Pushed`] has a subscription.
    #[must_use]
    pub fn name(target: &Target) -> String {
        match target {
            Target::WebPush(subscription) => {
                let id = subscription.endpoint.rsplit('/').next();
                id.unwrap_or_default().to_owned()
            }
            _ => String::new(),
        }
    }

    /// The browser's user takes it back: it is gone (410) from now on.
    pub fn unsubscribe(&self, target: &Target) {
        self.inner.subscriptions().insert(Self::name(target), None);
    }
}

impl Inner {
    fn subscriptions(&self) -> MutexGuard<'_, HashMap<String, Option<Arc<Browser>>>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verify(&self, id: String, headers: HeaderMap, body: &[u8]) -> Result<Pushed, Refusal> {
        self.authorized(&headers).map_err(|why| refusal(403, why))?;
        let topic = well_formed(&headers, body)?;
        let known = self.subscriptions().get(&id).cloned();
        let browser = match known {
            None => return Err(Refusal::gone(Step::status(404))),
            Some(None) => return Err(Refusal::gone(Step::status(410))),
            Some(Some(browser)) => browser,
        };
        let plain = browser.decrypt(body).map_err(|why| refusal(400, why))?;
        let notice = serde_json::from_slice(&plain);
        let notice = notice.map_err(|_| refusal(400, "the payload is no JSON"))?;
        Ok(Pushed { target: id, about: topic, id: None, notice, headers, lost: false })
    }

    fn authorized(&self, headers: &HeaderMap) -> Result<(), String> {
        let given = header(headers, "authorization")?;
        let given = given.strip_prefix("vapid ").ok_or("the scheme is not vapid")?;
        let parts: HashMap<_, _> =
            given.split(',').filter_map(|part| part.trim().split_once('=')).collect();
        let (token, key) = parts.get("t").zip(parts.get("k")).ok_or("t or k is missing")?;
        if **key != self.key {
            return Err("subscribed with another key".to_owned());
        }
        let mut validation = Validation::new(Algorithm::ES256);
        validation.leeway = 0;
        validation.set_audience(&[&self.origin]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        let token = jsonwebtoken::decode::<Claims>(token, &self.verifier, &validation);
        let claims = token.map_err(|error| format!("the token: {error}"))?.claims;
        if claims.exp > OffsetDateTime::now_utc().unix_timestamp() + DAY {
            return Err("the token is good for more than a day".to_owned());
        }
        if !claims.sub.starts_with("mailto:") && !claims.sub.starts_with("https:") {
            return Err("the subject is no contact".to_owned());
        }
        Ok(())
    }
}

async fn push(
    State(inner): State<Arc<Inner>>,
    Segment(id): Segment<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let _arrival = inner.desk.arrive();
    let verified = inner.verify(id, headers, &body);
    let mut well = respond(201, Body::empty());
    let place = format!("{}/message/{}", inner.origin, Uuid::new_v4().simple());
    if let Ok(place) = place.try_into() {
        well.headers_mut().insert("location", place);
    }
    inner.desk.deal(verified, well).await
}

/// Checks what RFC 8030 and 8188 want of a request, and returns its topic.
fn well_formed(headers: &HeaderMap, body: &[u8]) -> Result<Option<String>, Refusal> {
    if body.len() > BODY {
        return Err(refusal(413, "more than 4,096 bytes"));
    }
    let text = |name| header(headers, name).map_err(|why| refusal(400, why));
    if text("content-encoding")? != "aes128gcm" {
        return Err(refusal(400, "not aes128gcm"));
    }
    if text("ttl")?.parse::<u32>().is_err() {
        return Err(refusal(400, "TTL is no number"));
    }
    if headers.contains_key("urgency")
        && !["very-low", "low", "normal", "high"].contains(&text("urgency")?)
    {
        return Err(refusal(400, "no such urgency"));
    }
    if !headers.contains_key("topic") {
        return Ok(None);
    }
    let topic = text("topic")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if topic.is_empty() || topic.len() > TOPIC || !topic.bytes().all(plain) {
        return Err(refusal(400, "no topic"));
    }
    Ok(Some(topic.to_owned()))
}

impl Browser {
    fn decrypt(&self, body: &[u8]) -> Result<Vec<u8>, &'static str> {
        let header = body.split_at_checked(21).ok_or("no header");
        let ((salt, size, length), rest) = header.map(|(header, rest)| {
            let size = [header[16], header[17], header[18], header[19]];
            ((&header[..16], u32::from_be_bytes(size) as usize, usize::from(header[20])), rest)
        })?;
        let (sender, record) = rest.split_at_checked(length).ok_or("no key")?;
        if record.len() > size {
            return Err("more than one record");
        }
        let mut record = record.to_vec();
        let opened = self.open(salt, sender, &mut record).map_err(|_| "cannot be decrypted")?;
        let end = opened.iter().rposition(|byte| *byte != 0).ok_or("nothing but padding")?;
        if opened[end] != 2 {
            return Err("not the last record");
        }
        Ok(opened[..end].to_vec())
    }

    fn open<'a>(
        &self,
        salt: &[u8],
        sender: &[u8],
        record: &'a mut [u8],
    ) -> Result<&'a mut [u8], Unspecified> {
        let peer = UnparsedPublicKey::new(&ECDH_P256, sender);
        let ikm = agreement::agree(&self.private, peer, Unspecified, |shared| {
            derive::<32>(&self.auth, shared, &[b"WebPush: info\0", &self.public, sender])
        })?;
        let key = derive::<16>(salt, &ikm, &[b"Content-Encoding: aes128gcm\0"])?;
        let nonce = derive::<12>(salt, &ikm, &[b"Content-Encoding: nonce\0"])?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key)?);
        key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::empty(), record)
    }
}

fn derive<const N: usize>(salt: &[u8], key: &[u8], info: &[&[u8]]) -> Result<[u8; N], Unspecified> {
    let mut out = [0; N];
    Salt::new(HKDF_SHA256, salt).extract(key).expand(info, Length(N))?.fill(&mut out)?;
    Ok(out)
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn refusal(status: u16, why: impl Into<String>) -> Refusal {
    Refusal::of(Step::status(status), why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8291, section 5.
    #[test]
    fn the_example_of_the_rfc_is_read() -> Result<()> {
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text);
        let private = bytes("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94")?;
        let private = PrivateKey::from_private_key(&ECDH_P256, &private);
        let private = private.map_err(|_| anyhow!("no key"))?;
        let public = private.compute_public_key().map_err(|_| anyhow!("no key"))?;
        let auth = bytes("BTBZMqHH6r4Tts7J_aSIgg")?.try_into().map_err(|_| anyhow!("no secret"))?;
        let browser = Browser { private, public: public.as_ref().to_vec(), auth };
        let mut body = bytes(
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN",
        )?;
        let plain = browser.decrypt(&body).map_err(|why| anyhow!(why))?;
        assert_eq!(plain, b"When I grow up, I want to be a watermelon");
        if let Some(last) = body.last_mut() {
            *last ^= 1;
        }
        assert!(browser.decrypt(&body).is_err());
        Ok(())
    }
}
