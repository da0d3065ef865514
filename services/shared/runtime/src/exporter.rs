//! Where traces go to, as the standard variables say: OTLP over gRPC or HTTP, without TLS. The crates
//! of OpenTelemetry leave some of these variables unread, or take what they cannot read for the
//! default; here such a value ends the start, with the variable's name.

use std::{env, time::Duration};

use async_trait::async_trait;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithHttpConfig};
use tokio::{runtime::Handle, time::timeout};

const DISABLED: &str = "OTEL_SDK_DISABLED";
const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
/// What is said of traces counts before what is said of all signals.
const ENDPOINT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOL: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const COMPRESSION: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"];
const TIMEOUT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];

/// As the standard has it.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// More than any collector answers.
const ANSWER_BYTES: usize = 64 * 1024;

/// Why there is no exporter.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// A variable says what there is not here.
    #[error("{variable}: {value:?} is not {expected}")]
    Setting {
        /// Its name.
        variable: &'static str,
        /// What it says.
        value: String,
        /// What it may say.
        expected: &'static str,
    },
    /// The rest is unusable.
    #[error(transparent)]
    Build(#[from] ExporterBuildError),
}

/// How to export, if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Nothing,
    Grpc,
    Http(Duration),
}

/// The exporter that the environment asks for; none without an endpoint.
///
/// # Errors
/// [`ExporterError`].
pub(crate) fn from_environment() -> Result<Option<SpanExporter>, ExporterError> {
    let exporter = match plan(|name| Some(env::var_os(name)?.to_string_lossy().into_owned()))? {
        Plan::Nothing => return Ok(None),
        Plan::Grpc => SpanExporter::builder().with_tonic().build()?,
        Plan::Http(limit) => {
            let client = Client::builder(TokioExecutor::new()).build_http();
            let client = Http { client, limit, runtime: Handle::current() };
            SpanExporter::builder().with_http().with_http_client(client).build()?
        }
    };
    Ok(Some(exporter))
}

fn plan(environment: impl Fn(&str) -> Option<String>) -> Result<Plan, ExporterError> {
    // What is empty is taken for not set, as the standard has it.
    let said = |names: &[&'static str]| {
        names.iter().find_map(|name| {
            let value = environment(name).map(|value| value.trim().to_owned());
            value.filter(|value| !value.is_empty()).map(|value| (*name, value))
        })
    };
    let refused =
        |(variable, value), expected| ExporterError::Setting { variable, value, expected };
    let disabled = match said(&[DISABLED]) {
        None => false,
        Some((_, value)) if value.eq_ignore_ascii_case("false") => false,
        Some((_, value)) if value.eq_ignore_ascii_case("true") => true,
        Some(other) => return Err(refused(other, "one of true, false")),
    };
    let none = match said(&[EXPORTER]) {
        None => false,
        Some((_, value)) if value == "otlp" => false,
        Some((_, value)) if value == "none" => true,
        Some(other) => return Err(refused(other, "one of otlp, none")),
    };
    let http = match said(&PROTOCOL) {
        None => false,
        Some((_, value)) if value == "grpc" => false,
        Some((_, value)) if value == "http/protobuf" => true,
        Some(other) => return Err(refused(other, "one of grpc, http/protobuf")),
    };
    if let Some(other) = said(&COMPRESSION).filter(|(_, value)| value != "gzip" && value != "none")
    {
        return Err(refused(other, "one of gzip, none"));
    }
    let limit = match said(&TIMEOUT) {
        None => TIMEOUT_DEFAULT,
        Some((name, value)) => match value.parse() {
            Ok(millis) => Duration::from_millis(millis),
            Err(_) => return Err(refused((name, value), "a number of milliseconds")),
        },
    };
    let Some(endpoint) = said(&ENDPOINT) else { return Ok(Plan::Nothing) };
    if !endpoint.1.starts_with("http://") {
        return Err(refused(
            endpoint,
            "http://host:port: TLS is left to a collector beside the node",
        ));
    }
    Ok(match (disabled || none, http) {
        (true, _) => Plan::Nothing,
        (false, false) => Plan::Grpc,
        (false, true) => Plan::Http(limit),
    })
}

/// Sends from within the runtime: the exporter's own thread is outside of it.
#[derive(Clone, Debug)]
struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    limit: Duration,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (client, limit) = (self.client.clone(), self.limit);
        let answer = async move {
            let (head, body) = client.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES).collect().await?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        // The clock is the runtime's too, so it begins in there.
        self.runtime.spawn(async move { timeout(limit, answer).await }).await??
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(environment: &[(&str, &str)]) -> Result<Plan, String> {
        let value = |name: &str| {
            let found = environment.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        plan(value).map_err(|error| error.to_string())
    }

    const AT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");

    #[test]
    fn traces_go_where_and_how_the_variables_say() {
        let seconds = |seconds| Plan::Http(Duration::from_secs(seconds));
        let (grpc, http) = ("grpc", "http/protobuf");
        let cases: [(&[(&str, &str)], Plan); 9] = [
            (&[], Plan::Nothing),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], Plan::Nothing),
            (&[AT], Plan::Grpc),
            (&[AT, ("OTEL_SDK_DISABLED", "True")], Plan::Nothing),
            (&[AT, ("OTEL_TRACES_EXPORTER", "none")], Plan::Nothing),
            (&[AT, ("OTEL_SDK_DISABLED", "false"), ("OTEL_TRACES_EXPORTER", "otlp")], Plan::Grpc),
            (&[AT, (PROTOCOL[1], http)], seconds(10)),
            (&[AT, (PROTOCOL[1], http), (PROTOCOL[0], grpc)], Plan::Grpc),
            (
                &[AT, (PROTOCOL[0], http), (TIMEOUT[1], "3000"), (COMPRESSION[1], "gzip")],
                seconds(3),
            ),
        ];
        for (environment, expected) in cases {
            assert_eq!(of(environment), Ok(expected), "{environment:?}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_the_name_of_its_variable() {
        for (variable, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_SDK_DISABLED", "1"),
        ] {
            let error =
                of(&[(variable, value)]).map_or_else(|error| error, |plan| format!("{plan:?}"));
            assert!(error.starts_with(&format!("{variable}: {value:?} is not ")), "{error}");
        }
    }
}
