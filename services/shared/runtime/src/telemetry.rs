//! Logs to stderr, and traces over OTLP when an endpoint is configured.
//!
//! A log line is one JSON object with `service`, `node`, the event's fields flattened, its
//! span, and `traceId` when it happened within a sampled trace. Traces are exported in batches
//! over gRPC or HTTP; the standard `OTEL_*` variables set the endpoint, the protocol, the sampler
//! (`OTEL_TRACES_SAMPLER` and its `_ARG`; parent-based by default), batch and queue sizes, and extra
//! resource attributes. The export queue is bounded: spans are dropped rather than held when the
//! collector is away.

use std::{
    env, fmt, io,
    io::IsTerminal,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use clap::{Args, ValueEnum};
use opentelemetry::{KeyValue, global, trace::TraceContextExt, trace::TracerProvider as _};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::ParseError,
    fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::{SubscriberInitExt, TryInitError},
};

use crate::{
    exporter::{self, ExporterError},
    sampler::{self, SamplerError},
};

/// Set once traces are exported.
static EXPORTS: AtomicBool = AtomicBool::new(false);

/// Whether this process exports traces. Where it does not, spans would only cost.
#[must_use]
pub fn exports() -> bool {
    EXPORTS.load(Ordering::Relaxed)
}

/// Longest wait for the collector when the process ends.
const FLUSH: Duration = Duration::from_secs(3);

/// How this process logs. Traces are configured by the standard `OTEL_*` variables.
#[derive(Args, Clone, Debug)]
pub struct TelemetryArgs {
    /// What to log: a level, or directives such as `info,natter_bus=debug`.
    #[arg(long = "log", env = "NATTER_LOG", default_value = "info", value_parser = parse_filter)]
    pub log: String,

