//! Servers that take nobody without TLS and a login: Natter runs on them, and turns away from those
//! that cannot prove who they are.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use natter_cluster::{Builder, Cluster, Secured, binaries::Binaries, progress::Progress};
use natter_e2e::{Person, soon};
use nkeys::KeyPair;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair as CertificateKey, KeyUsagePurpose,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

/// Of everything that has to be written otherwise in a URL, and long enough for Postgres' launcher.
const PASSWORD: &str = "p@ss/w:rd?with#all%that&is=special+in~a!URL$";

const PATIENCE: Duration = Duration::from_secs(30);

/// An authority's folder: its certificate, and those that it has given out.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, CertificateKey>,
}

impl Authority {
    fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, CertificateKey::generate()?)?;
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("authority.pem"), issuer.pem())?;
        Ok(Self { folder, issuer })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `<name>.pem` and `<name>.key`.
    fn issue(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> Result<()> {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        let key = CertificateKey::generate()?;
        fs::write(self.path(&format!("{name}.pem")), params.signed_by(&key, &self.issuer)?.pem())?;
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem())?;
        Ok(())
    }

    fn secured(&self) -> Result<Secured> {
        self.issue("server", ExtendedKeyUsagePurpose::ServerAuth)?;
        Ok(Secured {
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            authority: self.path("authority.pem"),
            password: PASSWORD.to_owned(),
            nats_accounts: None,
        })
    }

    fn cluster(&self, secured: Secured) -> Builder {
        let authority = self.path("authority.pem").display().to_string();
        Cluster::builder()
            .gateways(2)
            .secured(secured)
            .env("NATTER_NATS_CA", authority.clone())
            .env("NATTER_REDIS_CA", authority)
    }
}

