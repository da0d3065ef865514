//! Messages to browsers: encrypted for one subscription (RFC 8291), as one record of `aes128gcm`
//! (RFC 8188).
//!
//! Written with the primitives of aws-lc, which TLS uses here anyway: a crate for it there is
//! (web-push-native), whose arithmetic takes more than a millisecond a message, twenty times as long.

use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey},
    error::Unspecified,
    hkdf::{HKDF_SHA256, KeyType, Salt},
};
use natter_protocol::push::{AUTH_BYTES, P256DH_BYTES};
use rand::Rng;

/// Salt, size of a record, length of the key, and the key.
const HEADER: usize = SALT + 4 + 1 + P256DH_BYTES;
const SALT: usize = 16;
/// What the cipher adds.
const TAG: usize = 16;
/// Bytes of a message that every push service takes (RFC 8030, section 7.2).
const BODY: usize = 4096;
/// Bytes of what is encrypted; one more ends it.
pub const PLAIN: usize = BODY - HEADER - TAG - 1;
/// Its sizes with padding: its length tells one of these, and nothing else.
const SIZES: [usize; 4] = [512, 1024, 2048, PLAIN];

/// What a subscription is encrypted for with.
#[derive(Clone, Copy)]
pub struct Receiver {
    /// Its point of P-256, uncompressed.
    pub public: [u8; P256DH_BYTES],
    /// Its secret.
    pub auth: [u8; AUTH_BYTES],
}

/// The receiver's key is no point of the curve, or what is to be encrypted is too long.
#[derive(Debug, thiserror::Error)]
#[error("cannot be encrypted for this key")]
pub struct EncryptError;

impl From<Unspecified> for EncryptError {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

/// The body of a request that carries `plain`, of at most [`PLAIN`] bytes.
///
/// # Errors
/// When it is longer, or the receiver's key is no point of the curve.
pub fn encrypt(receiver: &Receiver, plain: &[u8]) -> Result<Vec<u8>, EncryptError> {
    let padded = SIZES.into_iter().find(|size| *size >= plain.len()).ok_or(EncryptError)?;
    let mut salt = [0; SALT];
    rand::rng().fill_bytes(&mut salt);
    // A key of its own for every message, so that the content key is too.
    let sender = PrivateKey::generate(&ECDH_P256)?;
    encrypt_with(receiver, plain, padded, &sender, &salt)
}

fn encrypt_with(
    receiver: &Receiver,
    plain: &[u8],
    padded: usize,
    sender: &PrivateKey,
    salt: &[u8; SALT],
) -> Result<Vec<u8>, EncryptError> {
    let public = sender.compute_public_key()?;
    let peer = UnparsedPublicKey::new(&ECDH_P256, receiver.public);
    let (key, nonce) = agreement::agree(sender, peer, Unspecified, |shared| {
        let info: [&[u8]; 3] = [b"WebPush: info\0", &receiver.public, public.as_ref()];
        let mut ikm = [0; 32];
        derive(&receiver.auth, shared, &info, &mut ikm)?;
        let (mut key, mut nonce) = ([0; 16], [0; NONCE_LEN]);
        derive(salt, &ikm, &[b"Content-Encoding: aes128gcm\0"], &mut key)?;
        derive(salt, &ikm, &[b"Content-Encoding: nonce\0"], &mut nonce)?;
        Ok((key, nonce))
    })?;

    let mut record = Vec::with_capacity(padded + 1 + TAG);
    record.extend_from_slice(plain);
    // Ends the last record; zeros after it are padding.
    record.push(2);
    record.resize(record.len().max(padded + 1), 0);
    // The nonce is that of the first record, for a key that is used once.
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key)?);
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, Aad::empty(), &mut record)?;

    let mut body = Vec::with_capacity(HEADER + record.len());
    body.extend_from_slice(salt);
    body.extend_from_slice(&(BODY as u32).to_be_bytes());
    body.push(P256DH_BYTES as u8);
    body.extend_from_slice(public.as_ref());
    body.extend_from_slice(&record);
    Ok(body)
}

/// HKDF with SHA-256.
fn derive(salt: &[u8], key: &[u8], info: &[&[u8]], out: &mut [u8]) -> Result<(), Unspecified> {
    let length = Length(out.len());
    Salt::new(HKDF_SHA256, salt).extract(key).expand(info, length)?.fill(out)
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        let bytes = URL_SAFE_NO_PAD.decode(text).expect("base64url");
        bytes.try_into().expect("as many bytes")
    }

    /// RFC 8291, section 5.
    #[test]
    fn the_example_of_the_rfc_comes_out_byte_by_byte() -> Result<(), EncryptError> {
        let receiver = Receiver {
            public: bytes(
                "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
            ),
            auth: bytes("BTBZMqHH6r4Tts7J_aSIgg"),
        };
        let sender: [u8; 32] = bytes("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw");
        let sender = PrivateKey::from_private_key(&ECDH_P256, &sender).map_err(|_| EncryptError)?;
        let plain = b"When I grow up, I want to be a watermelon";
        let body =
            encrypt_with(&receiver, plain, plain.len(), &sender, &bytes("DGv6ra1nlYgDCS1FRnbzlw"))?;
        assert_eq!(
            URL_SAFE_NO_PAD.encode(body),
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
        );
        Ok(())
    }

    #[test]
    fn four_lengths_and_no_other() -> Result<(), EncryptError> {
        let mine = PrivateKey::generate(&ECDH_P256)?;
        let public = mine.compute_public_key()?.as_ref().try_into().map_err(|_| EncryptError)?;
        let receiver = Receiver { public, auth: [7; 16] };
        let length = |plain: usize| encrypt(&receiver, &vec![b'x'; plain]).map(|body| body.len());
        let around = HEADER + TAG + 1;
        for (plain, padded) in [(0, 512), (512, 512), (513, 1024), (2048, 2048), (2049, PLAIN)] {
            assert_eq!(length(plain)?, padded + around);
        }
        assert_eq!(length(PLAIN)?, BODY);
        assert!(length(PLAIN + 1).is_err());
        Ok(())
    }

    #[test]
    fn a_key_that_is_no_point_of_the_curve_is_an_error() {
        let mut public = [1; P256DH_BYTES];
        public[0] = 4;
        assert!(encrypt(&Receiver { public, auth: [7; 16] }, b"hello").is_err());
    }
}
