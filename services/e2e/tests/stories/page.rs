//! The page: every file of it comes from each gateway as it is, and as what it is.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use natter_cluster::{
    install::{self, Tool},
    progress::Progress,
};
use natter_e2e::{Person, api::client};
use reqwest::{Method, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::stories::STAGE;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/page");
const FOLD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/page.mjs");

fn content_type(name: &str) -> Result<&'static str> {
    Ok(match Path::new(name).extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        other => anyhow::bail!("a file of the page that ends in {other:?}"),
    })
}

fn header<'a>(response: &'a Response, name: &str) -> Result<&'a str> {
    let value = response.headers().get(name).with_context(|| format!("no {name}"))?;
    Ok(value.to_str()?)
}

#[tokio::test]
async fn every_file_is_served_and_nothing_else_may_be_loaded() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let client = client()?;
    let mut names = Vec::new();
    for entry in fs::read_dir(PAGE)? {
        names.push(entry?.file_name().into_string().ok().context("a strange name")?);
    }
    ensure!(names.iter().any(|name| name == "index.html") && names.len() > 5, "{names:?}");
    for gateway in cluster.gateways() {
        for name in &names {
            let path = if name == "index.html" { "" } else { name.as_str() };
            let response =
                client.get(format!("http://{}/{path}", gateway.address())).send().await?;
            ensure!(response.status() == StatusCode::OK, "{name}: {}", response.status());
            assert_eq!(header(&response, "content-type")?, content_type(name)?, "{name}");
            assert_eq!(header(&response, "x-content-type-options")?, "nosniff", "{name}");
            assert_eq!(header(&response, "referrer-policy")?, "no-referrer", "{name}");
            let policy = header(&response, header::CONTENT_SECURITY_POLICY.as_str())?.to_owned();
            for part in [
                "default-src 'none'",
                "script-src 'self'",
                "connect-src 'self'",
                "img-src 'self' data: blob:",
                "media-src blob:",
                "form-action 'none'",
                "frame-ancestors 'none'",
            ] {
                ensure!(policy.split("; ").any(|told| told == part), "{name}: {policy}");
            }
            ensure!(!policy.contains("unsafe"), "{name}: {policy}");
            ensure!(policy.matches("blob:").count() == 2, "{name}: {policy}");
            let text = response.text().await?;
            ensure!(text == fs::read_to_string(Path::new(PAGE).join(name))?, "{name} is another");
        }
    }
    Ok(())
}

/// What the page's own modules make of this, in Node.js.
async fn folded(input: Value) -> Result<Value> {
    spawn_blocking(move || {
        install::ensure(&[Tool::NodeJs], Progress::Lines)?;
        let node = install::node_js().context("Node.js is not installed")?.node;
        // Beside them Node.js has to be told what a browser knows: that they are modules.
        let there = tempfile::tempdir()?;
        for entry in fs::read_dir(PAGE)? {
            let entry = entry?;
            fs::copy(entry.path(), there.path().join(entry.file_name()))?;
        }
        fs::write(there.path().join("package.json"), r#"{"type": "module"}"#)?;
        let mut fold = Command::new(node)
            .arg(FOLD)
            .arg(there.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        fold.stdin.take().context("no input")?.write_all(input.to_string().as_bytes())?;
        let output = fold.wait_with_output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    })
    .await?
}

#[tokio::test]
async fn what_the_page_hears_live_becomes_what_history_shows() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let (at_ana, at_ben) = (ana.api(0), ben.api(1));
    let chat = at_ana.group("Group", &[&ben]).await?.id;
    let heard = ben.connect(1).await?;
    let before = at_ben.history(chat, "").await?.to_seq;

    let send = async |by: &natter_e2e::Api, message: Value| -> Result<Value> {
        by.post(&format!("/chats/{chat}/messages"), message).await?.expect(201)
    };
    let of = |sent: &Value, more: &str| {
        format!("/chats/{chat}/messages/{}{more}", sent["id"].as_str().unwrap_or_default())
    };
    let first = send(&at_ana, json!({"content": "helo @Ben", "mentions": [ben.id]})).await?;
    let second = send(&at_ana, json!({"content": "soon gone"})).await?;
    send(&at_ben, json!({"content": "an answer", "replyTo": first["id"]})).await?;
    send(&at_ana, json!({"content": "another", "replyTo": second["id"]})).await?;
    let reaction = of(&first, "/reactions/%F0%9F%91%8D");
    for (api, method) in [
        (&at_ana, Method::PUT),
        (&at_ben, Method::PUT),
        (&at_ana, Method::DELETE),
        (&at_ana, Method::PUT),
    ] {
        let answer = api.request(method, &reaction).send().await?;
        ensure!(answer.status() == StatusCode::OK, "{answer:?}");
    }
    let edit = json!({"content": format!("hello {}", "long ".repeat(40))});
    at_ana.patch(&of(&first, ""), edit).await?.expect(200)?;
    at_ana.delete(&of(&second, "")).await?.expect(200)?;
    let last = send(&at_ana, json!({"content": "the end"})).await?;
    heard.expect("message", |data| data["seq"] == last["seq"]).await?;

    let mut frames = Vec::new();
    for event in ["message", "message_edited", "message_deleted", "reaction"] {
        let events = heard.events(event).into_iter().filter(|data| data["chatId"] == json!(chat));
        frames.extend(events.map(|data| json!({"event": event, "data": data})));
    }
    let shown = at_ben.history(chat, &format!("after={before}")).await?;
    ensure!(frames.len() == 5 + 6 && shown.messages.len() == 5, "{frames:?} {shown:?}");
    let told = folded(json!({"me": ben.id, "frames": frames, "shown": shown.messages})).await?;
    assert_eq!(told["live"], told["later"]);
    // And what is missing in between is noticed.
    assert_eq!((&told["gap"], &told["whole"]), (&json!(true), &json!(false)));
    Ok(())
}
