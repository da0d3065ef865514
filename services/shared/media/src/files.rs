//! Where files are.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::list::PaginatedListOptions;
use object_store::path::Path;
use object_store::signer::Method;
use object_store::{
    Attribute, Attributes, GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta,
    PutOptions, PutPayload,
};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;
use url::Url;
use uuid::Uuid;

use crate::copy::MOST;
use crate::error::FilesError;
use crate::open::Store;
use crate::upload::Upload;

/// How long a store may take for what should take no time, repetitions included.
const SOON: Duration = Duration::from_secs(30);
/// How long it may take to copy a file.
const COPY: Duration = Duration::from_mins(10);
/// How long a signed URL may hold: what S3 and Google allow, seven days.
const LONGEST: Duration = Duration::from_hours(7 * 24);
/// How much of a local file is read at once, in bytes.
const PIECE: usize = 128 << 10;

/// Where files are. Cloning shares it.
///
/// Every call fails within 30 s (10 minutes for [`Files::adopt`], which may copy gigabytes) if
/// the store is away, and a stream does after 30 s of silence.
#[derive(Clone)]
pub struct Files {
    store: Arc<Store>,
}

/// What lies where a client was allowed to put it, as it was when it was looked at.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Its size in bytes.
    pub size: u64,
    /// What tells it from what might replace it.
    tag: Option<String>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Files({}/{})", self.store.objects, self.store.prefix)
    }
}

