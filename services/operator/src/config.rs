//! The command line.

use clap::{Args, Parser, Subcommand};
use natter_persistence::config::MigrateArgs;
use natter_protocol::{
    ids::{ChatId, DeviceId, MessageId, ServiceTokenId, UserId},
    limits,
    service::{self, Scope},
};
use secrecy::SecretString;

mod webhook;

pub use webhook::{
    AddEndpointArgs, ChangeEndpointArgs, EndpointArgs, EndpointLettersArgs, ListEndpointsArgs,
    ReplayEventsArgs, ReplayLettersArgs, Webhook,
};

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
    /// Tell other people's servers of what happens, and see how that goes.
    #[command(subcommand)]
    Webhook(Webhook),
    /// Make tokens, for tests of a deployment.
    #[command(subcommand)]
    Token(Token),
    /// Make, list and revoke the tokens of the server API.
    #[command(subcommand)]
    ServiceToken(ServiceToken),
    /// Make bots.
    #[command(subcommand)]
    Bot(Bot),
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

/// What can be done with service tokens.
#[derive(Debug, Subcommand)]
pub enum ServiceToken {
    /// Make one, and print it: nobody can see it again.
    Create(CreateServiceTokenArgs),
    /// List them, without the tokens themselves.
    List(ListServiceTokensArgs),
    /// End one, on every gateway within a second.
    Revoke(RevokeServiceTokenArgs),
}

/// Of `service-token create`.
#[derive(Args, Debug)]
pub struct CreateServiceTokenArgs {
    /// What it is for: 1 to 100 characters.
    #[arg(long, value_parser = label)]
    pub name: String,

    /// What it may do, with commas between: users, devices, chats, send, impersonate, history, moderate.
    #[arg(long, value_delimiter = ',', required = true)]
    pub scopes: Vec<Scope>,

    /// Calls a second that it may make through one gateway, for long: 1 to 1,000,000. Without, what the
    /// gateways' settings say.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Option<u32>,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Where the servers are; Postgres is asked.
    #[command(flatten)]
    pub servers: Servers,
}

/// Of `service-token list`.
#[derive(Args, Debug)]
pub struct ListServiceTokensArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Where the servers are; Postgres is asked.
    #[command(flatten)]
    pub servers: Servers,
}

/// Of `service-token revoke`.
#[derive(Args, Debug)]
pub struct RevokeServiceTokenArgs {
    /// The token, as `list` calls it.
    pub id: ServiceTokenId,

    /// Where the servers are; Postgres is asked.
    #[command(flatten)]
    pub servers: Servers,
}

/// What can be done with bots.
#[derive(Debug, Subcommand)]
pub enum Bot {
    /// Make a bot with a device that is logged in, and print the device's refresh token, which nobody
    /// can see again: `/v1/auth/refresh` gives access tokens for it.
    Create(CreateBotArgs),
}

/// Of `bot create`.
#[derive(Args, Debug)]
pub struct CreateBotArgs {
    /// Shown to others: 1 to 100 characters.
    #[arg(long, value_parser = label)]
    pub name: String,

    /// What the embedding product calls it.
    #[arg(long, value_name = "ID", value_parser = external_id)]
    pub external_id: Option<String>,

    /// Days that the refresh token is good for: 1 to 365.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=365))]
    pub days: u16,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Where the servers are; Postgres is asked.
    #[command(flatten)]
    pub servers: Servers,
}

fn label(text: &str) -> Result<String, String> {
    let text = text.trim();
    let fits = (1..=limits::NAME_CHARS).contains(&text.chars().count());
    if fits && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(format!("not 1 to {} characters that can be seen", limits::NAME_CHARS))
}

fn external_id(text: &str) -> Result<String, String> {
    service::named_outside(text, &()).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
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
            &["service-token", "create", "--name=Shop"],
            &["service-token", "create", "--name=Shop", "--scopes="],
            &["service-token", "create", "--name=Shop", "--scopes=users,all"],
            &["service-token", "create", "--name= ", "--scopes=users"],
            &["service-token", "create", "--name=Shop", "--scopes=users", "--rate=0"],
            &["service-token", "revoke", "Shop"],
            &["bot", "create", "--name="],
            &["bot", "create", "--name=Bot", "--external-id="],
            &["webhook", "add", "bad name", "https://shop.example/hook"],
            &["webhook", "add", "shop", "ftp://shop.example/hook"],
            &["webhook", "add", "shop", "https://shop.example/hook", "--kinds=everything"],
            &["webhook", "change", "shop", "--kinds=edit", "--all-kinds"],
            &["webhook", "replay", "shop"],
            &["webhook", "replay", "shop", "--since=yesterday"],
            &["webhook", "replay-letters", "shop"],
            &["import", "--name=two words"],
            &["import", "--batch=0"],
        ] {
            let all = ["natter"].iter().chain(bad);
            assert!(Cli::try_parse_from(all).is_err(), "{bad:?}");
        }
    }
}
