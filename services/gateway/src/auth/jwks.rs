//! An outside issuer's published keys (RFC 7517): read from a file or URL, cached, bounded.
//!
//! A token that names an unknown key makes them be read again, at most once a minute, whatever
//! the number of such tokens. Keys that are there are used at once even when they are old, and
//! are then read again behind the back of the request, so that a withdrawn key goes.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use natter_protocol::error::WireError;
use reqwest::{Client, redirect};
use tokio::{io::AsyncReadExt, sync::Mutex};
use url::{Host, Url};

use super::{Refusal, refused};
use crate::fault;

/// Between two readings that went well.
const PAUSE: Duration = Duration::from_mins(1);
/// After one that failed.
const RETRY: Duration = Duration::from_secs(5);
/// Keys older than this are read again.
const MAX_AGE: Duration = Duration::from_mins(10);
/// A reading may take so long,
const TIMEOUT: Duration = Duration::from_secs(5);
/// be so many bytes,
const BYTES: usize = 256 * 1024;
/// and hold so many keys that are of use here.
const KEYS: usize = 64;

/// The keys, read when first needed. Cloning shares them.
#[derive(Clone)]
pub struct Jwks {
    inner: Arc<Inner>,
}

struct Inner {
    source: Source,
    keys: RwLock<Option<Arc<Keys>>>,
    /// Held while reading, so that one reads and the others wait for it.
    next: Mutex<Option<Instant>>,
}

enum Source {
    File(PathBuf),
    Url(Client, Url),
}

struct Keys {
    read_at: Instant,
    keys: Vec<PublicKey>,
}

/// A key, and the one algorithm that it is for.
#[derive(Clone, Debug)]
pub struct PublicKey {
    id: Option<String>,
    /// Verifies.
    pub key: DecodingKey,
    /// Pinned by the key.
    pub algorithm: Algorithm,
}

