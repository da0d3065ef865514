//! One trace from a message's request to each node that hears of it, as a collector is told.

use std::{
    collections::{HashMap, HashSet},
    io::Read,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    routing::post,
};
use flate2::read::GzDecoder;
use natter_cluster::Cluster;
use natter_e2e::{Person, PushServices, soon};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::Span,
};
use prost::Message;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle, time::sleep};
use tonic::{
    Request, Response, Status, codec::CompressionEncoding, transport::server::TcpIncoming,
};

/// Messages of which some are traced: that all of a half are, or none, does not happen.
const MESSAGES: usize = 32;

/// More than three spans of a worker tell of.
const MANY: usize = 400;

/// For how long the broker stores nothing.
const HELD: Duration = Duration::from_millis(500);

/// A span, and the node that it is of.
#[derive(Clone, Debug)]
struct Told {
    node: String,
    span: Span,
}

/// A collector that keeps what it is told.
#[derive(Clone, Default)]
struct Collector {
    told: Arc<Mutex<Vec<Told>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.hear(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// What comes by HTTP: compressed, or it is not taken.
async fn by_http(
    State(collector): State<Collector>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Vec<u8>, StatusCode> {
    let is = |name, value: &str| headers.get(name).is_some_and(|found| found == value);
    if !is(header::CONTENT_ENCODING, "gzip")
        || !is(header::CONTENT_TYPE, "application/x-protobuf")
        || !is(header::AUTHORIZATION, "who knows")
    {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let mut bytes = Vec::new();
    GzDecoder::new(&body[..]).read_to_end(&mut bytes).map_err(|_| StatusCode::BAD_REQUEST)?;
    let request = ExportTraceServiceRequest::decode(&bytes[..]);
    collector.hear(request.map_err(|_| StatusCode::BAD_REQUEST)?);
    Ok(ExportTraceServiceResponse::default().encode_to_vec())
}

impl Collector {
    fn hear(&self, request: ExportTraceServiceRequest) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for of_node in request.resource_spans {
            let attributes = of_node.resource.map(|resource| resource.attributes);
            let node = attributes.into_iter().flatten().find_map(|attribute| {
                let named = attribute.key == "service.instance.id";
                match attribute.value?.value? {
                    Value::StringValue(node) if named => Some(node),
                    _ => None,
                }
            });
            let node = node.unwrap_or_default();
            for span in of_node.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                told.push(Told { node: node.clone(), span });
            }
        }
    }

    async fn serve(&self) -> Result<(SocketAddr, JoinHandle<()>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = tonic::transport::Server::builder()
            .add_service(
                TraceServiceServer::new(self.clone()).accept_compressed(CompressionEncoding::Gzip),
            )
            .serve_with_incoming(TcpIncoming::from(listener));
        let serving = tokio::spawn(async move {
            server.await.ok();
        });
        Ok((address, serving))
    }

    async fn serve_http(&self) -> Result<(SocketAddr, JoinHandle<()>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().route("/v1/traces", post(by_http)).with_state(self.clone());
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.ok();
        });
        Ok((address, serving))
    }

    /// All that it was told, in short.
    fn names(&self) -> Vec<String> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().map(|Told { node, span }| format!("{} at {node}", span.name)).collect()
    }

    /// All of it.
    fn all(&self) -> Vec<Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The spans of this name.
    fn named(&self, name: &str) -> Vec<Told> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().filter(|told| told.span.name == name).cloned().collect()
    }
}

