//! All of the gateway's settings, from flags or the environment. Durations are whole numbers of
//! the unit that the name ends in.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use axum::http::HeaderValue;
use clap::{Args, Parser, ValueEnum};
use natter_bus::NatsArgs;
use natter_media::Class;
use natter_presence::RedisArgs;
use natter_protocol::{ids::Shard, push::Hosts};
use natter_runtime::{NodeArgs, TelemetryArgs};
use secrecy::SecretString;
use url::Url;

/// Natter's gateway: sockets, REST and the page.
#[derive(Debug, Parser)]
#[command(name = "natter-gateway", version, about)]
pub struct Cli {
    /// Who this process is.
    #[command(flatten)]
    pub node: NodeArgs,
    /// How to log.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
    /// Everything else.
    #[command(flatten)]
    pub config: Config,
}

/// What a gateway is told when it starts.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// Address of the public port: sockets, REST and the page.
    #[arg(long, env = "NATTER_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// Shards, each a pair of streams, that new chats and users are spread over: 1 to 16, the same
    /// everywhere. It may grow, never shrink.
    #[arg(long, env = "NATTER_SHARDS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub shards: Shard,

    /// Seconds that draining may take after SIGTERM, before connections are cut: 0 to 3,600.
    /// Whatever ends the process by force must wait longer.
    #[arg(long, env = "NATTER_DRAIN_SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub drain_seconds: u64,

    /// Participants of the largest chats in which one hears how far the others have read, 0 to
    /// 10,000. In larger ones only one's own devices do.
    #[arg(long, env = "NATTER_RECEIPTS_PARTICIPANTS", default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub receipts_participants: u32,

    /// What becomes of the messages and reactions of an account that is deleted: they stay, of a
    /// deleted user (`anonymise`), or are taken back (`erase`).
    #[arg(long, env = "NATTER_DELETED_ACCOUNTS", value_enum, default_value_t = DeletedAccounts::Anonymise)]
    pub deleted_accounts: DeletedAccounts,

    /// Exports that this gateway makes at once, 1 to 1,000; more are refused. One user has one at a
    /// time.
    #[arg(long, env = "NATTER_EXPORTS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub exports: u32,

    /// Web Push: hosts that endpoints may be at, with commas between them, each with those below it; the
    /// same for the push workers.
    #[arg(long, env = "NATTER_PUSH_HOSTS", default_value = Hosts::DEFAULT)]
    pub push_hosts: Hosts,

    /// The servers behind the gateway.
    #[command(flatten)]
    pub backends: BackendArgs,

    /// Who is let in.
    #[command(flatten)]
    pub auth: AuthArgs,

    /// REST.
    #[command(flatten)]
    pub rest: RestArgs,

    /// Sockets.
    #[command(flatten)]
    pub socket: SocketArgs,

    /// Files.
    #[command(flatten)]
    pub media: MediaArgs,

    /// Messages.
    #[command(flatten)]
    pub messages: MessageArgs,

    /// The deployment's own check of messages.
    #[command(flatten)]
    pub hook: HookArgs,
}

/// The deployment's own check of messages, before they are published.
#[derive(Args, Clone, Debug)]
pub struct HookArgs {
    /// URL that is asked whether a message may be published, or its text changed; without it nothing
    /// is.
    #[arg(long, env = "NATTER_HOOK_URL", hide_env_values = true)]
    pub hook_url: Option<Url>,

    /// What questions are signed with, `whsec_` and 24 to 64 bytes in base64.
    #[arg(long, env = "NATTER_HOOK_SECRET", hide_env_values = true)]
    pub hook_secret: Option<SecretString>,

    /// Milliseconds that it may take to answer, the wait for its turn included: 10 to 5,000.
    #[arg(long, env = "NATTER_HOOK_MILLISECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(10..=5_000))]
    pub hook_milliseconds: u64,

    /// What becomes of a message when it fails: it is refused (`unavailable`, to be retried), or let
    /// through.
    #[arg(long, env = "NATTER_HOOK_FAILURE", value_enum, default_value_t = OnFailure::Refuse)]
    pub hook_failure: OnFailure,

    /// Questions that this gateway asks at once: 1 to 10,000.
    #[arg(long, env = "NATTER_HOOK_CONCURRENCY", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub hook_concurrency: u32,
}

/// What becomes of a message that could not be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnFailure {
    /// It is let through.
    Allow,
    /// It is refused.
    Refuse,
}