/// Why the keys could not be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("the JWKS cannot be fetched")]
    Fetch(#[from] reqwest::Error),
    #[error("the JWKS cannot be read")]
    Io(#[from] io::Error),
    #[error("the JWKS is larger than {BYTES} bytes")]
    TooLarge,
    #[error("the JWKS is not a key set")]
    Parse(#[from] serde_json::Error),
    #[error("the JWKS has no key that can be used here")]
    Empty,
}

impl Jwks {
    /// Keys at an `https` URL (`http` for loopback only), or in a file.
    ///
    /// # Errors
    /// A URL that is not one of these, or a client that cannot be made.
    pub fn new(source: &str) -> Result<Self, String> {
        let source = match Url::parse(source) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => {
                if url.scheme() == "http" && !is_loopback(&url) {
                    return Err("keys are fetched over https only".to_owned());
                }
                let client = Client::builder().timeout(TIMEOUT).redirect(redirect::Policy::none());
                let client = client.build().map_err(|error| format!("no HTTP client: {error}"))?;
                Source::Url(client, url)
            }
            _ => Source::File(PathBuf::from(source)),
        };
        Ok(Self {
            inner: Arc::new(Inner { source, keys: RwLock::new(None), next: Mutex::new(None) }),
        })
    }

    /// The key that a token names, or the only one when it names none.
    ///
    /// # Errors
    /// `unauthenticated` for a key that the issuer does not publish; `unavailable` when its keys
    /// could never be read.
    pub async fn find(&self, id: Option<&str>) -> Result<PublicKey, WireError> {
        let known = self.known();
        if let Some(key) = known.as_ref().and_then(|keys| keys.find(id)) {
            if known.is_some_and(|keys| keys.read_at.elapsed() > MAX_AGE) {
                let this = self.clone();
                tokio::spawn(async move { this.refresh(None).await });
            }
            return Ok(key);
        }
        self.refresh(known.map(|keys| keys.read_at)).await;
        let keys = self.known().ok_or_else(|| fault::unavailable("the issuer's key set"))?;
        keys.find(id)
            .ok_or_else(|| refused(Refusal::Signature, "the token's key is not known here"))
    }

    fn known(&self) -> Option<Arc<Keys>> {
        self.inner.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the keys, unless it is too early or somebody has since those of `seen`.
    async fn refresh(&self, seen: Option<Instant>) {
        let mut next = self.inner.next.lock().await;
        let newer = self.known().is_some_and(|keys| Some(keys.read_at) > seen && seen.is_some());
        if newer || next.is_some_and(|at| Instant::now() < at) {
            return;
        }
        match self.inner.source.read().await {
            Ok(keys) => {
                let read = Arc::new(Keys { read_at: Instant::now(), keys });
                *self.inner.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(read);
                *next = Some(Instant::now() + PAUSE);
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "keeping the outside issuer's keys as they are");
                *next = Some(Instant::now() + RETRY);
            }
        }
    }
}

impl Keys {
    fn find(&self, id: Option<&str>) -> Option<PublicKey> {
        match (id, self.keys.as_slice()) {
            (Some(id), keys) => keys.iter().find(|key| key.id.as_deref() == Some(id)).cloned(),
            (None, [only]) => Some(only.clone()),
            (None, _) => None,
        }
    }
}

impl Source {
    async fn read(&self) -> Result<Vec<PublicKey>, ReadError> {
        let mut bytes = Vec::new();
        match self {
            Self::File(path) => {
                let file = tokio::fs::File::open(path).await?;
                file.take(BYTES as u64 + 1).read_to_end(&mut bytes).await?;
            }
            Self::Url(client, url) => {
                let mut response = client.get(url.clone()).send().await?.error_for_status()?;
                while let Some(chunk) = response.chunk().await? {
                    bytes.extend_from_slice(&chunk);
                    if bytes.len() > BYTES {
                        break;
                    }
                }
            }
        }
        if bytes.len() > BYTES {
            return Err(ReadError::TooLarge);
        }
        usable(&bytes)
    }
}

/// The keys of a set that are of use here.
fn usable(set: &[u8]) -> Result<Vec<PublicKey>, ReadError> {
    let set: JwkSet = serde_json::from_slice(set)?;
    let keys: Vec<_> = set.keys.iter().filter_map(public_key).take(KEYS).collect();
    if keys.is_empty() { Err(ReadError::Empty) } else { Ok(keys) }
}

/// A key that signs with a public algorithm; none for any other. A symmetric one in particular is
/// never taken from a published set.
fn public_key(jwk: &Jwk) -> Option<PublicKey> {
    let own = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P384 => {
            Algorithm::ES384
        }
        AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    let algorithm = match (own, jwk.common.key_algorithm) {
        (own, None) => own,
        (Algorithm::RS256, Some(KeyAlgorithm::RS256)) => Algorithm::RS256,
        (Algorithm::RS256, Some(KeyAlgorithm::RS384)) => Algorithm::RS384,
        (Algorithm::RS256, Some(KeyAlgorithm::RS512)) => Algorithm::RS512,
        (Algorithm::RS256, Some(KeyAlgorithm::PS256)) => Algorithm::PS256,
        (Algorithm::RS256, Some(KeyAlgorithm::PS384)) => Algorithm::PS384,
        (Algorithm::RS256, Some(KeyAlgorithm::PS512)) => Algorithm::PS512,
        (Algorithm::ES256, Some(KeyAlgorithm::ES256)) => Algorithm::ES256,
        (Algorithm::ES384, Some(KeyAlgorithm::ES384)) => Algorithm::ES384,
        (Algorithm::EdDSA, Some(KeyAlgorithm::EdDSA)) => Algorithm::EdDSA,
        _ => return None,
    };
    let signs = !matches!(
        jwk.common.public_key_use,
        Some(PublicKeyUse::Encryption | PublicKeyUse::Other(_))
    );
    let key = DecodingKey::from_jwk(jwk).ok().filter(|_| signs)?;
    Some(PublicKey { id: jwk.common.key_id.clone(), key, algorithm })
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, response::Redirect, routing::get};
    use natter_protocol::error::ErrorCode;
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    use super::*;
    use crate::auth::testing::jwk;

    #[tokio::test]
    async fn an_unknown_key_is_looked_for_once_and_not_again_within_a_minute() -> anyhow::Result<()>
    {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("jwks.json");
        let jwks = Jwks::new(&path.to_string_lossy()).map_err(anyhow::Error::msg)?;
        let code = |found: Result<PublicKey, WireError>| found.map(|_| ()).map_err(|e| e.code);
        assert_eq!(code(jwks.find(Some("a")).await), Err(ErrorCode::Unavailable), "no file yet");

        let jwks = Jwks::new(&path.to_string_lossy()).map_err(anyhow::Error::msg)?;
        let write = |ids: &[&str]| -> anyhow::Result<()> {
            let keys = ids.iter().map(|id| jwk(id)).collect::<anyhow::Result<Vec<_>>>()?;
            Ok(std::fs::write(&path, serde_json::json!({ "keys": keys }).to_string())?)
        };
        write(&["a"])?;
        assert_eq!(code(jwks.find(Some("a")).await), Ok(()));
        assert_eq!(code(jwks.find(None).await), Ok(()), "the only one");
        write(&["a", "b"])?;
        assert_eq!(code(jwks.find(Some("b")).await), Err(ErrorCode::Unauthenticated), "too early");
        *jwks.inner.next.lock().await = None;
        assert_eq!(code(jwks.find(Some("b")).await), Ok(()));
        assert_eq!(code(jwks.find(None).await), Err(ErrorCode::Unauthenticated), "which of two?");
        Ok(())
    }

    #[test]
    fn symmetric_and_encryption_keys_are_passed_over() -> anyhow::Result<()> {
        for wrong in [
            serde_json::json!({"kty": "oct", "k": "c2VjcmV0", "kid": "a"}),
            serde_json::json!({"kty": "oct", "k": "c2VjcmV0", "kid": "a", "alg": "HS256"}),
        ] {
            assert!(public_key(&serde_json::from_value(wrong)?).is_none());
        }
        let mut key = jwk("a")?;
        assert!(public_key(&serde_json::from_value(key.clone())?).is_some());
        key["alg"] = "HS256".into();
        assert!(public_key(&serde_json::from_value(key.clone())?).is_none());
        key["alg"] = "RS256".into();
        key["use"] = "enc".into();
        assert!(public_key(&serde_json::from_value(key)?).is_none());
        Ok(())
    }

    #[test]
    fn keys_come_over_https() {
        assert!(Jwks::new("http://id.example/jwks").is_err());
        assert!(Jwks::new("jwks.json").is_ok());
    }

    #[tokio::test]
    async fn keys_at_a_url_are_read_within_their_size_and_from_nowhere_else() -> anyhow::Result<()>
    {
        // The process has one TLS provider; an error says that another test was first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let set = serde_json::json!({ "keys": [jwk("a")?] }).to_string();
        let large = format!("{}{set}", " ".repeat(BYTES));
        let issuer = Router::new()
            .route("/keys", get(async move || set))
            .route("/large", get(async move || large))
            .route("/elsewhere", get(async || Redirect::temporary("/keys")))
            .route("/none", get(async || r#"{"keys":[]}"#))
            .route("/page", get(async || "<html>"));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move { axum::serve(listener, issuer).await });
        for (path, expected) in [
            ("keys", Ok(())),
            ("large", Err(ErrorCode::Unavailable)),
            ("elsewhere", Err(ErrorCode::Unavailable)),
            ("none", Err(ErrorCode::Unavailable)),
            ("page", Err(ErrorCode::Unavailable)),
            ("missing", Err(ErrorCode::Unavailable)),
        ] {
            let jwks =
                Jwks::new(&format!("http://{address}/{path}")).map_err(anyhow::Error::msg)?;
            let found = jwks.find(Some("a")).await.map(|_| ()).map_err(|error| error.code);
            assert_eq!(found, expected, "{path}");
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn any_set_is_read_or_refused(
            bytes: Vec<u8>,
            kty in "RSA|EC|OKP|oct|\\PC{0,4}",
            crv in "P-256|P-384|Ed25519|\\PC{0,4}",
            part in "[A-Za-z0-9_-]{0,90}|\\PC{0,9}",
        ) {
            let _ = usable(&bytes);
            let key = serde_json::json!({
                "kty": kty, "crv": crv, "x": part, "y": part, "n": part, "e": part, "k": part,
            });
            let _ = usable(serde_json::json!({ "keys": [key] }).to_string().as_bytes());
        }
    }
}
