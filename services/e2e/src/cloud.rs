//! An S3 server in the process: it keeps objects in a folder and checks signatures.

use std::io;
use std::path::{Path, PathBuf};

use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const BUCKET: &str = "natter";
const KEY: &str = "natter-test";
const SECRET: &str = "natter-test-secret";

/// A server of S3 on a port of its own, with one bucket. It stops when it is dropped.
#[derive(Debug)]
pub struct S3Server {
    folder: PathBuf,
    endpoint: String,
    serving: JoinHandle<()>,
}

impl S3Server {
    /// Starts one that keeps its objects in this folder, which must exist.
    pub async fn start(folder: &Path) -> io::Result<Self> {
        tokio::fs::create_dir_all(folder.join(BUCKET)).await?;
        let files = s3s_fs::FileSystem::new(folder)
            .map_err(|error| io::Error::other(format!("{error:?}")))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let serving = tokio::spawn(serve(listener, service, folder.to_owned()));
        Ok(Self { folder: folder.to_owned(), endpoint, serving })
    }

    /// What `Files::open` of `natter-media` wants, without a prefix.
    pub fn url(&self) -> String {
        format!("s3://{BUCKET}")
    }

    /// The name of the bucket.
    pub fn bucket(&self) -> &'static str {
        BUCKET
    }

    /// The options that go with the URL.
    pub fn options(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", self.endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ALLOW_HTTP", "true"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// The files that make up objects and parts of uploads, by their paths below the folder. What
    /// the server notes about objects is not among them: it forgets to remove some.
    pub fn kept(&self) -> io::Result<Vec<String>> {
        let mut kept = Vec::new();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let path = entry?.path();
                let name = path.strip_prefix(&self.folder).unwrap_or(&path).to_string_lossy();
                if path.is_dir() {
                    folders.push(path);
                } else if !name.starts_with(".bucket-") {
                    kept.push(name.into_owned());
                }
            }
        }
        kept.sort();
        Ok(kept)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, service: S3Service, folder: PathBuf) {
    // Dropped with this task, and with it the connections.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else { return };
        let (service, folder) = (service.clone(), folder.clone());
        connections.spawn(async move {
            let answer =
                service_fn(move |request| answer(service.clone(), folder.clone(), request));
            let connection = auto::Builder::new(TokioExecutor::new());
            // A client that goes away is no failure of ours.
            let _ = connection.serve_connection(TokioIo::new(socket), answer).await;
        });
    }
}

/// The server denies access to an upload that it does not know; S3 says that there is none.
async fn answer(
    service: S3Service,
    folder: PathBuf,
    request: Request<Incoming>,
) -> Result<Response<Body>, s3s::HttpError> {
    let upload = request.uri().query().and_then(|query| {
        query.split('&').find_map(|pair| pair.strip_prefix("uploadId=")).map(str::to_owned)
    });
    if request.method() == Method::DELETE
        && let Some(upload) = upload
        && !folder.join(format!(".upload-{upload}.json")).exists()
    {
        let body = "<Error><Code>NoSuchUpload</Code><Message>no such upload</Message></Error>";
        let mut response = Response::new(Body::from(body.to_owned()));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    }
    service.call(request.map(Body::from)).await
}