/// What becomes of what somebody has said who deletes their account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeletedAccounts {
    /// It stays, of a deleted user.
    Anonymise,
    /// It is taken back.
    Erase,
}

/// The servers behind the gateway.
#[derive(Args, Clone, Debug)]
pub struct BackendArgs {
    /// Postgres, as `postgres://user:password@host:port/database`; with
    /// `?sslmode=verify-full&sslrootcert=/file` for TLS.
    #[arg(long, env = "NATTER_DATABASE_URL", hide_env_values = true, value_parser = natter_store::parse_url)]
    pub database_url: SecretString,

    /// Connections to Postgres that this gateway opens at most: 1 to 1,000.
    #[arg(long, env = "NATTER_DATABASE_CONNECTIONS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_connections: u32,

    /// Redis.
    #[command(flatten)]
    pub redis: RedisArgs,

    /// NATS.
    #[command(flatten)]
    pub nats: NatsArgs,
}

/// Who is let in: the gateway's own tokens, and those of one outside issuer.
#[derive(Args, Clone, Debug)]
pub struct AuthArgs {
    /// Signs and verifies the gateway's own tokens (HS256); the same on every gateway. At least
    /// 32 bytes.
    #[arg(long, env = "NATTER_JWT_SECRET", hide_env_values = true, value_parser = signing_secret)]
    pub jwt_secret: SecretString,

    /// The secret before the last rotation: tokens that it signed are still accepted, none are
    /// made. At least 32 bytes.
    #[arg(long, env = "NATTER_JWT_SECRET_PREVIOUS", hide_env_values = true, value_parser = signing_secret)]
    pub jwt_secret_previous: Option<SecretString>,

    /// `iss` of the gateway's own tokens.
    #[arg(long, env = "NATTER_JWT_ISSUER", default_value = "natter")]
    pub jwt_issuer: String,

    /// `aud` of the gateway's own tokens.
    #[arg(long, env = "NATTER_JWT_AUDIENCE", default_value = "natter")]
    pub jwt_audience: String,

    /// Seconds that an access token is good for: 10 to 86,400.
    #[arg(long, env = "NATTER_ACCESS_TOKEN_SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    pub access_token_seconds: u64,

    /// Days that a refresh token is good for, counted from its last use: 1 to 365.
    #[arg(long, env = "NATTER_REFRESH_TOKEN_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=365))]
    pub refresh_token_days: u64,

    /// Registrations, logins and password changes per minute from one client address (one /64
    /// of IPv6); 0 for no limit.
    #[arg(long, env = "NATTER_ATTEMPTS_PER_ADDRESS", default_value_t = 120)]
    pub attempts_per_address: u32,

    /// Logins and password changes per minute for one account; 0 for no limit.
    #[arg(long, env = "NATTER_ATTEMPTS_PER_ACCOUNT", default_value_t = 20)]
    pub attempts_per_account: u32,

    /// An issuer whose tokens are accepted too.
    #[command(flatten)]
    pub outside: OutsideIssuerArgs,
}

/// An issuer besides the gateway itself: its users and devices are made on first sight.
#[derive(Args, Clone, Debug)]
pub struct OutsideIssuerArgs {
    /// `iss` of its tokens. Nothing else here counts without it.
    #[arg(long = "oidc-issuer", env = "NATTER_OIDC_ISSUER", requires = "outside_audience")]
    pub outside_issuer: Option<String>,

    /// `aud` that its tokens must have.
    #[arg(long = "oidc-audience", env = "NATTER_OIDC_AUDIENCE", requires = "outside_issuer")]
    pub outside_audience: Option<String>,

    /// File with its public key as PEM; the key decides the algorithm: RS256, ES256, ES384 or
    /// EdDSA. Either this or the JWKS.
    #[arg(
        long = "oidc-public-key",
        env = "NATTER_OIDC_PUBLIC_KEY",
        requires = "outside_issuer",
        conflicts_with = "outside_jwks"
    )]
    pub outside_public_key: Option<PathBuf>,

    /// Its JWKS: a file, or an `https` URL (`http` on loopback only), read again when a token
    /// names an unknown key, at most once a minute.
    #[arg(long = "oidc-jwks", env = "NATTER_OIDC_JWKS", requires = "outside_issuer")]
    pub outside_jwks: Option<String>,

    /// Claim that names the user.
    #[arg(long = "oidc-user-claim", env = "NATTER_OIDC_USER_CLAIM", default_value = "sub")]
    pub outside_user_claim: String,

    /// Claim that names the device.
    #[arg(
        long = "oidc-device-claim",
        env = "NATTER_OIDC_DEVICE_CLAIM",
        default_value = "deviceId"
    )]
    pub outside_device_claim: String,

    /// Claim with the name shown to others; used when the user is made.
    #[arg(long = "oidc-name-claim", env = "NATTER_OIDC_NAME_CLAIM", default_value = "name")]
    pub outside_name_claim: String,
}

