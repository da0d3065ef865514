//! Servers that speak TLS and want to know who comes: what a test asks of the launcher.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

/// How servers prove who they are, and whom they let in. See
/// [`Builder::secured`](crate::Builder::secured).
#[derive(Clone, Debug)]
pub struct Secured {
    /// PEM file with the servers' certificate, for 127.0.0.1.
    pub certificate: PathBuf,
    /// PEM file with its key.
    pub key: PathBuf,
    /// PEM file with its authority.
    pub authority: PathBuf,
    /// The password of the user `natter`: 43 characters or more, any but quotes, blanks and
    /// control characters.
    pub password: String,
    /// In the place of that user, the settings of NATS about accounts.
    pub nats_accounts: Option<String>,
}

/// The user of all servers.
const USER: &str = "natter";

impl Secured {
    /// Lines of nats-server's configuration. With accounts of its own, certificates of clients
    /// are not asked for.
    pub(crate) fn nats(&self) -> String {
        let Self { certificate, key, authority, password, .. } = self;
        let who = self.nats_accounts.clone().unwrap_or_else(|| {
            format!("authorization {{ user: {USER}, password: {} }}", json!(password))
        });
        let verify = self.nats_accounts.is_none();
        format!(
            "tls {{\n  cert_file: {}\n  key_file: {}\n  ca_file: {}\n  verify: {verify}\n}}\n{who}\n",
            json!(certificate),
            json!(key),
            json!(authority),
        )
    }

    /// Redis' configuration, for a port.
    pub(crate) fn redis(&self, port: u16) -> String {
        let Self { certificate, key, authority, password, .. } = self;
        format!(
            "port 0\ntls-port {port}\ntls-auth-clients no\ntls-cert-file {}\ntls-key-file {}\n\
             tls-ca-cert-file {}\nuser default off\nuser {USER} on {} ~* &* +@all\n",
            certificate.display(),
            key.display(),
            authority.display(),
            json!(format!(">{password}")),
        )
    }

    /// What goes between `://` and the address.
    pub(crate) fn login(&self) -> String {
        format!("{USER}:{}@", percent_encoded(&self.password))
    }

    pub(crate) fn nats_url(&self, addresses: &[String]) -> String {
        let login = if self.nats_accounts.is_some() { String::new() } else { self.login() };
        let urls: Vec<_> =
            addresses.iter().map(|address| format!("tls://{login}{address}")).collect();
        urls.join(",")
    }

    /// The parameters of a URL of Postgres.
    pub(crate) fn postgres_parameters(&self) -> String {
        let authority = percent_encoded(&self.authority.display().to_string());
        format!("?sslmode=verify-full&sslrootcert={authority}")
    }

    /// The certificate and the key, for a server that wants to own them.
    pub(crate) fn pair(&self) -> Result<[(&'static str, Vec<u8>); 2]> {
        let read = |path: &PathBuf| {
            fs::read(path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok([("server.pem", read(&self.certificate)?), ("server.key", read(&self.key)?)])
    }
}

/// For a URL: everything but letters and digits.
pub(crate) fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}