#[tokio::test]
async fn a_message_that_crosses_two_nodes_is_one_trace() -> Result<()> {
    let collector = Collector::default();
    let (address, serving) = collector.serve().await?;
    let services = PushServices::start().await?;
    let env = services.env().into_iter();
    let cluster = env
        .fold(Cluster::builder(), |builder, (key, value)| builder.env(key, value))
        .gateways(2)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"))
        .env("OTEL_TRACES_SAMPLER", "always_on")
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .push_env("NATTER_PUSH_WAIT", "0")
        .start()
        .await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    let sent = anas.say(chat, "traced").await?;
    bens.hears(chat, "traced").await?;

    let root =
        soon("the message's span", async || Ok(collector.named("send_message").pop())).await?;
    ensure!(root.span.parent_span_id.is_empty() && root.node == "gateway-1", "{root:?}");
    let of_trace = |told: Vec<Told>| -> Vec<Told> {
        told.into_iter().filter(|told| told.span.trace_id == root.span.trace_id).collect()
    };
    let publish =
        soon("its publish", async || Ok(of_trace(collector.named("publish")).pop())).await?;
    assert_eq!(publish.span.parent_span_id, root.span.span_id);
    assert_eq!(number(&publish.span, "seq")?, sent.seq);
    let fans_out = soon("both fan-outs", async || {
        let fans_out = of_trace(collector.named("fan_out"));
        Ok((fans_out.len() >= 2).then_some(fans_out))
    })
    .await
    .with_context(|| format!("{:?}", collector.names()))?;
    let mut nodes: Vec<_> = fans_out.iter().map(|told| told.node.as_str()).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, ["gateway-1", "gateway-2"]);
    for told in &fans_out {
        assert_eq!(told.span.parent_span_id, publish.span.span_id, "{told:?}");
        assert_eq!(number(&told.span, "seq")?, sent.seq);
        assert_eq!(number(&told.span, "connections")?, 1);
    }
    let written = soon("the worker's batch", async || {
        Ok(collector.named("persist batch").into_iter().find(|told| {
            let child = told.span.parent_span_id == publish.span.span_id;
            let links = &told.span.links;
            child || links.iter().any(|link| link.span_id == publish.span.span_id)
        }))
    })
    .await
    .with_context(|| format!("{:?}", collector.names()))?;
    assert_eq!(written.node, "persistence-1");

    // Whoever is offline hears of it in the same trace.
    let cleo = Person::register(&cluster, "Cleo").await?;
    let path = format!("/devices/{}/push", cleo.first.id);
    soon("the push worker has said what is set up", async || {
        let answer = cleo.api(0).put(&path, json!(services.webhook.register())).await?;
        Ok((answer.status() == 200).then_some(()))
    })
    .await?;
    let chat = ana.api(0).direct(&cleo).await?.id;
    let away = anas.say(chat, "while you are away").await?;
    let publish = soon("its publish", async || {
        let publishes = collector.named("publish");
        Ok(publishes.into_iter().find(|told| number(&told.span, "seq").ok() == Some(away.seq)))
    })
    .await?;
    soon("it is sent", async || Ok((services.webhook.desk.taken() > 0).then_some(()))).await?;
    let push = soon("its push", async || {
        let pushes = collector.named("push").into_iter();
        Ok(pushes.into_iter().find(|told| told.span.trace_id == publish.span.trace_id))
    })
    .await
    .with_context(|| format!("{:?}", collector.names()))?;
    assert_eq!(push.span.parent_span_id, publish.span.span_id, "{push:?}");
    assert_eq!((push.node.as_str(), number(&push.span, "attempt")?), ("push-1", 1));

    cluster.nats().pause()?;
    let resumed = async {
        sleep(HELD).await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        cluster.nats().resume()?;
        Ok(u64::try_from(now.as_nanos())?)
    };
    let (held, resumed) = tokio::try_join!(anas.say(chat, "held up"), resumed)?;
    let publish = soon("the publish that was held up", async || {
        let publishes = collector.named("publish");
        Ok(publishes.into_iter().find(|told| number(&told.span, "seq").ok() == Some(held.seq)))
    })
    .await?;
    ensure!(publish.span.end_time_unix_nano >= resumed, "over before it was stored: {publish:?}");
    serving.abort();
    Ok(())
}

/// A worker that was away writes many messages at once.
#[tokio::test]
async fn of_each_message_of_a_large_batch_a_worker_tells() -> Result<()> {
    let collector = Collector::default();
    let (address, serving) = collector.serve().await?;
    let cluster = Cluster::builder()
        .gateways(1)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"))
        .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .gateway_env("NATTER_EVENTS_BURST", "1000")
        .start()
        .await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let anas = ana.connect(0).await?;
    anas.say(chat, "before").await?;
    soon("all is written", async || Ok((ana.api(0).chat(chat).await?.last_seq > 0).then_some(())))
        .await?;
    cluster.worker(0).pause()?;
    let mut requests = Vec::new();
    for n in 0..MANY {
        let data = serde_json::json!({"chatId": chat, "content": format!("message {n}")});
        requests.push(anas.post("send_message", data).await?);
    }
    let mut sent = HashSet::new();
    for request in requests {
        let reply = anas.reply(request).await?.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        sent.insert(reply["seq"].as_u64().context("no seq")?);
    }
    cluster.worker(0).resume()?;
    let published = soon("what was published", async || {
        let all = collector.named("publish");
        let these = all
            .into_iter()
            .filter(|told| number(&told.span, "seq").is_ok_and(|seq| sent.contains(&seq)));
        let ids: HashSet<Vec<u8>> = these.map(|told| told.span.span_id).collect();
        Ok((ids.len() == MANY).then_some(ids))
    })
    .await?;
    let written = soon("that all of it was written", async || {
        let written = collector.named("persist batch");
        let mut named: HashSet<&[u8]> = HashSet::new();
        for Told { span, .. } in &written {
            named.insert(&span.parent_span_id);
            named.extend(span.links.iter().map(|link| &link.span_id[..]));
        }
        let all = published.iter().all(|id| named.contains(&id[..]));
        Ok(all.then_some(written))
    })
    .await
    .with_context(|| format!("{} of {MANY}", collector.named("persist batch").len()))?;
    let largest = written.iter().map(|told| told.span.links.len()).max().unwrap_or_default();
    assert_eq!(largest, 128, "more than one span of a batch was needed");
    for told in &written {
        assert_eq!(told.span.dropped_links_count, 0, "{told:?}");
    }
    serving.abort();
    Ok(())
}