/// REST.
#[derive(Args, Clone, Debug)]
pub struct RestArgs {
    /// Origins that browsers may call from, separated by commas; none by default, so only pages
    /// that the gateway itself serves.
    #[arg(long, env = "NATTER_CORS_ORIGINS", value_delimiter = ',', value_parser = origin)]
    pub cors_origins: Vec<HeaderValue>,

    /// Take the client's address from the last entry of `X-Forwarded-For`. Only behind a proxy
    /// that sets it: anybody else could claim any address.
    #[arg(long, env = "NATTER_TRUST_PROXY", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub trust_proxy: bool,

    /// REST calls per second that one user may make for long; 0 for no limit.
    #[arg(long, env = "NATTER_CALLS_PER_SECOND", default_value_t = 20)]
    pub calls_per_second: u32,

    /// REST calls that one user may make at once after a pause.
    #[arg(long, env = "NATTER_CALLS_BURST", default_value_t = 100)]
    pub calls_burst: u32,

    /// Calls of the server API per second that one service token may make for long, through this
    /// gateway, unless it has a rate of its own; 0 for no limit.
    #[arg(long, env = "NATTER_SERVICE_CALLS_PER_SECOND", default_value_t = 200)]
    pub service_calls_per_second: u32,

    /// Calls that one service token may make at once after a pause, likewise.
    #[arg(long, env = "NATTER_SERVICE_CALLS_BURST", default_value_t = 1_000)]
    pub service_calls_burst: u32,

    /// Whether users can be looked up by the start of their name.
    #[arg(long, env = "NATTER_SEARCH_BY_NAME", default_value_t = true, action = clap::ArgAction::Set)]
    pub search_by_name: bool,

    /// Whether users can be looked up by their whole phone number.
    #[arg(long, env = "NATTER_SEARCH_BY_PHONE", default_value_t = true, action = clap::ArgAction::Set)]
    pub search_by_phone: bool,

    /// Whether users can be looked up by their whole e-mail address.
    #[arg(long, env = "NATTER_SEARCH_BY_EMAIL", default_value_t = true, action = clap::ArgAction::Set)]
    pub search_by_email: bool,
}

/// Sockets.
#[derive(Args, Clone, Debug)]
pub struct SocketArgs {
    /// Seconds between pings to a client, 1 to 300; one that is silent for twice as long is gone.
    #[arg(long, env = "NATTER_HEARTBEAT_SECONDS", default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub heartbeat_seconds: u64,

    /// Open TCP connections on the public port, sockets and REST together, 1 or more; what is
    /// beyond waits to be accepted. Each needs a file: see `ulimit -n`.
    #[arg(long, env = "NATTER_CONNECTIONS_MAX", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections_max: u32,

    /// Seconds that a new socket has to authenticate: 1 to 60.
    #[arg(long, env = "NATTER_HANDSHAKE_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub handshake_seconds: u64,

    /// Frames that may wait for one connection, 8 to 65,536, of 1 MiB together; a client that lets more
    /// pile up reads too slowly and is closed with 4430. Frames are shared between connections.
    #[arg(long, env = "NATTER_QUEUE_FRAMES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(8..=65_536))]
    pub queue_frames: u32,

    /// Connections that are let in at once, 1 to 10,000; more wait, so that a storm of them cannot
    /// knock over Postgres or the broker.
    #[arg(long, env = "NATTER_ADMISSIONS_AT_ONCE", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub admissions_at_once: u32,

    /// Seconds for which Redis keeps what lets a connected device in while Postgres is away, up to
    /// 86,400; 0 for not keeping it. Refreshed three times as often.
    #[arg(long, env = "NATTER_ADMISSION_KEPT_SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub admission_kept_seconds: u64,

    /// Entries that a client which resumes is replayed at most, 1 to 100,000; one that missed more
    /// fetches afresh.
    #[arg(long, env = "NATTER_RESUME_ENTRIES", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub resume_entries: u32,

