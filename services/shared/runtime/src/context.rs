//! The trace context that a message carries from node to node: one W3C `traceparent`.
//!
//! Only sampled messages carry one, so an unsampled message costs neither header bytes nor
//! spans on the nodes that it reaches.

use opentelemetry::{
    propagation::{Extractor, TextMapPropagator},
    trace::TraceContextExt,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::telemetry;

/// Name of the header, in messages as in HTTP.
pub const TRACEPARENT: &str = "traceparent";

/// Makes `span` a child of the remote span that `traceparent` names.
///
/// Call it before the span is entered: its parent is fixed then. A value that does not parse,
/// or a process without tracing, changes nothing: a peer's header must never fail a message.
pub fn set_parent(span: &Span, traceparent: &str) {
    let parent = TraceContextPropagator::new().extract(&OneHeader(traceparent));
    if parent.span().span_context().is_valid() {
        // The error says that nothing here records traces, or not this span.
        let _ = span.set_parent(parent);
    }
}

/// The span for handling a message: a child of the sender's when the message carries a
/// context, else none at all, so that an unsampled message is not sampled anew on every node.
pub fn follow(traceparent: Option<&str>, span: impl FnOnce() -> Span) -> Span {
    let Some(traceparent) = traceparent else {
        return Span::none();
    };
    let span = span();
    set_parent(&span, traceparent);
    span
}

/// The span that a message's trace begins with; none where traces are not exported.
pub fn begin(span: impl FnOnce() -> Span) -> Span {
    if telemetry::exports() { span() } else { Span::none() }
}

/// A part of the current span, when that is sampled.
pub fn within(span: impl FnOnce() -> Span) -> Span {
    let current = Span::current();
    if current.is_none() || !current.context().span().span_context().is_sampled() {
        return Span::none();
    }
    span()
}

struct OneHeader<'a>(&'a str);

impl Extractor for OneHeader<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
    use tracing::{info_span, subscriber::with_default};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const REMOTE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    /// As the bus writes it.
    fn inject_current() -> Option<String> {
        let context = Span::current().context();
        let span = context.span();
        let span = span.span_context();
        (span.is_valid() && span.is_sampled())
            .then(|| format!("00-{}-{}-01", span.trace_id(), span.span_id()))
    }

    fn traced<T>(sampler: Sampler, body: impl FnOnce() -> T) -> T {
        let provider = SdkTracerProvider::builder().with_sampler(sampler).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        with_default(tracing_subscriber::registry().with(layer), body)
    }

    #[test]
    fn a_trace_goes_on_over_a_message() {
        traced(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)), || {
            let span = follow(Some(REMOTE), || info_span!("receive"));
            let sent = span.in_scope(inject_current).expect("a sampled parent samples its child");
            assert_eq!(sent[..36], REMOTE[..36], "same trace");
            assert_ne!(sent, REMOTE, "another span");
        });
    }

    #[test]
    fn unsampled_and_untraced_messages_carry_nothing() {
        traced(Sampler::AlwaysOff, || {
            assert_eq!(info_span!("send").in_scope(inject_current), None);
        });
        traced(Sampler::AlwaysOn, || {
            assert_eq!(follow(None, || info_span!("receive")).in_scope(inject_current), None);
        });
        assert_eq!(info_span!("send").in_scope(inject_current), None);
    }

    #[test]
    fn a_malformed_context_starts_a_trace_of_its_own() {
        for bad in ["", "00", "nonsense", "00-00000000000000000000000000000000-b7ad6b7169203331-01"]
        {
            traced(Sampler::AlwaysOn, || {
                let span = follow(Some(bad), || info_span!("receive"));
                assert!(span.in_scope(inject_current).is_some(), "{bad}");
            });
        }
    }
}
