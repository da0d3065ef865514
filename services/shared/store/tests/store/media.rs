//! Files: uploaded, claimed by messages, fetched, removed.

use std::time::Duration;

use anyhow::{Context, Result};
use natter_protocol::{
    feed::MessageSent,
    ids::{ChatId, DeviceId, MediaId, MessageId, UserId},
    media::{Media, MediaKind},
    server::ContentType,
};
use natter_store::{
    Claim, DownloadRecord, Measures, NewMedia, Page, Row, RowKind, Store, Sweep, UnmadeThumbnail,
};
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::support::{message, persist, person, store, store_at};

const LONG: Duration = Duration::from_hours(1);
const MEASURES: Measures =
    Measures { size: 7, sha256: Some([0xab; 32]), seen: Some((3, 4)), thumbnail: true };

/// Somebody with a chat.
async fn scene() -> Result<(Store, UserId, ChatId)> {
    let store = store().await?;
    let ana = person(&store, "Ana").await?;
    let chat = store.create_group(ana, None, false, &[], 0).await?.chat;
    Ok((store, ana, chat))
}

async fn begun(store: &Store, uploader: UserId, chat: ChatId) -> Result<MediaId> {
    let id = MediaId::generate();
    let new = NewMedia { id, chat, uploader, name: "cat.png", media_type: "image/png", open: None };
    store.begin_media(&new).await?;
    Ok(id)
}

async fn whole(store: &Store, uploader: UserId, chat: ChatId) -> Result<MediaId> {
    let id = begun(store, uploader, chat).await?;
    store.finish_media(id, &MEASURES).await?.context("given up")?;
    Ok(id)
}

fn with_media(chat: ChatId, sender: UserId, seq: u64, client: &str, media: Box<Media>) -> Row {
    let mut row = message(chat, sender, seq, client, "look");
    if let RowKind::Message(sent) = &mut row.kind {
        *sent = MessageSent { media: Some(media), ..sent.clone() };
    }
    row
}

fn claimed(claim: Claim) -> Result<Box<Media>> {
    match claim {
        Claim::Claimed(media) => Ok(media),
        other => anyhow::bail!("{other:?}"),
    }
}

#[tokio::test]
async fn a_file_is_claimed_by_one_message_and_shown_with_it() -> Result<()> {
    let (store, ana, chat) = scene().await?;
    let id = begun(&store, ana, chat).await?;
    let wanted = MessageId::derive(chat, ana, "a");
    assert_eq!(store.claim_media(id, chat, ana, wanted).await?, Claim::None, "it is not whole");
    assert!(store.media_goes_on(id, Some("part 1")).await?);
    let media = store.finish_media(id, &MEASURES).await?.context("given up")?;
    assert_eq!(
        (media.kind, media.size, media.width, media.height),
        (MediaKind::Image, 7, Some(3), Some(4))
    );
    assert_eq!(media.sha256, Some("ab".repeat(32)));
    assert!(media.thumbnail && !store.media_goes_on(id, None).await?);

    let ben = person(&store, "Ben").await?;
    let other = store.create_group(ana, None, false, &[], 0).await?.chat;
    assert_eq!(store.claim_media(id, chat, ben, wanted).await?, Claim::None, "it is Ana's");
    assert_eq!(store.claim_media(id, other, ana, wanted).await?, Claim::None, "of another chat");
    let first = claimed(store.claim_media(id, chat, ana, wanted).await?)?;
    assert_eq!(*first, media);
    assert_eq!(claimed(store.claim_media(id, chat, ana, wanted).await?)?, first, "a retry");
    let again = whole(&store, ana, chat).await?;
    let retried = claimed(store.claim_media(again, chat, ana, wanted).await?)?;
    assert_eq!(retried.id, id, "a retry with another copy");
    let next = MessageId::derive(chat, ana, "b");
    assert_eq!(store.claim_media(id, chat, ana, next).await?, Claim::Taken);

    persist(&store, &[with_media(chat, ana, 1, "a", first)]).await?;
    let page = store.history(chat, Page { limit: 1, ..Page::default() }).await?;
    let shown = page.messages.first().context("no message")?;
    assert_eq!(shown.media.as_deref(), Some(&media));
    assert_eq!(
        (shown.content_type, shown.media_type),
        (ContentType::Media, Some(MediaKind::Image))
    );
    assert_eq!(shown.media_url, Some(format!("/v1/chats/{chat}/messages/{wanted}/media")));
    let listed = store.chats(ana, None, 10, None).await?.0;
    let last = listed.into_iter().find_map(|listed| listed.last_message).context("none")?;
    assert_eq!(last.media.as_deref(), Some(&media));
    let file = store.media_of(chat, wanted).await?.context("no file")?;
    assert!(file.media == media && !file.thumbnail);
    assert_eq!(store.media_of(other, wanted).await?, None);
    assert_eq!(store.media_sender(chat, wanted).await?, Some(ana));
    Ok(())
}

