//! How much waits, and where: looked at now and then, so that queueing costs nothing for it.

use std::ops::Range;

use crate::app::App;

/// Users looked at before others may have the registry.
const AT_ONCE: usize = 1_000;

/// Looks at all queues. Of each connection's a moment is seen, not of all the same one.
pub(crate) async fn measure(app: &App) {
    let (mut frames, mut longest, mut slots) = (0, 0, Range { start: 0, end: AT_ONCE });
    loop {
        let found = app.hub.registry().waiting(slots.clone());
        let Some((sum, most)) = found else { break };
        frames += sum;
        longest = longest.max(most);
        slots = slots.end..slots.end + AT_ONCE;
        tokio::task::yield_now().await;
    }
    metrics::gauge!("natter_queued_frames").set(frames as f64);
    metrics::gauge!("natter_queued_frames_max").set(longest as f64);
    let (commands, batches) = app.hub.waiting();
    metrics::gauge!("natter_hub_commands_waiting").set(commands as f64);
    metrics::gauge!("natter_follow_batches_waiting").set(batches as f64);
    metrics::gauge!("natter_publishes_in_flight").set(app.bus.in_flight() as f64);
}
