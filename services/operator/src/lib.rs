//! `natter`: what an operator asks of a deployment, and does to it.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | the command line |
//! | [`outcome`] | exit codes, and what keeps a command from its end |
//! | [`status`] | how everything stands |
//! | [`dead_letters`] | entries that could not be written: listed, shown, replayed |
//! | [`message`] | the path of one message |
//! | `pushes` | what became of its notifications |
//! | [`devices`] | a user's devices: listed, closed, revoked |
//! | [`webhooks`] | other people's servers that are told of events |
//! | [`token`] | tokens for tests of a deployment |
//! | [`service_tokens`] | tokens of the server API: made, listed, revoked |
//! | [`bots`] | bots made |
//! | [`import`] | moving over from an older backend |
//! | `servers` | the way to Postgres, NATS and Redis, by the services' own settings |
//! | `people` | whom an id, a phone number or an e-mail address names |
//! | `text` | tables, ages, sizes, and strangers' words made harmless |
//!
//! It stands on the services' own code: `migrate` is the worker's, a dead letter is read as the
//! worker reads the log, a token is signed as a gateway signs it.

pub mod bots;
pub mod config;
pub mod dead_letters;
pub mod devices;
pub mod import;
pub mod message;
pub mod outcome;
mod people;
mod pushes;
mod servers;
pub mod service_tokens;
pub mod status;
mod text;
pub mod token;
pub mod webhooks;

use config::{Bot, Cli, Command, DeadLetters, Devices, ServiceToken, Token, Webhook};
use natter_persistence::config::MigrateArgs;
use natter_runtime::{strangers, telemetry};
use outcome::{Failure, Outcome};

/// Runs a command.
///
/// # Errors
/// [`Failure`]: what kept it from its end, with its exit code.
pub async fn run(cli: Cli) -> Result<Outcome, Failure> {
    match cli.command {
        Command::Migrate(args) => migrate(&args).await,
        Command::Status(args) => status::run(&args).await,
        Command::DeadLetters(DeadLetters::List(args)) => dead_letters::list(&args).await,
        Command::DeadLetters(DeadLetters::Show(args)) => dead_letters::show(&args).await,
        Command::DeadLetters(DeadLetters::Replay(args)) => dead_letters::replay(&args).await,
        Command::Message(args) => message::run(&args).await,
        Command::Devices(Devices::List(args)) => devices::list(&args).await,
        Command::Devices(Devices::Close(args)) => devices::close(&args).await,
        Command::Webhook(webhook) => on_webhook(&webhook).await,
        Command::Token(Token::Mint(args)) => token::mint(&args).await,
        Command::ServiceToken(ServiceToken::Create(args)) => service_tokens::create(&args).await,
        Command::ServiceToken(ServiceToken::List(args)) => service_tokens::list(&args).await,
        Command::ServiceToken(ServiceToken::Revoke(args)) => service_tokens::revoke(&args).await,
        Command::Bot(Bot::Create(args)) => bots::create(&args).await,
        Command::Import(args) => import::run(&args).await,
    }
}

async fn on_webhook(webhook: &Webhook) -> Result<Outcome, Failure> {
    match webhook {
        Webhook::Add(args) => webhooks::add(args).await,
        Webhook::List(args) => webhooks::list(args).await,
        Webhook::Show(args) => webhooks::show(args).await,
        Webhook::Change(args) => webhooks::change(args).await,
        Webhook::Enable(args) => webhooks::turn(args, true).await,
        Webhook::Disable(args) => webhooks::turn(args, false).await,
        Webhook::Remove(args) => webhooks::remove(args).await,
        Webhook::Test(args) => webhooks::test(args).await,
        Webhook::Replay(args) => webhooks::replay(args).await,
        Webhook::DeadLetters(args) => webhooks::dead_letters(args).await,
        Webhook::ReplayLetters(args) => webhooks::replay_letters(args).await,
    }
}

/// As `natter-persistence migrate`.
async fn migrate(args: &MigrateArgs) -> Result<Outcome, Failure> {
    let telemetry =
        telemetry::init(&args.telemetry, "natter", &args.node_id).map_err(Failure::telemetry)?;
    strangers::warn();
    let migrated = natter_persistence::migrate_by(args).await;
    telemetry.shutdown().await;
    migrated.map(|()| Outcome::Well).map_err(|error| Failure::Migration(error.into()))
}
