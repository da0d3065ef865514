//! A file on its way in, in bounded memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, MultipartUpload, PutMultipartOptions, PutOptions, PutPayload,
};
use tokio::task::JoinSet;

use crate::error::FilesError;
use crate::files::within;
use crate::open::Store;

/// How large every part but the last is: the least that S3 takes; less for a local file, where a
/// part is just what is written at once.
const PART: usize = 5 << 20;
const LOCAL_PART: usize = 512 << 10;
/// What a part is made of. An upload fills its blocks again and again: an allocator that is given
/// them back on other threads, and asked for new ones, comes to keep tens of megabytes.
const BLOCK: usize = 256 << 10;
/// How many parts are on their way at once, while the next comes. So an upload holds two parts
/// and the latest piece that it was given.
const AT_ONCE: usize = 1;
/// How long a part may take, repetitions included.
const PART_TIME: Duration = Duration::from_mins(2);
/// How long a store may take to begin an upload, or to end it.
const BEGIN_TIME: Duration = Duration::from_secs(30);
/// How long a store may take to make one object out of the parts.
const FINISH_TIME: Duration = Duration::from_mins(5);

/// A file on its way in. It is there when [`Upload::finish`] has returned, whole; until then,
/// and if this is dropped before, nobody sees anything of it.
///
/// A cloud takes large files in parts, and keeps (and charges for) the parts of an upload that
/// nobody ends. So when a process dies, somebody else has to end its uploads: note what
/// [`Upload::unfinished`] says after each [`Upload::write`], and pass it to
/// [`Files::remove`](crate::Files::remove). No part is sent before the `write` or `finish`
/// that follows the one that began the upload, so there is time to note it.
pub struct Upload {
    store: Arc<Store>,
    path: Path,
    attributes: Attributes,
    /// What has not been sent: full blocks, and the one that is being filled.
    full: Vec<Bytes>,
    block: BytesMut,
    /// Blocks that have been sent, to be filled again.
    spare: Vec<BytesMut>,
    /// Blocks of a part.
    part: usize,
    /// How many bytes have been written.
    written: u64,
    parts: Parts,
    sending: JoinSet<Sent>,
    sent: Vec<Option<PartId>>,
    /// Neither finished nor aborted.
    open: bool,
    failed: bool,
}

enum Parts {
    /// Nothing has been sent.
    None,
    /// An upload that the store knows by a name.
    Named { store: Arc<dyn MultipartStore>, name: String },
    /// One that whoever began it has to end: a local file (whose parts are written in order
    /// or not, at their offsets), or a blob of Azure.
    Nameless(Box<dyn MultipartUpload>),
}

/// What came of a part: its place and name, if it has a name, and the blocks that it was made of.
type Sent = Result<(Option<(usize, PartId)>, Vec<Bytes>), object_store::Error>;

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload")
            .field("path", &self.path)
            .field("written", &self.written)
            .field("unfinished", &self.unfinished())
            .finish_non_exhaustive()
    }
}

impl Upload {
    pub(crate) fn new(store: Arc<Store>, path: Path, media_type: &str, disposition: &str) -> Self {
        let mut attributes = Attributes::new();
        let part = if store.folder.is_some() { LOCAL_PART } else { PART } / BLOCK;
        if store.folder.is_none() {
            attributes.insert(Attribute::ContentType, media_type.to_owned().into());
            attributes.insert(Attribute::ContentDisposition, disposition.to_owned().into());
        }
        Self {
            store,
            path,
            attributes,
            full: Vec::new(),
            block: BytesMut::new(),
            spare: Vec::new(),
            part,
            written: 0,
            parts: Parts::None,
            sending: JoinSet::new(),
            sent: Vec::new(),
            open: true,
            failed: false,
        }
    }

    /// What names the upload to the store, once it has begun to take parts; the local folder
    /// and Azure need none.
    pub fn unfinished(&self) -> Option<&str> {
        match &self.parts {
            Parts::Named { name, .. } => Some(name),
            Parts::None | Parts::Nameless(_) => None,
        }
    }

