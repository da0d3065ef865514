//! The endpoints of webhooks: whether each is told, how far it is behind, and what was given up.

use std::time::Duration;

use natter_store::{LaneReport, WebhookEndpoint};
use serde::Serialize;
use time::OffsetDateTime;

use super::Findings;
use crate::{
    text::{age, moment, since},
    webhooks::Shown,
};

/// An oldest event that has waited for so long is wrong, as the alert has it.
const LATE: Duration = Duration::from_mins(15);
/// For so long after an endpoint was made no worker need have found it.
const NEW: Duration = Duration::from_secs(30);

/// How an endpoint stands, all shards together, as of its workers' last look.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointStatus {
    pub(super) name: String,
    pub(super) enabled: bool,
    /// `well`, `failing`, `resting`, `untold` or `disabled`.
    pub(super) state: &'static str,
    /// Why it is disabled, where nobody has said so by hand.
    pub(super) disabled_reason: Option<String>,
    /// Events that it has yet to be told of.
    pub(super) lag_events: u64,
    /// How long the oldest of them has waited.
    pub(super) lag_seconds: u64,
    /// Chats that wait by themselves, since an event of theirs has failed.
    pub(super) behind: u64,
    pub(super) dead_letters: u64,
    /// Events that were dropped before it could be told.
    pub(super) lost: u64,
    /// While it fails, what it answered last, and when.
    pub(super) last_answer: Option<String>,
    pub(super) last_at: Option<String>,
}

impl EndpointStatus {
    /// What is wrong with it is among the findings afterwards.
    pub(super) fn new(
        endpoint: WebhookEndpoint,
        lanes: Vec<LaneReport>,
        findings: &mut Findings,
    ) -> Self {
        let untold = lanes.is_empty() || lanes.iter().any(|lane| lane.owner.is_none());
        let untold = untold && since(endpoint.created_at) > NEW;
        let resting = lanes.iter().any(|lane| lane.resting);
        let sum = |of: fn(&LaneReport) -> u64| lanes.iter().map(of).sum::<u64>();
        let answer = failure(&lanes);
        let status = Self {
            enabled: endpoint.enabled,
            disabled_reason: endpoint.disabled_reason.clone(),
            lag_events: sum(|lane| lane.lag),
            lag_seconds: lanes
                .iter()
                .filter_map(|lane| lane.oldest_at)
                .map(waited)
                .max()
                .unwrap_or(0),
            behind: sum(|lane| lane.behind),
            dead_letters: sum(|lane| lane.letters),
            lost: sum(|lane| lane.lost),
            last_answer: answer.map(|(answer, _)| answer.to_owned()),
            last_at: answer.map(|(_, at)| moment(at)),
            name: endpoint.name.clone(),
            state: Shown::new(endpoint, lanes).state(),
        };
        status.judge(untold, resting, findings);
        status
    }

    fn judge(&self, untold: bool, resting: bool, findings: &mut Findings) {
        let name = &self.name;
        if let Some(reason) = self.disabled_reason.as_ref().filter(|_| !self.enabled) {
            findings.wrong(format!("the endpoint {name} is disabled: {reason}"));
        }
        if self.enabled && untold {
            findings.wrong(format!("no push worker tells the endpoint {name}"));
        }
        let answer = self.last_answer.as_ref().map(|answer| format!(": it answers {answer}"));
        let answer = answer.unwrap_or_default();
        let late = Duration::from_secs(self.lag_seconds);
        if self.enabled && late >= LATE {
            let (events, late) = (self.lag_events, age(late));
            findings
                .wrong(format!("the endpoint {name} is {events} events and {late} behind{answer}"));
        } else if self.enabled && resting {
            findings.wrong(format!("the endpoint {name} fails, and is left alone for now{answer}"));
        }
        if self.dead_letters > 0 {
            let letters = self.dead_letters;
            findings.wrong(format!(
                "{letters} dead letters of the endpoint {name}: `natter webhook dead-letters {name}`"
            ));
        }
    }
}

fn waited(at: OffsetDateTime) -> u64 {
    since(at).as_secs()
}

/// The newest answer that says that it has not taken what it was told.
fn failure(lanes: &[LaneReport]) -> Option<(&str, OffsetDateTime)> {
    let said = lanes.iter().filter_map(|lane| lane.last_answer.as_deref().zip(lane.last_at));
    said.filter(|(answer, _)| !answer.starts_with('2')).max_by_key(|(_, at)| *at)
}

