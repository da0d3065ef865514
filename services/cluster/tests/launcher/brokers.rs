//! Several NATS servers that are one cluster: each comes and goes by itself, and the logs are on
//! all of them.

use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use natter_cluster::{Cluster, Node};
use serde_json::Value;

use crate::support::{jetstream::jetstream, soon};

/// What a server says of the first shard's log.
fn log(broker: &Node) -> Result<Value> {
    let answer: Value =
        serde_json::from_str(&jetstream(broker.address(), "STREAM.INFO.LOG_0", "")?)?;
    ensure!(answer["error"].is_null(), "{answer}");
    Ok(answer)
}

/// Whether all servers of the log are there and have all of it.
fn is_whole(log: &Value) -> bool {
    let replicas = log["cluster"]["replicas"].as_array();
    log["cluster"]["leader"].is_string()
        && replicas.is_some_and(|replicas| {
            let current =
                |replica: &Value| replica["current"] == true && replica["offline"] != true;
            replicas.len() == 2 && replicas.iter().all(current)
        })
}

#[tokio::test]
async fn each_of_three_brokers_goes_and_comes_back_with_its_data() -> Result<()> {
    let cluster = Cluster::builder().brokers(3).start().await?;
    let urls = cluster.nats_url();
    assert_eq!(urls.split(',').count(), 3);
    assert_eq!(cluster.nodes().count(), 8);
    for broker in cluster.brokers() {
        ensure!(urls.contains(&broker.address().to_string()), "{urls}");
        assert_eq!(log(broker)?["config"]["num_replicas"], 3, "{}", broker.name());
    }

    for (index, gone) in cluster.brokers().iter().enumerate() {
        let next = cluster.broker((index + 1) % 3);
        soon("the log is on all servers", || log(next).is_ok_and(|log| is_whole(&log)))?;
        let (address, pid) = (gone.address(), gone.pid());
        gone.kill().await?;
        assert!(TcpStream::connect(address).is_err());
        // Two of three go on, with another leader where it was the one.
        soon("the log has a leader", || {
            log(next).is_ok_and(|log| {
                let leader = log["cluster"]["leader"].as_str();
                leader.is_some_and(|leader| leader != gone.name())
            })
        })?;
        gone.start().await?;
        assert_eq!(gone.address(), address);
        assert_ne!(gone.pid(), pid);
    }
    // Paused, one is as good as gone, and is back by itself.
    let (paused, next) = (cluster.broker(0), cluster.broker(1));
    soon("the log is on all servers", || log(next).is_ok_and(|log| is_whole(&log)))?;
    paused.pause()?;
    soon("the log has a leader", || {
        log(next).is_ok_and(|log| log["cluster"]["leader"] != paused.name())
    })?;
    paused.resume()?;
    paused.ready().await?;
    soon("the log is on all servers", || log(next).is_ok_and(|log| is_whole(&log)))?;
    cluster.gateway(0).ready().await?;
    cluster.broker(2).restart().await?;
    cluster.broker(2).pid().context("it does not run")?;
    cluster.stop().await
}
