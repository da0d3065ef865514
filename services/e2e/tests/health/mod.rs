//! What nodes say of themselves, and to who comes, while what they rest on is away.

use anyhow::{Context, Result, ensure};
use natter_cluster::{Cluster, Node};
use natter_e2e::{
    Engine, Person, Presenting, Socket, Stage, api,
    engine::{self, Kind, Reply},
    metrics,
    socket::{Dialled, Refusal},
    soon,
};
use reqwest::{Method, StatusCode, header::RETRY_AFTER};
use serde_json::{Value, json};

static STAGE: Stage = Stage::new();

/// Counted for each connection that was turned away since the broker is.
const REFUSED: &str = "natter_handshakes_refused_total";

/// Waits until a node, asked as a probe asks it, is ready and tells exactly this.
async fn is_ready(node: &Node, reasons: &[&str]) -> Result<()> {
    let expected = match reasons {
        [] => json!({"ready": true}),
        reasons => json!({"ready": true, "reasons": reasons}),
    };
    let client = api::client()?;
    soon(&format!("{} tells {reasons:?}", node.name()), async || {
        let answer = client.get(format!("http://{}/ready", node.admin())).send().await?;
        let status = answer.status();
        let told: Value = answer.json().await?;
        ensure!(status == 200, "{} is not ready: {status} {told}", node.name());
        Ok((told == expected).then_some(()))
    })
    .await
}

/// Takes a server away, and looks at what gateways and workers say until it is back.
async fn without(
    server: fn(&Cluster) -> &Node,
    of_gateways: &[&str],
    of_workers: &[&str],
) -> Result<()> {
    let cluster = STAGE.alone().await?;
    let all = async |of_gateways: &[&str], of_workers: &[&str]| {
        for gateway in cluster.gateways() {
            is_ready(gateway, of_gateways).await?;
        }
        is_ready(cluster.worker(0), of_workers).await
    };
    all(&[], &[]).await?;
    server(&cluster).kill().await?;
    all(of_gateways, of_workers).await?;
    server(&cluster).start().await?;
    all(&[], &[]).await
}

#[tokio::test]
async fn nodes_stay_ready_without_nats_and_tell_why_all_is_not_well() -> Result<()> {
    without(Cluster::nats, &["nats"], &["nats"]).await
}

#[tokio::test]
async fn nodes_stay_ready_without_postgres_and_tell_why_all_is_not_well() -> Result<()> {
    without(Cluster::postgres, &["postgres"], &["postgres"]).await
}

/// Workers have nothing to do with it.
#[tokio::test]
async fn gateways_stay_ready_without_redis_and_tell_why_all_is_not_well() -> Result<()> {
    without(Cluster::redis, &["redis"], &[]).await
}

/// What is answered where it could be otherwise in a second.
const LATER: Refusal = Refusal { status: StatusCode::SERVICE_UNAVAILABLE, retry_after: Some(1) };

/// The same, of a request.
fn is_later(reply: &Reply) -> bool {
    let after = reply.headers.get(RETRY_AFTER).is_some_and(|after| after == "1");
    reply.status == LATER.status.as_u16() && after
}

#[tokio::test]
async fn who_comes_while_the_broker_is_away_is_told_when_to_come_again() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let phone = ana.connect(0).await?;
    let [here, there] = [0, 1].map(|n| Engine::new([cluster.gateway(n).address()]));
    let (here, there) = (here?, there?);
    let polling = here.polling().await?;
    let before = metrics::counter(cluster.gateway(1), REFUSED).await?;

    cluster.nats().kill().await?;
    for gateway in cluster.gateways() {
        is_ready(gateway, &["nats"]).await?;
        let presenting = Presenting::Header(&ana.first.access_token);
        match Socket::dial(gateway.address(), presenting).await? {
            Dialled::Refused(refusal) => assert_eq!(refusal, LATER),
            Dialled::Open(_) => anyhow::bail!("{} lets her in", gateway.name()),
        }
    }
    let reply = there.get("EIO=4&transport=polling").await?;
    ensure!(is_later(&reply), "{reply:?}");
    match there.dial("EIO=4&transport=websocket", Presenting::Nothing).await? {
        engine::Dialled::Refused(refusal) => assert_eq!(refusal, LATER),
        engine::Dialled::Open(_) => anyhow::bail!("a WebSocket is let in"),
    }
    // A session of another node's cannot be asked for.
    let query = format!("EIO=4&transport=polling&sid={}", polling.open.sid);
    let reply = engine::answer(there.request(Method::POST, &query).body("3")).await?;
    ensure!(is_later(&reply), "{reply:?}");
    assert_eq!(metrics::counter(cluster.gateway(1), REFUSED).await?, before + 3);

    cluster.nats().start().await?;
    for gateway in [0, 1] {
        let come = async || Ok(ana.first.connect(gateway).await.ok());
        soon("she is let in", come).await?.close().await?;
    }
    for kind in [Kind::Polling, Kind::WebSocket] {
        there.link(kind).await.with_context(|| format!("{kind:?}"))?;
    }
    // Whoever was in has stayed.
    phone.request("presence_subscribe", json!({"userIds": []})).await?;
    Ok(())
}
