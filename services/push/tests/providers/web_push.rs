//! Web Push: who may be asked, and how.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, Validation};
use natter_e2e::push_services::keys;
use natter_protocol::push::{Subscription, Target};
use natter_push::providers::{Notice, Outcome, web_push::application_server_key};
use serde_json::Value;

use crate::support::{accepted, notice, providers, stage};

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_are_not_allowed_are_not_asked() -> Result<()> {
    let (services, providers) = stage(&[]).await?;
    let Target::WebPush(good) = services.subscribe()? else { anyhow::bail!("no subscription") };
    let hidden = good.endpoint.replace("http://", "http://user@");
    let other = good.endpoint.replace("127.0.0.1", "127.0.0.2");
    for endpoint in [hidden, other, "https://169.254.169.254/".to_owned(), "nonsense".to_owned()] {
        let target = Target::WebPush(Subscription { endpoint, ..good.clone() });
        let outcome = providers.send(&target, &notice()).await;
        ensure!(matches!(outcome, Outcome::Refused { .. }), "{outcome:?}");
    }
    assert_eq!(services.web_push.desk.arrived(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_whose_key_is_no_point_is_gone() -> Result<()> {
    let (services, providers) = stage(&[]).await?;
    let Target::WebPush(mut bad) = services.subscribe()? else { anyhow::bail!("no subscription") };
    let mut point = [1; 65];
    point[0] = 4;
    bad.keys.p256dh = URL_SAFE_NO_PAD.encode(point);
    let outcome = providers.send(&Target::WebPush(bad), &notice()).await;
    ensure!(matches!(outcome, Outcome::Gone { .. }), "{outcome:?}");
    assert_eq!(services.web_push.desk.arrived(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_used_again_and_devices_of_a_chat_share_no_topic() -> Result<()> {
    let (services, providers) = stage(&[]).await?;
    let first = notice();
    for _ in 0..3 {
        let device_id = notice().device_id;
        let one = Notice { device_id, ..first.clone() };
        accepted(&providers.send(&services.subscribe()?, &one).await)?;
    }
    let pushed = services.web_push.desk.pushes(3).await?;
    let tokens: HashSet<_> = pushed.iter().map(|one| one.headers.get("authorization")).collect();
    assert_eq!(tokens.len(), 1);
    let topics: HashSet<_> = pushed.iter().map(|one| one.about.clone()).collect();
    assert_eq!(topics.len(), 3);
    for one in &pushed {
        assert_eq!(one.headers.get("urgency").map(AsRef::as_ref), Some(b"high".as_slice()));
        let ttl = one.headers.get("ttl").and_then(|ttl| ttl.to_str().ok()?.parse::<u64>().ok());
        ensure!(ttl.is_some_and(|ttl| (3_500..=3_600).contains(&ttl)), "{ttl:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_than_devices_subscribed_with_is_refused() -> Result<()> {
    let services = natter_e2e::PushServices::start().await?;
    let (pem, _) = keys::es256()?;
    let file = keys::write(services.folder(), "another.pem", &pem)?;
    let mut env = services.env();
    env.retain(|(name, _)| *name != "NATTER_PUSH_VAPID_KEY_FILE");
    env.push(("NATTER_PUSH_VAPID_KEY_FILE", file.display().to_string()));
    let outcome = providers(&env)?.send(&services.subscribe()?, &notice()).await;
    ensure!(matches!(outcome, Outcome::Refused { .. }), "{outcome:?}");
    assert_eq!(outcome.answer().as_str(), "403 Forbidden");
    Ok(())
}

#[test]
fn the_key_for_browsers_is_that_of_either_form_of_file() -> Result<()> {
    use aws_lc_rs::{
        encoding::{AsDer, EcPrivateKeyRfc5915Der},
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
    };
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
    let public = URL_SAFE_NO_PAD.encode(pair.public_key());
    let pem = |label: &str, der: &[u8]| {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    };
    let pkcs8 = pem("PRIVATE KEY", pair.to_pkcs8v1()?.as_ref());
    assert_eq!(application_server_key(&pkcs8)?, public);
    let sec1: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der()?;
    // As `openssl ecparam -name prime256v1 -genkey` writes it.
    let curve = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    let sec1 = format!("{curve}{}", pem("EC PRIVATE KEY", sec1.as_ref()));
    assert_eq!(application_server_key(&sec1)?, public);

    let error = application_server_key("-----BEGIN nonsense").expect_err("is no key");
    ensure!(
        error.to_string().starts_with("NATTER_PUSH_VAPID_KEY_FILE (--push-vapid-key-file): is not"),
        "{error}"
    );
    Ok(())
}

/// RFC 8292, section 2.4: what the service verifies with, verifies that too.
#[test]
fn the_example_of_rfc_8292_is_verified() -> Result<()> {
    let token = "eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQiLCJleHAiOjE0NTM1MjM3NjgsInN1YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0.i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHzvoD1oA";
    let key =
        "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";
    let verifier = keys::verifier(&URL_SAFE_NO_PAD.decode(key)?)?;
    let mut validation = Validation::new(Algorithm::ES256);
    // It expired in 2016.
    validation.validate_exp = false;
    validation.set_audience(&["https://push.example.net"]);
    let claims = jsonwebtoken::decode::<Value>(token, &verifier, &validation)?.claims;
    assert_eq!(claims["sub"], "mailto:push@example.com");
    validation.validate_exp = true;
    ensure!(jsonwebtoken::decode::<Value>(token, &verifier, &validation).is_err());
    Ok(())
}
