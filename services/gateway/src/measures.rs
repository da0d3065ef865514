//! What a gateway counts and times, by its names. Where much is counted, handles are looked up once.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use crate::auth::Refusal;

/// How clients began that said where they stood.
const RESUMES: [&str; 2] = ["resumed", "refused"];
/// How connections began.
const BEGINNINGS: [&str; 3] = ["afresh", "refused", "resumed"];

/// What sessions and the way into the log are measured by.
#[derive(Debug)]
pub struct Measures {
    /// Connections past their handshake.
    pub connections: Gauge,
    /// Frames that clients sent, all that a session read.
    pub frames_received: Counter,
    /// Frames written for clients.
    pub frames_sent: Counter,
    /// Until the broker had stored a message.
    pub publish: Histogram,
    /// Messages stored, duplicates not.
    pub sent: Counter,
    /// From the broker's storing an entry to its being written for a client, of a sample, by the
    /// clocks of both.
    pub delivery: Histogram,
}

impl Measures {
    /// Of this process's recorder, where everything that is counted now and then is from here on.
    #[must_use]
    pub fn new() -> Self {
        register();
        Self {
            connections: metrics::gauge!("natter_connections"),
            frames_received: metrics::counter!("natter_frames_received_total"),
            frames_sent: metrics::counter!("natter_frames_sent_total"),
            publish: metrics::histogram!("natter_publish_seconds"),
            sent: metrics::counter!("natter_messages_sent_total"),
            delivery: metrics::histogram!("natter_delivery_seconds"),
        }
    }

    /// A message was stored, after so long.
    pub fn published(&self, after: Duration, duplicate: bool) {
        self.publish.record(after);
        if !duplicate {
            self.sent.increment(1);
        }
    }
}

impl Default for Measures {
    fn default() -> Self {
        Self::new()
    }
}

fn register() {
    drop([
        slow_consumers(),
        internal_errors(),
        handshakes_refused(),
        refresh_replays(),
        unreadable_entries(),
        polls_relayed(),
        presence_dropped(),
        admissions_kept(),
        admissions_not_kept(),
        uploads(),
        uploaded_bytes(),
        downloaded_bytes(),
        downloads_unrecorded(),
    ]);
    drop(Checked::ALL.map(hook));
    drop(hook_open());
    drop(Limit::ALL.map(rate_limited));
    drop(RESUMES.map(resumes));
    drop(BEGINNINGS.map(handshakes));
    drop(Refusal::ALL.map(auth_failures));
    drop(handshake_seconds());
}

/// Connections closed since they did not read.
pub fn slow_consumers() -> Counter {
    metrics::counter!("natter_slow_consumers_total")
}

/// Faults of the gateway's own.
pub fn internal_errors() -> Counter {
    metrics::counter!("natter_internal_errors_total")
}

/// Connections let in, by how they began.
pub fn handshakes(outcome: &'static str) -> Counter {
    metrics::counter!("natter_handshakes_total", "outcome" => outcome)
}

/// How long letting one in took.
pub fn handshake_seconds() -> Histogram {
    metrics::histogram!("natter_handshake_seconds")
}

/// Connections turned away, since the broker is.
pub fn handshakes_refused() -> Counter {
    metrics::counter!("natter_handshakes_refused_total")
}

/// Clients that showed a cursor, at connect or later: `resumed`, or `refused` and begun afresh.
pub fn resumes(outcome: &'static str) -> Counter {
    metrics::counter!("natter_resumes_total", "outcome" => outcome)
}

/// Tokens, passwords and devices refused, by the reason.
pub fn auth_failures(reason: Refusal) -> Counter {
    metrics::counter!("natter_auth_failures_total", "reason" => reason.name())
}

/// Refresh tokens shown a second time.
pub fn refresh_replays() -> Counter {
    metrics::counter!("natter_refresh_replays_total")
}

/// What somebody can have too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Calls of a user, attempts at an account or from an address.
    Calls,
    /// Calls of a server, by its token.
    ServiceCalls,
    /// Events over a socket.
    Events,
    /// Passwords that wait to be hashed.
    Logins,
    /// Archives at once.
    Exports,
    /// Files that come at once.
    Uploads,
    /// Files that go at once.
    Downloads,
}

impl Limit {
    /// Each of them.
    pub const ALL: [Self; 7] = [
        Self::Calls,
        Self::ServiceCalls,
        Self::Events,
        Self::Logins,
        Self::Exports,
        Self::Uploads,
        Self::Downloads,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::ServiceCalls => "service_calls",
            Self::Events => "events",
            Self::Logins => "logins",
            Self::Exports => "exports",
            Self::Uploads => "uploads",
            Self::Downloads => "downloads",
        }
    }
}

/// What came of a question whether a message may be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It may.
    Allowed,
    /// With another text.
    Replaced,
    /// It may not.
    Refused,
    /// There was no answer, or none that is one.
    Failed,
}

impl Checked {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Allowed, Self::Replaced, Self::Refused, Self::Failed];

    fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Replaced => "replaced",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Messages that the deployment's own check was asked about.
pub fn hook(checked: Checked) -> Counter {
    metrics::counter!("natter_hook_checks_total", "verdict" => checked.name())
}

/// How long it took to tell.
pub fn hook_seconds() -> Histogram {
    metrics::histogram!("natter_hook_seconds")
}

/// Whether the check is left alone, since it has failed.
pub fn hook_open() -> Gauge {
    metrics::gauge!("natter_hook_open")
}

/// Who was refused since they asked for too much of it.
pub fn rate_limited(what: Limit) -> Counter {
    metrics::counter!("natter_rate_limited_total", "what" => what.name())
}

/// Entries of feeds that this version cannot read.
pub fn unreadable_entries() -> Counter {
    metrics::counter!("natter_unreadable_entries_total")
}

/// Requests of polling passed on to the node that has the session.
pub fn polls_relayed() -> Counter {
    metrics::counter!("natter_polling_relayed_total")
}

/// Changes of presence that Redis was not told.
pub fn presence_dropped() -> Counter {
    metrics::counter!("natter_presence_dropped_total")
}

/// Devices let in by what Redis keeps of them.
pub fn admissions_kept() -> Counter {
    metrics::counter!("natter_admissions_kept_total")
}

/// Devices of which nothing could be kept for such a time.
pub fn admissions_not_kept() -> Counter {
    metrics::counter!("natter_admissions_not_kept_total")
}

/// Files taken in.
pub fn uploads() -> Counter {
    metrics::counter!("natter_media_uploaded_total")
}

/// Their bytes.
pub fn uploaded_bytes() -> Counter {
    metrics::counter!("natter_media_uploaded_bytes_total")
}

/// Bytes of files given out.
pub fn downloaded_bytes() -> Counter {
    metrics::counter!("natter_media_downloaded_bytes_total")
}

/// Downloads that were not noted.
pub fn downloads_unrecorded() -> Counter {
    metrics::counter!("natter_downloads_unrecorded_total")
}
