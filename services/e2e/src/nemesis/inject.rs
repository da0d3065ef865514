//! Doing to a cluster what the schedule says.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Result, ensure};
use natter_cluster::{Cluster, Node};
use tokio::{task, time::sleep};

use super::schedule::{Fault, Planned, Role, Target};

/// Of Redis' answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Lets a fault come and, where it lasts, pass. What is away afterwards is being started; it may
/// not be ready, since another fault may last longer.
///
/// # Errors
/// When a process cannot be started or ended. That two faults meet in one process is none.
pub(super) async fn inflict(cluster: &Cluster, planned: Planned) -> Result<()> {
    sleep(planned.after).await;
    match planned.fault {
        Fault::Kill(target) => {
            let node = node(cluster, target);
            node.kill().await?;
            sleep(planned.lasts).await;
            node.launch().await
        }
        Fault::Pause(target) => {
            let node = node(cluster, target);
            // It may be away, by the other fault.
            if node.pause().is_ok() {
                sleep(planned.lasts).await;
                node.resume().ok();
            }
            Ok(())
        }
        Fault::Restart(target) => {
            let node = node(cluster, target);
            node.terminate().await?;
            node.launch().await
        }
        Fault::Outage => {
            cluster.postgres().kill().await?;
            sleep(planned.lasts).await;
            cluster.postgres().launch().await
        }
        Fault::RollingRestart => {
            for node in cluster.nodes() {
                node.terminate().await?;
                // The other fault may end it while it starts; healing tells whether it can.
                if node.start().await.is_err() {
                    node.launch().await?;
                }
            }
            Ok(())
        }
        Fault::FlushRedis => flush(cluster.redis().address()).await,
        Fault::SlowSockets => Ok(()),
    }
}

fn node(cluster: &Cluster, target: Target) -> &Node {
    match target.role {
        Role::Gateway => cluster.gateway(target.index),
        Role::Worker => cluster.worker(target.index),
        Role::Push => cluster.pusher(target.index),
        Role::Broker => cluster.broker(target.index),
        Role::Redis => cluster.redis(),
        Role::Postgres => cluster.postgres(),
    }
}

/// A Redis that is away has nothing to forget.
async fn flush(redis: SocketAddr) -> Result<()> {
    task::spawn_blocking(move || {
        let Ok(mut stream) = TcpStream::connect_timeout(&redis, PATIENCE) else { return Ok(()) };
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = [0; 5];
        let asked = stream.write_all(b"FLUSHALL\r\n").and_then(|()| stream.read_exact(&mut answer));
        ensure!(asked.is_err() || answer == *b"+OK\r\n", "Redis does not forget");
        Ok(())
    })
    .await?
}
