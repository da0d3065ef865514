//! The documents for app developers, and the page that shows them.

use anyhow::{Context, Result};
use reqwest::{StatusCode, header};

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
