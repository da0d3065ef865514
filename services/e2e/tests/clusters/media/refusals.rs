//! What is not taken, and what is taken but not trusted.

use anyhow::{Context, Result, ensure};
use natter_e2e::Person;
use natter_protocol::{media::Uploaded, server::Sent};
use reqwest::{Method, multipart::Form};
use serde_json::json;
use uuid::Uuid;

use super::{Pair, STAGE, bytes, fetch, form, header, path, picture};

#[tokio::test]
async fn what_cannot_be_taken_is_refused_in_words() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let pair = Pair::of(&cluster).await?;
    let api = pair.ana.api(0);
    let file = |bytes: &[u8]| form("x", "image/png", bytes.to_vec());
    let refused = async |form: Form, status: u16, code: &str| {
        api.upload(pair.chat, form).await?.refused(status, code).context(code.to_owned())
    };
    refused(file(b"")?, 400, "bad_request").await?;
    refused(Form::new(), 400, "bad_request").await?;
    refused(Form::new().text("caption", "no file"), 400, "bad_request").await?;
    refused(
        file(b"a")?.part("file", reqwest::multipart::Part::bytes(b"b".to_vec())),
        400,
        "bad_request",
    )
    .await?;
    refused(file(b"a")?.text("colour", "red"), 400, "bad_request").await?;
    refused(file(b"a")?.text("replyTo", "nobody"), 400, "bad_request").await?;
    refused(file(b"a")?.text("caption", "x".repeat(100_000)), 413, "too_large").await?;
    refused(file(b"a")?.text("caption", "a\0b"), 400, "bad_request").await?;
    let mut large = picture(8, 8)?;
    large.resize(1_000_001, 0);
    refused(file(&large)?, 413, "too_large").await?;
    large.resize(1_000_000, 0);
    api.upload(pair.chat, file(&large)?).await?.expect(201)?;
    // Sound is switched off here; a program is refused by default, whatever it is called.
    refused(file(b"ID3\x03\x00\x00\x00\x00\x00\x00some song")?, 415, "unsupported_media").await?;
    let mut program = vec![0; 400];
    program[..4].copy_from_slice(b"\x7fELF");
    program[4..8].copy_from_slice(&[2, 1, 1, 0]);
    refused(file(&program)?, 415, "unsupported_media").await?;
    let json = api.post(&format!("/chats/{}/media", pair.chat), json!({})).await?;
    json.refused(415, "unsupported_media")?;
    let eve = Person::register(&cluster, "Eve").await?;
    eve.api(1).upload(pair.chat, file(b"a")?).await?.refused(403, "not_member")?;
    let nowhere = Uuid::now_v7().into();
    api.upload(nowhere, file(b"a")?).await?.refused(403, "not_member")?;
    let uploads = format!("/chats/{}/media/uploads", pair.chat);
    let draft = json!({"name": "a", "size": 1});
    api.post(&uploads, draft).await?.refused(404, "not_found")?;
    Ok(())
}

