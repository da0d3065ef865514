//! Processes that end by themselves, or are killed by somebody's experiment, are started again.

use std::time::Duration;

use natter_cluster::{Cluster, Node, progress::say};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(200);

/// Before a process is started again: doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A process that ran this long was well: its next end is a first one again.
const WELL: Duration = Duration::from_mins(1);

/// Looks after every process until what is returned is dropped.
pub(crate) fn all(cluster: &Cluster) -> JoinSet<()> {
    cluster.nodes().cloned().map(look_after).collect()
}

async fn look_after(node: Node) {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = node.exited() {
                break status;
            }
            sleep(LOOK).await;
        };
        if started.elapsed() > WELL {
            pause = FIRST_PAUSE;
        }
        let (name, seconds) = (node.name(), pause.as_secs_f32());
        say(&format!(
            "{name} ended ({status}); starting it again in {seconds} s, its log is {}",
            node.log().display()
        ));
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        match node.start().await {
            Ok(()) => say(&format!("{name} is back")),
            Err(error) => say(&format!("{name}: {error:#}")),
        }
    }
}
