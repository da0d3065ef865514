//! The outbox, when some of it cannot be relayed.

use anyhow::Result;
use natter_persistence::outbox::Sweeper;

use crate::support::World;

#[tokio::test]
async fn lanes_that_fail_do_not_keep_the_others_waiting() -> Result<()> {
    let world = World::new().await?;
    world.relay_outbox().await;
    // On a shard that no log stores: they fail for as long as it stays so.
    for _ in 0..5 {
        world.store.create_group(world.ada.id, None, false, &[], 7).await?;
    }
    world.store.create_group(world.ada.id, None, false, &[], 0).await?;
    let mut sweeper = Sweeper::default();
    let mut relayed = Vec::new();
    for _ in 0..4 {
        relayed.push(world.sweep(&mut sweeper, 2).await);
    }
    // Two at a time: the one that can be relayed is among the third two. The fourth page is
    // empty, and the next begins anew.
    assert_eq!(relayed, [0, 0, 1, 0]);
    world.bus.ensure_log(7, &crate::support::log_config(), None).await?;
    let mut healed = 0;
    for _ in 0..3 {
        healed += world.sweep(&mut sweeper, 2).await;
    }
    assert_eq!(healed, 5);
    Ok(())
}
