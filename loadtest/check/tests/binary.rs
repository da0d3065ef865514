//! `natter-check` as operators and scripts run it: what it prints, and its exit status.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::Output,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use natter_cluster::Cluster;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use serde_json::Value;
use tokio::{io::copy_bidirectional, net::TcpStream, process::Command};
use tokio_rustls::TlsAcceptor;

async fn check(gateways: &[String], more: &[&str]) -> Result<Output> {
    command(gateways, more).output().await.context("natter-check does not start")
}

fn command(gateways: &[String], more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_natter-check"));
    for gateway in gateways {
        command.args(["--gateway", gateway]);
    }
    command.args(["--json", "--users", "4", "--groups", "2", "--seed", "7"]).args(more);
    command
}

/// What ends TLS before a gateway, with a certificate that goes into `file`.
async fn behind_tls(gateway: SocketAddr, file: &Path) -> Result<SocketAddr> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()])?;
    fs::write(file, cert.pem())?;
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)?;
    let (acceptor, listener) = (
        TlsAcceptor::from(Arc::new(config)),
        tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
    );
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let (client, server) =
                    tokio::join!(acceptor.accept(stream), TcpStream::connect(gateway));
                if let (Ok(mut client), Ok(mut server)) = (client, server) {
                    copy_bidirectional(&mut client, &mut server).await.ok();
                }
            });
        }
    });
    Ok(address)
}

fn report(output: &Output) -> Result<Value> {
    let told = String::from_utf8_lossy(&output.stdout);
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{told}{}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test]
async fn green_is_0_and_each_seeded_fault_is_1() -> Result<()> {
    let cluster = Cluster::builder()
        .gateways(2)
        .gateway_env("NATTER_ATTEMPTS_PER_ADDRESS", "0")
        .gateway_env("NATTER_CALLS_PER_SECOND", "0")
        .start()
        .await?;
    let gateways = cluster.gateways().iter().map(|node| format!("http://{}", node.address()));
    let gateways: Vec<String> = gateways.collect();
    let work = ["--seconds", "4", "--rate", "40"];
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("certificate.pem");
    let port = behind_tls(cluster.gateway(0).address(), &file).await?.port();
    let secure = [format!("https://localhost:{port}")];
    let output = command(&secure, &work).env_remove("SSL_CERT_FILE").output().await?;
    ensure!(output.status.code() == Some(2), "a certificate of nobody: {output:?}");

    // Each with people of its own, side by side.
    let plain = async {
        let output = check(&gateways, &work).await?;
        let green = report(&output)?;
        ensure!(output.status.code() == Some(0) && green["verdict"]["ok"] == true, "{green}");
        ensure!(green["counts"]["sends"]["ok"].as_u64() > Some(20), "{green}");
        ensure!(green["counts"]["revocations"]["ok"] == 1, "{green}");
        anyhow::Ok(())
    };
    let over_tls = async {
        let output = command(&secure, &work).env("SSL_CERT_FILE", &file).output().await?;
        let green = report(&output)?;
        ensure!(output.status.code() == Some(0) && green["verdict"]["ok"] == true, "{green}");
        anyhow::Ok(())
    };
    let faults = try_join_all(["drop", "duplicate", "swap", "early-ack"].map(async |fault| {
        let more = [&work[..], &["--seed-fault", fault]].concat();
        let output = check(&gateways, &more).await?;
        let red = report(&output)?;
        ensure!(output.status.code() == Some(1) && red["verdict"]["ok"] == false, "{fault}: {red}");
        ensure!(!red["verdict"]["listed"].as_array().context("none listed")?.is_empty(), "{red}");
        anyhow::Ok(())
    }));
    tokio::try_join!(plain, over_tls, faults)?;
    cluster.stop().await
}

#[tokio::test]
async fn what_cannot_be_found_out_is_2() -> Result<()> {
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let began = Instant::now();
    let output = check(&[format!("http://{nobody}")], &[]).await?;
    ensure!(output.status.code() == Some(2) && output.stdout.is_empty(), "{output:?}");
    ensure!(String::from_utf8_lossy(&output.stderr).contains(&nobody.to_string()), "{output:?}");
    ensure!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
    let output = check(&["http://127.0.0.1:1".to_owned()], &["--users", "2"]).await?;
    ensure!(output.status.code() == Some(2), "{output:?}");
    Ok(())
}