/// What is said through one gateway arrives through the other, and is written.
async fn it_all_works(cluster: &Cluster) -> Result<()> {
    let ana = Person::register(cluster, "Ana").await?;
    let ben = Person::register(cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let (here, there) = (ana.connect(0).await?, ben.connect(1).await?);
    let sent = here.say(chat, "in private").await?;
    there.hears(chat, "in private").await?;
    soon("it is written", async || {
        Ok((ben.api(1).chat(chat).await?.last_seq >= sent.seq).then_some(()))
    })
    .await?;
    let page = ben.api(1).history(chat, "limit=1").await?;
    ensure!(page.messages.iter().any(|message| message.content == "in private"), "{page:?}");
    // Redis too, which a message does without.
    soon("a gateway reaches all that it rests on", async || {
        let url = format!("http://{}/ready", cluster.gateway(0).admin());
        let ready = natter_e2e::api::client()?.get(url).send().await?.text().await?;
        Ok((ready == r#"{"ready":true}"#).then_some(()))
    })
    .await
}

#[tokio::test]
async fn tls_passwords_and_certificates_everywhere() -> Result<()> {
    let authority = Authority::new("own")?;
    authority.issue("client", ExtendedKeyUsagePurpose::ClientAuth)?;
    let path = |name| authority.path(name).display().to_string();
    let builder = authority.cluster(authority.secured()?);
    let builder = builder
        .env("NATTER_NATS_CERT", path("client.pem"))
        .env("NATTER_NATS_KEY", path("client.key"));
    let cluster = builder.start().await?;
    it_all_works(&cluster).await?;
    strangers_are_refused(&cluster, &authority).await?;
    cluster.stop().await
}

/// With the authority of somebody else, no server is believed.
async fn strangers_are_refused(cluster: &Cluster, own: &Authority) -> Result<()> {
    let stranger = Authority::new("stranger")?;
    let authority = stranger.path("authority.pem");
    let binaries = tokio::task::spawn_blocking(|| Binaries::ready(Progress::Quiet)).await??;
    let database = |authority: &PathBuf| {
        let url = cluster.database_url();
        let (url, _) = url.split_once('?').context("no parameters")?;
        anyhow::Ok(format!("{url}?sslmode=verify-full&sslrootcert={}", authority.display()))
    };
    let log = stranger.path("log");
    let mut gateway = Command::new(&binaries.gateway)
        .env("NATTER_DATABASE_URL", database(&authority)?)
        .env("NATTER_REDIS_URL", cluster.redis_url())
        .env("NATTER_NATS_URL", cluster.nats_url())
        .env("NATTER_JWT_SECRET", cluster.jwt_secret())
        .env("NATTER_NATS_CA", &authority)
        .env("NATTER_REDIS_CA", &authority)
        .env("NATTER_NATS_CERT", own.path("client.pem"))
        .env("NATTER_NATS_KEY", own.path("client.key"))
        .env("NATTER_MEDIA_STORE", stranger.path("media"))
        .env("NATTER_LISTEN", "127.0.0.1:0")
        .env("NATTER_ADMIN_LISTEN", "127.0.0.1:0")
        .stderr(fs::File::create(&log)?)
        .kill_on_drop(true)
        .spawn()?;
    let refusals = [
        "the receiving connection to NATS ended",
        "cannot connect to NATS",
        "Redis is away",
        "Postgres cannot be reached",
    ];
    soon("it says why it reaches none of them", async || {
        let said = fs::read_to_string(&log)?;
        ensure!(!said.contains("\"ready\"") && !said.contains("p%40ss") && !said.contains("p@ss"));
        let refused = |what: &&str| {
            said.lines().any(|line| line.contains(what) && line.contains("UnknownIssuer"))
        };
        Ok(refusals.iter().all(refused).then_some(()))
    })
    .await
    .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
    gateway.kill().await?;

    let mut migrate = Command::new(&binaries.persistence);
    migrate
        .arg("migrate")
        .env("NATTER_DATABASE_URL", database(&authority)?)
        .env("NATTER_NATS_URL", cluster.nats_url())
        .env("NATTER_MIGRATE_PATIENCE", "0")
        .kill_on_drop(true);
    let ended = tokio::time::timeout(PATIENCE, migrate.output()).await??;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(!ended.status.success() && said.contains("UnknownIssuer"), "{said}");
    Ok(())
}

#[tokio::test]
async fn credentials_files() -> Result<()> {
    let authority = Authority::new("own")?;
    let accounts = Accounts::new()?;
    let file = authority.path("natter.creds");
    fs::write(&file, &accounts.credentials)?;
    let secured = Secured { nats_accounts: Some(accounts.settings), ..authority.secured()? };
    let builder = authority.cluster(secured);
    let builder = builder.env("NATTER_NATS_CREDENTIALS", file.display().to_string());
    let cluster = builder.start().await?;
    it_all_works(&cluster).await?;
    cluster.stop().await
}

/// An operator with one account for Natter, as `nsc` would make them.
struct Accounts {
    settings: String,
    credentials: String,
}

impl Accounts {
    fn new() -> Result<Self> {
        let operator = KeyPair::new_operator();
        let (system, account) = (KeyPair::new_account(), KeyPair::new_account());
        let user = KeyPair::new_user();
        let unlimited = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
            "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1,
            "consumer": -1,
        });
        let plain = json!({ "type": "account", "version": 2, "limits": {
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
            "conn": -1, "leaf": -1,
        }});
        let full = json!({ "type": "account", "version": 2, "limits": unlimited });
        let of_user = json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1,
            "data": -1, "payload": -1 });
        let own = json!({ "type": "operator", "version": 2 });
        let settings = format!(
            "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n  {}: {}\n  \
             {}: {}\n}}\n",
            signed(&operator, &operator, &own)?,
            system.public_key(),
            system.public_key(),
            signed(&operator, &system, &plain)?,
            account.public_key(),
            signed(&operator, &account, &full)?,
        );
        let credentials = format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            signed(&account, &user, &of_user)?,
            user.seed()?,
        );
        Ok(Self { settings, credentials })
    }
}

/// What `issuer` says of `subject`.
fn signed(issuer: &KeyPair, subject: &KeyPair, nats: &Value) -> Result<String> {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(&json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let claims = part(&json!({
        "jti": subject.public_key(), "iat": 1_700_000_000, "iss": issuer.public_key(),
        "name": "natter", "sub": subject.public_key(), "nats": nats,
    }));
    let said = format!("{header}.{claims}");
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(said.as_bytes())?);
    Ok(format!("{said}.{signature}"))
}
