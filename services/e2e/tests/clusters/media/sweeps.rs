//! What was not brought to its end leaves nothing behind, and what was sent stays.

use anyhow::{Context, Result, ensure};
use natter_e2e::{
    Stage,
    soon::{SOON, soon, within},
};
use natter_protocol::{ids::ChatId, media::Uploaded};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{Pair, bytes, fetch, form, kept, path, picture};

/// Files that are not sent are removed soon.
static FORGETFUL: Stage = Stage::with(|builder| {
    builder
        .worker_env("NATTER_MEDIA_STALLED_SECONDS", "8")
        .worker_env("NATTER_MEDIA_UNSENT_SECONDS", "1")
        // Not brought to an end by time.
        .gateway_env("NATTER_DRAIN_SECONDS", "2")
});

/// An upload of which only this much comes.
async fn half(pair: &Pair, gateway: usize, bytes: usize) -> Result<TcpStream> {
    let api = pair.ana.api(gateway);
    let mut socket = TcpStream::connect(api.gateway()).await?;
    let head = "--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
    let request = format!(
        "POST /v1/chats/{}/media HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\
         content-type: multipart/form-data; boundary=x\r\ncontent-length: 100000000\r\n\r\n{head}",
        pair.chat, pair.ana.first.access_token
    );
    socket.write_all(request.as_bytes()).await?;
    socket.write_all(&vec![b'a'; bytes]).await?;
    Ok(socket)
}

#[tokio::test]
async fn a_broken_off_upload_leaves_nothing() -> Result<()> {
    let cluster = FORGETFUL.alone().await?;
    let pair = Pair::of(&cluster).await?;
    let sent = pair.sends("kept", b"kept".to_vec()).await?.message.context("not sent")?;
    let before = kept(&cluster)?;
    // The client goes.
    let client = half(&pair, 0, 20_000_000).await?;
    soon("some of it", async || Ok((kept(&cluster)?.len() > before.len()).then_some(()))).await?;
    drop(client);
    soon("nothing of it", async || Ok((kept(&cluster)? == before).then_some(()))).await?;
    // The gateway goes, and says nothing.
    let _client = half(&pair, 1, 20_000_000).await?;
    soon("some of it", async || Ok((kept(&cluster)?.len() > before.len()).then_some(()))).await?;
    cluster.gateway(1).kill().await?;
    ensure!(kept(&cluster)?.len() > before.len(), "nothing was left to be swept");
    within(SOON * 2, "nothing of it", async || Ok((kept(&cluster)? == before).then_some(())))
        .await?;
    let file = fetch(&pair.ben.api(0), &path(pair.chat, sent.id), &[]).await?;
    assert_eq!(bytes(file, 200).await?, b"kept");
    Ok(())
}

#[tokio::test]
async fn a_file_that_nobody_sends_is_removed() -> Result<()> {
    let cluster = FORGETFUL.alone().await?;
    let pair = Pair::of(&cluster).await?;
    let sent = pair.sends("a.png", picture(20, 20)?).await?.message.context("not sent")?;
    let thumbnail = format!("{}/thumbnail", path(pair.chat, sent.id));
    soon("the thumbnail", async || {
        let answer = fetch(&pair.ana.api(0), &thumbnail, &[]).await?;
        Ok((answer.status() == 200).then_some(()))
    })
    .await?;
    let before = kept(&cluster)?;
    let unsent = form("b.png", "image/png", picture(30, 30)?)?;
    let Uploaded { media, .. } = pair.ana.api(0).upload(pair.chat, unsent).await?.read(201)?;
    let message = serde_json::json!({"mediaId": media.id});
    soon("nothing of it", async || Ok((kept(&cluster)? == before).then_some(()))).await?;
    let late = pair.ana.api(1).post(&messages(pair.chat), message).await?;
    late.refused(404, "not_found")?;
    bytes(fetch(&pair.ben.api(0), &path(pair.chat, sent.id), &[]).await?, 200).await?;
    Ok(())
}

fn messages(chat: ChatId) -> String {
    format!("/chats/{chat}/messages")
}
