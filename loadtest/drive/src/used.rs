//! What processes use, as the kernel counts it.

use std::{collections::HashMap, fs};

use anyhow::{Context, Result};
use natter_cluster::{Cluster, Node, Role};

/// Ticks of a second in `/proc/<pid>/stat` (`USER_HZ`, the same on every Linux).
const TICKS: f64 = 100.0;

/// CPU-seconds so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// Of all gateways.
    pub gateways: f64,
    /// Of the workers.
    pub workers: f64,
    /// Of NATS.
    pub nats: f64,
    /// Of Postgres, with those of its processes that have ended.
    pub postgres: f64,
    /// Of Redis.
    pub redis: f64,
    /// Of this driver.
    pub driver: f64,
}

impl Used {
    /// Of all servers.
    pub fn servers(&self) -> f64 {
        self.gateways + self.workers + self.nats + self.postgres + self.redis
    }

    /// Since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            gateways: self.gateways - before.gateways,
            workers: self.workers - before.workers,
            nats: self.nats - before.nats,
            postgres: self.postgres - before.postgres,
            redis: self.redis - before.redis,
            driver: self.driver - before.driver,
        }
    }
}

/// What a cluster and this process have used so far.
///
/// # Errors
/// When a process is away.
pub fn by(cluster: &Cluster) -> Result<Used> {
    let processes = processes()?;
    // Servers are our children: only what is our own counts.
    let own = processes.get(&std::process::id()).context("we are away")?;
    let mut used = Used { driver: own.own as f64 / TICKS, ..Used::default() };
    for node in cluster.nodes() {
        let seconds = of(&processes, pid(node)?)?;
        *match node.role() {
            Role::Gateway => &mut used.gateways,
            Role::Persistence | Role::Push => &mut used.workers,
            Role::Nats => &mut used.nats,
            Role::Postgres => &mut used.postgres,
            Role::Redis => &mut used.redis,
            // No part of a cluster.
            Role::MariaDb => continue,
        } += seconds;
    }
    Ok(used)
}

/// What one process has used, its children included.
///
/// # Errors
/// When it is away.
pub fn by_process(pid: u32) -> Result<f64> {
    of(&processes()?, pid)
}

/// The process of a node.
///
/// # Errors
/// When it is away.
pub fn pid(node: &Node) -> Result<u32> {
    node.pid().with_context(|| format!("{} is away", node.name()))
}

struct Process {
    parent: u32,
    /// Its own.
    own: u64,
    /// That, and that of its children that have ended.
    ticks: u64,
}

fn processes() -> Result<HashMap<u32, Process>> {
    let entries = fs::read_dir("/proc")?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // One that ends meanwhile is left out.
    Ok(pids.filter_map(|pid| Some((pid, process(pid)?))).collect())
}

fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything, spaces and brackets as well.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |n: usize| fields.get(n)?.parse::<u64>().ok();
    let own = (11..=12).map(number).sum::<Option<u64>>()?;
    let ticks = own + (13..=14).map(number).sum::<Option<u64>>()?;
    Some(Process { parent: number(1)?.try_into().ok()?, own, ticks })
}

fn of(all: &HashMap<u32, Process>, pid: u32) -> Result<f64> {
    let own = all.get(&pid).with_context(|| format!("process {pid} is away"))?;
    // Postgres has one process for each connection; they have no children.
    let children = all.values().filter(|process| process.parent == pid);
    let ticks = own.ticks + children.map(|process| process.ticks).sum::<u64>();
    Ok(ticks as f64 / TICKS)
}