impl Files {
    /// Opens a folder or `file:///folder` (made if it is missing), `s3://bucket/prefix`, `gs://bucket/prefix`
    /// or `az://container/prefix`. The options are pairs as the environment has them: `AWS_*`,
    /// `GOOGLE_*`, `AZURE_*`; others are passed over. Nothing is asked of a cloud yet:
    /// see [`Files::check`].
    ///
    /// A part that nobody ended costs money where it lies, so a bucket wants a lifecycle rule
    /// that removes unfinished uploads after some days, for the case that nobody could.
    pub fn open(
        url: &str,
        options: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, FilesError> {
        Ok(Self { store: Arc::new(Store::open(url, options)?) })
    }

    /// Whether this is a folder of this machine.
    pub fn is_local(&self) -> bool {
        self.store.folder.is_some()
    }

    /// Whether the store can be reached and lets us in.
    pub async fn check(&self) -> Result<(), FilesError> {
        if let Some(pages) = &self.store.pages {
            let one = PaginatedListOptions { max_keys: Some(1), ..PaginatedListOptions::default() };
            let prefix = format!("{}/", self.store.prefix.clone().join("media"));
            within(SOON, pages.list_paginated(Some(&prefix), one)).await?;
        }
        if let Some(folder) = &self.store.folder
            && !tokio::fs::metadata(folder).await.map_err(failed)?.is_dir()
        {
            return Err(FilesError::NotFound);
        }
        Ok(())
    }

    /// Begins a file. The media type and the `Content-Disposition` are kept with it where the
    /// store can, so that whoever has a signed URL is served safely. A file of the
    /// same id is replaced when the upload finishes. A cloud takes some 48 GiB at most, which
    /// are 10,000 parts of 5 MiB.
    pub fn create(&self, id: Uuid, media_type: &str, disposition: &str) -> Upload {
        Upload::new(self.store.clone(), self.file(id), media_type, disposition)
    }

    /// A file, or the bytes of a range, which must begin inside of it and may end beyond.
    pub async fn read(
        &self,
        id: Uuid,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes, FilesError>>, FilesError> {
        self.stream(&self.file(id), range, None).await
    }

    /// The size of a file, in bytes.
    pub async fn size(&self, id: Uuid) -> Result<u64, FilesError> {
        Ok(self.head(&self.file(id)).await?.size)
    }

    /// Removes all there is of an id: the file, its thumbnail, what came in by a signed URL, and
    /// what a broken-off upload left, if it was [`Upload::unfinished`]. What is not there is
    /// no error, so this can be repeated until it succeeds.
    pub async fn remove(&self, id: Uuid, unfinished: Option<&str>) -> Result<(), FilesError> {
        // First the parts: nothing can become a file again after this.
        if let (Some(name), Some(store)) = (unfinished, &self.store.multipart) {
            match within(SOON, store.abort_multipart(&self.file(id), &name.to_owned())).await {
                Ok(()) | Err(FilesError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        self.remove_staged(id).await?;
        self.delete(vec![self.file(id), self.thumbnail(id), self.incoming_path(id)]).await
    }

    /// Removes what came in by a signed URL and was not made the file. What is not there is no
    /// error.
    pub async fn remove_incoming(&self, id: Uuid) -> Result<(), FilesError> {
        self.delete(vec![self.incoming_path(id)]).await
    }

    /// Keeps the thumbnail of a file, whole in memory as it is small.
    pub async fn put_thumbnail(
        &self,
        id: Uuid,
        bytes: Bytes,
        media_type: &str,
    ) -> Result<(), FilesError> {
        let mut attributes = Attributes::new();
        if !self.is_local() {
            attributes.insert(Attribute::ContentType, media_type.to_owned().into());
        }
        let options = PutOptions { attributes, ..PutOptions::default() };
        let path = self.thumbnail(id);
        within(SOON, self.store.objects.put_opts(&path, PutPayload::from(bytes), options)).await?;
        Ok(())
    }

    /// Removes the thumbnail of a file alone. What is not there is no error.
    pub async fn remove_thumbnail(&self, id: Uuid) -> Result<(), FilesError> {
        self.delete(vec![self.thumbnail(id)]).await
    }

    /// The thumbnail of a file.
    pub async fn read_thumbnail(&self, id: Uuid) -> Result<Bytes, FilesError> {
        let pieces = self.stream(&self.thumbnail(id), None, None).await?;
        let whole = pieces.try_fold(Vec::new(), async |mut whole, piece| {
            whole.extend_from_slice(&piece);
            Ok(whole)
        });
        Ok(tokio::time::timeout(SOON, whole).await.map_err(|_| FilesError::Late(SOON))??.into())
    }

    /// A URL that reads a file for so long, seven days at most. None where the store has no
    /// such: the local folder.
    pub async fn signed_get(&self, id: Uuid, ttl: Duration) -> Result<Option<Url>, FilesError> {
        self.signed(Method::GET, &self.file(id), ttl).await
    }

    /// A URL that puts the incoming object of an id, and replaces it, for so long. Whoever puts
    /// sends [`Files::put_headers`] too. The store does not bound the size:
    /// [`Files::incoming`] tells it, and nobody reads the object before [`Files::adopt`].
    pub async fn signed_put(&self, id: Uuid, ttl: Duration) -> Result<Option<Url>, FilesError> {
        self.signed(Method::PUT, &self.incoming_path(id), ttl).await
    }

    /// The headers that a client sends with what it puts by a signed URL, by name and value.
    pub fn put_headers(&self) -> &'static [(&'static str, &'static str)] {
        self.store.put_headers
    }

    /// Looks at what has been put for an id.
    pub async fn incoming(&self, id: Uuid) -> Result<Incoming, FilesError> {
        let meta = self.head(&self.incoming_path(id)).await?;
        Ok(Incoming { size: meta.size, tag: meta.e_tag })
    }

    /// The incoming object that was looked at, or a range of it; [`FilesError::Changed`] if there
    /// is another now.
    pub async fn read_incoming(
        &self,
        id: Uuid,
        incoming: &Incoming,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes, FilesError>>, FilesError> {
        self.stream(&self.incoming_path(id), range, incoming.tag.clone()).await
    }

    /// Makes the incoming object that was looked at the file, so that a URL which still holds
    /// can no longer change it. On S3 the server copies, 5 GiB at most; elsewhere it is read and
    /// written. [`FilesError::Changed`] if there is another now.
    ///
    /// It can be repeated: if nothing has come in but the file is there, all is done.
    pub async fn adopt(
        &self,
        id: Uuid,
        incoming: &Incoming,
        media_type: &str,
        disposition: &str,
    ) -> Result<(), FilesError> {
        let (from, to) = (self.incoming_path(id), self.file(id));
        let tag = incoming.tag.as_deref();
        let copied = if let Some(copier) = &self.store.copier {
            if incoming.size > MOST {
                return Err(FilesError::TooLarge { size: incoming.size, most: MOST });
            }
            let copy = copier.copy(&from, tag, &to, media_type, disposition);
            tokio::time::timeout(COPY, copy).await.unwrap_or(Err(FilesError::Late(COPY)))
        } else {
            self.rewrite(id, incoming, media_type, disposition).await
        };
        match copied {
            Err(FilesError::NotFound) if self.head(&to).await.is_ok() => return Ok(()),
            copied => copied?,
        }
        self.delete(vec![from]).await
    }

    async fn rewrite(
        &self,
        id: Uuid,
        incoming: &Incoming,
        media_type: &str,
        disposition: &str,
    ) -> Result<(), FilesError> {
        let mut pieces = self.read_incoming(id, incoming, None).await?;
        let mut upload = self.create(id, media_type, disposition);
        while let Some(piece) = pieces.try_next().await? {
            upload.write(piece).await?;
        }
        upload.finish().await?;
        Ok(())
    }

    async fn signed(
        &self,
        method: Method,
        path: &Path,
        ttl: Duration,
    ) -> Result<Option<Url>, FilesError> {
        let Some(signer) = &self.store.signer else { return Ok(None) };
        // It may have to fetch credentials.
        within(SOON, signer.signed_url(method, path, ttl.min(LONGEST))).await.map(Some)
    }

    async fn head(&self, path: &Path) -> Result<ObjectMeta, FilesError> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        Ok(within(SOON, self.store.objects.get_opts(path, options)).await?.meta)
    }

    async fn stream(
        &self,
        path: &Path,
        range: Option<Range<u64>>,
        if_match: Option<String>,
    ) -> Result<BoxStream<'static, Result<Bytes, FilesError>>, FilesError> {
        if range.as_ref().is_some_and(Range::is_empty) {
            self.head(path).await?;
            return Ok(stream::empty().boxed());
        }
        let options =
            GetOptions { range: range.map(GetRange::Bounded), if_match, ..GetOptions::default() };
        let found = within(SOON, self.store.objects.get_opts(path, options)).await?;
        pieces(found).await
    }

    async fn delete(&self, paths: Vec<Path>) -> Result<(), FilesError> {
        let paths = stream::iter(paths.into_iter().map(Ok)).boxed();
        let mut deleted = self.store.objects.delete_stream(paths);
        let all = async {
            while let Some(one) = deleted.next().await {
                match one {
                    Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        within(SOON, all).await
    }

    /// A local file is written under `<id>#<number>` before it gets its name.
    async fn remove_staged(&self, id: Uuid) -> Result<(), FilesError> {
        let Some(root) = &self.store.folder else { return Ok(()) };
        for kind in ["media", "thumbnails"] {
            let folder = root.join(kind).join(fan(id));
            within_folder(SOON, remove_staged(&folder, id)).await?;
        }
        Ok(())
    }

    fn file(&self, id: Uuid) -> Path {
        self.path("media", id)
    }

    fn thumbnail(&self, id: Uuid) -> Path {
        self.path("thumbnails", id)
    }

    fn incoming_path(&self, id: Uuid) -> Path {
        self.path("incoming", id)
    }

    fn path(&self, what: &str, id: Uuid) -> Path {
        self.store.prefix.clone().join(what).join(fan(id)).join(id.to_string())
    }
}

/// The folder of an id below its kind's: its last two hex digits, since the first tell the time.
fn fan(id: Uuid) -> String {
    format!("{:02x}", id.as_bytes()[15])
}

async fn within_folder(
    time: Duration,
    work: impl Future<Output = Result<(), FilesError>>,
) -> Result<(), FilesError> {
    tokio::time::timeout(time, work).await.unwrap_or(Err(FilesError::Late(time)))
}

async fn remove_staged(folder: &std::path::Path, id: Uuid) -> Result<(), FilesError> {
    let id = id.to_string();
    let mut folder = match tokio::fs::read_dir(folder).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        folder => folder.map_err(failed)?,
    };
    while let Some(entry) = folder.next_entry().await.map_err(failed)? {
        let name = entry.file_name();
        let staged = name
            .to_str()
            .and_then(|name| name.strip_prefix(&id)?.strip_prefix('#'))
            .is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        if staged {
            match tokio::fs::remove_file(entry.path()).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(failed(error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// The library reads local files in pieces of 8 KiB, each a task for another thread; these
/// are larger.
async fn pieces(
    found: GetResult,
) -> Result<BoxStream<'static, Result<Bytes, FilesError>>, FilesError> {
    let range = found.range.clone();
    match found.payload {
        GetResultPayload::File(file, _) => {
            let mut file = tokio::fs::File::from_std(file);
            file.seek(std::io::SeekFrom::Start(range.start)).await.map_err(failed)?;
            let part = file.take(range.end - range.start);
            Ok(ReaderStream::with_capacity(part, PIECE).map_err(failed).boxed())
        }
        GetResultPayload::Stream(pieces) => Ok(pieces.map_err(FilesError::from).boxed()),
    }
}

fn failed(error: std::io::Error) -> FilesError {
    FilesError::Store(Box::new(error))
}

/// What the store says, or that it says nothing.
pub(crate) async fn within<T>(
    time: Duration,
    asked: impl Future<Output = object_store::Result<T>>,
) -> Result<T, FilesError> {
    match tokio::time::timeout(time, asked).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(FilesError::Late(time)),
    }
}
