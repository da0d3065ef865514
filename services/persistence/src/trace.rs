//! The worker's part of a message's trace.

use natter_bus::Raw;
use natter_protocol::ids::Shard;
use natter_runtime::context;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Messages that one batch's span names, at most.
const LINKS: usize = 32;

/// A span for writing a batch: in the trace of its first sampled message, with links to the
/// others'. None when no message is sampled.
pub(crate) fn batch_span<'a>(shard: Shard, batch: impl Iterator<Item = &'a Raw>) -> Span {
    let mut sampled = batch.filter_map(|raw| raw.traceparent.as_deref());
    let first = sampled.next();
    let span = context::follow(first, || info_span!("persist batch", shard));
    if first.is_some() {
        sampled.take(LINKS).filter_map(parse).for_each(|linked| span.add_link(linked));
    }
    span
}

/// `00-<trace>-<span>-<flags>`
fn parse(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let context = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default());
    context.is_valid().then_some(context)
}