    /// Connections of one device on this gateway, 1 to 1,000; beyond it the oldest is closed.
    #[arg(long, env = "NATTER_CONNECTIONS_PER_DEVICE", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub connections_per_device: u32,

    /// Events per second that one connection may send for long: 1 or more.
    #[arg(long, env = "NATTER_EVENTS_PER_SECOND", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub events_per_second: u32,

    /// Events that one connection may send at once after a pause: 1 or more.
    #[arg(long, env = "NATTER_EVENTS_BURST", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub events_burst: u32,

    /// Whether a message reaches the sender's other devices.
    #[arg(long, env = "NATTER_OWN_DEVICES_GET_MESSAGES", default_value_t = true, action = clap::ArgAction::Set)]
    pub own_devices_get_messages: bool,

    /// Whether typing shows on the typist's own devices.
    #[arg(long, env = "NATTER_OWN_DEVICES_SEE_TYPING", default_value_t = false, action = clap::ArgAction::Set)]
    pub own_devices_see_typing: bool,
}

/// Messages.
#[derive(Args, Clone, Debug)]
pub struct MessageArgs {
    /// Seconds after it was sent in which a message may be edited: 0 to 31,536,000. Deleting has no
    /// such bound.
    #[arg(long, env = "NATTER_EDIT_SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u32).range(0..=31_536_000))]
    pub edit_seconds: u32,

    /// Seconds for which a chat's own retention must at least keep messages: 1 to 31,536,000, an hour
    /// by default.
    #[arg(long, env = "NATTER_RETENTION_LEAST_SECONDS", default_value_t = 3_600, value_parser = clap::value_parser!(u32).range(1..=31_536_000))]
    pub retention_least_seconds: u32,

    /// Seconds for which it may keep them at most: 1 to 315,360,000, ten years, which is the default.
    /// It bounds what is set from then on.
    #[arg(long, env = "NATTER_RETENTION_MOST_SECONDS", default_value_t = 315_360_000, value_parser = clap::value_parser!(u32).range(1..=315_360_000))]
    pub retention_most_seconds: u32,
}

/// Types that run where they are opened.
const REFUSED_TYPES: &str = "application/vnd.microsoft.portable-executable,\
    application/x-executable,application/x-mach-binary,text/x-shellscript,application/java";

/// Files. A size of 0 refuses the kind.
#[derive(Args, Clone, Debug)]
pub struct MediaArgs {
    /// Where files are: a folder, which every gateway and worker must see; or `s3://bucket/prefix`,
    /// `gs://…`, `az://…`, with what the environment says of access (`AWS_…`, `GOOGLE_…`,
    /// `AZURE_…`).
    #[arg(long, env = "NATTER_MEDIA_STORE", default_value = "media")]
    pub media_store: String,

    /// Bytes of an image at most.
    #[arg(long, env = "NATTER_MEDIA_IMAGE_BYTES", default_value_t = 32 * 1024 * 1024)]
    pub media_image_bytes: u64,

    /// Bytes of a video at most.
    #[arg(long, env = "NATTER_MEDIA_VIDEO_BYTES", default_value_t = 2 * 1024 * 1024 * 1024)]
    pub media_video_bytes: u64,

    /// Bytes of sound at most.
    #[arg(long, env = "NATTER_MEDIA_AUDIO_BYTES", default_value_t = 256 * 1024 * 1024)]
    pub media_audio_bytes: u64,

    /// Bytes of anything else at most.
    #[arg(long, env = "NATTER_MEDIA_DOCUMENT_BYTES", default_value_t = 2 * 1024 * 1024 * 1024)]
    pub media_document_bytes: u64,

    /// Media types that are not taken, by a file's content, separated by commas; programs by
    /// default.
    #[arg(long, env = "NATTER_MEDIA_REFUSED_TYPES", value_delimiter = ',', default_value = REFUSED_TYPES, value_parser = media_type)]
    pub media_refused_types: Vec<String>,

    /// Uploads through this gateway at once, 1 to 1,000; more wait a moment and are refused then.
    /// With a cloud store each needs up to 16 MiB.
    #[arg(long, env = "NATTER_MEDIA_UPLOADS_AT_ONCE", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub media_uploads_at_once: u32,

    /// Downloads through this gateway at once, 1 to 100,000; more wait a moment and are refused then.
    /// One user may have an eighth of them, and of the uploads, but at least 4.
    #[arg(long, env = "NATTER_MEDIA_DOWNLOADS_AT_ONCE", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub media_downloads_at_once: u32,