#[cfg(test)]
mod tests {
    use natter_protocol::{ids::EndpointId, webhook::HookFilter};

    use super::*;

    fn ago(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::now_utc() - time::Duration::seconds(seconds)
    }

    fn endpoint() -> WebhookEndpoint {
        WebhookEndpoint {
            id: EndpointId::generate(),
            name: "shop".to_owned(),
            url: "https://shop.example/".to_owned(),
            secret: String::new(),
            filter: HookFilter::default(),
            enabled: true,
            disabled_reason: None,
            created_at: ago(3_600),
            test: None,
        }
    }

    fn lane(shard: u16) -> LaneReport {
        LaneReport {
            shard,
            seq: Some(7),
            lag: 0,
            oldest_at: None,
            resting: false,
            behind: 0,
            letters: 0,
            lost: 0,
            last_answer: Some("204".to_owned()),
            last_at: Some(ago(1)),
            owner: Some("push-1.0a1b2c3d".to_owned()),
        }
    }

    fn status(endpoint: WebhookEndpoint, lanes: &[LaneReport]) -> (EndpointStatus, Vec<String>) {
        let mut findings = Findings::default();
        let status = EndpointStatus::new(endpoint, lanes.to_vec(), &mut findings);
        (status, findings.wrong)
    }

    #[test]
    fn one_that_is_told_at_once_is_well_and_so_is_one_that_waits_a_little() {
        let (well, wrong) = status(endpoint(), &[lane(0), lane(1)]);
        assert_eq!((well.state, well.last_answer, &wrong[..]), ("well", None, &[][..]));
        let waits = LaneReport { lag: 3, behind: 1, oldest_at: Some(ago(60)), ..lane(0) };
        let fails = LaneReport { last_answer: Some("503".to_owned()), ..waits };
        let (failing, wrong) = status(endpoint(), &[fails, lane(1)]);
        assert_eq!((failing.state, failing.lag_events, &wrong[..]), ("failing", 3, &[][..]));
        assert_eq!(failing.last_answer.as_deref(), Some("503"));
        assert!((60..70).contains(&failing.lag_seconds), "{failing:?}");
        let new = WebhookEndpoint { created_at: ago(1), ..endpoint() };
        assert!(status(new, &[]).1.is_empty(), "nobody need have found it");
        let off = WebhookEndpoint { enabled: false, ..endpoint() };
        assert!(status(off, &[]).1.is_empty(), "somebody wants it so");
    }

    #[test]
    fn what_is_wrong_is_said_with_the_last_failure() {
        let late = LaneReport { lag: 30, oldest_at: Some(ago(1_800)), ..lane(0) };
        let answers = |answer: &str, lane: LaneReport| LaneReport {
            last_answer: Some(answer.to_owned()),
            resting: true,
            ..lane
        };
        let (_, wrong) = status(endpoint(), &[answers("503", late.clone()), lane(1)]);
        assert_eq!(wrong, ["the endpoint shop is 30 events and 30m behind: it answers 503"]);
        assert_eq!(
            status(endpoint(), &[late]).1,
            ["the endpoint shop is 30 events and 30m behind"]
        );
        let (_, wrong) = status(endpoint(), &[answers("no connection", lane(0))]);
        let said = "the endpoint shop fails, and is left alone for now: it answers no connection";
        assert_eq!(wrong, [said]);
        let gone = WebhookEndpoint {
            enabled: false,
            disabled_reason: Some("it answered 410".to_owned()),
            ..endpoint()
        };
        let (_, wrong) = status(gone, &[LaneReport { owner: None, ..lane(0) }]);
        assert_eq!(wrong, ["the endpoint shop is disabled: it answered 410"]);
        let (untold, wrong) = status(endpoint(), &[LaneReport { owner: None, ..lane(0) }, lane(1)]);
        assert_eq!(
            (untold.state, &wrong[..]),
            ("untold", &["no push worker tells the endpoint shop".to_owned()][..])
        );
        let (_, wrong) = status(endpoint(), &[LaneReport { letters: 2, ..lane(0) }]);
        let said = "2 dead letters of the endpoint shop: `natter webhook dead-letters shop`";
        assert_eq!(wrong, [said]);
    }
}
