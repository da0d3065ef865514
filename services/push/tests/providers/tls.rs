//! Over TLS, as in earnest: with the system's authorities, and HTTP/2 by agreement.

use std::{env, sync::Arc};

use anyhow::{Context, Result, ensure};
use natter_e2e::{PushServices, push_services::keys};
use natter_protocol::push::Provider;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    process::Command,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{accepted, notice, providers, retry};

/// In the process whose system trusts the authority, the settings as JSON.
const SETTINGS: &str = "PUSH_TEST_SETTINGS";
/// And the targets.
const TARGETS: &str = "PUSH_TEST_TARGETS";
const THIS: &str = "tls::services_are_believed_by_the_systems_authorities_and_no_others";

/// The system's authorities are those of a process, so this test is another one's child too.
#[tokio::test(flavor = "multi_thread")]
async fn services_are_believed_by_the_systems_authorities_and_no_others() -> Result<()> {
    if let (Ok(settings), Ok(targets)) = (env::var(SETTINGS), env::var(TARGETS)) {
        return send(&settings, &targets).await;
    }
    let services = PushServices::start().await?;
    let (authority, config) = authority()?;
    let file = keys::write(services.folder(), "authority.pem", &authority)?;
    let mut settings = services.env();
    for (name, value) in &mut settings {
        if let "NATTER_PUSH_APNS_URL" | "NATTER_PUSH_WEBHOOK_URL" = *name {
            *value = in_front_of(value, config.clone()).await?;
        }
    }
    let both = [Provider::Apns, Provider::Webhook];
    let targets = both.into_iter().map(|provider| services.register(provider));
    let targets: Vec<_> = targets.collect::<Result<_>>()?;

    // Here nobody knows it.
    let strict = providers(&settings)?;
    for target in &targets {
        let outcome = strict.send(target, &notice()).await;
        retry(&outcome)?;
        assert_eq!(outcome.answer().as_str(), "no connection");
    }
    let child = Command::new(env::current_exe()?)
        .args([THIS, "--exact", "--nocapture"])
        .env("SSL_CERT_FILE", file)
        .env(SETTINGS, serde_json::to_string(&settings)?)
        .env(TARGETS, serde_json::to_string(&targets)?)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&child.stdout);
    ensure!(child.status.success() && said.contains("1 passed"), "{said}");
    for provider in both {
        let desk = services.desk(provider);
        assert_eq!((desk.taken(), desk.violations()), (2, vec![]), "{provider}");
    }
    Ok(())
}

async fn send(settings: &str, targets: &str) -> Result<()> {
    let settings: Vec<(String, String)> = serde_json::from_str(settings)?;
    let settings: Vec<_> =
        settings.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let targets: Vec<natter_protocol::push::Target> = serde_json::from_str(targets)?;
    let providers = providers(&settings)?;
    for target in &targets {
        // The second on the first one's connection.
        accepted(&providers.send(target, &notice()).await)?;
        accepted(&providers.send(target, &notice()).await)?;
    }
    Ok(())
}

/// An authority's certificate, and a server that has one of it.
fn authority() -> Result<(String, Arc<ServerConfig>)> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    // Apple speaks nothing else.
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok((issuer.pem(), Arc::new(config)))
}

/// TLS in front of a service; returns its URL there.
async fn in_front_of(url: &str, config: Arc<ServerConfig>) -> Result<String> {
    let url: url::Url = url.parse()?;
    let behind = format!("127.0.0.1:{}", url.port().context("no port")?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let front = format!("https://{}{}", listener.local_addr()?, url.path());
    let acceptor = TlsAcceptor::from(config);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                let mut inside = acceptor.accept(socket).await?;
                ensure!(inside.get_ref().1.alpn_protocol() == Some(b"h2"), "not agreed upon");
                let mut outside = TcpStream::connect(behind).await?;
                copy_bidirectional(&mut inside, &mut outside).await?;
                Ok(())
            });
        }
    });
    Ok(front)
}
