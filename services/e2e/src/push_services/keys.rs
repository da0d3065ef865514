//! Keys made for the services, as operators have them in files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::DecodingKey;

/// Of P-256: the private key in PEM, and its public point.
///
/// # Errors
/// When none can be made.
pub fn es256() -> Result<(String, Vec<u8>)> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
    let pair = pair.map_err(|_| anyhow!("no key can be made"))?;
    let pkcs8 = pair.to_pkcs8v1().map_err(|_| anyhow!("no key can be written"))?;
    Ok((pem("PRIVATE KEY", pkcs8.as_ref()), pair.public_key().as_ref().to_vec()))
}

/// What verifies what the private key of a point has signed.
///
/// # Errors
/// When it is no point.
pub fn verifier(point: &[u8]) -> Result<DecodingKey> {
    let (x, y) = point.get(1..).context("no point")?.split_at_checked(32).context("no point")?;
    Ok(DecodingKey::from_ec_components(&URL_SAFE_NO_PAD.encode(x), &URL_SAFE_NO_PAD.encode(y))?)
}

/// Of RSA: the private key in PEM, and what verifies its signatures.
///
/// # Errors
/// When none can be made.
pub fn rs256() -> Result<(String, DecodingKey)> {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| anyhow!("no key can be made"))?;
    let pkcs8: aws_lc_rs::encoding::Pkcs8V1Der<'_> =
        pair.as_der().map_err(|_| anyhow!("no key can be written"))?;
    let public: PublicKeyX509Der<'_> =
        pair.public_key().as_der().map_err(|_| anyhow!("no key can be written"))?;
    let public = DecodingKey::from_rsa_pem(pem("PUBLIC KEY", public.as_ref()).as_bytes())?;
    Ok((pem("PRIVATE KEY", pkcs8.as_ref()), public))
}

/// Writes a file of a folder.
///
/// # Errors
/// When it cannot be written.
pub fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let file = folder.join(name);
    std::fs::write(&file, text)?;
    Ok(file)
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut lines = format!("-----BEGIN {label}-----\n");
    for (at, c) in text.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            lines.push('\n');
        }
        lines.push(c);
    }
    lines + &format!("\n-----END {label}-----\n")
}
