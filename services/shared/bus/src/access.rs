//! What a connection shows of itself, and what it checks of the server. Files are read whenever a
//! connection is made.

use std::{fmt::Display, path::Path, sync::Arc};

use async_nats::ServerAddr;
use nkeys::KeyPair;
use percent_encoding::percent_decode_str;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::{
    BusConfig, BusError,
    config::{Setting, wrong},
};

/// What a URL logs in with.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    Nobody,
    Token(String),
    User(String, String),
}

impl Login {
    /// The first one among the servers counts for all.
    pub(crate) fn of(servers: &[ServerAddr]) -> Self {
        let named = servers.iter().find_map(|server| Some((server.username()?, server.password())));
        match named {
            Some((user, Some(password))) => Self::User(decoded(user), decoded(password)),
            Some((token, None)) => Self::Token(decoded(token)),
            None => Self::Nobody,
        }
    }
}

/// What is special in a URL stands there percent-encoded.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// What a credentials file holds.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) jwt: String,
    key: Arc<KeyPair>,
}

impl Credentials {
    pub(crate) async fn read(path: &Path) -> Result<Self, BusError> {
        let text = read(Setting::Credentials, path).await?;
        let section = |name: &str| {
            let text = std::str::from_utf8(&text).ok()?;
            let mut lines = text.lines().map(str::trim);
            lines.find(|line| line.starts_with("---") && line.contains(name))?;
            lines.find(|line| !line.is_empty()).map(str::to_owned)
        };
        let parsed = || {
            let key = KeyPair::from_seed(&section("BEGIN USER NKEY SEED")?).ok()?;
            Some(Self { jwt: section("BEGIN NATS USER JWT")?, key: Arc::new(key) })
        };
        parsed().ok_or_else(|| unusable(Setting::Credentials, path, &"no NATS credentials file"))
    }

    /// What the server wants to see of its nonce.
    pub(crate) fn sign(&self, nonce: &[u8]) -> Result<Vec<u8>, nkeys::error::Error> {
        self.key.sign(nonce)
    }
}

/// How TLS is spoken with the servers.
pub(crate) async fn tls(config: &BusConfig) -> Result<ClientConfig, BusError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &config.root_certificates {
        for certificate in certificates(Setting::Authorities, path).await? {
            let added = roots.add(certificate);
            added.map_err(|error| unusable(Setting::Authorities, path, &error))?;
        }
    } else {
        let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
        roots.add_parsable_certificates(found.map(|found| found.certs).unwrap_or_default());
        if roots.is_empty() {
            let missing = "needed, since the system has no certificates of authorities";
            return Err(wrong(Setting::Authorities, &missing));
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(Setting::Url, &error))?
        .with_root_certificates(roots);
    let (Some(certificate), Some(key)) = (&config.client_certificate, &config.client_key) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(Setting::Certificate, certificate).await?;
    let private = PrivateKeyDer::from_pem_slice(&read(Setting::Key, key).await?)
        .map_err(|_| unusable(Setting::Key, key, &"no private key in PEM"))?;
    builder
        .with_client_auth_cert(chain, private)
        .map_err(|error| unusable(Setting::Certificate, certificate, &error))
}

async fn certificates(
    setting: Setting,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, BusError> {
    let pem = read(setting, path).await?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(unusable(setting, path, &"no certificate in PEM")),
    }
}

async fn read(setting: Setting, path: &Path) -> Result<Vec<u8>, BusError> {
    tokio::fs::read(path).await.map_err(|error| unusable(setting, path, &error))
}

fn unusable(setting: Setting, path: &Path, reason: &dyn Display) -> BusError {
    wrong(setting, &format_args!("{}: {reason}", path.display()))
}
