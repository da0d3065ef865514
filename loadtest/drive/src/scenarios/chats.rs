//! People who talk in chats of one size or another.

use std::time::Duration;

use anyhow::Result;

use super::{Extent, peer::Peer};
use crate::{
    figures::Figures,
    results::{Goal, Sheet},
    wire::Transport,
    world::{Load, Plan, World},
};

/// A short run before the first that counts: connections have been written to, tables have grown.
const WARM_UP: Duration = Duration::from_secs(2);
/// Deliveries may be so late at saturation, in ms at p99: with more the queues would be measured.
const SATURATED: f64 = 250.0;

impl World {
    /// A run that does not count.
    async fn warm_up(&self, load: Load) -> Result<()> {
        self.play(Load { time: WARM_UP.min(load.time), ..load }).await.map(drop)
    }

    /// As many messages as go, in all chats.
    fn flat_out(&self, extent: Extent, window: u64) -> Load {
        Load { rate: None, window, time: extent.time, chats: self.groups.len() }
    }

    /// So many messages a second, in all chats; fewer where crowds are smaller.
    fn steadily(&self, extent: Extent, rate: f64) -> Load {
        Load { rate: Some(rate / extent.smaller as f64), ..self.flat_out(extent, 1) }
    }
}

/// Groups of 50.
pub async fn groups(extent: Extent) -> Result<Sheet> {
    let mut sheet = Sheet::new(
        "1,000 people in 20 groups of 50, half on either of two gateways; at saturation each group \
         has 4 messages on their way, all the time; then 200 messages/s in all groups together, \
         which are 10,000 deliveries/s, and the same in turn over the WebSocket of one nats-server, \
         a subject for each group.",
    );
    let people = 1_000 / extent.smaller;
    let plan = Plan { people, ..Plan::default() };
    let mut world = World::build(&plan).await?;
    for (transport, name) in [(Transport::Native, "native"), (Transport::SocketIo, "Socket.IO")] {
        world.connect(transport, 2).await?;
        let load = world.flat_out(extent, 4);
        world.warm_up(load).await?;
        for _ in 0..extent.repeat {
            let run = world.play(load).await?;
            saturated(&mut sheet, &format!("{name}, at saturation"), transport, &run);
        }
        let steady = world.steadily(extent, 200.0);
        let peer = match transport {
            Transport::Native => Some(Peer::start(people, plan.size).await?),
            Transport::SocketIo => None,
        };
        for _ in 0..extent.repeat {
            let run = world.play(steady).await?;
            let what = format!("{name}, 10,000/s");
            let by_servers = format!("{what}: per CPU-second of all servers");
            sheet.note(
                format!("{what}: per CPU-second of gateways"),
                "deliveries",
                run.by_gateways(),
            );
            match transport {
                Transport::Native => {
                    let goal = Goal::AtLeast(45_000.0);
                    sheet.promise(by_servers, "deliveries", goal, run.by_servers());
                }
                Transport::SocketIo => sheet.note(by_servers, "deliveries", run.by_servers()),
            }
            sheet.run(&what, &run);
            if let Some(peer) = &peer {
                peer.measure(&mut sheet, "nats-server's WebSocket, 10,000/s", steady).await?;
            }
        }
    }
    world.cluster.stop().await?;
    Ok(sheet)
}

fn saturated(sheet: &mut Sheet, what: &str, transport: Transport, run: &Figures) {
    let by_gateways = format!("{what}: per CPU-second of gateways");
    let by_servers = format!("{what}: per CPU-second of all servers");
    if transport == Transport::Native {
        let goals = [Goal::AtLeast(150_000.0), Goal::AtLeast(90_000.0), Goal::AtMost(SATURATED)];
        sheet.promise(by_gateways, "deliveries", goals[0], run.by_gateways());
        sheet.promise(by_servers, "deliveries", goals[1], run.by_servers());
        let late = format!("{what}: p99 while saturated");
        sheet.promise(late, "ms", goals[2], run.latency.p99);
    } else {
        sheet.note(by_gateways, "deliveries", run.by_gateways());
        sheet.note(by_servers, "deliveries", run.by_servers());
    }
    sheet.run(what, run);
}

