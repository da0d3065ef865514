//! Secrets of a local cluster: made once, kept beside its data.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{ErrorKind, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use anyhow::{Context, Result};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::{Engine, engine::general_purpose::STANDARD};
use rand::distr::{Alphanumeric, SampleString};

/// Characters of a secret: 62^43 is beyond the 256 bits that HS256 wants of its key.
const LENGTH: usize = 43;

/// How a private key begins and ends in PEM, and how long its lines are.
const PEM: (&str, &str) = ("-----BEGIN PRIVATE KEY-----\n", "\n-----END PRIVATE KEY-----\n");
const PEM_LINE: usize = 64;

/// The secret in the file, or a new random one that is written there for its owner's eyes only.
///
/// Letters and digits alone, so that it goes into a URL as it is.
pub(crate) fn kept_in(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Ok(secret) if secret.trim().len() >= LENGTH => return Ok(secret.trim().to_owned()),
        // Cut short by a crash before anything was made with it.
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
    }
    let secret = random();
    write(path, &secret)?;
    Ok(secret)
}

/// Sees to it that the file has a private key of P-256 in PEM, as Web Push signs with: browsers that
/// have subscribed with it know it by its public half.
pub(crate) fn signing_key_in(path: &Path) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|pem| pem.ends_with(PEM.1)) {
        return Ok(());
    }
    let made = || {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        pair.to_pkcs8v1()
    };
    let key = made().ok().context("cannot make a key")?;
    let body = STANDARD.encode(key.as_ref());
    let lines: Vec<&str> = (0..body.len())
        .step_by(PEM_LINE)
        .map(|at| &body[at..body.len().min(at + PEM_LINE)])
        .collect();
    write(path, &format!("{}{}{}", PEM.0, lines.join("\n"), PEM.1))
}

/// For its owner's eyes only.
fn write(path: &Path, text: &str) -> Result<()> {
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn random() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), LENGTH)
}