    /// How many bytes have been written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Takes the next bytes, and waits while too many are on their way. A failure may be that of
    /// an earlier part; the upload has broken off then.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), FilesError> {
        if self.failed {
            return Err(FilesError::BrokenOff);
        }
        // Set back at the end, so that a future that is dropped midway counts as a failure too.
        self.failed = true;
        self.written += bytes.len() as u64;
        let began = !matches!(self.parts, Parts::None);
        while !bytes.is_empty() {
            // The only block of a small file grows as the file comes.
            if self.block.is_empty() && self.written > BLOCK as u64 {
                self.block = self.spare.pop().unwrap_or_else(|| BytesMut::with_capacity(BLOCK));
            }
            let room = BLOCK - self.block.len();
            self.block.extend_from_slice(&bytes.split_to(room.min(bytes.len())));
            if self.block.len() == BLOCK {
                self.full.push(std::mem::take(&mut self.block).freeze());
                if began {
                    self.send_full().await?;
                }
            }
        }
        if !began && self.full.len() >= self.part {
            self.begin().await?;
        }
        self.failed = false;
        Ok(())
    }

    /// Makes the file be there, and tells its size in bytes. After a failure it may be there or not,
    /// with something that is left: [`Files::remove`](crate::Files::remove) ends the doubt.
    pub async fn finish(mut self) -> Result<u64, FilesError> {
        if self.failed {
            return Err(FilesError::BrokenOff);
        }
        if matches!(self.parts, Parts::None) {
            let payload = self.rest().into_iter().collect();
            let options =
                PutOptions { attributes: self.attributes.clone(), ..PutOptions::default() };
            let put = self.store.objects.put_opts(&self.path, payload, options);
            within(PART_TIME, put).await?;
        } else {
            self.send_full().await?;
            let last = self.rest();
            if !last.is_empty() {
                self.send(last).await?;
            }
            while let Some(part) = self.sending.join_next().await {
                self.arrived(part)?;
            }
            match &mut self.parts {
                Parts::Named { store, name } => {
                    let sent: Option<Vec<_>> = std::mem::take(&mut self.sent).into_iter().collect();
                    let sent = sent.ok_or(FilesError::BrokenOff)?;
                    within(FINISH_TIME, store.complete_multipart(&self.path, name, sent)).await?;
                }
                Parts::Nameless(upload) => {
                    within(FINISH_TIME, upload.complete()).await?;
                }
                Parts::None => {}
            }
        }
        self.open = false;
        Ok(self.written)
    }

    /// Gives up: nothing stays of the upload.
    pub async fn abort(mut self) -> Result<(), FilesError> {
        self.open = false;
        let parts = std::mem::replace(&mut self.parts, Parts::None);
        let sending = std::mem::take(&mut self.sending);
        // On its own, so that it goes on if nobody waits for it.
        let ended = tokio::spawn(end(self.path.clone(), parts, sending)).await;
        ended.unwrap_or_else(|error| Err(FilesError::Store(Box::new(error))))
    }

    async fn begin(&mut self) -> Result<(), FilesError> {
        let options = PutMultipartOptions {
            attributes: self.attributes.clone(),
            ..PutMultipartOptions::default()
        };
        self.parts = if let Some(store) = &self.store.multipart {
            let begun = store.create_multipart_opts(&self.path, options);
            let name = within(BEGIN_TIME, begun).await?;
            Parts::Named { store: store.clone(), name }
        } else {
            let begun = self.store.objects.put_multipart_opts(&self.path, options);
            Parts::Nameless(within(BEGIN_TIME, begun).await?)
        };
        Ok(())
    }

    async fn send_full(&mut self) -> Result<(), FilesError> {
        while self.full.len() >= self.part {
            let part = self.full.drain(..self.part).collect();
            self.send(part).await?;
        }
        Ok(())
    }

    /// Less than a part.
    fn rest(&mut self) -> Vec<Bytes> {
        let last = std::mem::take(&mut self.block).freeze();
        self.full.drain(..).chain((!last.is_empty()).then_some(last)).collect()
    }

    async fn send(&mut self, part: Vec<Bytes>) -> Result<(), FilesError> {
        while self.sending.len() >= AT_ONCE {
            if let Some(part) = self.sending.join_next().await {
                self.arrived(part)?;
            }
        }
        let at = self.sent.len();
        self.sent.push(None);
        let payload: PutPayload = part.iter().cloned().collect();
        match &mut self.parts {
            Parts::Named { store, name } => {
                let (store, path, name) = (store.clone(), self.path.clone(), name.clone());
                self.sending.spawn(async move {
                    let put = store.put_part(&path, &name, at, payload);
                    Ok((Some((at, in_time(put).await?)), part))
                });
            }
            Parts::Nameless(upload) => {
                let put = upload.put_part(payload);
                self.sending.spawn(async move { in_time(put).await.map(|()| (None, part)) });
            }
            Parts::None => return Err(FilesError::BrokenOff),
        }
        Ok(())
    }

    fn arrived(&mut self, part: Result<Sent, tokio::task::JoinError>) -> Result<(), FilesError> {
        let part = part.map_err(|error| FilesError::Store(Box::new(error)))?;
        let (named, blocks) = part?;
        if let Some((at, id)) = named {
            self.sent[at] = Some(id);
        }
        // One that the store's client still holds is let go.
        let blocks = blocks.into_iter().filter_map(|block| block.try_into_mut().ok());
        self.spare.extend(blocks.map(|mut block| {
            block.clear();
            block
        }));
        Ok(())
    }
}

async fn in_time<T>(
    put: impl Future<Output = object_store::Result<T>>,
) -> Result<T, object_store::Error> {
    tokio::time::timeout(PART_TIME, put).await.unwrap_or_else(|late| {
        Err(object_store::Error::Generic { store: "part", source: Box::new(late) })
    })
}

/// Ends an upload, after what is on its way has arrived: a part whose sender just hangs up may be
/// kept all the same, after the upload has been ended.
async fn end(path: Path, parts: Parts, mut sending: JoinSet<Sent>) -> Result<(), FilesError> {
    let arrive = async { while sending.join_next().await.is_some() {} };
    if tokio::time::timeout(BEGIN_TIME, arrive).await.is_err() {
        sending.shutdown().await;
    }
    let ended = match parts {
        Parts::None => Ok(()),
        Parts::Named { store, name } => {
            within(BEGIN_TIME, store.abort_multipart(&path, &name)).await
        }
        Parts::Nameless(mut upload) => within(BEGIN_TIME, upload.abort()).await,
    };
    match ended {
        // Removed by somebody else.
        Err(FilesError::NotFound) => Ok(()),
        ended => ended,
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let parts = std::mem::replace(&mut self.parts, Parts::None);
        if !self.open || matches!(parts, Parts::None) {
            return;
        }
        // Without a runtime there is nobody to do it; a local file is removed by its own drop.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (path, sending) = (self.path.clone(), std::mem::take(&mut self.sending));
            runtime.spawn(async move {
                if let Err(error) = end(path.clone(), parts, sending).await {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, %path, "an upload that broke off was not ended");
                }
            });
        }
    }
}
