//! The documents for app developers, and the page that shows them.

use anyhow::{Context, Result};
use reqwest::{StatusCode, header};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::Gateway;

#[tokio::test]
async fn documents_are_for_everybody_and_fetched_once() -> Result<()> {
    let gateway = Gateway::start(&[]).await?;
    for (path, kind) in [
        ("openapi.json", "application/json"),
        ("asyncapi.json", "application/json"),
        ("natter.d.ts", "text/plain; charset=utf-8"),
    ] {
        let url = format!("http://{}/v1/{path}", gateway.address);
        let first = gateway.client.get(&url).send().await?;
        assert_eq!(
            (first.status(), &first.headers()["content-type"]),
            (StatusCode::OK, &kind.parse()?)
        );
        assert_eq!(first.headers()[header::CACHE_CONTROL], "no-cache", "{path}");
        let tag = first.headers().get(header::ETAG).context("no ETag")?.clone();
        assert!(first.bytes().await?.len() > 10_000, "{path}");
        let again = gateway.client.get(&url).header(header::IF_NONE_MATCH, tag).send().await?;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path}");
        assert!(again.bytes().await?.is_empty(), "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn nothing_but_the_public_calls_is_answered_without_a_token() -> Result<()> {
    let gateway = Gateway::start(&[]).await?;
    let url = format!("http://{}/v1/openapi.json", gateway.address);
    let document: Value = gateway.client.get(url).send().await?.json().await?;
    let mut swept = 0;
    for (path, item) in document["paths"].as_object().context("no paths")? {
        for (method, operation) in item.as_object().context("no operations")? {
            if operation.get("security").is_some() {
                continue;
            }
            swept += 1;
            let path = path.trim_start_matches("/v1");
            let names = path.split('/').map(|part| match part {
                "{emoji}" => "👍".to_owned(),
                part if part.starts_with('{') => Uuid::now_v7().to_string(),
                part => part.to_owned(),
            });
            let path = names.collect::<Vec<_>>().join("/");
            let method = method.to_uppercase();
            for token in ["", "no token"] {
                // Who asks comes before what is asked: a body that is none changes nothing.
                let answer = gateway.call(&method, &path, token, json!({"a": 1})).await?;
                let asked = || format!("{method} {path} with {token:?}");
                if method == "HEAD" {
                    answer.expect(401).with_context(asked)?;
                } else {
                    answer.refused(401, "unauthenticated").with_context(asked)?;
                }
            }
        }
    }
    assert!(swept > 40, "{swept}");
    Ok(())
}

#[tokio::test]
async fn the_page_may_load_nothing_from_elsewhere() -> Result<()> {
    let gateway = Gateway::start(&[]).await?;
    for (path, kind) in [
        ("docs", "text/html; charset=utf-8"),
        ("docs/docs.css", "text/css; charset=utf-8"),
        ("docs/docs.js", "text/javascript; charset=utf-8"),
    ] {
        let url = format!("http://{}/v1/{path}", gateway.address);
        let response = gateway.client.get(&url).send().await?.error_for_status()?;
        assert_eq!(response.headers()[header::CONTENT_TYPE], kind);
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str()?;
        assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"), "{policy}");
        let text = response.text().await?;
        let elsewhere = ["src=\"http", "href=\"http", "url(", " style=", "<script>", "import("];
        for word in elsewhere {
            assert!(!text.contains(word), "{word} in {path}");
        }
    }
    Ok(())
}
