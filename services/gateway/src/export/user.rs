//! What a user has: the account, its devices, chats and blocks, and all that the user has sent.

use std::time::Duration;

use natter_protocol::{
    error::WireError,
    ids::{ChatId, MessageId, Seq, Shard, UserId},
    rest::User,
    server::{Chat, Role},
    timestamp,
};
use natter_store::OwnPart;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use super::{
    Entries, Export, Kept, Manifest, PAGE,
    archive::{Archive, Broken},
    make, put_file, still,
};
use crate::{app::App, auth::Caller, fault};

/// How long to wait until what was sent before is written, and how often it is looked.
const WRITTEN: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);

#[derive(Serialize)]
struct Of {
    user: UserId,
    /// What was sent just before may be missing: it was not written in time.
    partial: bool,
}

/// A line about a chat.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChatLine {
    id: ChatId,
    is_group: bool,
    role: Role,
    #[serde(with = "timestamp")]
    joined_at: OffsetDateTime,
    #[serde(skip_serializing_if = "Option::is_none", with = "timestamp::option")]
    left_at: Option<OffsetDateTime>,
    /// As the chat list shows it; not of one that the user has left.
    #[serde(skip_serializing_if = "Option::is_none")]
    chat: Option<Chat>,
}

/// A line about a reaction.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReactionLine {
    chat_id: ChatId,
    message_seq: Seq,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<MessageId>,
    emoji: String,
}

/// An archive of what the caller has.
///
/// # Errors
/// `rate_limited`, `unavailable`.
pub async fn user(app: &App, caller: &Caller, media: bool) -> Result<Export, WireError> {
    let place = app.exports.take(caller.user_id)?;
    let user = app.store.user(caller.user_id).await.map_err(fault::store)?;
    let user = user.ok_or_else(|| fault::store(natter_store::StoreError::NotFound))?;
    let ends = ends(app).await;
    let job = Job { app: app.clone(), caller: caller.clone() };
    let name = format!("natter-user-{}.zip", caller.user_id);
    Ok(make(place, name, move |archive| job.write(archive, user, ends, media)))
}

/// Where each log ends; none for one that does not answer.
async fn ends(app: &App) -> Vec<(Shard, Option<Seq>)> {
    let mut ends = Vec::new();
    for shard in 0..app.config.shards {
        let log = app.bus.log_state(shard).await;
        ends.push((shard, log.ok().flatten().map(|log| log.last_seq)));
    }
    ends
}

struct Job {
    app: App,
    caller: Caller,
}

impl Job {
    async fn write(
        self,
        mut archive: Archive,
        user: User,
        ends: Vec<(Shard, Option<Seq>)>,
        media: bool,
    ) -> Result<(), Broken> {
        archive.value("profile.json", &user).await?;
        let wishes = self.app.store.notification_settings(self.caller.user_id).await?;
        archive.value("notifications.json", &wishes).await?;
        let devices = self.devices(&mut archive).await?;
        let blocks = self.blocks(&mut archive).await?;
        let chats = self.chats(&mut archive).await?;
        let partial = !self.written(&ends).await?;
        let (messages, files) = self.messages(&mut archive).await?;
        let reactions = self.reactions(&mut archive).await?;
        let kept = if media && files { self.files(&mut archive).await? } else { Kept::default() };
        let entries = Entries {
            devices: Some(devices),
            blocks: Some(blocks),
            chats: Some(chats),
            messages,
            reactions: Some(reactions),
            ..Entries::default()
        };
        let of = Of { user: self.caller.user_id, partial };
        let mut manifest = Manifest::new(&self.caller, of, entries, kept);
        manifest.left_out.extend([
            "what was said before an edit or a deletion",
            "messages of others: each chat has an export of its own",
            "which files were fetched",
            "where devices are notified, and of what they were",
            "uploads that were not sent",
        ]);
        if !media {
            manifest.left_out.push("media");
        }
        still(&self.app, &self.caller).await?;
        archive.value("manifest.json", &manifest).await?;
        archive.finish().await
    }

    async fn devices(&self, archive: &mut Archive) -> Result<u64, Broken> {
        archive.begin_text("devices.ndjson")?;
        let mut devices = self.app.store.devices(self.caller.user_id).await?;
        for device in &mut devices {
            device.current = device.id == self.caller.device_id;
            archive.line(device).await?;
        }
        Ok(devices.len() as u64)
    }

