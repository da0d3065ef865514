//! What a chat holds, for somebody who takes part in it.

use std::time::Duration;

use natter_protocol::{
    error::{ErrorCode, WireError},
    ids::{ChatId, Seq},
    server::{Chat, HistoryPage, Message},
};
use serde::Serialize;
use tokio::time::sleep;

use super::{
    Entries, Export, Kept, Manifest, PAGE,
    archive::{Archive, Broken},
    make, put_file, still,
};
use crate::{app::App, auth::Caller, chats::not_member, fault, history};

/// A page that cannot be had is asked for so often, with pauses: a server that restarts need not end
/// an export of an hour.
const TRIES: usize = 10;
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Of {
    chat: ChatId,
    /// Where the feed ended when the export began: all that was sent until then is in it.
    up_to: Seq,
}

/// An archive of a chat: what it is, who takes part, its messages as history shows them, oldest
/// first, and their files.
///
/// # Errors
/// `not_member`, `rate_limited`, `unavailable`.
pub async fn chat(
    app: &App,
    caller: &Caller,
    chat: ChatId,
    media: bool,
) -> Result<Export, WireError> {
    let view = app.chats.get(caller, chat).await?;
    let place = app.exports.take(caller.user_id)?;
    let newest = history::page(app, caller, chat, None, None, 1).await?;
    if newest.partial {
        return Err(fault::unavailable("history"));
    }
    let job = Job { app: app.clone(), caller: caller.clone(), chat, up_to: newest.to_seq };
    let name = format!("natter-chat-{chat}.zip");
    Ok(make(place, name, move |archive| job.write(archive, view, media)))
}

struct Job {
    app: App,
    caller: Caller,
    chat: ChatId,
    up_to: Seq,
}

impl Job {
    async fn write(self, mut archive: Archive, view: Chat, media: bool) -> Result<(), Broken> {
        archive.value("chat.json", &view).await?;
        let participants = self.participants(&mut archive).await?;
        archive.begin_text("messages.ndjson")?;
        let (mut messages, mut first_file) = (0, None);
        let mut pages = Pages::after(0);
        while let Some(page) = pages.next(&self).await? {
            for message in &page {
                archive.line(message).await?;
                messages += 1;
                if message.media.is_some() {
                    first_file.get_or_insert(message.seq);
                }
            }
        }
        let mut kept = Kept::default();
        if let Some(first) = first_file.filter(|_| media) {
            let mut pages = Pages::after(first - 1);
            while let Some(page) = pages.next(&self).await? {
                for file in page.iter().filter_map(|message| message.media.as_ref()) {
                    self.check().await?;
                    put_file(&self.app, &mut archive, file, &mut kept).await?;
                }
            }
        }
        let of = Of { chat: self.chat, up_to: self.up_to };
        let entries = Entries { participants: Some(participants), messages, ..Entries::default() };
        let mut manifest = Manifest::new(&self.caller, of, entries, kept);
        manifest.left_out.push("what was said before an edit or a deletion");
        if !media {
            manifest.left_out.push("media");
        }
        // Whoever was removed meanwhile gets no end.
        self.check().await?;
        archive.value("manifest.json", &manifest).await?;
        archive.finish().await
    }

    async fn participants(&self, archive: &mut Archive) -> Result<u64, Broken> {
        archive.begin_text("participants.ndjson")?;
        let (mut count, mut cursor) = (0, None);
        loop {
            let (participants, next) =
                self.app.store.participants(self.chat, cursor, 1_000).await?;
            for participant in &participants {
                archive.line(participant).await?;
            }
            count += participants.len() as u64;
            cursor = next;
            if cursor.is_none() {
                return Ok(count);
            }
            self.check().await?;
        }
    }

    /// That the caller may have it still, at this moment.
    async fn check(&self) -> Result<(), WireError> {
        still(&self.app, &self.caller).await?;
        let member = self.app.store.membership(self.caller.user_id, self.chat).await;
        member.map_err(fault::store)?.ok_or_else(not_member).map(drop)
    }

    /// A page of history, whole.
    async fn page(&self, after: Seq) -> Result<HistoryPage, WireError> {
        let mut tries = 0;
        loop {
            let page = async {
                self.check().await?;
                history::page(&self.app, &self.caller, self.chat, None, Some(after), PAGE).await
            };
            let error = match page.await {
                Ok(page) if !page.partial => return Ok(page),
                Ok(_) => fault::unavailable("history"),
                Err(error) => error,
            };
            tries += 1;
            if error.code != ErrorCode::Unavailable || tries >= TRIES {
                return Err(error);
            }
            sleep(PAUSE).await;
        }
    }
}

/// The messages of a chat, a page at a time.
struct Pages {
    /// None at the end.
    after: Option<Seq>,
}

impl Pages {
    fn after(after: Seq) -> Self {
        Self { after: Some(after) }
    }

    async fn next(&mut self, job: &Job) -> Result<Option<Vec<Message>>, WireError> {
        let Some(after) = self.after else { return Ok(None) };
        let HistoryPage { mut messages, has_more, to_seq, .. } = job.page(after).await?;
        let more = has_more && to_seq > after && to_seq < job.up_to;
        self.after = more.then_some(to_seq);
        messages.retain(|message| message.seq <= job.up_to);
        Ok(Some(messages))
    }
}
