//! Services that answer anything at all.

use std::time::Duration;

use anyhow::Result;
use natter_e2e::push_services::Step;
use proptest::{prelude::*, test_runner::TestRunner};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    runtime::Runtime,
    time::timeout,
};

use crate::support::{ALL, accepted, notice, providers, stage};

/// JSON of the kind that providers speak, and other things.
fn body() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "[A-Z_]{0,20}",
        Just("UNREGISTERED".to_owned()),
        Just("BadDeviceToken".to_owned()),
        Just("ExpiredProviderToken".to_owned()),
        any::<String>().prop_map(|text| text.escape_unicode().to_string()),
    ];
    prop_oneof![
        any::<String>(),
        word.clone().prop_map(|word| format!(r#"{{"reason":{word:?}}}"#)),
        word.clone().prop_map(|word| format!(r#"{{"error":{word:?},"access_token":7}}"#)),
        word.prop_map(|word| format!(
            r#"{{"error":{{"status":{word:?},"details":[{{"errorCode":{word:?}}},7,null]}}}}"#
        )),
        Just(r#"{"error":{"details":{}}}"#.to_owned()),
        Just("[".repeat(10_000)),
        Just(r#"{"access_token":"a\nb","expires_in":18446744073709551615}"#.to_owned()),
    ]
}

#[test]
fn whatever_is_answered_has_an_outcome_of_one_short_line() -> Result<()> {
    let runtime = Runtime::new()?;
    let settings = [("NATTER_PUSH_FAILURES", "10000")];
    let (services, providers) = runtime.block_on(stage(&settings))?;
    let status = (200..600_u16).prop_filter("the body would be no body", |status| *status != 204);
    let answers = (status, body(), proptest::option::of("[ -~]{0,40}"));
    let mut runner = TestRunner::new(ProptestConfig { cases: 200, ..ProptestConfig::default() });
    runner.run(&answers, |(status, body, header)| {
        let headers = header.into_iter().map(|value| ("retry-after", value)).collect();
        let step = Step::Answer { status, headers, body };
        runtime.block_on(async {
            for provider in ALL {
                let failed = |error: anyhow::Error| TestCaseError::fail(error.to_string());
                let target = services.register(provider).map_err(failed)?;
                services.desk(provider).always(Some(step.clone()));
                services.fcm.revoke();
                services.fcm.oauth.next([step.clone()]);
                let outcome = providers.send(&target, &notice()).await;
                let answer = outcome.answer().as_str();
                prop_assert!(!answer.is_empty() && answer.chars().count() <= 200, "{answer:?}");
                prop_assert!(!answer.chars().any(char::is_control), "{answer:?}");
            }
            Ok(())
        })
    })?;
    for provider in ALL {
        services.desk(provider).always(None);
    }
    Ok(())
}

#[test]
fn what_is_no_http_is_a_failure_like_others() -> Result<()> {
    let runtime = Runtime::new()?;
    let services = runtime.block_on(natter_e2e::PushServices::start())?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let url = format!("http://{}", listener.local_addr()?);
    let mut env = services.env();
    for (name, value) in &mut env {
        if matches!(*name, "NATTER_PUSH_WEBHOOK_URL" | "NATTER_PUSH_APNS_URL") {
            value.clone_from(&url);
        }
    }
    env.push(("NATTER_PUSH_FAILURES", "10000".to_owned()));
    env.push(("NATTER_PUSH_DEADLINE_SECONDS", "2".to_owned()));
    let providers = providers(&env)?;
    let bytes = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        any::<Vec<u8>>().prop_map(|rest| [b"HTTP/1.1 200 OK\r\n".as_slice(), &rest].concat()),
        // A frame of HTTP/2, as long as it says, of any kind.
        any::<(u8, u8, u32)>().prop_map(|(kind, flags, stream)| {
            let stream = stream.to_be_bytes();
            [&[0, 0, 4, kind, flags], stream.as_slice(), &[0; 4]].concat()
        }),
    ];
    let mut runner = TestRunner::new(ProptestConfig { cases: 60, ..ProptestConfig::default() });
    runner.run(&bytes, |bytes| {
        runtime.block_on(async {
            let failed = |error: anyhow::Error| TestCaseError::fail(error.to_string());
            for target in [services.webhook.register(), services.apns.register(false)] {
                let notice = notice();
                let sending = providers.send(&target, &notice);
                let answering = async {
                    let (mut socket, _) = listener.accept().await?;
                    let _ = socket.read(&mut [0; 4096]).await?;
                    let _ = socket.write_all(&bytes).await;
                    anyhow::Ok(())
                };
                let both = async { tokio::join!(sending, answering) };
                let both = timeout(Duration::from_secs(10), both).await;
                let (outcome, answered) = both.map_err(|late| failed(late.into()))?;
                answered.map_err(failed)?;
                prop_assert!(!outcome.answer().as_str().is_empty());
            }
            Ok(())
        })
    })?;
    // Another of the four goes on as ever.
    runtime.block_on(async { accepted(&providers.send(&services.subscribe()?, &notice()).await) })
}
