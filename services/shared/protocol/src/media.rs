//! Media files, as messages carry them and as REST tells of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{
    ids::{ChatId, DeviceId, MediaId, MessageId},
    server::{Sent, UserCard},
    timestamp,
    words::words,
};

words! {
    /// What a file is, by its content: the old backend's clients know no more of it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "snake_case")]
    pub enum MediaKind {
        /// A picture.
        Image,
        /// Moving pictures.
        Video,
        /// Sound.
        Audio,
        /// Anything else.
        Document,
    }
}

/// A media file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Media {
    /// Names it in `send_message`.
    pub id: MediaId,
    /// As it was called, made safe.
    pub name: String,
    /// The media type, by its content.
    #[serde(rename = "type")]
    pub media_type: String,
    /// What it is, roughly.
    pub kind: MediaKind,
    /// Bytes.
    pub size: u64,
    /// In hexadecimal; missing for what went to the store directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub sha256: Option<String>,
    /// In pixels, where it was easily told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub width: Option<u32>,
    /// In pixels, where it was easily told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub height: Option<u32>,
    /// There is, or will shortly be, a thumbnail.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub thumbnail: bool,
}

/// Where the file of a message is fetched, on any node.
#[must_use]
pub fn url(chat: ChatId, message: MessageId) -> String {
    format!("/v1/chats/{chat}/messages/{message}/media")
}

/// The answer to an upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Uploaded {
    /// The file.
    pub media: Media,
    /// The message that it was sent with, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub message: Option<Sent>,
}

/// What is to be uploaded to the store directly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UploadDraft {
    /// What the file is called.
    pub name: String,
    /// Its bytes.
    pub size: u64,
}

/// Where a file is to be uploaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UploadTicket {
    /// Names it when it is complete.
    pub media_id: MediaId,
    /// Takes the file by `PUT`, without a token.
    pub url: String,
    /// What the request has to say besides, by name.
    pub headers: BTreeMap<String, String>,
    /// For so long.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: OffsetDateTime,
}

/// Somebody has fetched a file, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Download {
    /// Who.
    pub user: UserCard,
    /// On which device.
    pub device_id: DeviceId,
    /// When it began.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
    /// Where in the file.
    pub first_byte: u64,
    /// How many bytes were written; missing when the store was to send them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub bytes: Option<u64>,
    /// Whether that was the whole file; missing where `bytes` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub complete: Option<bool>,
}

/// A page of downloads, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DownloadPage {
    /// The newest first.
    pub items: Vec<Download>,
    /// Where the next page begins.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}
