//! A cluster of real nodes: each comes, goes and comes back where it was.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use natter_cluster::{Cluster, Node};

#[tokio::test]
async fn nodes_come_and_go_and_come_back() -> Result<()> {
    // Durable as in production, which costs a sync for each ack.
    let builder = Cluster::builder().gateways(2).workers(2).nats_sync_interval("always");
    let cluster = builder.start().await?;
    for node in cluster.gateways().iter().chain(cluster.workers()) {
        assert_eq!(status(node.admin(), "/ready")?, 200, "{}", node.name());
    }

    let gateway = cluster.gateway(1);
    let (address, pid) = (gateway.address(), gateway.pid());
    gateway.kill().await?;
    assert_eq!(gateway.pid(), None);
    assert!(TcpStream::connect(address).is_err());
    gateway.start().await?;
    assert_eq!(gateway.address(), address);
    assert_ne!(gateway.pid(), pid);
    TcpStream::connect(address)?;

    let worker = cluster.worker(0);
    let ended = worker.terminate().await?.context("was not running")?;
    assert!(ended.success(), "a worker ends well: {ended}");
    worker.start().await?;
    assert_eq!(status(worker.admin(), "/ready")?, 200);

    // Nobody notices a broker that comes back: its address stays.
    cluster.nats().restart().await?;
    gateway.ready().await?;

    let pids: Vec<u32> = cluster.nodes().filter_map(Node::pid).collect();
    assert_eq!(pids.len(), 8);
    let data = cluster.data_dir().to_owned();
    cluster.stop().await?;
    for pid in pids {
        ensure!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} lives");
    }
    ensure!(!data.exists(), "{} is still there", data.display());
    Ok(())
}

fn status(address: SocketAddr, path: &str) -> Result<u16> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let status = line.split(' ').nth(1).context("no status")?;
    Ok(status.parse()?)
}
