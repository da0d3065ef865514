//! A wrong setting ends a program at once, with the setting's name and without secrets.

use std::{collections::BTreeSet, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use natter_cluster::{binaries::Binaries, progress::Progress};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

use crate::page::services;

/// How long a program may take over giving up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Stands in every value that must not be shown.
const SECRET: &str = "hunter2";

#[derive(Clone, Copy, Debug)]
enum Program {
    Gateway,
    Migrate,
    Worker,
    Push,
}
use Program::{Gateway, Migrate, Push, Worker};

/// Of one program: what is said beside what would do (`-` for nothing at all), and what it has to
/// say of it besides the first variable's name.
type Case = (Program, &'static [(&'static str, &'static str)], &'static str);

const SUBJECT: (&str, &str) = ("NATTER_PUSH_VAPID_SUBJECT", "mailto:ops@example.org");
const HOOK_SECRET: (&str, &str) = ("NATTER_HOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
const APNS_KEY: (&str, &str) = ("NATTER_PUSH_APNS_KEY_FILE", "/etc/passwd");

const CASES: &[Case] = &[
    // Missing.
    (Gateway, &[("NATTER_DATABASE_URL", "-")], "required"),
    (Gateway, &[("NATTER_REDIS_URL", "-")], "required"),
    (Gateway, &[("NATTER_NATS_URL", "-")], "required"),
    (Gateway, &[("NATTER_JWT_SECRET", "-")], "required"),
    (Worker, &[("NATTER_DATABASE_URL", "-")], "required"),
    (Migrate, &[("NATTER_NATS_URL", "-")], "required"),
    (Gateway, &[("NATTER_SHARDS", "")], "empty string"),
    // Numbers, names, switches.
    (Gateway, &[("NATTER_SHARDS", "many")], "many"),
    (Gateway, &[("NATTER_SHARDS", "17")], "1..=16"),
    (Worker, &[("NATTER_SHARDS", "0")], "1..=16"),
    (Gateway, &[("NATTER_DRAIN_SECONDS", "-1")], "invalid"),
    (Gateway, &[("NATTER_DRAIN_SECONDS", "20s")], "invalid digit"),
    (Gateway, &[("NATTER_DATABASE_CONNECTIONS", "0")], "1..=1000"),
    (Worker, &[("NATTER_DATABASE_CONNECTIONS", "1")], "2..=1000"),
    (Gateway, &[("NATTER_ACCESS_TOKEN_SECONDS", "9")], "10..="),
    (Gateway, &[("NATTER_REFRESH_TOKEN_DAYS", "366")], "1..=365"),
    (Gateway, &[("NATTER_ATTEMPTS_PER_ADDRESS", "4294967296")], "0..="),
    (Gateway, &[("NATTER_ATTEMPTS_PER_ACCOUNT", "-1")], "0..="),
    (Gateway, &[("NATTER_CALLS_PER_SECOND", "x")], "invalid digit"),
    (Gateway, &[("NATTER_CALLS_BURST", "x")], "invalid digit"),
    (Gateway, &[("NATTER_HEARTBEAT_SECONDS", "0")], "1..=300"),
    (Gateway, &[("NATTER_CONNECTIONS_MAX", "0")], "1.."),
    (Gateway, &[("NATTER_HANDSHAKE_SECONDS", "61")], "1..=60"),
    (Gateway, &[("NATTER_QUEUE_FRAMES", "7")], "8..="),
    (Gateway, &[("NATTER_ADMISSIONS_AT_ONCE", "0")], "1..="),
    (Gateway, &[("NATTER_ADMISSION_KEPT_SECONDS", "86401")], "0..="),
    (Gateway, &[("NATTER_RESUME_ENTRIES", "0")], "1..="),
    (Gateway, &[("NATTER_EDIT_SECONDS", "31536001")], "0..="),
    (Gateway, &[("NATTER_CONNECTIONS_PER_DEVICE", "0")], "1..="),
    (Gateway, &[("NATTER_EVENTS_PER_SECOND", "0")], "1.."),
    (Gateway, &[("NATTER_EVENTS_BURST", "0")], "1.."),
    (Gateway, &[("NATTER_MEDIA_IMAGE_BYTES", "1MB")], "invalid digit"),
    (Gateway, &[("NATTER_MEDIA_UPLOADS_AT_ONCE", "0")], "1..="),
    (Gateway, &[("NATTER_MEDIA_DOWNLOADS_AT_ONCE", "0")], "1..="),
    (Gateway, &[("NATTER_MEDIA_SIGNED_SECONDS", "9")], "10..="),
    (Gateway, &[("NATTER_MEDIA_SIGNED_BYTES", "-5")], "invalid digit"),
    (Gateway, &[("NATTER_MEDIA_REFUSED_TYPES", "image/png,nonsense")], "media type"),
    (Gateway, &[("NATTER_TRUST_PROXY", "perhaps")], "true, false"),
    (Gateway, &[("NATTER_SEARCH_BY_NAME", "2")], "true, false"),
    (Gateway, &[("NATTER_OWN_DEVICES_SEE_TYPING", "on")], "true, false"),
    (Gateway, &[("NATTER_NODE_ID", "a.b")], "letters"),
    (Gateway, &[("NATTER_LOG", "natter=loudly")], "invalid"),
    (Worker, &[("NATTER_LOG_FORMAT", "xml")], "json, text"),
    (Gateway, &[("NATTER_CORS_ORIGINS", "https://a.example,*")], "http"),
    (Migrate, &[("NATTER_MIGRATE_PATIENCE", "forever")], "invalid digit"),
    (Migrate, &[("NATTER_LOG_MAX_BYTES", "1")], "1000000"),
    (Migrate, &[("NATTER_LOG_REPLICAS", "6")], "1..=5"),
    (Migrate, &[("NATTER_DUPLICATE_WINDOW", "299")], "300..="),
    (Worker, &[("NATTER_MEDIA_STALLED_SECONDS", "5")], "6..="),
    (Worker, &[("NATTER_MEDIA_UNSENT_SECONDS", "0")], "1..="),
    (Worker, &[("NATTER_MEDIA_LATE_SECONDS", "604801")], "1..="),
    (
        Worker,
        &[("NATTER_LOG_RETAIN_BYTES", "1000000"), ("NATTER_LOG_MAX_BYTES", "1000000")],
        "three quarters of NATTER_LOG_MAX_BYTES",
    ),
    (Gateway, &[("NATTER_MEDIA_AUDIO_BYTES", "1.5")], "invalid digit"),
    (Gateway, &[("NATTER_MEDIA_VIDEO_BYTES", "-1")], "invalid digit"),
    (Gateway, &[("NATTER_MEDIA_DOCUMENT_BYTES", "0x10")], "invalid digit"),
    (Gateway, &[("NATTER_SEARCH_BY_EMAIL", "maybe")], "true, false"),
    (Gateway, &[("NATTER_SEARCH_BY_PHONE", "1")], "true, false"),
    (Gateway, &[("NATTER_OWN_DEVICES_GET_MESSAGES", "0")], "true, false"),
    (Gateway, &[("NATTER_RECEIPTS_PARTICIPANTS", "10001")], "0..="),
    (Gateway, &[("NATTER_DELETED_ACCOUNTS", "forget")], "anonymise"),
    (Gateway, &[("NATTER_EXPORTS", "0")], "1..=1000"),
    (Worker, &[("NATTER_RETENTION_SECONDS", "315360001")], "0..="),
    (Worker, &[("NATTER_RETENTION_SWEEP_SECONDS", "0")], "1..=86400"),
    (Worker, &[("NATTER_DELETED_GROUPS_KEPT_SECONDS", "31536001")], "0..="),
    (Gateway, &[("NATTER_RETENTION_LEAST_SECONDS", "0")], "1..="),
    (Gateway, &[("NATTER_RETENTION_MOST_SECONDS", "315360001")], "1..="),
    (
        Gateway,
        &[("NATTER_RETENTION_LEAST_SECONDS", "3601"), ("NATTER_RETENTION_MOST_SECONDS", "3600")],
        "more than NATTER_RETENTION_MOST_SECONDS",
    ),
    (Gateway, &[("NATTER_SERVICE_CALLS_PER_SECOND", "x")], "invalid digit"),
    (Gateway, &[("NATTER_SERVICE_CALLS_BURST", "-1")], "0..="),
    (Gateway, &[("NATTER_HOOK_MILLISECONDS", "9")], "10..=5000"),
    (Gateway, &[("NATTER_HOOK_FAILURE", "perhaps")], "allow, refuse"),
    (Gateway, &[("NATTER_HOOK_CONCURRENCY", "0")], "1..=10000"),
    (Gateway, &[("NATTER_HOOK_URL", "somewhere")], "URL"),
    (Gateway, &[("NATTER_HOOK_URL", "ftp://hunter2@hook.example"), HOOK_SECRET], "https"),
    (
        Gateway,
        &[("NATTER_HOOK_SECRET", "-"), ("NATTER_HOOK_URL", "https://hook.example")],
        "missing",
    ),
    (
        Gateway,
        &[("NATTER_HOOK_SECRET", "hunter2"), ("NATTER_HOOK_URL", "https://hook.example")],
        "base64",
    ),
    (Migrate, &[("NATTER_UNSAFE_DUPLICATE_WINDOW", "short")], "invalid digit"),
    (Push, &[("NATTER_PUSH_WAIT", "301")], "0..=300"),
    (Push, &[("NATTER_PUSH_MAX_AGE_SECONDS", "59")], "60..="),
    (Push, &[("NATTER_PUSH_ATTEMPTS", "0")], "1..=100"),
    (Push, &[("NATTER_PUSH_RETRY_SECONDS", "0")], "1..=600"),
    (Push, &[("NATTER_PUSH_KEPT_SECONDS", "3599")], "3600..="),
    (Push, &[("NATTER_PUSH_QUEUE_MAX_BYTES", "1MB")], "invalid digit"),
    (Push, &[("NATTER_PUSH_CONCURRENCY", "0")], "1..=10000"),
    (Push, &[("NATTER_PUSH_DEADLINE_SECONDS", "61")], "1..=60"),
    (Push, &[("NATTER_PUSH_FAILURES", "0")], "1..=10000"),
    (Push, &[("NATTER_PUSH_PAUSE_SECONDS", "0")], "1..=3600"),
    (Push, &[("NATTER_WEBHOOK_CONCURRENCY", "0")], "1..=1000"),
    (Push, &[("NATTER_WEBHOOK_DEADLINE_SECONDS", "61")], "1..=60"),
    (Push, &[("NATTER_WEBHOOK_ATTEMPTS", "0")], "1..=100"),
    (Push, &[("NATTER_WEBHOOK_RETRY_SECONDS", "0")], "1..=600"),
    (Push, &[("NATTER_WEBHOOK_GIVE_UP_SECONDS", "59")], "60..="),
    (Push, &[("NATTER_WEBHOOK_FAILURES", "0")], "1..=10000"),
    (Push, &[("NATTER_WEBHOOK_PAUSE_SECONDS", "0")], "1..=3600"),
    (Push, &[("NATTER_WEBHOOK_KEPT_SECONDS", "3599")], "3600..="),
    (Push, &[("NATTER_WEBHOOK_MAX_BYTES", "1MB")], "invalid digit"),
    (Push, &[("NATTER_WEBHOOK_DEAD_LETTERS", "0")], "1..=1000000"),
    (Push, &[("NATTER_PUSH_HOSTS", "push.example.org/path")], "not a host"),
    (Push, &[("NATTER_PUSH_FCM_URL", "somewhere")], "URL"),
    (Push, &[("NATTER_PUSH_APNS_URL", "somewhere")], "URL"),
    (Push, &[("NATTER_PUSH_APNS_SANDBOX_URL", "somewhere")], "URL"),
    (Push, &[("NATTER_PUSH_WEBHOOK_URL", "somewhere")], "URL"),
    (Push, &[("NATTER_PUSH_VAPID_KEY_FILE", "/nowhere"), SUBJECT], "No such file"),
    (Push, &[("NATTER_PUSH_VAPID_KEY_FILE", "/etc/passwd"), SUBJECT], "key"),
    (
        Push,
        &[("NATTER_PUSH_VAPID_SUBJECT", "-"), ("NATTER_PUSH_VAPID_KEY_FILE", "/etc/passwd")],
        "missing",
    ),
    (Push, &[("NATTER_PUSH_FCM_ACCOUNT_FILE", "/etc/passwd")], "account"),
    (Push, &[("NATTER_PUSH_APNS_KEY_FILE", "/nowhere")], "No such file"),
    (Push, &[("NATTER_PUSH_APNS_KEY_ID", "-"), APNS_KEY], "missing"),
    (
        Push,
        &[("NATTER_PUSH_APNS_TEAM_ID", "-"), APNS_KEY, ("NATTER_PUSH_APNS_KEY_ID", "a")],
        "missing",
    ),
    (
        Push,
        &[
            ("NATTER_PUSH_APNS_TOPIC", "-"),
            APNS_KEY,
            ("NATTER_PUSH_APNS_KEY_ID", "a"),
            ("NATTER_PUSH_APNS_TEAM_ID", "b"),
        ],
        "missing",
    ),
    (
        Push,
        &[
            ("NATTER_PUSH_WEBHOOK_SECRET", "hunter2"),
            ("NATTER_PUSH_WEBHOOK_URL", "https://hook.example"),
        ],
        "whsec_",
    ),
    // Addresses.
    (Gateway, &[("NATTER_LISTEN", "8080")], "invalid socket address"),
    (Worker, &[("NATTER_ADMIN_LISTEN", "localhost")], "invalid socket address"),
    (Gateway, &[("NATTER_LISTEN", "192.0.2.1:80")], "cannot listen"),
    (Worker, &[("NATTER_ADMIN_LISTEN", "192.0.2.1:80")], "cannot listen"),
    (Gateway, &[("NATTER_DATABASE_URL", "mysql://natter:hunter2@db/natter")], "(hidden)"),
    (Gateway, &[("NATTER_DATABASE_URL", "postgres://natter:hunter2@db:five/n")], "postgres://"),
    (Worker, &[("NATTER_DATABASE_URL", "postgres://a:hunter2@db/n?sslmod=x")], "sslmod"),
    (
        Worker,
        &[(
            "NATTER_DATABASE_URL",
            "postgres://a:hunter2@db/n?sslmode=require&sslrootcert=/etc/passwd",
        )],
        "PEM",
    ),
    (Gateway, &[("NATTER_REDIS_URL", "http://:hunter2@redis")], "redis://"),
    (Gateway, &[("NATTER_REDIS_URL", "rediss://:hunter2@redis/#insecure")], "redis://"),
    (Gateway, &[("NATTER_NATS_URL", "http://natter:hunter2@nats")], "nats://"),
    (Worker, &[("NATTER_NATS_URL", "nats://natter:hunter2@a,")], "nats://"),
    // Files, and what belongs together.
    (Gateway, &[("NATTER_NATS_CREDENTIALS", "/nowhere")], "No such file"),
    (Worker, &[("NATTER_NATS_CREDENTIALS", "/etc/passwd")], "no NATS credentials"),
    (Gateway, &[("NATTER_NATS_CA", "/nowhere")], "No such file"),
    (Worker, &[("NATTER_NATS_CA", "/etc/passwd")], "no certificate"),
    (Gateway, &[("NATTER_NATS_KEY", "/nowhere")], "NATTER_NATS_CERT"),
    (Worker, &[("NATTER_NATS_CERT", "/nowhere")], "NATTER_NATS_KEY"),
    (
        Migrate,
        &[
            ("NATTER_NATS_CREDENTIALS", "/nowhere"),
            ("NATTER_NATS_URL", "nats://natter:hunter2@127.0.0.1:1"),
        ],
        "login",
    ),
    (
        Gateway,
        &[("NATTER_REDIS_CA", "/nowhere"), ("NATTER_REDIS_URL", "rediss://127.0.0.1:1")],
        "No such file",
    ),
    (Gateway, &[("NATTER_REDIS_CA", "/etc/passwd")], "rediss://"),
    (Gateway, &[("NATTER_MEDIA_STORE", "ftp://files")], "only"),
    (Worker, &[("NATTER_MEDIA_STORE", "/etc/passwd/media")], "/etc/passwd/media"),
    (Worker, &[("NATTER_MEDIA_STORE", "s3://a:hunter2@bucket/x")], "options"),
    // Who is let in.
    (Gateway, &[("NATTER_JWT_SECRET", "hunter2")], "32 bytes"),
    (Gateway, &[("NATTER_JWT_SECRET_PREVIOUS", "hunter2")], "32 bytes"),
    (Gateway, &[("NATTER_OIDC_AUDIENCE", "chat")], "NATTER_OIDC_ISSUER"),
    (Gateway, &[("NATTER_OIDC_JWKS", "https://id.example/keys")], "NATTER_OIDC_ISSUER"),
    (Gateway, &[("NATTER_OIDC_ISSUER", "https://id.example")], "NATTER_OIDC_AUDIENCE"),
    (
        Gateway,
        &[("NATTER_OIDC_ISSUER", "https://id.example"), ("NATTER_OIDC_AUDIENCE", "chat")],
        "NATTER_OIDC_JWKS",
    ),
    (
        Gateway,
        &[
            ("NATTER_OIDC_JWKS", "https://id.example/keys"),
            ("NATTER_OIDC_PUBLIC_KEY", "/nowhere"),
            ("NATTER_OIDC_ISSUER", "https://id.example"),
            ("NATTER_OIDC_AUDIENCE", "chat"),
        ],
        "cannot be used with",
    ),
    (
        Gateway,
        &[
            ("NATTER_OIDC_PUBLIC_KEY", "/nowhere"),
            ("NATTER_OIDC_ISSUER", "https://id.example"),
            ("NATTER_OIDC_AUDIENCE", "chat"),
        ],
        "No such file",
    ),
    (
        Gateway,
        &[
            ("NATTER_OIDC_JWKS", "http://id.example/keys"),
            ("NATTER_OIDC_ISSUER", "https://id.example"),
            ("NATTER_OIDC_AUDIENCE", "chat"),
        ],
        "https",
    ),
    (
        Gateway,
        &[
            ("NATTER_OIDC_ISSUER", "natter"),
            ("NATTER_OIDC_AUDIENCE", "chat"),
            ("NATTER_OIDC_JWKS", "https://id.example/keys"),
        ],
        "NATTER_JWT_ISSUER",
    ),
    (
        Gateway,
        &[
            ("NATTER_JWT_ISSUER", "https://id.example"),
            ("NATTER_OIDC_ISSUER", "https://id.example"),
            ("NATTER_OIDC_AUDIENCE", "chat"),
            ("NATTER_OIDC_JWKS", "https://id.example/keys"),
        ],
        "NATTER_OIDC_ISSUER",
    ),
];

/// Settings that may say anything: names that others give.
const ANYTHING: [&str; 4] = [
    "NATTER_JWT_AUDIENCE",
    "NATTER_OIDC_DEVICE_CLAIM",
    "NATTER_OIDC_NAME_CLAIM",
    "NATTER_OIDC_USER_CLAIM",
];

/// What is said of traces, which no command line has.
const OF_TRACES: [(&str, &str); 9] = [
    ("OTEL_TRACES_SAMPLER", "sometimes"),
    ("OTEL_TRACES_SAMPLER_ARG", "1.01"),
    ("OTEL_SDK_DISABLED", "yes"),
    ("OTEL_TRACES_EXPORTER", "zipkin"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4317"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
];

/// One that was forgotten here might take anything, and nobody would know.
#[test]
fn each_setting_that_a_program_has_is_among_those_that_are_tried() {
    let tried: BTreeSet<&str> = CASES.iter().map(|(_, said, _)| said[0].0).collect();
    let all: BTreeSet<String> =
        services().iter().flat_map(natter_runtime::config::variables).collect();
    let untried: Vec<_> = all.iter().filter(|name| !tried.contains(name.as_str())).collect();
    assert_eq!(untried, ANYTHING, "not these alone are left out");
}

#[tokio::test]
async fn what_is_said_of_traces_and_cannot_be_followed_ends_a_program_too() -> Result<()> {
    let binaries = binaries().await?;
    let media = tempfile::tempdir()?;
    for (number, (variable, value)) in OF_TRACES.iter().enumerate() {
        let which = [Gateway, Worker, Migrate][number % 3];
        let mut command = program(&binaries, which, media.path());
        // A ratio counts where a sampler takes one.
        command.env("OTEL_TRACES_SAMPLER", "traceidratio").env(variable, value);
        let ended = timeout(PATIENCE, command.output()).await;
        let ended = ended.with_context(|| format!("{which:?} goes on with {variable}"))??;
        let told = String::from_utf8_lossy(&ended.stderr);
        ensure!(
            ended.status.code() == Some(1) && told.contains(&format!("{variable}: ")),
            "{which:?} {variable}: {}, {told}",
            ended.status
        );
    }
    Ok(())
}

/// A program with settings that would do, but for servers that nobody answers for.
fn program(binaries: &Binaries, which: Program, media: &Path) -> Command {
    let mut command = match which {
        Gateway => Command::new(&binaries.gateway),
        Migrate | Worker => Command::new(&binaries.persistence),
        Push => Command::new(&binaries.push),
    };
    match which {
        Gateway | Push => {}
        Migrate => drop(command.arg("migrate")),
        Worker => drop(command.arg("run")),
    }
    command
        .env_clear()
        .envs([
            ("NATTER_DATABASE_URL", "postgres://natter:hunter2@127.0.0.1:1/natter"),
            ("NATTER_REDIS_URL", "redis://:hunter2@127.0.0.1:1"),
            ("NATTER_NATS_URL", "nats://127.0.0.1:1"),
            ("NATTER_JWT_SECRET", "hunter2 and more than thirty-two bytes"),
            ("NATTER_LISTEN", "127.0.0.1:0"),
            ("NATTER_ADMIN_LISTEN", "127.0.0.1:0"),
            ("NATTER_MIGRATE_PATIENCE", "0"),
        ])
        .env("NATTER_MEDIA_STORE", media)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn binaries() -> Result<Binaries> {
    tokio::task::spawn_blocking(|| Binaries::ready(Progress::Quiet)).await?
}

#[tokio::test]
async fn each_ends_the_program_with_its_name_and_without_secrets() -> Result<()> {
    let binaries = binaries().await?;
    let media = tempfile::tempdir()?;
    let mut wrong = Vec::new();
    for (which, said, expected) in CASES {
        let mut command = program(&binaries, *which, media.path());
        for (variable, value) in *said {
            match *value {
                "-" => command.env_remove(variable),
                value => command.env(variable, value),
            };
        }
        let what = format!("{which:?} {said:?}");
        let Ok(ended) = timeout(PATIENCE, command.output()).await else {
            wrong.push(format!("{what}: goes on"));
            continue;
        };
        let ended = ended?;
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        let flag = said[0].0.replace("NATTER_", "--").replace('_', "-").to_lowercase();
        let named = (told.contains(said[0].0) || told.contains(&flag))
            && told.contains("NATTER_")
            && told.contains("--")
            && told.contains(expected);
        let fails = ended.status.code().is_some_and(|code| code == 1 || code == 2);
        if !fails || !named || told.contains(SECRET) || told.contains("panicked") {
            wrong.push(format!("{what}: {}, {told}", ended.status));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test]
async fn what_is_not_text_is_named_too() -> Result<()> {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let binaries = binaries().await?;
    let media = tempfile::tempdir()?;
    let mut command = program(&binaries, Gateway, media.path());
    command.env("NATTER_JWT_SECRET", OsStr::from_bytes(b"hunter2 \xff and more than thirty-two"));
    let ended = timeout(PATIENCE, command.output()).await??;
    let told = String::from_utf8_lossy(&ended.stderr);
    ensure!(!ended.status.success() && told.contains("NATTER_JWT_SECRET"), "{told}");
    ensure!(!told.contains(SECRET), "{told}");
    Ok(())
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_warned_of_and_one_that_another_program_knows_is_not()
-> Result<()> {
    let binaries = binaries().await?;
    let media = tempfile::tempdir()?;
    let mut command = program(&binaries, Worker, media.path());
    command.env("NATTER_SHARD", SECRET).env("NATTER_TRUST_PROXY", "true");
    let mut worker = command.spawn()?;
    let mut lines = BufReader::new(worker.stderr.take().context("no stderr")?).lines();
    let warned = async {
        while let Some(line) = lines.next_line().await? {
            ensure!(!line.contains("NATTER_TRUST_PROXY") && !line.contains(SECRET), "{line}");
            if line.contains("NATTER_SHARD\"") {
                return Ok(line);
            }
        }
        anyhow::bail!("it ended without a word")
    };
    let line = timeout(PATIENCE, warned).await??;
    ensure!(line.contains("is NATTER_SHARDS meant?") && line.contains("WARN"), "{line}");
    Ok(())
}