#[tokio::test]
async fn retries_at_once_claim_one_file() -> Result<()> {
    let (store, ana, chat) = scene().await?;
    let wanted = MessageId::derive(chat, ana, "a");
    let mut files = Vec::new();
    for _ in 0..8 {
        files.push(whole(&store, ana, chat).await?);
    }
    let claims = files.iter().map(|id| store.claim_media(*id, chat, ana, wanted));
    let mut ids = Vec::new();
    for claim in futures::future::try_join_all(claims).await? {
        ids.push(claimed(claim)?.id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    Ok(())
}

#[tokio::test]
async fn what_nobody_sends_is_removed_and_what_was_sent_stays() -> Result<()> {
    let (store, ana, chat) = scene().await?;
    let under_way = begun(&store, ana, chat).await?;
    store.media_goes_on(under_way, Some("its parts")).await?;
    let unsent = whole(&store, ana, chat).await?;
    let promised = whole(&store, ana, chat).await?;
    store.claim_media(promised, chat, ana, MessageId::derive(chat, ana, "never")).await?;
    let sent = whole(&store, ana, chat).await?;
    let media =
        claimed(store.claim_media(sent, chat, ana, MessageId::derive(chat, ana, "a")).await?)?;
    assert_eq!(store.mark_orphans(LONG, LONG, 100).await?, 0);
    // The shard is written up to a time before the promises: the log may have both messages.
    assert_eq!(
        store.mark_orphans(LONG, Duration::ZERO, 100).await?,
        1,
        "only what is not promised"
    );
    // Written until long after them (see `at`).
    persist(&store, &[with_media(chat, ana, 1, "a", media)]).await?;
    assert_eq!(store.mark_orphans(Duration::ZERO, Duration::ZERO, 100).await?, 2);
    let none: Option<Media> = store.finish_media(under_way, &MEASURES).await?;
    assert_eq!(none, None, "it was given up");

    let mut gone = store.take_gone(10, LONG, LONG).await?;
    gone.sort_by_key(|sweep| sweep.id);
    let sweep = |id, unfinished: Option<&str>| Sweep { id, unfinished: unfinished.map(Into::into) };
    let expected =
        [sweep(under_way, Some("its parts")), sweep(unsent, None), sweep(promised, None)];
    assert_eq!(gone, expected);
    assert_eq!(store.take_gone(10, LONG, LONG).await?, [], "somebody is about it");
    assert_eq!(
        store.take_gone(10, Duration::ZERO, LONG).await?.len(),
        3,
        "and does not come to an end"
    );
    store.forget_media(&[under_way, unsent, promised, sent]).await?;
    assert_eq!(store.take_gone(10, Duration::ZERO, LONG).await?, []);
    assert!(store.media_of(chat, MessageId::derive(chat, ana, "a")).await?.is_some());
    Ok(())
}

#[tokio::test]
async fn a_file_goes_with_its_message_and_with_its_chat() -> Result<()> {
    let database = crate::support::migrated().await?;
    let store = store_at(&database).await?;
    let mut admin = PgConnection::connect(&database).await?;
    let ana = person(&store, "Ana").await?;
    let chat = store.create_group(ana, None, false, &[], 0).await?.chat;
    let mut files = Vec::new();
    for (seq, client) in [(1, "a"), (2, "b"), (3, "c")] {
        let id = whole(&store, ana, chat).await?;
        let wanted = MessageId::derive(chat, ana, client);
        let media = claimed(store.claim_media(id, chat, ana, wanted).await?)?;
        persist(&store, &[with_media(chat, ana, seq, client, media)]).await?;
        files.push(id);
    }
    assert_eq!(store.mark_orphans(Duration::ZERO, Duration::ZERO, 100).await?, 0);
    for change in
        ["UPDATE messages SET media = NULL WHERE seq = 1", "DELETE FROM messages WHERE seq = 2"]
    {
        sqlx::raw_sql(change).execute(&mut admin).await?;
    }
    let mut gone: Vec<_> =
        store.take_gone(10, LONG, LONG).await?.into_iter().map(|it| it.id).collect();
    gone.sort();
    assert_eq!(gone, files[..2]);
    assert_eq!(store.media_of(chat, MessageId::derive(chat, ana, "a")).await?, None);
    sqlx::query("DELETE FROM chats WHERE id = $1").bind(chat.0).execute(&mut admin).await?;
    assert_eq!(store.mark_orphans(LONG, LONG, 100).await?, 1);
    let gone = store.take_gone(10, LONG, LONG).await?;
    assert_eq!(gone.into_iter().map(|it| it.id).collect::<Vec<_>>(), files[2..]);
    Ok(())
}

#[tokio::test]
async fn thumbnails_are_made_by_one_and_tried_a_few_times() -> Result<()> {
    let (store, ana, chat) = scene().await?;
    let id = whole(&store, ana, chat).await?;
    let unmade = Some(UnmadeThumbnail { id, size: 7 });
    assert_eq!(store.take_thumbnail(2, LONG).await?, unmade);
    assert_eq!(store.take_thumbnail(2, LONG).await?, None, "somebody is about it");
    assert_eq!(store.take_thumbnail(2, Duration::ZERO).await?, unmade);
    assert_eq!(store.take_thumbnail(2, Duration::ZERO).await?, None, "often enough");
    let id = whole(&store, ana, chat).await?;
    store.take_thumbnail(2, LONG).await?.context("none")?;
    store.thumbnail_made(id, true).await?;
    assert_eq!(store.take_thumbnail(2, Duration::ZERO).await?, None);
    let wanted = MessageId::derive(chat, ana, "a");
    store.claim_media(id, chat, ana, wanted).await?;
    assert!(store.media_of(chat, wanted).await?.context("no file")?.thumbnail);
    Ok(())
}

#[tokio::test]
async fn downloads_are_kept_once_and_listed_the_newest_first() -> Result<()> {
    let (store, ana, chat) = scene().await?;
    let wanted = MessageId::derive(chat, ana, "a");
    let record = |written| DownloadRecord {
        id: Uuid::now_v7(),
        media: MediaId::generate(),
        message: wanted,
        user: ana,
        device: DeviceId::generate(),
        at: OffsetDateTime::now_utc(),
        first_byte: 2,
        written,
    };
    let records: Vec<_> = [Some((5, false)), None, Some((7, true))].map(record).into();
    store.record_downloads(&records).await?;
    store.record_downloads(&records).await?;
    let (page, next) = store.downloads(wanted, None, 2).await?;
    let told: Vec<_> = page.iter().map(|download| (download.bytes, download.complete)).collect();
    assert_eq!(told, [(Some(7), Some(true)), (None, None)]);
    assert_eq!((page[0].user.name.as_str(), page[0].first_byte), ("Ana", 2));
    let (rest, end) = store.downloads(wanted, next, 2).await?;
    assert_eq!((rest.len(), rest[0].bytes, end), (1, Some(5), None));
    Ok(())
}
