//! Whatever people write, and whatever chats are called, fits and arrives.

use anyhow::{Result, ensure};
use natter_protocol::push::Target;
use natter_push::providers::Notice;
use proptest::{prelude::*, test_runner::TestRunner};
use tokio::runtime::Runtime;

use crate::support::{ALL, accepted, notice, stage};

/// Short and long, plain and what JSON writes longer than it is.
fn text() -> impl Strategy<Value = String> {
    let bits = prop_oneof![
        any::<String>(),
        "[\\x00-\\x1f\"\\\\/]{0,400}",
        "[a-z 🎉ä\u{200d}\u{202e}]{0,3000}",
        Just(String::new()),
    ];
    (bits, 1..20_usize).prop_map(|(bit, times)| bit.repeat(times))
}

#[test]
fn any_text_arrives_within_the_bounds_of_all_providers() -> Result<()> {
    let runtime = Runtime::new()?;
    let (services, providers) = runtime.block_on(stage(&[]))?;
    let targets: Vec<Target> =
        ALL.into_iter().map(|provider| services.register(provider)).collect::<Result<_>>()?;
    let mut runner = TestRunner::new(ProptestConfig { cases: 100, ..ProptestConfig::default() });
    let both = (text(), proptest::option::of(text()));
    runner.run(&both, |(title, body)| {
        let sent = Notice { title, body, ..notice() };
        let failed = |error: anyhow::Error| TestCaseError::fail(error.to_string());
        runtime.block_on(async {
            for target in &targets {
                accepted(&providers.send(target, &sent).await).map_err(failed)?;
                let desk = services.desk(target.provider());
                let came = desk.pushed().pop().map(|pushed| pushed.notice).unwrap_or_default();
                for (name, whole) in [("title", Some(&sent.title)), ("body", sent.body.as_ref())] {
                    shows(came[name].as_str(), whole).map_err(failed)?;
                }
            }
            Ok(())
        })
    })?;
    for provider in ALL {
        assert_eq!(services.desk(provider).violations(), Vec::<String>::new());
    }
    Ok(())
}

/// It is the whole, or its beginning with an ellipsis where it is long.
fn shows(came: Option<&str>, whole: Option<&String>) -> Result<()> {
    // Apple's alert has an empty body where there is none.
    let (came, whole) = (came.unwrap_or_default(), whole.map_or("", String::as_str));
    if came == whole {
        return Ok(());
    }
    // Nothing is cut that would fit six times over.
    ensure!(whole.len() > 40, "{whole:?} became {came:?}");
    let beginning = came.strip_suffix('…').unwrap_or(came);
    ensure!(whole.starts_with(beginning), "{whole:?} became {came:?}");
    Ok(())
}
