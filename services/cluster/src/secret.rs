//! Secrets of a local cluster: made once, kept beside its data.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{ErrorKind, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use anyhow::{Context, Result};
use rand::distr::{Alphanumeric, SampleString};

/// Characters of a secret: 62^43 is beyond the 256 bits that HS256 wants of its key.
const LENGTH: usize = 43;

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
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(secret.as_bytes())
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(secret)
}

fn random() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), LENGTH)
}
