//! The files that people share: what they are, and how they are served without harm.
//! It knows nothing of HTTP, Postgres or chats.
//!
//! | module | holds |
//! |---|---|
//! | [`kind`] | [`sniff`]: what a file is by its content; [`shows_inline`] |
//! | [`dimensions`](mod@dimensions) | width and height, where the first bytes tell them |
//! | [`names`] | [`safe_name`] and [`disposition`]: names that harm nobody |
//! | [`thumbnail`](mod@thumbnail) | a small picture of a picture |
//! | `markup` | text, and the markup that a browser would run |
//!
//! **What a file is, its content says**, never its name or what the uploader claims; and
//! what a browser could take for a program is not shown in place, whoever serves it.

pub mod dimensions;
pub mod kind;
pub mod names;
pub mod thumbnail;

mod markup;

pub use dimensions::dimensions;
pub use kind::{Class, HEAD_BYTES, Kind, shows_inline, sniff};
pub use names::{disposition, safe_name};
pub use thumbnail::{Thumbnail, ThumbnailError, thumbnail};
