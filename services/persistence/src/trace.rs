//! The worker's part of a message's trace.

use natter_bus::Raw;
use natter_protocol::ids::Shard;
use natter_runtime::context;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Messages that one span tells of: that in whose trace it is, and as many links as the SDK keeps
/// by default, and as backends take.
const MESSAGES: usize = 1 + 128;

/// Spans for writing a batch, which together tell of each sampled message: each is in the trace of
/// one, with links to others. A batch without such a message has none.
pub(crate) fn batch_spans<'a>(shard: Shard, batch: impl Iterator<Item = &'a Raw>) -> Vec<Span> {
    let sampled: Vec<&str> = batch.filter_map(|raw| raw.traceparent.as_deref()).collect();
    let parts = sampled.chunks(MESSAGES).map(|messages| {
        let (first, others) = (messages.first().copied(), messages.iter().skip(1));
        let span = context::follow(first, || info_span!("persist batch", shard));
        others.filter_map(|linked| parse(linked)).for_each(|linked| span.add_link(linked));
        span
    });
    parts.collect()
}

/// `00-<trace>-<span>-<flags>`
fn parse(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let context = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default());
    context.is_valid().then_some(context)
}
