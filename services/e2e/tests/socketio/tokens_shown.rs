//! How a client shows its token, and what it is told when that is no good.

use anyhow::{Context, Result, ensure};
use natter_e2e::{Mode, api::client, peers::Dial, peers::Language, tokens};
use reqwest::{Method, header};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::socketio::{CLIENTS, PAGE, STAGE, Scenery, text};

#[tokio::test]
async fn a_token_that_is_no_good_is_refused_in_words_and_with_a_code() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    for (language, mode) in CLIENTS {
        let scenery = Scenery::new(&cluster, language).await?;
        let claims = tokens::claims(&scenery.ana.first.access_token)?;
        let past = (OffsetDateTime::now_utc() - Duration::HOUR).unix_timestamp();
        let expired = tokens::altered(&claims, "exp", json!(past));
        let secret = cluster.jwt_secret().as_bytes();
        let no_good =
            ["x".to_owned(), tokens::strangers(&claims)?, tokens::shared_secret(secret, &expired)?];
        let url = scenery.balancer.url();
        let mut dials: Vec<Dial> =
            no_good.iter().map(|token| Dial::new(&url, token, mode)).collect();
        dials.push(Dial::without_token(&url, mode));
        for dial in dials {
            let peer = scenery.peers.dial("Ana", &dial).await?;
            let error = peer.expect("connect_error", |_| true).await?;
            ensure!(!text(&error, "message")?.is_empty(), "{dial:?}: {error}");
            ensure!(error["data"]["code"] == "unauthenticated", "{dial:?}: {error}");
            if language == Language::JavaScript {
                // It does not try again with the same by itself, but the same client may with another.
                ensure!(error["active"] == false, "{dial:?}: {error}");
                peer.set_token(&scenery.ana.first.access_token).await?;
                peer.reconnect().await?;
                peer.connected().await?;
                peer.expect("ready", |data| data["userId"] == json!(scenery.ana.id)).await?;
                peer.disconnect().await?;
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_token_may_be_in_the_header_and_there_is_one_namespace() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let scenery = Scenery::new(&cluster, Language::JavaScript).await?;
    let token = &scenery.ana.first.access_token;
    for mode in Mode::ALL {
        let headers = json!({"authorization": format!("Bearer {token}")});
        let dial =
            Dial::without_token(&scenery.balancer.url(), mode).option("extraHeaders", headers);
        let peer = scenery.peers.connect("Ana", &dial).await?;
        peer.disconnect().await?;
        let other = format!("{}/other", scenery.balancer.url());
        let peer = scenery.peers.dial("elsewhere", &Dial::new(&other, token, mode)).await?;
        let error = peer.expect("connect_error", |_| true).await?;
        ensure!(error["message"] == "Invalid namespace", "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn who_stays_longer_than_the_token_is_told_and_may_renew_it_before() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let scenery = Scenery::new(&cluster, Language::JavaScript).await?;
    let claims = tokens::claims(&scenery.ana.first.access_token)?;
    let soon = (OffsetDateTime::now_utc() + Duration::seconds(8)).unix_timestamp();
    let short = tokens::altered(&claims, "exp", json!(soon));
    let short = tokens::shared_secret(cluster.jwt_secret().as_bytes(), &short)?;
    let dial = |mode| Dial::new(&scenery.balancer.url(), &short, mode);
    let renewing = scenery.peers.connect("renewing", &dial(Mode::Upgrade)).await?;
    let staying = scenery.peers.connect("staying", &dial(Mode::WebSocket)).await?;
    let renewal = json!({"token": scenery.ana.first.access_token});
    let answer = renewing.request("authenticate", renewal).await?;
    ensure!(answer["expiresAt"].is_string(), "{answer}");
    staying.expect("closing", |data| data["code"] == 4401).await?;
    staying.disconnected().await?;
    // It comes back by itself, with the token that it has.
    staying.expect("connect_error", |data| data["data"]["code"] == "unauthenticated").await?;
    scenery.ben.api(0).say(scenery.chat, "still there?").await?;
    renewing.hears(scenery.chat, "still there?").await?;
    Ok(())
}

#[tokio::test]
async fn pages_of_the_origins_that_are_named_may_call_from_elsewhere() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let url = format!("http://{}/socket.io/?EIO=4&transport=polling", cluster.gateway(0).address());
    let asks = async |method: Method, origin: &str| {
        let mut request = client()?.request(method.clone(), &url).header(header::ORIGIN, origin);
        if method == Method::OPTIONS {
            request = request
                .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
                .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "content-type,authorization");
        }
        let response = request.send().await?;
        let headers = response.headers().clone();
        let body = response.text().await?;
        anyhow::Ok((headers, body))
    };
    for method in [Method::GET, Method::OPTIONS] {
        let (headers, body) = asks(method.clone(), PAGE).await?;
        let allowed = headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        let allowed = allowed.with_context(|| format!("{method}: {headers:?}"))?;
        ensure!(allowed == PAGE, "{method}: {headers:?}");
        ensure!(method == Method::OPTIONS || body.starts_with("0{"), "{body}");
        let (headers, _) = asks(method, "https://elsewhere.example.com").await?;
        ensure!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN), "{headers:?}");
    }
    let (headers, _) = asks(Method::OPTIONS, PAGE).await?;
    for name in [header::ACCESS_CONTROL_ALLOW_METHODS, header::ACCESS_CONTROL_ALLOW_HEADERS] {
        ensure!(headers.contains_key(&name), "no {name}: {headers:?}");
    }
    Ok(())
}
