//! Connections that say nothing.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    rc::Rc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use natter_e2e::{crowd::AT_ONCE, usage::resident};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::Extent;
use crate::{
    line::{Call, Ear, Line, Scene},
    results::{Goal, Sheet, shown},
    wire::Transport,
    world::{Load, Plan, World},
};

/// How long gateways are left alone before memory is looked at.
const SETTLED: Duration = Duration::from_secs(10);
/// Connections that one process may hold here, and leave files for what else it has open.
const PER_PROCESS: usize = 10_000;

impl World {
    /// Resident memory of all gateways, in KiB.
    fn memory(&self) -> Result<u64> {
        self.cluster.gateways().iter().map(resident).sum()
    }

    /// Gateways that have nothing left over from what was done before.
    async fn afresh(&self) -> Result<()> {
        for gateway in self.cluster.gateways() {
            gateway.restart().await?;
        }
        Ok(())
    }
}

/// What one connection takes.
pub async fn idle(extent: Extent) -> Result<Sheet> {
    let mut sheet = Sheet::new(
        "5,000 people on two gateways, each in 20 chats of 10, connect and say nothing: the first \
         1,000, and 10 s later the others; by how much the gateways' resident memory grows for each of \
         these until 10 s after them. The first ones bring in what a gateway needs to let anybody in; \
         and what is free is given back to the system at once (`MIMALLOC_PURGE_DELAY=0`), so that it \
         does not hide anything.",
    );
    let people = 5_000 / extent.smaller;
    let early = people / 5;
    let plan = Plan { people, size: 10, rounds: 20, frugal: true, ..Plan::default() };
    let mut world = World::build(&plan).await?;
    for _ in 0..extent.repeat {
        for (transport, name, most) in
            [(Transport::Native, "native", 6.0), (Transport::SocketIo, "Socket.IO", 8.0)]
        {
            for line in world.lines.take() {
                line.hang_up();
            }
            world.afresh().await?;
            (world.transport, world.ears) =
                (transport, world.guests.iter().map(|_| Rc::default()).collect());
            let mut lines = Vec::new();
            let mut before = 0;
            for numbers in [0..early, early..people] {
                let calls = stream::iter(numbers.clone()).map(|number| world.call(number, 0));
                let calls: Vec<_> = calls.buffered(AT_ONCE).try_collect().await?;
                lines.extend(calls);
                sleep(SETTLED).await;
                let memory = world.memory()?;
                if numbers.start > 0 {
                    let grown = memory.saturating_sub(before) as f64;
                    let each = grown / numbers.len() as f64;
                    sheet.promise(name, "KiB/connection", Goal::AtMost(most), each);
                }
                before = memory;
            }
            world.lines.replace(lines);
            // They are what they are said to be: everybody hears everything.
            let load = Load {
                rate: Some(50.0),
                window: 1,
                time: Duration::from_secs(2),
                chats: world.groups.len(),
            };
            let run = world.play(load).await?;
            sheet.faults(name, &run);
        }
    }
    world.cluster.stop().await?;
    Ok(sheet)
}

/// What a process that holds connections is told.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hold {
    /// To which gateway.
    gateway: SocketAddr,
    /// How.
    transport: Transport,
    /// As whom.
    tokens: Vec<String>,
    /// The number of the first one.
    first: usize,
}

/// Holds connections until the input ends: for a process of its own, which reads a [`Hold`] from
/// it, and says how many stand whenever it is asked by a line.
///
/// # Errors
/// When one cannot be made.
pub async fn hold() -> Result<()> {
    let mut input = BufReader::new(std::io::stdin());
    let mut line = String::new();
    input.read_line(&mut line)?;
    let told: Hold = serde_json::from_str(&line)?;
    let scene = Rc::<Scene>::default();
    let lines = told.tokens.iter().enumerate().map(async |(n, token)| {
        let number = told.first + n;
        let (gateway, transport) = (told.gateway, told.transport);
        let call = Call { gateway, transport, token, cursor: None, number };
        Line::open(call, &scene, &Rc::<Ear>::default()).await
    });
    let lines: Vec<_> = stream::iter(lines).buffered(AT_ONCE).try_collect().await?;
    let (asked, mut asks) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for line in input.lines() {
            if line.is_err() || asked.blocking_send(()).is_err() {
                return;
            }
        }
    });
    println!("{}", lines.len());
    while asks.recv().await.is_some() {
        println!("{}", lines.iter().filter(|line| line.stands()).count());
    }
    Ok(())
}

/// A process that holds connections.
struct Holder {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Holder {
    fn start(told: &Hold) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("hold")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.as_mut().context("no input")?;
        writeln!(input, "{}", serde_json::to_string(told)?)?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self { child, output })
    }

    fn count(&mut self) -> Result<usize> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        line.trim().parse().context("a process that holds connections has failed")
    }

    fn ask(&mut self) -> Result<usize> {
        writeln!(self.child.stdin.as_mut().context("no input")?)?;
        self.count()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A million is more than one machine holds; these are as many as this one does.
const MILLION: f64 = 1e6;

/// Very many.
pub async fn many(extent: Extent) -> Result<Sheet> {
    let mut sheet = Sheet::new(
        "40,000 people, each in 20 chats of 10, on four gateways, held by four processes of the \
         driver for 30 s (two of the gateways' heartbeats).",
    );
    let people = 40_000 / extent.smaller;
    let gateways = people.div_ceil(PER_PROCESS);
    let plan = Plan { gateways, people, size: 10, rounds: 20, ..Plan::default() };
    let world = World::build(&plan).await?;
    world.afresh().await?;
    let empty = world.memory()?;
    let started = std::time::Instant::now();
    let mut holders = Vec::new();
    for (n, guests) in world.guests.chunks(PER_PROCESS).enumerate() {
        let told = Hold {
            gateway: world.cluster.gateway(n).address(),
            transport: Transport::Native,
            tokens: guests.iter().map(|guest| guest.token.clone()).collect(),
            first: n * PER_PROCESS,
        };
        holders.push(Holder::start(&told)?);
    }
    let mut held = 0;
    for holder in &mut holders {
        held += holder.count()?;
    }
    ensure!(held == people, "{held} of {people} connections stand");
    let took = started.elapsed().as_secs_f64();
    sheet.note("connected", "connections/s", held as f64 / took);
    sleep(Duration::from_secs(30)).await;
    let mut standing = 0;
    for holder in &mut holders {
        standing += holder.ask()?;
    }
    let goal = Goal::AtLeast(people as f64);
    sheet.promise("still standing after 30 s", "connections", goal, standing as f64);
    let each = world.memory()?.saturating_sub(empty) as f64 / standing as f64;
    sheet.note("gateways", "KiB/connection", each);
    let nats = resident(world.cluster.nats())? as f64 / standing as f64;
    sheet.note("nats-server, all of it", "KiB/connection", nats);
    let gib = |kib: f64| kib * MILLION / 1024.0 / 1024.0;
    sheet.note("a million would take of gateways", "GiB", gib(each));
    sheet.note("a million would take of nats-servers", "GiB", gib(nats));
    let (each, nats) = (shown(each), shown(nats));
    sheet.about = format!(
        "{} A million: 1,000,000 × {each} KiB of gateways and, since every gateway follows its \
         chats at a broker, × {nats} KiB of brokers; over 25 gateways of 40,000 each.",
        sheet.about
    );
    drop(holders);
    world.cluster.stop().await?;
    Ok(sheet)
}