#[tokio::test]
async fn a_form_without_an_end_is_not_gathered() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let pair = Pair::of(&cluster).await?;
    let path = format!("/chats/{}/media", pair.chat);
    for (kind, body) in [
        ("multipart/form-data; boundary=x", "no boundary comes"),
        ("multipart/form-data; boundary=x", "--x\r\na: "),
        ("multipart/form-data; boundary=x", "--x\r\ncontent-disposition: form-data; name=\""),
    ] {
        let body = [body.as_bytes(), &vec![b'a'; 1_500_000]].concat();
        let request = pair.ana.api(0).request(Method::POST, &path).header("content-type", kind);
        let answer = request.body(body).send().await?;
        assert_eq!(answer.status(), 400, "{answer:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_file_is_sent_once_by_whom_it_is() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let pair = Pair::of(&cluster).await?;
    let (anas, bens) = (pair.ana.connect(0).await?, pair.ben.connect(1).await?);
    let form = form("a.png", "image/png", picture(8, 8)?)?;
    let Uploaded { media, .. } = pair.ana.api(1).upload(pair.chat, form).await?.read(201)?;
    let data = |id: &str| json!({"chatId": pair.chat, "mediaId": media.id, "clientMsgId": id});
    let stolen = bens.refused("send_message", data("b")).await?;
    assert_eq!(stolen.code.as_str(), "not_found");
    let unknown = json!({"chatId": pair.chat, "mediaId": Uuid::now_v7()});
    assert_eq!(anas.refused("send_message", unknown).await?.code.as_str(), "not_found");
    let nothing = json!({"chatId": pair.chat});
    assert_eq!(anas.refused("send_message", nothing).await?.code.as_str(), "bad_request");
    let elsewhere = pair.ana.api(0).group("Elsewhere", &[]).await?.id;
    let other = json!({"chatId": elsewhere, "mediaId": media.id});
    assert_eq!(anas.refused("send_message", other).await?.code.as_str(), "not_found");
    let first: Sent = serde_json::from_value(anas.request("send_message", data("a")).await?)?;
    let again: Sent = serde_json::from_value(anas.request("send_message", data("a")).await?)?;
    assert_eq!((again.id, again.duplicate), (first.id, true));
    assert_eq!(anas.refused("send_message", data("c")).await?.code.as_str(), "conflict");
    Ok(())
}

#[tokio::test]
async fn what_a_file_claims_to_be_is_not_believed() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let pair = Pair::of(&cluster).await?;
    let script = "<script>alert(document.cookie)</script>";
    let svg = format!("<svg xmlns=\"http://www.w3.org/2000/svg\">{script}</svg>");
    let html = format!("<!-- x -->\n<!doctype html><html>{script}</html>");
    let mut gif = b"GIF89a/*\x01\x00\x01\x00".to_vec();
    gif.extend_from_slice(format!("*/=1;{script}").as_bytes());
    let pdf = format!("%PDF-1.4\n{script}");
    // What it holds, what it is served as, and whether it is shown in place.
    for (name, content, media_type, inline) in [
        ("drawing.png", svg.into_bytes(), "image/svg+xml", false),
        ("photo.jpg", html.into_bytes(), "text/html", false),
        ("both.gif", gif, "image/gif", true),
        ("paper.png", pdf.into_bytes(), "application/pdf", false),
        ("letters.html", b"only text".to_vec(), "text/plain", false),
        ("bytes.mp4", vec![0x93; 300], "application/octet-stream", false),
    ] {
        let uploaded = pair.sends(name, content.clone()).await.context(name)?;
        let sent = uploaded.message.context("not sent")?;
        assert_eq!(uploaded.media.media_type, media_type, "{name}");
        let answer = fetch(&pair.ben.api(1), &path(pair.chat, sent.id), &[]).await?;
        assert_eq!(header(&answer, "content-type")?, media_type);
        let shown = header(&answer, "content-disposition")?.starts_with("inline;");
        assert_eq!(shown, inline, "{name}");
        assert_eq!(header(&answer, "x-content-type-options")?, "nosniff");
        let policy = header(&answer, "content-security-policy")?;
        ensure!(policy.contains("default-src 'none'") && policy.contains("sandbox"), "{policy}");
        assert_eq!(bytes(answer, 200).await?, content, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_name_leads_nowhere() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let pair = Pair::of(&cluster).await?;
    for (name, safe) in [
        ("../../../etc/passwd", "passwd"),
        ("..\\..\\windows\\system.ini", "system.ini"),
        ("/", "file"),
        ("..", "file"),
        (".hidden", "hidden"),
        ("a\u{202e}gnp.exe", "agnp.exe"),
    ] {
        let uploaded = pair.sends(name, b"text".to_vec()).await.context(name)?;
        assert_eq!(uploaded.media.name, safe, "{name:?}");
    }
    ensure!(!cluster.data_dir().join("etc").exists(), "a folder was made");
    Ok(())
}
