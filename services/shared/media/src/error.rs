//! Why a file could not be kept or had.

use std::time::Duration;

/// Why something about a file failed. [`FilesError::NotFound`], [`FilesError::Changed`] and
/// [`FilesError::TooLarge`] are about the file; the others are about the store, and
/// may pass.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// There is no such file, thumbnail or incoming object.
    #[error("there is no such file")]
    NotFound,
    /// The incoming object is not the one that was looked at; look again.
    #[error("the incoming file was replaced meanwhile")]
    Changed,
    /// The incoming object is larger than the store copies in one go.
    #[error("an incoming file of {size} bytes is more than the {most} that can be adopted")]
    TooLarge {
        /// Its size, in bytes.
        size: u64,
        /// The most that can be adopted, in bytes.
        most: u64,
    },
    /// The URL or the options do not name a store that can be used.
    #[error("files cannot be kept at {url}")]
    Address {
        /// The URL, without a password if there was one.
        url: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An earlier step of this upload failed; begin a new one.
    #[error("the upload broke off")]
    BrokenOff,
    /// The store gave no answer in time. What was asked for may have happened.
    #[error("the store of files did not answer within {0:?}")]
    Late(Duration),
    /// The store refused, or cannot be reached.
    #[error("the store of files failed")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<object_store::Error> for FilesError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::NotFound,
            object_store::Error::Precondition { .. } => Self::Changed,
            other => Self::Store(Box::new(other)),
        }
    }
}
