//! Connections that are cut and come back with their cursor.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use rand::RngExt;
use tokio::time::sleep;

use super::Extent;
use crate::{
    results::{Goal, Sheet},
    wire::Transport,
    world::{Load, Plan, World},
};

/// Messages a second meanwhile.
const RATE: f64 = 200.0;
/// A client that is turned away tries again after a pause of at most so long, as clients do.
const PAUSE: (u64, u64) = (100, 1_500);
/// Whoever is not back by then never will be.
const PATIENCE: Duration = Duration::from_mins(2);

/// How people are cut off.
#[derive(Clone, Copy)]
struct Cut {
    /// Within how long everybody is.
    within: Duration,
    /// For how long, in ms.
    away: (u64, u64),
    /// Those who are not cut off do the talking: so many.
    speakers: usize,
}

impl World {
    /// Cuts a person off, and has it back; answers how long that took after it tried.
    async fn cut(&self, number: usize, cut: Cut, tries: &Cell<u64>) -> Result<Duration> {
        sleep(cut.within.mul_f64(rand::rng().random_range(0.0..1.0))).await;
        self.lines.borrow()[number].hang_up();
        let away = rand::rng().random_range(cut.away.0..=cut.away.1);
        sleep(Duration::from_millis(away)).await;
        let since = Instant::now();
        for elsewhere in 1.. {
            tries.set(tries.get() + 1);
            if let Ok(line) = self.call(number, elsewhere).await {
                line.resumed().await?;
                self.lines.borrow_mut()[number] = line;
                return Ok(since.elapsed());
            }
            ensure!(since.elapsed() < PATIENCE, "{number} does not get back");
            let pause = rand::rng().random_range(PAUSE.0..PAUSE.1);
            sleep(Duration::from_millis(pause)).await;
        }
        unreachable!("it tries for ever")
    }
}

/// Cut at once, and at random.
pub async fn storms(extent: Extent) -> Result<Sheet> {
    let people = 10_000 / extent.smaller;
    let mut sheet = Sheet::new(
        "10,000 people in groups of 10 on two gateways, and 200 messages/s by one in each group \
         who stays. Avalanche: everybody else is cut off at the same moment, and comes back to the \
         other gateway after 1 s with the cursor. Jitter: each is cut off once for 1 to 3 s, at \
         some moment of 10 s.",
    );
    let plan = Plan { people, size: 10, ..Plan::default() };
    let mut world = World::build(&plan).await?;
    world.connect(Transport::Native, 2).await?;
    let avalanche = Cut { within: Duration::ZERO, away: (1_000, 1_000), speakers: 1 };
    let [within, afterwards] = [10, 8].map(|seconds| extent.lasts(seconds));
    let jitter = Cut { within, away: (1_000, 3_000), speakers: 1 };
    for _ in 0..extent.repeat {
        for (name, cut) in [("avalanche", avalanche), ("jitter", jitter)] {
            storm(&world, &mut sheet, name, cut, afterwards).await?;
        }
    }
    world.cluster.stop().await?;
    Ok(sheet)
}

async fn storm(
    world: &World,
    sheet: &mut Sheet,
    name: &str,
    cut: Cut,
    afterwards: Duration,
) -> Result<()> {
    // People talk for a while after the last has been cut off.
    let (board, before) = world.begin()?;
    let load = Load {
        rate: Some(RATE),
        window: 1,
        time: cut.within + afterwards,
        chats: world.groups.len(),
    };
    let victims: Vec<usize> =
        world.groups.iter().flat_map(|group| group.members[cut.speakers..].to_vec()).collect();
    let tries = Rc::new(Cell::new(0));
    let coming = try_join_all(victims.iter().map(|number| world.cut(*number, cut, &tries)));
    let talking = world.at_a_rate(&board, load, RATE, Some(cut.speakers));
    let (mut took, ()) = futures::try_join!(coming, talking)?;
    took.sort();
    let run = world.end(&board, before).await?;
    let slowest = took.last().copied().unwrap_or_default().as_secs_f64();
    let half = took.get(took.len() / 2).copied().unwrap_or_default().as_secs_f64();
    sheet.note(format!("{name}: half are back after"), "s", half);
    sheet.promise(format!("{name}: all are back after"), "s", Goal::AtMost(10.0), slowest);
    let each = tries.get() as f64 / took.len() as f64;
    sheet.note(format!("{name}: tries"), "each", each);
    let resumes = took.len() as f64 / run.used.servers();
    sheet.note(
        format!("{name}: with everything else, per CPU-second of all servers"),
        "resumes",
        resumes,
    );
    sheet.faults(name, &run);
    Ok(())
}
