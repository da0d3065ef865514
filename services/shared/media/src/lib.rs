//! The files that people share: where they are kept, what they are, and how they are served
//! without harm. The only user of `object_store`; it knows nothing of HTTP, Postgres or chats.
//!
//! | module | holds |
//! |---|---|
//! | [`files`] | [`Files`]: a local folder, S3, Google Cloud Storage or Azure |
//! | [`upload`] | [`Upload`]: a file on its way in, in bounded memory |
//! | [`kind`] | [`sniff`]: what a file is by its content; [`shows_inline`] |
//! | [`dimensions`](mod@dimensions) | width and height, where the first bytes tell them |
//! | [`names`] | [`safe_name`] and [`disposition`]: names that harm nobody |
//! | [`thumbnail`](mod@thumbnail) | a small picture of a picture |
//! | `open` | from a URL to a store, and what that store can do |
//! | `copy` | S3's copy on the server, which gives the copy attributes of its own |
//! | `jpeg` | what the first segments of a JPEG tell |
//! | `markup` | text, and the markup that a browser would run |
//! | `error` | [`FilesError`] |
//!
//! | object | is |
//! |---|---|
//! | `media/<ab>/<id>` | the file; `ab` are the last two hex digits of the id |
//! | `thumbnails/<ab>/<id>` | its thumbnail |
//! | `incoming/<ab>/<id>` | what a client puts by a signed URL, before [`Files::adopt`] |
//!
//! **What a file is, its content says**, never its name or what the uploader claims; and
//! what a browser could take for a program is not shown in place, whoever serves it.

pub mod dimensions;
pub mod files;
pub mod kind;
pub mod names;
pub mod thumbnail;
pub mod upload;

mod copy;
mod error;
mod jpeg;
mod markup;
mod open;

pub use dimensions::dimensions;
pub use error::FilesError;
pub use files::{Files, Incoming};
pub use kind::{Class, HEAD_BYTES, Kind, shows_inline, sniff};
pub use names::{disposition, safe_name};
pub use thumbnail::{Thumbnail, ThumbnailError, thumbnail};
pub use upload::Upload;
