//! The command line.

use clap::{Args, Parser, Subcommand};
use natter_persistence::config::MigrateArgs;
use natter_protocol::ids::{ChatId, DeviceId, MessageId, UserId};
use secrecy::SecretString;

pub use crate::{import::ImportArgs, servers::Servers};

/// Looks after a Natter: asks how it stands, and mends what the services leave to people.
///
/// Exit codes: 0 all is well, or done; 1 something is wrong, or was refused; 2 it could not be told,
/// since a server did not answer or the command line makes no sense.
#[derive(Debug, Parser)]
#[command(name = "natter", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What there is to do.
#[derive(Subcommand)]
pub enum Command {
    /// Bring the database's schema and the streams up to date. Safe to repeat.
    Migrate(Box<MigrateArgs>),
    /// Tell how everything stands: versions, shards, gateways, what waits.
    Status(StatusArgs),
    /// Look at entries of the log that could not be written to Postgres, and write them after all.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Tell the path of a message: in the log, in Postgres, its file, its participants' devices.
    Message(MessageArgs),
    /// Look at the devices of a user, and close them.
    #[command(subcommand)]
    Devices(Devices),
    /// Make tokens, for tests of a deployment.
    #[command(subcommand)]
    Token(Token),
    /// Move over from an older backend: bring its users, chats, messages and files in. A run that was
    /// ended is gone on with by the next, and what is here is passed over.
    Import(Box<ImportArgs>),
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}

/// Of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Where the servers are.
    #[command(flatten)]
    pub servers: Servers,
}

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// List them, oldest first, without what they say.
    List(ListLettersArgs),
    /// Show one.
    Show(ShowLetterArgs),
    /// Write them to Postgres, at their own place in the feed, once the cause is mended. A letter
    /// that is written, or turns out to have been, is removed; doing it again changes nothing.
    Replay(ReplayArgs),
}

/// Of `dead-letters list`.
#[derive(Args, Debug)]
pub struct ListLettersArgs {
    /// Begin after this letter.
    #[arg(long, value_name = "ID", default_value_t = 0)]
    pub after: u64,

    /// Letters at most: 1 to 10,000.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Where the servers are; NATS is asked.
    #[command(flatten)]
    pub servers: Servers,
}

/// Of `dead-letters show`.
#[derive(Args, Debug)]
pub struct ShowLetterArgs {
    /// The letter, as `list` calls it.
    pub id: u64,

    /// Show what it says too: what people wrote, perhaps.
    #[arg(long)]
    pub body: bool,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Where the servers are; NATS is asked.
    #[command(flatten)]
    pub servers: Servers,
}

/// Of `dead-letters replay`.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// The letters, as `list` calls them.
    #[arg(required_unless_present = "all", value_name = "ID")]
    pub ids: Vec<u64>,

    /// All that there are by now.
    #[arg(long, conflicts_with = "ids")]
    pub all: bool,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Where the servers are; NATS and Postgres are asked.
    #[command(flatten)]
    pub servers: Servers,
}

/// Of `message`.
#[derive(Args, Debug)]
pub struct MessageArgs {
    /// The message's id.
    pub id: MessageId,

    /// Its chat. Without it all of Postgres is read for a message that has no file.
    #[arg(long, value_name = "ID")]
    pub chat: Option<ChatId>,

    /// Seconds that the search in Postgres, and then that of the log's unwritten tail, may take: 1 to
    /// 3,600.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,

    /// Participants whose devices are shown: 0 to 1,000.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub participants: u32,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Where the servers are; Postgres and NATS are asked, and Redis for who is connected.
    #[command(flatten)]
    pub servers: Servers,
}

/// What can be done with devices.
#[derive(Debug, Subcommand)]
pub enum Devices {
    /// List all devices of a user: logged in, signed out, revoked; and where they are connected.
    List(ListDevicesArgs),
    /// Close all connections of a device, on any node. Without `--revoke` it comes back at once.
    Close(CloseDeviceArgs),
}

/// Of `devices list`.
#[derive(Args, Debug)]
pub struct ListDevicesArgs {
    /// Whose: an id, a whole phone number or a whole e-mail address.
    #[arg(long)]
    pub user: String,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Where the servers are; Postgres is asked, and Redis for who is connected.
    #[command(flatten)]
    pub servers: Servers,
}

/// Of `devices close`.
#[derive(Args, Debug)]
pub struct CloseDeviceArgs {
    /// Whose: an id, a whole phone number or a whole e-mail address.
    pub user: String,

    /// Which.
    pub device: DeviceId,

    /// Log the device out for good: only the password brings it back.
    #[arg(long)]
    pub revoke: bool,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Where the servers are; Postgres and NATS are asked, and Redis for which gateways there are.
    #[command(flatten)]
    pub servers: Servers,
}

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make an access token for a device's login, and print nothing else. For development: whoever has
    /// the secret can be anybody.
    Mint(MintArgs),
}

/// Of `token mint`.
#[derive(Args, Debug)]
pub struct MintArgs {
    /// The user.
    #[arg(long, value_name = "ID")]
    pub user: UserId,

    /// The user's device.
    #[arg(long, value_name = "ID")]
    pub device: DeviceId,

    /// Seconds that the token is good for: 10 to 2,592,000.
    #[arg(long, default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(10..=2_592_000))]
    pub seconds: u64,

    /// Make what is missing: the user, the device, its login.
    #[arg(long)]
    pub create: bool,

    /// With `--create`: what a new user and device are called.
    #[arg(long, default_value = "operator's test", requires = "create")]
    pub name: String,

    /// What the gateways sign with.
    #[arg(long, env = "NATTER_JWT_SECRET", hide_env_values = true)]
    pub jwt_secret: Option<SecretString>,

    /// `iss` of the gateway's own tokens.
    #[arg(long, env = "NATTER_JWT_ISSUER", default_value = "natter")]
    pub jwt_issuer: String,

    /// `aud` of the gateway's own tokens.
    #[arg(long, env = "NATTER_JWT_AUDIENCE", default_value = "natter")]
    pub jwt_audience: String,

    /// Where the servers are; Postgres is asked.
    #[command(flatten)]
    pub servers: Servers,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            &["dead-letters", "replay"][..],
            &["dead-letters", "replay", "1", "--all"],
            &["dead-letters", "list", "--limit=0"],
            &["message", "nothing"],
            &["message", "--seconds=0", "019368a0-0000-7000-8000-000000000000"],
            &["token", "mint", "--user=me", "--device=mine"],
            &["devices", "list"],
            &["import", "--name=two words"],
            &["import", "--batch=0"],
        ] {
            let all = ["natter"].iter().chain(bad);
            assert!(Cli::try_parse_from(all).is_err(), "{bad:?}");
        }
    }
}
