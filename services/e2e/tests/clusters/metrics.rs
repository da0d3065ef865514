//! What nodes show of themselves: from their start, and as they work.

use anyhow::{Result, ensure};
use natter_cluster::{Cluster, Node};
use natter_e2e::{Person, metrics::value, soon};
use reqwest::StatusCode;
use serde_json::json;

/// Waits until a series has a value that will do.
async fn reaches(node: &Node, series: &str, least: f64) -> Result<()> {
    soon(&format!("{series} of {} is {least}", node.name()), async || {
        Ok(value(node, series).await?.filter(|now| *now >= least).map(drop))
    })
    .await
}

#[tokio::test]
async fn what_is_counted_is_there_from_the_start_and_grows() -> Result<()> {
    let cluster = Cluster::builder().gateways(2).start().await?;
    let (first, second, worker) = (cluster.gateway(0), cluster.gateway(1), cluster.worker(0));
    for series in [
        "natter_connections",
        "natter_frames_received_total",
        "natter_messages_sent_total",
        "natter_delivery_seconds_count",
        "natter_slow_consumers_total",
        "natter_follow_repairs_total",
        "natter_bus_disconnects_total",
        r#"natter_resumes_total{outcome="resumed"}"#,
        r#"natter_auth_failures_total{reason="password"}"#,
    ] {
        assert_eq!(value(first, series).await?, Some(0.0), "{series}");
    }
    assert_eq!(value(worker, "natter_dead_letters_total").await?, Some(0.0));
    reaches(worker, r#"natter_persistence_owner{shard="0"}"#, 1.0).await?;
    for series in ["natter_outbox_age_seconds", "natter_outbox_changes"] {
        reaches(worker, series, 0.0).await?;
    }
    for series in ["natter_queued_frames_max", "natter_publishes_in_flight"] {
        reaches(first, series, 0.0).await?;
    }

    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let phone = ben.device("phone").await?;
    let (anas, bens) = (ana.connect(0).await?, phone.connect(1).await?);
    anas.say(chat, "counted").await?;
    bens.hears(chat, "counted").await?;
    for (node, series) in [
        (first, "natter_connections"),
        (first, "natter_frames_received_total"),
        (first, "natter_messages_sent_total"),
        (first, "natter_publish_seconds_count"),
        (second, "natter_frames_sent_total"),
        (second, "natter_delivery_seconds_count"),
    ] {
        reaches(node, series, 1.0).await?;
    }
    let back = phone.resume(0, &bens.cursor()?).await?;
    back.expect("resume_done", |_| true).await?;
    reaches(first, r#"natter_resumes_total{outcome="resumed"}"#, 1.0).await?;

    let login = format!("http://{}/v1/auth/login", first.address());
    let wrong = json!({"phone": "+15550000000", "password": "not the right one"});
    let client = reqwest::Client::new();
    let answer = client.post(login).json(&wrong).send().await?;
    ensure!(answer.status() == StatusCode::UNAUTHORIZED, "{}", answer.status());
    let chats = client.get(format!("http://{}/v1/chats", first.address()));
    let answer = chats.bearer_auth("nonsense").send().await?;
    ensure!(answer.status() == StatusCode::UNAUTHORIZED, "{}", answer.status());
    for reason in ["password", "malformed"] {
        let series = format!(r#"natter_auth_failures_total{{reason="{reason}"}}"#);
        assert_eq!(value(first, &series).await?, Some(1.0), "{reason}");
    }
    Ok(())
}