    /// How log lines look.
    #[arg(long, env = "NATTER_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// What it says is kept as text: [`init`] may add to it.
fn parse_filter(text: &str) -> Result<String, ParseError> {
    EnvFilter::builder().parse(text).map(|_| text.to_owned())
}

/// The looks of a log line.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    #[default]
    Json,
    /// For people; coloured on a terminal.
    Text,
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `NATTER_LOG` does not parse.
    #[error("the log filter does not parse")]
    Filter(#[from] ParseError),
    /// The OTLP settings are unusable, such as an `https` endpoint.
    #[error("traces cannot be exported as the environment says")]
    Exporter(#[from] ExporterError),
    /// Which traces to export cannot be told from the variables.
    #[error("traces cannot be sampled as the environment says")]
    Sampler(#[from] SamplerError),
    /// This process already has a subscriber.
    #[error("telemetry is set up already")]
    AlreadySet(#[from] TryInitError),
}

/// Keeps telemetry going; flushes what is queued when it ends.
#[must_use = "traces are flushed and shut down when this is dropped"]
#[derive(Debug)]
pub struct TelemetryGuard {
    provider: Option<SdkTracerProvider>,
}

/// Sets up logs, traces and the W3C propagator for this process, once.
///
/// Must run inside a Tokio runtime when traces are exported: the exporter's connection lives
/// there.
///
/// # Errors
/// See [`TelemetryError`].
pub fn init(
    args: &TelemetryArgs,
    service_name: &'static str,
    node_id: &str,
) -> Result<TelemetryGuard, TelemetryError> {
    let mut filter = EnvFilter::builder().parse(&args.log)?;
    let mut layers = vec![log_layer(args.log_format, service_name, node_id)];
    global::set_text_map_propagator(TraceContextPropagator::new());
    // What is wrong is told whether it is used or not: with an endpoint it would be.
    let (exporter, sampler) = (exporter::from_environment()?, sampler::from_environment()?);
    let provider = exporter.map(|exporter| provider(exporter, sampler, service_name, node_id));
    if let Some(provider) = &provider {
        filter = with_spans(filter, &args.log)?;
        layers.push(
            tracing_opentelemetry::layer().with_tracer(provider.tracer(service_name)).boxed(),
        );
        EXPORTS.store(true, Ordering::Relaxed);
        global::set_tracer_provider(provider.clone());
    }
    // One filter for all layers. A filter of a layer's own lets spans get lost: what it said of the
    // event before is taken for what it says of a span that is always enabled.
    tracing_subscriber::registry().with(layers).with(filter).try_init()?;
    Ok(TelemetryGuard { provider })
}

impl TelemetryGuard {
    /// Exports what is queued and stops, within 3 s. Call it before the runtime ends.
    pub async fn shutdown(mut self) {
        if let Some(provider) = self.provider.take() {
            // It blocks its thread while the runtime drives the exporter's connection.
            let _ = tokio::task::spawn_blocking(move || stop(&provider)).await;
        }
    }
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take() {
            stop(&provider);
        }
    }
}

fn stop(provider: &SdkTracerProvider) {
    if let Err(error) = provider.shutdown_with_timeout(FLUSH) {
        tracing::warn!(%error, "some traces were not exported");
    }
}

fn provider(
    exporter: SpanExporter,
    sampler: Sampler,
    service_name: &'static str,
    node_id: &str,
) -> SdkTracerProvider {
    let mut resource = Resource::builder()
        .with_attribute(KeyValue::new("service.instance.id", node_id.to_owned()));
    // What the operator set wins; the builder has read it from the environment.
    if env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(service_name);
    }
    SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_sampler(sampler)
        .with_batch_exporter(exporter)
        .build()
}

/// The filter of logs, changed so that Natter's spans pass, and those of the exporter's own
/// connection do not: exporting these would never end.
fn with_spans(mut filter: EnvFilter, log: &str) -> Result<EnvFilter, ParseError> {
    const EXPORTER: [&str; 5] = ["h2", "hyper", "hyper_util", "tonic", "tower"];
    const NATTER: [&str; 4] = ["natter_gateway", "natter_persistence", "natter_push", "natter_bus"];
    for target in EXPORTER {
        if !log.contains(target) {
            filter = filter.add_directive(format!("{target}=warn").parse()?);
        }
    }
    // Spans are of level info, and so are the few lines that come with them.
    if !log.contains("natter") && filter.max_level_hint().is_none_or(|hint| hint < Level::INFO) {
        for target in NATTER {
            filter = filter.add_directive(format!("{target}=info").parse()?);
        }
    }
    Ok(filter)
}

fn log_layer(
    format: LogFormat,
    service_name: &'static str,
    node_id: &str,
) -> Box<dyn Layer<Registry> + Send + Sync> {
    match format {
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .boxed(),
        LogFormat::Json => json_layer(service_name, node_id, io::stderr).boxed(),
    }
}

fn json_layer<S, W>(service_name: &'static str, node_id: &str, writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let identity = serde_json::json!({ "service": service_name, "node": node_id }).to_string();
    tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .map_event_format(|inner| Identified { inner, identity })
}

/// Puts the process's identity, and the trace's id, at the front of every JSON line.
struct Identified<F> {
    inner: F,
    /// A JSON object.
    identity: String,
}

impl<S, N, F> FormatEvent<S, N> for Identified<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::with_capacity(256);
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        let Some(fields) = line.strip_prefix('{') else {
            return writer.write_str(&line);
        };
        writer.write_str(self.identity.strip_suffix('}').unwrap_or(&self.identity))?;
        let trace = opentelemetry::Context::current();
        let span = trace.span();
        if span.span_context().is_sampled() {
            write!(writer, r#","traceId":"{}""#, span.span_context().trace_id())?;
        }
        writer.write_char(',')?;
        writer.write_str(fields)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use tracing::{info_span, subscriber::with_default};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_names_the_process_and_the_trace() -> anyhow::Result<()> {
        let lines = Lines::default();
        let writer = lines.clone();
        let provider = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOn).build();
        let subscriber = tracing_subscriber::registry()
            .with(json_layer("natter-test", "node-1", move || writer.clone()))
            .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("test")));
        with_default(subscriber, || {
            tracing::info!(answer = 42, "outside");
            info_span!("handling", chat = "c1").in_scope(|| tracing::warn!("inside"));
        });
        let bytes = lines.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lines = String::from_utf8(bytes)?;
        let lines: Vec<serde_json::Value> =
            lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        assert_eq!(lines[0]["service"], "natter-test");
        assert_eq!(lines[0]["node"], "node-1");
        assert_eq!(lines[0]["message"], "outside");
        assert_eq!(lines[0]["answer"], 42);
        assert!(lines[0].get("traceId").is_none());
        assert_eq!(lines[1]["span"]["chat"], "c1");
        assert_eq!(lines[1]["traceId"].as_str().map(str::len), Some(32));
        Ok(())
    }

    #[test]
    fn a_filter_that_does_not_parse_is_refused() {
        let args = TelemetryArgs { log: "natter=loudly".to_owned(), log_format: LogFormat::Json };
        assert!(matches!(init(&args, "natter-test", "n"), Err(TelemetryError::Filter(_))));
    }
}
