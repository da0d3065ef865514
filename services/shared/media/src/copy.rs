//! S3's copy on the server, which gives the copy attributes of its own. `object_store` copies
//! too, but what it copies keeps its attributes, which the client chose that put it.
//!
//! The request is a presigned one: that way the library signs it, and we send it.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3;
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::path::Path;
use object_store::signer::{HeaderName, HeaderValue, Method, SignedUrlOptions, Signer};

use crate::error::FilesError;

/// What one request copies at most, in bytes: 5 GiB.
pub(crate) const MOST: u64 = 5 << 30;
/// How long the signature of a request holds.
const VALID: Duration = Duration::from_mins(5);
/// A copy that has failed for the server's or the network's sake is tried again, this often in all.
const TRIES: u32 = 3;

pub(crate) struct Copier {
    bucket: String,
    store: Arc<AmazonS3>,
    http: HttpClient,
}

impl Copier {
    pub(crate) fn new(bucket: String, store: Arc<AmazonS3>, http: HttpClient) -> Self {
        Self { bucket, store, http }
    }

    /// Copies what has the tag, or else is [`FilesError::Changed`].
    pub(crate) async fn copy(
        &self,
        from: &Path,
        tag: Option<&str>,
        to: &Path,
        media_type: &str,
        disposition: &str,
    ) -> Result<(), FilesError> {
        // The prefix is the operator's and may hold what a header must not; ids do not.
        let source: String =
            url::form_urlencoded::byte_serialize(format!("{}/{from}", self.bucket).as_bytes())
                .collect::<String>()
                .replace('+', "%20")
                .replace("%2F", "/");
        let mut options = SignedUrlOptions::new();
        let headers = [
            ("content-disposition", Some(disposition)),
            ("content-type", Some(media_type)),
            ("x-amz-copy-source", Some(source.as_str())),
            ("x-amz-copy-source-if-match", tag),
            ("x-amz-metadata-directive", Some("REPLACE")),
        ];
        for (name, value) in headers {
            if let Some(value) = value {
                let value = HeaderValue::from_str(value).map_err(unsendable)?;
                options = options.with_signed_header(HeaderName::from_static(name), value);
            }
        }
        let mut tried = 0;
        loop {
            tried += 1;
            match self.once(to, &options).await {
                Err(Failed::Passing(_)) if tried < TRIES => {
                    tokio::time::sleep(Duration::from_millis(200) * tried).await;
                }
                Err(Failed::Passing(error) | Failed::Final(error)) => return Err(error),
                Ok(()) => return Ok(()),
            }
        }
    }

    async fn once(&self, to: &Path, options: &SignedUrlOptions) -> Result<(), Failed> {
        let signed = self.store.signed_url_opts(Method::PUT, to, VALID, options).await;
        let url = signed.map_err(|error| Failed::Final(error.into()))?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = Method::PUT;
        *request.uri_mut() =
            url.as_str().parse().map_err(|error| Failed::Final(unsendable(error)))?;
        request.headers_mut().clone_from(&options.signed_headers);
        request.headers_mut().insert("content-length", HeaderValue::from_static("0"));

        let answer = self.http.execute(request).await;
        let answer = answer.map_err(|error| Failed::Passing(FilesError::Store(Box::new(error))))?;
        let status = answer.status();
        let body = answer.into_body().bytes().await;
        let body = body.map_err(|error| Failed::Passing(FilesError::Store(Box::new(error))))?;
        match status.as_u16() {
            404 => Err(Failed::Final(FilesError::NotFound)),
            412 => Err(Failed::Final(FilesError::Changed)),
            // A copy that fails after it has begun is told in the body of a 200.
            200..300 if !contains(&body, b"<Error>") => Ok(()),
            200..300 | 429 | 500.. => Err(Failed::Passing(refused(status.as_u16(), &body))),
            other => Err(Failed::Final(refused(other, &body))),
        }
    }
}

enum Failed {
    /// It may go better the next time.
    Passing(FilesError),
    Final(FilesError),
}

fn unsendable(error: impl std::error::Error + Send + Sync + 'static) -> FilesError {
    FilesError::Store(Box::new(error))
}

fn refused(status: u16, body: &[u8]) -> FilesError {
    // Enough for S3's code and message.
    let said = String::from_utf8_lossy(&body[..body.len().min(500)]).into_owned();
    FilesError::Store(format!("S3 answered {status} to a copy: {said}").into())
}

fn contains(body: &[u8], what: &[u8]) -> bool {
    body.windows(what.len()).any(|window| window == what)
}
