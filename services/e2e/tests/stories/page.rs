//! The page: every file of it comes from each gateway as it is, and as what it is.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use natter_e2e::api::client;
use reqwest::{Response, StatusCode, header};

use crate::STAGE;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/page");

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
