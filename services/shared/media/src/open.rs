//! From a URL to a store, and what that store can do.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{ClientConfigKey, HttpConnector, ReqwestConnector};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::list::PaginatedListStore;
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

use crate::copy::Copier;
use crate::error::FilesError;

/// How long a connection to a store may take to come up.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a store may say nothing: before its answer, and between two pieces of it. There is
/// no limit for a whole answer, as a large file may go to a slow reader.
const SILENCE: Duration = Duration::from_secs(30);
/// How often, and for how long, a request is repeated that may be.
const RETRIES: usize = 3;
const RETRY_FOR: Duration = Duration::from_secs(15);

/// A store, with what it can do beyond keeping objects.
pub(crate) struct Store {
    pub(crate) objects: Arc<dyn ObjectStore>,
    /// Below what all objects are.
    pub(crate) prefix: Path,
    /// The local folder, if that is what it is.
    pub(crate) folder: Option<PathBuf>,
    /// Uploads in parts that have names. Azure's have none: it forgets parts by itself.
    pub(crate) multipart: Option<Arc<dyn MultipartStore>>,
    pub(crate) signer: Option<Arc<dyn Signer>>,
    /// Lists by pages, so also a page of one.
    pub(crate) pages: Option<Arc<dyn PaginatedListStore>>,
    /// Copies on the server, with attributes for the copy.
    pub(crate) copier: Option<Copier>,
    /// What a client sends with a signed PUT.
    pub(crate) put_headers: &'static [(&'static str, &'static str)],
}

/// Said of an address of another kind.
const KNOWN: &str = "only file://, s3://, gs:// and az:// are known";

type Cause = Box<dyn std::error::Error + Send + Sync>;

impl Store {
    pub(crate) fn open(
        url: &str,
        options: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, FilesError> {
        Self::of(url, options.into_iter().collect())
            .map_err(|source| FilesError::Address { url: without_secret(url), source })
    }

    fn of(url: &str, options: Vec<(String, String)>) -> Result<Self, Cause> {
        if url.is_empty() {
            return Err("no address".into());
        }
        // A plain path, also one that is relative, as whoever starts a process writes it.
        if !url.contains("://") {
            return Self::local(std::path::Path::new(url));
        }
        let parsed = Url::parse(url)?;
        if parsed.password().is_some() {
            return Err("secrets belong into the options".into());
        }
        let (scheme, prefix) = ObjectStoreScheme::parse(&parsed).map_err(|_| KNOWN)?;
        // The environment's names, in its own spelling; what is not about the store is passed over.
        let options: Vec<_> =
            options.into_iter().map(|(key, value)| (key.to_ascii_lowercase(), value)).collect();
        match scheme {
            ObjectStoreScheme::Local => {
                Self::local(&parsed.to_file_path().map_err(|()| "no absolute path of a folder")?)
            }
            ObjectStoreScheme::AmazonS3 => Self::s3(url, prefix, options),
            ObjectStoreScheme::GoogleCloudStorage => Self::google(url, prefix, options),
            ObjectStoreScheme::MicrosoftAzure => Self::azure(url, prefix, options),
            _ => Err(KNOWN.into()),
        }
    }

    fn local(folder: &std::path::Path) -> Result<Self, Cause> {
        std::fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let store = LocalFileSystem::new_with_prefix(&folder)?.with_fsync(true);
        Ok(Self {
            objects: Arc::new(store),
            prefix: Path::default(),
            folder: Some(folder),
            multipart: None,
            signer: None,
            pages: None,
            copier: None,
            put_headers: &[],
        })
    }

    fn s3(url: &str, prefix: Path, options: Vec<(String, String)>) -> Result<Self, Cause> {
        let client = client_options(&options, "aws_");
        let mut builder = AmazonS3Builder::new()
            .with_url(url)
            .with_retry(retries())
            .with_client_options(client.clone());
        for (key, value) in options {
            if let Ok(key) = key.parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        let bucket = builder
            .get_config_value(&AmazonS3ConfigKey::Bucket)
            .or_else(|| Url::parse(url).ok()?.host_str().map(str::to_owned))
            .ok_or("no bucket")?;
        let store = Arc::new(builder.build()?);
        let http = ReqwestConnector::default().connect(&client)?;
        Ok(Self {
            objects: store.clone(),
            prefix,
            folder: None,
            multipart: Some(store.clone()),
            signer: Some(store.clone()),
            pages: Some(store.clone()),
            copier: Some(Copier::new(bucket, store, http)),
            put_headers: &[],
        })
    }

    fn google(url: &str, prefix: Path, options: Vec<(String, String)>) -> Result<Self, Cause> {
        let mut builder = GoogleCloudStorageBuilder::new()
            .with_url(url)
            .with_retry(retries())
            .with_client_options(client_options(&options, "google_"));
        for (key, value) in options {
            if let Ok(key) = key.parse::<GoogleConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        let store = Arc::new(builder.build()?);
        Ok(Self {
            objects: store.clone(),
            prefix,
            folder: None,
            multipart: Some(store.clone()),
            signer: Some(store.clone()),
            pages: Some(store),
            copier: None,
            put_headers: &[],
        })
    }

    fn azure(url: &str, prefix: Path, options: Vec<(String, String)>) -> Result<Self, Cause> {
        let mut builder = MicrosoftAzureBuilder::new()
            .with_url(url)
            .with_retry(retries())
            .with_client_options(client_options(&options, "azure_"));
        for (key, value) in options {
            if let Ok(key) = key.parse::<AzureConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        let store = Arc::new(builder.build()?);
        Ok(Self {
            objects: store.clone(),
            prefix,
            folder: None,
            multipart: None,
            signer: Some(store.clone()),
            pages: Some(store),
            copier: None,
            put_headers: &[("x-ms-blob-type", "BlockBlob")],
        })
    }
}

fn without_secret(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut parsed) if parsed.password().is_some() => {
            // Fails for URLs that can have none.
            let _ = parsed.set_password(None);
            parsed.into()
        }
        _ => url.to_owned(),
    }
}

fn retries() -> RetryConfig {
    RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_FOR, ..RetryConfig::default() }
}

/// Bounded as above, unless the options say otherwise (`AWS_ALLOW_HTTP`, `AWS_READ_TIMEOUT`…).
fn client_options(options: &[(String, String)], vendor: &str) -> ClientOptions {
    let bounded = ClientOptions::new()
        .with_connect_timeout(CONNECT)
        .with_read_timeout(SILENCE)
        .with_timeout_disabled();
    options.iter().fold(bounded, |client, (key, value)| {
        match key.strip_prefix(vendor).unwrap_or(key).parse::<ClientConfigKey>() {
            Ok(key) => client.with_config(key, value),
            Err(_) => client,
        }
    })
}
