//! A picture's way, and what becomes of those who fetch it.

use anyhow::{Context, Result, ensure};
use natter_e2e::{Person, soon::soon};
use natter_protocol::{
    media::{MediaKind, Uploaded},
    server::{ContentType, Message, Sent},
};
use reqwest::Method;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Pair, STAGE, bytes, fetch, form, header, path, picture};

#[tokio::test]
async fn a_picture_goes_from_one_gateway_to_the_other() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let pair = Pair::of(&cluster).await?;
    let (ana, ben, chat) = (&pair.ana, &pair.ben, pair.chat);
    let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    let png = picture(640, 480)?;
    let form = form("../cats/Mein Kätzchen.png", "text/plain", png.clone())?;
    let uploaded: Uploaded = ana.api(0).upload(chat, form).await?.read(201)?;
    let media = uploaded.media;
    assert_eq!(
        (media.name.as_str(), media.media_type.as_str()),
        ("Mein Kätzchen.png", "image/png")
    );
    assert_eq!((media.kind, media.width, media.height), (MediaKind::Image, Some(640), Some(480)));
    let hash = format!("{:x}", Sha256::digest(&png));
    assert_eq!((media.size, media.sha256.as_ref()), (png.len() as u64, Some(&hash)));
    assert!(uploaded.message.is_none() && media.thumbnail);

    let data = json!({"chatId": chat, "mediaId": media.id});
    let sent: Sent = serde_json::from_value(anas.request("send_message", data).await?)?;
    let heard: Message =
        bens.expect_as("message", |message: &Message| message.id == sent.id).await?;
    assert_eq!((heard.content_type, heard.content.as_str()), (ContentType::Media, ""));
    assert_eq!((heard.media.as_deref(), heard.media_type), (Some(&media), Some(MediaKind::Image)));
    let path = path(chat, sent.id);
    assert_eq!(heard.media_url.as_deref(), Some(format!("/v1{path}").as_str()));
    let page = ben.api(1).history(chat, "limit=1").await?;
    assert_eq!(page.messages.last().and_then(|last| last.media.as_deref()), Some(&media));

    let whole = fetch(&ben.api(1), &path, &[]).await?;
    assert_eq!(header(&whole, "content-type")?, "image/png");
    assert_eq!(
        header(&whole, "content-disposition")?,
        "inline; filename=\"Mein K_tzchen.png\"; filename*=UTF-8''Mein%20K%C3%A4tzchen.png"
    );
    assert_eq!(header(&whole, "x-content-type-options")?, "nosniff");
    assert_eq!(header(&whole, "accept-ranges")?, "bytes");
    ensure!(header(&whole, "content-security-policy")?.contains("sandbox"), "{whole:?}");
    let tag = header(&whole, "etag")?.to_owned();
    assert_eq!(bytes(whole, 200).await?, png);

    let head = ben.api(1).request(Method::HEAD, &path).send().await?;
    assert_eq!(header(&head, "content-length")?, png.len().to_string());
    assert_eq!(bytes(head, 200).await?, [0; 0]);
    let head = ben.api(1).request(Method::HEAD, &path).header("range", "bytes=1-2").send().await?;
    assert_eq!(head.status(), 200);
    let part = fetch(&ben.api(0), &path, &[("range", "bytes=10-19"), ("if-range", &tag)]).await?;
    assert_eq!(header(&part, "content-range")?, format!("bytes 10-19/{}", png.len()));
    assert_eq!(bytes(part, 206).await?, png[10..20]);
    let stale = [("range", "bytes=10-19"), ("if-range", "\"another\"")];
    assert_eq!(bytes(fetch(&ben.api(0), &path, &stale).await?, 200).await?, png);
    let nowhere = fetch(&ben.api(0), &path, &[("range", "bytes=99999999-")]).await?;
    assert_eq!(header(&nowhere, "content-range")?, format!("bytes */{}", png.len()));
    assert_eq!(nowhere.status(), 416);
    assert_eq!(fetch(&ben.api(0), &path, &[("if-none-match", &tag)]).await?.status(), 304);
    let saved = fetch(&ben.api(0), &format!("{path}?download=true"), &[]).await?;
    ensure!(header(&saved, "content-disposition")?.starts_with("attachment;"), "{saved:?}");
    bytes(saved, 200).await?;

    let small = soon("the thumbnail", async || {
        let answer = fetch(&ben.api(1), &format!("{path}/thumbnail"), &[]).await?;
        ensure!([200, 404].contains(&answer.status().as_u16()), "{answer:?}");
        Ok((answer.status() == 200).then_some(answer))
    })
    .await?;
    ensure!(header(&small, "content-type")?.starts_with("image/"), "{small:?}");
    let small = image::load_from_memory(&bytes(small, 200).await?)?;
    assert_eq!((small.width(), small.height()), (320, 240));

    // Four answers had bytes in them: neither HEAD nor what was not modified, nor a thumbnail.
    let told = soon("four downloads", async || {
        let page = pair.downloads(sent.id).await?;
        Ok((page.items.len() >= 4).then_some(page.items))
    })
    .await?;
    let told: Vec<_> = told.iter().rev().map(|it| (it.first_byte, it.bytes, it.complete)).collect();
    let all = (0, Some(png.len() as u64), Some(true));
    assert_eq!(told, [all, (10, Some(10), Some(false)), all, all]);
    Ok(())
}