    async fn blocks(&self, archive: &mut Archive) -> Result<u64, Broken> {
        archive.begin_text("blocks.ndjson")?;
        let (mut count, mut cursor) = (0, None);
        loop {
            let page = self.app.store.blocks(self.caller.user_id, cursor, 1_000).await?;
            for block in &page.0 {
                archive.line(block).await?;
            }
            count += page.0.len() as u64;
            cursor = page.1;
            if cursor.is_none() {
                return Ok(count);
            }
            still(&self.app, &self.caller).await?;
        }
    }

    /// The next chats, those that the user has left too.
    async fn parts(&self, after: Option<ChatId>) -> Result<Vec<OwnPart>, Broken> {
        still(&self.app, &self.caller).await?;
        Ok(self.app.store.own_parts(self.caller.user_id, after, PAGE).await?)
    }

    async fn chats(&self, archive: &mut Archive) -> Result<u64, Broken> {
        archive.begin_text("chats.ndjson")?;
        let (mut count, mut after) = (0, None);
        loop {
            let parts = self.parts(after).await?;
            let Some(last) = parts.last() else { return Ok(count) };
            after = Some(last.chat_id);
            count += parts.len() as u64;
            for part in parts {
                let OwnPart { chat_id: id, is_group, role, joined_at, left_at, chat } = part;
                archive.line(&ChatLine { id, is_group, role, joined_at, left_at, chat }).await?;
            }
        }
    }

    /// Waits until all before these ends is written; false when that takes too long.
    async fn written(&self, ends: &[(Shard, Option<Seq>)]) -> Result<bool, Broken> {
        let until = Instant::now() + WRITTEN;
        for (shard, end) in ends {
            let Some(end) = end else { return Ok(false) };
            while self.app.store.persisted_until(*shard).await?.0 < *end {
                if Instant::now() > until {
                    return Ok(false);
                }
                sleep(LOOK).await;
            }
        }
        Ok(true)
    }

    /// All that the user has sent, chat by chat. Tells how many there are, and whether any has a file.
    async fn messages(&self, archive: &mut Archive) -> Result<(u64, bool), Broken> {
        archive.begin_text("messages.ndjson")?;
        let (mut count, mut files, mut after) = (0, false, None);
        loop {
            let parts = self.parts(after).await?;
            let Some(last) = parts.last() else { return Ok((count, files)) };
            after = Some(last.chat_id);
            for part in parts {
                let mut messages = Sent::new(part.chat_id, false);
                while let Some(page) = messages.next(self).await? {
                    for message in &page {
                        archive.line(message).await?;
                        files |= message.media.is_some();
                    }
                    count += page.len() as u64;
                }
            }
        }
    }

    async fn reactions(&self, archive: &mut Archive) -> Result<u64, Broken> {
        archive.begin_text("reactions.ndjson")?;
        let (mut count, mut after) = (0, None);
        loop {
            still(&self.app, &self.caller).await?;
            let user = self.caller.user_id;
            let page = self.app.store.own_reactions(user, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(count) };
            after = Some(last.key.clone());
            count += page.len() as u64;
            for reaction in page {
                let key = reaction.key;
                let line = ReactionLine {
                    chat_id: key.chat_id,
                    message_seq: key.message_seq,
                    message_id: reaction.message_id,
                    emoji: key.emoji,
                };
                archive.line(&line).await?;
            }
        }
    }

    async fn files(&self, archive: &mut Archive) -> Result<Kept, Broken> {
        let (mut kept, mut after) = (Kept::default(), None);
        loop {
            let parts = self.parts(after).await?;
            let Some(last) = parts.last() else { return Ok(kept) };
            after = Some(last.chat_id);
            for part in parts {
                let mut messages = Sent::new(part.chat_id, true);
                while let Some(page) = messages.next(self).await? {
                    for file in page.iter().filter_map(|message| message.media.as_ref()) {
                        still(&self.app, &self.caller).await?;
                        put_file(&self.app, archive, file, &mut kept).await?;
                    }
                }
            }
        }
    }
}

/// What the user has sent to a chat, a page at a time.
struct Sent {
    chat: ChatId,
    media: bool,
    after: Option<String>,
}

impl Sent {
    fn new(chat: ChatId, media: bool) -> Self {
        Self { chat, media, after: None }
    }

    async fn next(
        &mut self,
        job: &Job,
    ) -> Result<Option<Vec<natter_protocol::server::Message>>, Broken> {
        if self.after.is_some() {
            still(&job.app, &job.caller).await?;
        }
        let after = self.after.as_deref();
        let user = job.caller.user_id;
        let page = job.app.store.own_messages(user, self.chat, after, PAGE, self.media).await?;
        let Some(last) = page.last() else { return Ok(None) };
        self.after = Some(last.client_msg_id.clone());
        Ok(Some(page))
    }
}
