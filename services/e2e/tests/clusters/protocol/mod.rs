//! The protocols, case by case: Engine.IO 4 and Socket.IO 5 as their specifications and their own
//! test suites have them, and input that no client sends. What those suites' servers echo is here
//! an event with an ack.
//!
//! Requests of a session go to both gateways in turn. Each story ends by looking whether anything
//! has panicked.

use anyhow::Result;
use natter_e2e::{
    Engine, Person, Stage,
    stage::{Scene, nothing_panicked},
};

mod endings;
mod engine;
mod hostile;
mod packets;
mod pushes;
mod session;
mod upgrade;

static STAGE: Stage = Stage::with(|builder| {
    builder
        .gateway_env("NATTER_HEARTBEAT_SECONDS", "2")
        .gateway_env("NATTER_HANDSHAKE_SECONDS", "5")
        // Sessions that a story leaves behind last until their heartbeat ends them.
        .gateway_env("NATTER_CONNECTIONS_PER_DEVICE", "1000")
        .gateway_env("NATTER_CORS_ORIGINS", ORIGIN)
});

/// Where a page is from that may use the gateways.
const ORIGIN: &str = "https://app.example";

/// Milliseconds between pings, as [`STAGE`] has them.
const PING_INTERVAL: u64 = 2_000;

/// What the stories stand on: where sessions can be had, and somebody who may.
struct Ground {
    engine: Engine,
    token: String,
    scene: Scene,
    ana: Person,
}

impl Ground {
    async fn new() -> Result<Self> {
        let scene = STAGE.among_others().await?;
        let ana = Person::register(&scene, "Ana").await?;
        let token = ana.first.access_token.clone();
        Ok(Self { engine: Engine::of(&scene)?, token, scene, ana })
    }

    fn finish(&self) -> Result<()> {
        nothing_panicked(&self.scene)
    }
}