/// One hot chat.
pub async fn hot(extent: Extent) -> Result<Sheet> {
    let mut sheet = Sheet::new(
        "One chat with 500 people, all on one gateway; 500 messages/s by all of them in turn.",
    );
    let people = 500 / extent.smaller;
    let plan = Plan { gateways: 1, people, size: people, rounds: 1, ..Plan::default() };
    let mut world = World::build(&plan).await?;
    world.connect(Transport::Native, 1).await?;
    let load = world.steadily(extent, 500.0);
    world.warm_up(load).await?;
    for _ in 0..extent.repeat {
        let run = world.play(load).await?;
        let goal = Goal::AtLeast(300_000.0);
        sheet.promise("per CPU-second of the gateway", "deliveries", goal, run.by_gateways());
        sheet.note("per CPU-second of all servers", "deliveries", run.by_servers());
        sheet.run("500 messages/s", &run);
    }
    world.cluster.stop().await?;
    Ok(sheet)
}

/// One-to-ones.
pub async fn direct(extent: Extent) -> Result<Sheet> {
    let mut sheet = Sheet::new(
        "1,000 people in 500 chats of two, on two gateways; every chat has one message on its way, \
         all the time.",
    );
    let people = 1_000 / extent.smaller;
    let mut world = World::build(&Plan { people, size: 2, ..Plan::default() }).await?;
    world.connect(Transport::Native, 2).await?;
    let load = world.flat_out(extent, 1);
    world.warm_up(load).await?;
    for _ in 0..extent.repeat {
        let run = world.play(load).await?;
        let sends = run.messages as f64 / run.used.servers();
        sheet.promise("per CPU-second of all servers", "sends", Goal::AtLeast(10_000.0), sends);
        sheet.note("sends", "1/s", run.messages as f64 / run.sent.as_secs_f64());
        sheet.run("one-to-ones", &run);
    }
    world.cluster.stop().await?;
    Ok(sheet)
}

/// The same traffic for each connection, and more and more of them.
pub async fn connections(extent: Extent) -> Result<Sheet> {
    let mut sheet = Sheet::new(
        "Groups of 50 on two gateways; each connection hears one message a second, however many \
         there are.",
    );
    for people in [100, 1_000, 10_000] {
        // One group at least.
        let people = (people / extent.smaller).max(50);
        let mut world = World::build(&Plan { people, ..Plan::default() }).await?;
        world.connect(Transport::Native, 2).await?;
        let rate = (world.groups.len() * extent.smaller) as f64;
        let load = world.steadily(extent, rate);
        world.warm_up(load).await?;
        for _ in 0..extent.repeat {
            let run = world.play(load).await?;
            let name = format!("{people} connections: per CPU-second of gateways");
            sheet.note(name, "deliveries", run.by_gateways());
            sheet.run(&format!("{people} connections"), &run);
        }
        world.cluster.stop().await?;
    }
    Ok(sheet)
}

/// The same traffic in more and more chats.
pub async fn chats(extent: Extent) -> Result<Sheet> {
    let mut sheet = Sheet::new(
        "1,000 people on two gateways, in chats of ten, and 1,000 messages/s spread over all chats, \
         however many there are.",
    );
    for chats in [10, 1_000, 100_000] {
        let chats = (chats / extent.smaller).max(10);
        // Ten chats have room for a hundred.
        let people = (1_000 / extent.smaller).min(chats * 10);
        let rounds = (chats * 10).div_ceil(people);
        let mut world = World::build(&Plan { people, size: 10, rounds, ..Plan::default() }).await?;
        world.connect(Transport::Native, 2).await?;
        let load = world.steadily(extent, 1_000.0);
        world.warm_up(load).await?;
        for _ in 0..extent.repeat {
            let run = world.play(load).await?;
            let name = format!("{chats} chats: per CPU-second of gateways");
            sheet.note(name, "deliveries", run.by_gateways());
            sheet.run(&format!("{chats} chats"), &run);
        }
        world.cluster.stop().await?;
    }
    Ok(sheet)
}

/// One-to-ones with a push worker and without.
pub async fn push(extent: Extent) -> Result<Sheet> {
    let mut sheet = Sheet::new(
        "The same one-to-ones at 1,000 messages/s, once without a push worker, as in all that is \
         above, and once with one, which decides for each message who is to be notified: nobody, \
         since all are online and no device is registered.",
    );
    let people = 1_000 / extent.smaller;
    for (pushers, name) in [(0, "without"), (1, "with a push worker")] {
        let plan = Plan { people, pushers, size: 2, ..Plan::default() };
        let mut world = World::build(&plan).await?;
        world.connect(Transport::Native, 2).await?;
        let load = world.steadily(extent, 1_000.0);
        world.warm_up(load).await?;
        for _ in 0..extent.repeat {
            let run = world.play(load).await?;
            let sends = run.messages as f64 / run.used.servers();
            sheet.note(format!("{name}: per CPU-second of all servers"), "sends", sends);
            sheet.run(name, &run);
        }
        world.cluster.stop().await?;
    }
    Ok(sheet)
}
