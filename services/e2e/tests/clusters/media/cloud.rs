//! The same with files in S3.

use anyhow::{Context, Result, ensure};
use natter_cluster::Cluster;
use natter_e2e::cloud::S3Server;
use natter_e2e::soon::{SOON, soon, within};
use natter_protocol::media::{UploadTicket, Uploaded};
use reqwest::{Client, Method, redirect::Policy};
use serde_json::json;
use tempfile::TempDir;

use super::{Pair, bytes, fetch, form, header, large::goes_up_and_down, path, picture};

/// A cluster whose files are in a store of its own.
struct Cloud {
    cluster: Cluster,
    server: S3Server,
    _folder: TempDir,
}

impl Cloud {
    async fn start(settings: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let server = S3Server::start(folder.path()).await?;
        let mut builder = Cluster::builder()
            .gateways(2)
            .env("NATTER_MEDIA_STORE", format!("{}/files", server.url()))
            .gateway_env("NATTER_ATTEMPTS_PER_ADDRESS", "0")
            .worker_env("NATTER_MEDIA_STALLED_SECONDS", "8")
            .worker_env("NATTER_MEDIA_UNSENT_SECONDS", "12")
            .worker_env("NATTER_MEDIA_LATE_SECONDS", "1");
        for (name, value) in server.options() {
            builder = builder.env(name, value);
        }
        for (name, value) in settings {
            builder = builder.gateway_env(*name, *value);
        }
        Ok(Self { cluster: builder.start().await?, server, _folder: folder })
    }
}

#[tokio::test]
async fn files_are_in_the_store_and_go_through_either_gateway() -> Result<()> {
    let cloud = Cloud::start(&[]).await?;
    let pair = Pair::of(&cloud.cluster).await?;
    let png = picture(400, 300)?;
    let sent = pair.sends("cat.png", png.clone()).await?.message.context("not sent")?;
    let path = path(pair.chat, sent.id);
    let whole = fetch(&pair.ben.api(1), &path, &[]).await?;
    assert_eq!(header(&whole, "content-type")?, "image/png");
    assert_eq!(bytes(whole, 200).await?, png);
    let part = fetch(&pair.ben.api(1), &path, &[("range", "bytes=-5")]).await?;
    assert_eq!(bytes(part, 206).await?, png[png.len() - 5..]);
    soon("the thumbnail", async || {
        let answer = fetch(&pair.ben.api(1), &format!("{path}/thumbnail"), &[]).await?;
        Ok((answer.status() == 200).then_some(()))
    })
    .await?;
    // In parts, of which none is kept in memory.
    goes_up_and_down(&cloud.cluster, 128).await?;
    Ok(())
}

#[tokio::test]
async fn large_files_go_past_the_gateways_and_are_looked_at() -> Result<()> {
    let cloud = Cloud::start(&[
        ("NATTER_MEDIA_SIGNED_BYTES", "1000"),
        ("NATTER_MEDIA_SIGNED_SECONDS", "15"),
    ])
    .await?;
    let pair = Pair::of(&cloud.cluster).await?;
    let (chat, png) = (pair.chat, picture(300, 200)?);
    let api = pair.ana.api(0);
    let draft = json!({"name": "../cat.png", "size": png.len()});
    let uploads = format!("/chats/{chat}/media/uploads");
    let ticket: UploadTicket = api.post(&uploads, draft).await?.read(201)?;
    let complete = format!("/chats/{chat}/media/{}/complete", ticket.media_id);
    api.post(&complete, json!({})).await?.refused(404, "not_found")?;
    let client = Client::builder().no_proxy().redirect(Policy::none()).build()?;
    let put = async |content: Vec<u8>| {
        let mut request = client.put(&ticket.url).body(content);
        for (name, value) in &ticket.headers {
            request = request.header(name, value);
        }
        let answer = request.send().await?;
        ensure!(answer.status().is_success(), "{answer:?}");
        Ok(())
    };
    put(png.clone()).await?;
    // It is Ana's.
    pair.ben.api(1).post(&complete, json!({})).await?.refused(404, "not_found")?;
    let sends = json!({"caption": "look", "clientMsgId": "a"});
    let Uploaded { media, message } =
        pair.ana.api(1).post(&complete, sends.clone()).await?.read(201)?;
    assert_eq!((media.name.as_str(), media.media_type.as_str()), ("cat.png", "image/png"));
    assert_eq!((media.size, media.width, media.sha256), (png.len() as u64, Some(300), None));
    // The URL still holds, and changes nothing any more.
    put(b"<script>alert(1)</script>".to_vec()).await?;
    let sent = message.context("not sent")?;
    let again: Uploaded = api.post(&complete, sends).await?.read(201)?;
    let again = again.message.context("not sent again")?;
    assert_eq!((again.id, again.duplicate), (sent.id, true));
    let path = path(chat, sent.id);
    let asked =
        client.request(Method::GET, format!("http://{}/v1{path}", pair.ben.api(1).gateway()));
    let answer = asked.bearer_auth(&pair.ben.first.access_token).send().await?;
    assert_eq!(answer.status(), 307);
    let signed = header(&answer, "location")?.to_owned();
    let from_store = client.get(&signed).send().await?;
    assert_eq!(header(&from_store, "content-type")?, "image/png");
    ensure!(header(&from_store, "content-disposition")?.starts_with("inline;"), "{from_store:?}");
    assert_eq!(bytes(from_store, 200).await?, png);
    let forged = signed.replace("%2Ffiles%2F", "%2Fother%2F").replace("/files/", "/other/");
    let forged = client.get(forged).send().await?;
    assert_eq!(forged.status(), 403);
    let told =
        soon("the download", async || Ok(pair.downloads(sent.id).await?.items.pop())).await?;
    assert_eq!((told.bytes, told.complete), (None, None));
    // A small one comes from the gateway.
    let small = form("a", "text/plain", b"small".to_vec())?.text("send", "true");
    let small: Uploaded = api.upload(chat, small).await?.read(201)?;
    let small = small.message.context("not sent")?;
    let small = fetch(&pair.ben.api(1), &super::path(chat, small.id), &[]).await?;
    assert_eq!(bytes(small, 200).await?, b"small");
    // What was not completed, and what came after it was, goes once nothing more can come.
    let ticket: UploadTicket =
        api.post(&uploads, json!({"name": "b", "size": 1})).await?.read(201)?;
    client.put(&ticket.url).body("x").send().await?.error_for_status()?;
    let incoming = || -> Result<usize> {
        Ok(cloud.server.kept()?.iter().filter(|name| name.contains("incoming/")).count())
    };
    assert_eq!(incoming()?, 2);
    within(SOON * 4, "nothing that came in", async || Ok((incoming()? == 0).then_some(()))).await?;
    bytes(fetch(&pair.ben.api(0), &path, &[]).await?, 200).await?;
    Ok(())
}