#[tokio::test]
async fn only_those_who_take_part_fetch_it_and_only_some_see_who_did() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let [ana, ben, eve] = ["Ana", "Ben", "Eve"];
    let ana = Person::register(&cluster, ana).await?;
    let ben = Person::register(&cluster, ben).await?;
    let eve = Person::register(&cluster, eve).await?;
    // Ben made it and manages it; Ana sends.
    let chat = ben.api(0).group("Pictures", &[&ana]).await?.id;
    let form = form("a.png", "image/png", picture(8, 8)?)?.text("send", "true");
    let uploaded: Uploaded = ana.api(0).upload(chat, form).await?.read(201)?;
    let sent = uploaded.message.context("not sent")?;
    let path = path(chat, sent.id);
    bytes(fetch(&ben.api(1), &path, &[]).await?, 200).await?;
    eve.api(1).get(&path).await?.refused(403, "not_member")?;
    eve.api(1).get(&format!("{path}/thumbnail")).await?.refused(403, "not_member")?;
    let anonymous = natter_e2e::person::anonymous(&cluster, 1)?;
    anonymous.get(&path).await?.refused(401, "unauthenticated")?;
    let downloads = format!("/chats/{chat}/messages/{}/downloads", sent.id);
    eve.api(1).get(&downloads).await?.refused(403, "not_member")?;
    for reader in [&ana, &ben] {
        soon("the download", async || {
            let told = reader.api(1).get(&downloads).await?.expect(200)?;
            Ok((told["items"][0]["user"]["name"] == "Ben").then_some(()))
        })
        .await?;
    }
    let carol = Person::register(&cluster, "Carol").await?;
    let other = ana.api(0).group("Others", &[&carol]).await?.id;
    let form = super::form("b.png", "image/png", picture(8, 8)?)?.text("send", "true");
    let uploaded: Uploaded = carol.api(0).upload(other, form).await?.read(201)?;
    let of_carol = uploaded.message.context("not sent")?.id;
    // The message of another chat, under a chat that one takes part in.
    carol.api(0).get(&super::path(other, sent.id)).await?.refused(404, "not_found")?;
    let theirs = format!("/chats/{other}/messages/{of_carol}/downloads");
    ana.api(0).get(&theirs).await?.expect(200)?;
    // Whoever leaves has seen the last of it.
    ana.api(0).post(&format!("/chats/{chat}/leave"), json!({})).await?.expect(200)?;
    ana.api(1).get(&path).await?.refused(403, "not_member")?;
    Ok(())
}

#[tokio::test]
async fn a_retry_of_one_step_is_one_message_with_one_file() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let pair = Pair::of(&cluster).await?;
    let bens = pair.ben.connect(1).await?;
    let (mut first, mut retried) = (None, Vec::new());
    for gateway in [0, 1, 0] {
        let form = form("a.png", "image/png", picture(9, 9)?)?
            .text("caption", "look")
            .text("clientMsgId", "once");
        let api = pair.ana.api(gateway);
        let Uploaded { media, message } = api.upload(pair.chat, form).await?.read(201)?;
        let message = message.context("not sent")?;
        let (id, seq, media_id) = *first.get_or_insert((message.id, message.seq, media.id));
        assert_eq!((message.id, message.seq, media.id), (id, seq, media_id));
        retried.push(message.duplicate);
    }
    assert_eq!(retried, [false, true, true]);
    pair.ana.api(0).say(pair.chat, "the end").await?;
    bens.hears(pair.chat, "the end").await?;
    assert_eq!(bens.events("message").len(), 2);
    Ok(())
}

#[tokio::test]
async fn what_was_fetched_is_recorded_though_the_gateway_ends_at_once() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let pair = Pair::of(&cluster).await?;
    let sent = pair.sends("a.png", picture(9, 9)?).await?.message.context("not sent")?;
    let path = path(pair.chat, sent.id);
    for _ in 0..30 {
        bytes(fetch(&pair.ben.api(0), &path, &[]).await?, 200).await?;
    }
    let status = cluster.gateway(0).terminate().await?;
    ensure!(status.is_some_and(|status| status.success()), "{status:?}");
    assert_eq!(pair.downloads(sent.id).await?.items.len(), 30);
    Ok(())
}
