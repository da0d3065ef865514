//! What is known of media files.
//!
//! - `uploads`: files on their way into the store
//! - `claims`: the file that a message is going to be sent with
//! - `files`: what is known of a file, and which message has it
//! - `downloads`: who has fetched them
//! - `sweep`: which are to be removed
//! - `thumbnails`: which images are to have one

mod claims;
mod downloads;
mod files;
mod sweep;
mod thumbnails;
mod uploads;

pub use claims::Claim;
pub use downloads::{DownloadCursor, DownloadRecord};
pub use files::MediaFile;
pub use sweep::Sweep;
pub use thumbnails::UnmadeThumbnail;
pub(crate) use uploads::kept_as_sent;
pub use uploads::{Measures, NewMedia, Taken};