#[tokio::test]
async fn traces_go_over_http_and_nowhere_where_that_is_said() -> Result<()> {
    let (collector, unasked) = (Collector::default(), Collector::default());
    let (address, serving) = collector.serve_http().await?;
    let (elsewhere, listening) = unasked.serve().await?;
    let cluster = Cluster::builder()
        .gateways(1)
        .gateway_env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"))
        .gateway_env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .gateway_env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        .gateway_env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=who%20knows")
        .worker_env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{elsewhere}"))
        .worker_env("OTEL_SDK_DISABLED", "true")
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .start()
        .await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let anas = ana.connect(0).await?;
    let first = anas.say(chat, "told at once").await?;
    let of = async |seq: u64| {
        soon("its publish", async || {
            let publishes = collector.named("publish");
            Ok(publishes.into_iter().find(|told| number(&told.span, "seq").ok() == Some(seq)))
        })
        .await
    };
    of(first.seq).await?;
    // Whoever ends tells what it has not told yet.
    let last = anas.say(chat, "told at the end").await?;
    for node in cluster.workers().iter().chain(cluster.gateways()) {
        node.terminate().await?;
    }
    of(last.seq).await?;
    ensure!(unasked.all().is_empty(), "{:?}", unasked.names());
    serving.abort();
    listening.abort();
    Ok(())
}

/// What a collector was told of so many messages by a cluster whose nodes trace this share of them.
async fn sampled(ratio: &str) -> Result<Vec<Told>> {
    let collector = Collector::default();
    let (address, serving) = collector.serve().await?;
    let cluster = Cluster::builder()
        .gateways(2)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"))
        .env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
        .env("OTEL_TRACES_SAMPLER_ARG", ratio)
        .start()
        .await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    let mut last = 0;
    for n in 0..MESSAGES {
        last = anas.say(chat, &format!("message {n}")).await?.seq;
    }
    bens.hears(chat, &format!("message {}", MESSAGES - 1)).await?;
    soon("a worker has written it", async || {
        Ok((ana.api(0).chat(chat).await?.last_seq >= last).then_some(()))
    })
    .await?;
    drop((anas, bens));
    // Whoever ends tells what it has not told yet.
    for node in cluster.gateways().iter().chain(cluster.workers()) {
        node.terminate().await?;
    }
    serving.abort();
    Ok(collector.all())
}

#[tokio::test]
async fn of_no_share_nothing_is_traced() -> Result<()> {
    let told = sampled("0").await?;
    ensure!(told.is_empty(), "{told:?}");
    Ok(())
}

#[tokio::test]
async fn of_a_share_whole_traces_are_told() -> Result<()> {
    let told = sampled("0.5").await?;
    let mut traces: HashMap<&[u8], Vec<&Told>> = HashMap::new();
    for one in &told {
        traces.entry(&one.span.trace_id).or_default().push(one);
    }
    ensure!((1..MESSAGES).contains(&traces.len()), "{} of {MESSAGES}", traces.len());
    // One batch may be in the trace of another message, which links it.
    let written: HashSet<&[u8]> = told
        .iter()
        .filter(|one| one.span.name == "persist batch" && one.node == "persistence-1")
        .flat_map(|one| {
            let links = one.span.links.iter().map(|link| &link.span_id[..]);
            links.chain([&one.span.parent_span_id[..]])
        })
        .collect();
    for trace in traces.values() {
        let at = |name: &str| -> Vec<&str> {
            let named = trace.iter().filter(|one| one.span.name == name);
            let mut nodes: Vec<_> = named.map(|one| one.node.as_str()).collect();
            nodes.sort_unstable();
            nodes
        };
        assert_eq!(at("send_message"), ["gateway-1"], "{trace:?}");
        assert_eq!(at("publish"), ["gateway-1"], "{trace:?}");
        assert_eq!(at("fan_out"), ["gateway-1", "gateway-2"], "{trace:?}");
        let publish = trace.iter().find(|one| one.span.name == "publish").context("no publish")?;
        ensure!(written.contains(&publish.span.span_id[..]), "no worker told of {trace:?}");
    }
    Ok(())
}

fn number(span: &Span, name: &str) -> Result<u64> {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == name);
    match attribute.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Value::IntValue(number)) => Ok(u64::try_from(*number)?),
        Some(Value::StringValue(text)) => text.parse().with_context(|| text.clone()),
        other => anyhow::bail!("{name}: {other:?} of {span:?}"),
    }
}