    /// Files of so many bytes or more are fetched from a cloud store itself, by a URL that is good
    /// for a while, and any may be put there; without it all go through gateways.
    #[arg(long, env = "NATTER_MEDIA_SIGNED_BYTES")]
    pub media_signed_bytes: Option<u64>,

    /// Seconds that such a URL is good for: 10 to 86,400.
    #[arg(long, env = "NATTER_MEDIA_SIGNED_SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    pub media_signed_seconds: u64,
}

impl MediaArgs {
    /// Bytes of a file of this class at most.
    #[must_use]
    pub fn limit(&self, class: Class) -> u64 {
        match class {
            Class::Image => self.media_image_bytes,
            Class::Video => self.media_video_bytes,
            Class::Audio => self.media_audio_bytes,
            Class::Document => self.media_document_bytes,
        }
    }
}

/// The shortest secret that tokens are signed with, in bytes.
const SECRET_BYTES: usize = 32;

/// What is too short could be guessed.
fn signing_secret(text: &str) -> Result<SecretString, String> {
    if text.len() < SECRET_BYTES {
        return Err(format!("fewer than {SECRET_BYTES} bytes"));
    }
    Ok(text.into())
}

/// A media type, or nothing at all, for a list that refuses none.
fn media_type(text: &str) -> Result<String, String> {
    let text = text.trim().to_ascii_lowercase();
    let named = text.split_once('/').is_some_and(|(kind, sub)| !kind.is_empty() && !sub.is_empty());
    if named || text.is_empty() { Ok(text) } else { Err("not a media type".to_owned()) }
}

/// An origin by name; there is no `*`, since what it allows should be a decision.
fn origin(text: &str) -> Result<HeaderValue, String> {
    if !text.starts_with("http://") && !text.starts_with("https://") {
        return Err("an origin starts with http:// or https://".to_owned());
    }
    HeaderValue::from_str(text).map_err(|_| "an origin has no such characters".to_owned())
}

impl Config {
    /// [`Self::drain_seconds`].
    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }
}

impl SocketArgs {
    /// [`Self::heartbeat_seconds`].
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        Duration::from_secs(self.heartbeat_seconds)
    }

    /// [`Self::admission_kept_seconds`].
    #[must_use]
    pub fn admission_kept(&self) -> Duration {
        Duration::from_secs(self.admission_kept_seconds)
    }

    /// [`Self::handshake_seconds`].
    #[must_use]
    pub fn handshake(&self) -> Duration {
        Duration::from_secs(self.handshake_seconds)
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn parse(more: &[&str]) -> Result<Config, clap::Error> {
        let needed = [
            "natter-gateway",
            "--database-url=postgres://natter:hidden-1@localhost/natter",
            "--redis-url=redis://localhost",
            "--nats-url=nats://localhost",
            "--jwt-secret=hidden-2-hidden-2-hidden-2-hidden",
        ];
        Cli::try_parse_from(needed.iter().chain(more)).map(|cli| cli.config)
    }

    #[test]
    fn four_settings_are_enough_and_no_secret_is_shown() -> anyhow::Result<()> {
        let config = parse(&[])?;
        assert_eq!(config.auth.jwt_secret.expose_secret(), "hidden-2-hidden-2-hidden-2-hidden");
        assert!(config.rest.cors_origins.is_empty() && !config.rest.trust_proxy);
        assert!(!format!("{config:?}").contains("hidden"));
        Ok(())
    }

    #[test]
    fn lists_and_switches() -> anyhow::Result<()> {
        let config = parse(&[
            "--cors-origins=https://a.example,https://b.example",
            "--trust-proxy",
            "--search-by-phone=false",
        ])?;
        assert_eq!(config.rest.cors_origins.len(), 2);
        assert!(config.rest.trust_proxy && !config.rest.search_by_phone);
        Ok(())
    }

    #[test]
    fn an_outside_issuer_needs_an_audience() {
        assert!(parse(&["--oidc-issuer=https://id.example"]).is_err());
        assert!(parse(&["--oidc-issuer=https://id.example", "--oidc-audience=chat"]).is_ok());
        assert!(parse(&["--oidc-audience=chat"]).is_err());
        assert!(parse(&["--shards=17"]).is_err());
        assert!(parse(&["--cors-origins=*"]).is_err());
    }
}
