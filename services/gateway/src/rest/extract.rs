//! What handlers take from a request, refused in the wire's words.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{ConnectInfo, FromRef, FromRequest, FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, header, request::Parts},
};
use axum_extra::{
    TypedHeader,
    headers::{Authorization, authorization::Bearer},
};
use futures::{Stream, StreamExt};
use garde::Validate;
use natter_protocol::{
    client::refuse_impersonation,
    error::{ErrorCode, WireError},
    limits,
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use uuid::Uuid;

use super::problem::{NOWHERE, Problem};
use crate::{
    auth::{
        Auth, Caller, Refusal,
        attempts::{network, too_many},
        refused,
    },
    config::{Config, RestArgs},
    rate::{Buckets, Rate},
    text::{self, bad_request},
};

/// How often one user, and one address without a user, may call.
#[derive(Clone)]
pub struct CallLimit {
    users: Arc<Buckets<Uuid>>,
    addresses: Arc<Buckets<IpAddr>>,
}

/// Many users share an address.
const USERS_PER_ADDRESS: u32 = 10;

impl CallLimit {
    /// As configured.
    pub fn new(config: &RestArgs) -> Self {
        let (calls, burst) = (config.calls_per_second, config.calls_burst);
        let of_many = |tokens: u32| tokens.saturating_mul(USERS_PER_ADDRESS);
        let address = Rate::per_second(of_many(calls), of_many(burst));
        Self {
            users: Arc::new(Buckets::new(Rate::per_second(calls, burst))),
            addresses: Arc::new(Buckets::new(address)),
        }
    }

    /// Counts a call of somebody who has no access token yet.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn from_address(&self, address: IpAddr) -> Result<(), WireError> {
        self.addresses.take(network(address), Instant::now()).map_err(too_many)
    }
}

/// From `Authorization: Bearer` only: a token elsewhere ends up in logs and histories.
impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    Auth: FromRef<S>,
    CallLimit: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let header = TypedHeader::<Authorization<Bearer>>::from_request_parts(parts, state).await;
        let TypedHeader(Authorization(bearer)) =
            header.map_err(|_| refused(Refusal::Missing, "a bearer token is needed"))?;
        let auth = Auth::from_ref(state);
        let verified = auth.verify(bearer.token()).await?;
        // Before Postgres is asked anything.
        let limit = CallLimit::from_ref(state);
        limit.users.take(verified.user_key(), Instant::now()).map_err(too_many)?;
        let caller = auth.admit(verified).await?;
        // For the body, which may name nobody else.
        parts.extensions.insert(caller.clone());
        Ok(caller)
    }
}

/// Where the client is, as far as the gateway can know.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub IpAddr);

impl<S> FromRequestParts<S> for ClientAddress
where
    S: Send + Sync,
    Arc<Config>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map_or(NOWHERE, |ConnectInfo(peer)| peer.ip());
        let trusts_proxy = Arc::<Config>::from_ref(state).rest.trust_proxy;
        let told = trusts_proxy.then(|| forwarded_for(&parts.headers)).flatten();
        Ok(Self(told.unwrap_or(peer)))
    }
}

/// The last entry is the one that the nearest proxy wrote; those before it anybody may write.
fn forwarded_for(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
    last.rsplit(',').next()?.trim().parse().ok()
}

/// A JSON body that is what its type says.
pub struct Body<T>(pub T);

impl<T, S> FromRequest<S> for Body<T>
where
    T: DeserializeOwned + Validate<Context = ()>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Unchecked(body) = Unchecked::<T>::from_request(request, state).await?;
        text::valid(&body)?;
        Ok(Self(body))
    }
}

/// A JSON body whose values somebody else checks.
pub struct Unchecked<T>(pub T);

impl<T, S> FromRequest<S> for Unchecked<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let caller = request.extensions().get::<Caller>().map(|caller| caller.user_id);
        if !is_json(request.headers()) {
            let error = WireError::new(
                ErrorCode::UnsupportedMedia,
                "the body must be Content-Type: application/json",
            );
            return Err(error.into());
        }
        let bytes = read(request).await?;
        let text = std::str::from_utf8(&bytes).map_err(|_| bad_request("the body is not UTF-8"))?;
        text::refuse_nul(text)?;
        if let Some(caller) = caller {
            refuse_impersonation(text, caller)?;
        }
        Ok(Self(serde_json::from_str(text).map_err(|error| malformed(&error))?))
    }
}

/// As [`Body`]; no body at all is the default.
pub struct OptionalBody<T>(pub T);

impl<T, S> FromRequest<S> for OptionalBody<T>
where
    T: DeserializeOwned + Validate<Context = ()> + Default,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let headers = request.headers();
        let empty = headers.get(header::CONTENT_LENGTH).is_none_or(|length| length == "0")
            && !headers.contains_key(header::TRANSFER_ENCODING)
            && !headers.contains_key(header::CONTENT_TYPE);
        if empty {
            return Ok(Self(T::default()));
        }
        let Body(body) = Body::from_request(request, state).await?;
        Ok(Self(body))
    }
}

/// What is read of a body that is too large, before it is answered: a connection that is closed
/// with something unread is reset, and the client would not see why.
const DRAINED_BYTES: usize = 2 * 1024 * 1024;
/// For how long.
const DRAINED_WITHIN: Duration = Duration::from_secs(1);

/// Reads on for a little while; the stream tells how many bytes come.
pub async fn drain(body: impl Stream<Item = usize>) {
    let drain = async {
        let mut body = std::pin::pin!(body);
        let mut drained = 0;
        while let (true, Some(bytes)) = (drained < DRAINED_BYTES, body.next().await) {
            drained += bytes;
        }
    };
    let _ = timeout(DRAINED_WITHIN, drain).await;
}

async fn read(request: Request) -> Result<axum::body::Bytes, Problem> {
    let mut body = request.into_body().into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| {
            // A client that hung up hears no answer anyway.
            WireError::new(ErrorCode::BadRequest, "the body is not complete")
        })?;
        if bytes.len() + chunk.len() > limits::FRAME_BYTES {
            drain(body.map(|chunk| chunk.map_or(DRAINED_BYTES, |chunk| chunk.len()))).await;
            let message = format!("the body is larger than {} bytes", limits::FRAME_BYTES);
            return Err(WireError::new(ErrorCode::TooLarge, message).into());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

/// Where reading stopped, not what stood there.
fn malformed(error: &serde_json::Error) -> WireError {
    let kind = match error.classify() {
        serde_json::error::Category::Data => "has a missing field or one of the wrong type",
        _ => "is not JSON",
    };
    bad_request(format!("the body {kind} (line {}, column {})", error.line(), error.column()))
}

/// The query string.
pub struct Query<T>(pub T);

impl<T, S> FromRequestParts<S> for Query<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        let axum::extract::Query(query) =
            query.map_err(|_| bad_request("a query parameter is missing, twice, or malformed"))?;
        // Decoded here only to look for a NUL: a literal one is no URL.
        if parts.uri.query().is_some_and(|query| query.contains("%00")) {
            return Err(bad_request("a query parameter has a NUL character").into());
        }
        Ok(Self(query))
    }
}

/// The one id in the path.
pub struct PathId<T>(pub T);

impl<T, S> FromRequestParts<S> for PathId<T>
where
    T: FromStr,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let id = params.ok().and_then(|params| params.iter().next()?.1.parse().ok());
        Ok(Self(id.ok_or_else(|| bad_request("the id in the path is not a UUID"))?))
    }
}

/// Two ids in the path, and a text behind them.
pub struct PathTail<A, B>(pub A, pub B, pub String);

impl<A, B, S> FromRequestParts<S> for PathTail<A, B>
where
    A: FromStr,
    B: FromStr,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let found = params.ok().and_then(|params| {
            let mut params = params.iter().map(|(_, text)| text);
            let (a, b) = (params.next()?.parse().ok()?, params.next()?.parse().ok()?);
            Some(Self(a, b, params.next()?.to_owned()))
        });
        Ok(found.ok_or_else(|| bad_request("an id in the path is not a UUID"))?)
    }
}

/// The two ids in the path.
pub struct PathIds<A, B>(pub A, pub B);

impl<A, B, S> FromRequestParts<S> for PathIds<A, B>
where
    A: FromStr,
    B: FromStr,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let ids = params.ok().and_then(|params| {
            let mut params = params.iter();
            Some((params.next()?.1.parse().ok()?, params.next()?.1.parse().ok()?))
        });
        let (a, b) = ids.ok_or_else(|| bad_request("an id in the path is not a UUID"))?;
        Ok(Self(a, b))
    }
}

/// How many, within bounds that are told rather than applied in silence.
pub fn limit(asked: Option<u32>, default: u32, most: u32) -> Result<u32, WireError> {
    match asked {
        None => Ok(default),
        Some(limit) if (1..=most).contains(&limit) => Ok(limit),
        Some(_) => Err(bad_request(format!("limit: is not 1 to {most}"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, Validate, Default)]
    struct Note {
        #[garde(length(chars, min = 1))]
        text: String,
    }

    fn request(body: impl Into<axum::body::Body>) -> anyhow::Result<Request> {
        let json = "application/json; charset=utf-8";
        Ok(Request::builder().header(header::CONTENT_TYPE, json).body(body.into())?)
    }

    async fn code(request: Request) -> Result<String, ErrorCode> {
        use axum::response::IntoResponse;
        match Body::<Note>::from_request(request, &()).await {
            Ok(Body(note)) => Ok(note.text),
            Err(problem) => {
                let body = problem.into_response().into_body();
                let bytes = axum::body::to_bytes(body, 10_000).await.unwrap_or_default();
                assert!(!String::from_utf8_lossy(&bytes).contains("s3cret"));
                #[derive(Deserialize)]
                struct Coded {
                    code: ErrorCode,
                }
                let coded: Result<Coded, _> = serde_json::from_slice(&bytes);
                Err(coded.map_or(ErrorCode::Internal, |coded| coded.code))
            }
        }
    }

    #[tokio::test]
    async fn a_body_is_json_of_its_type_within_its_size() -> anyhow::Result<()> {
        use ErrorCode::{BadRequest, TooLarge, UnsupportedMedia};
        assert_eq!(code(request(r#"{"text":"hello"}"#)?).await, Ok("hello".to_owned()));
        for malformed in [
            "",
            "s3cret",
            r#"{"text":"s3cret""#,
            r#"{"text":["s3cret"]}"#,
            r#"{"text":""}"#,
            r#"{"text":"s3cret\u0000"}"#,
            "{}",
            "null",
        ] {
            assert_eq!(code(request(malformed)?).await, Err(BadRequest), "{malformed}");
        }
        assert_eq!(code(request(vec![b'"', 0xff, b'"'])?).await, Err(BadRequest));
        assert_eq!(code(request("[".repeat(60_000))?).await, Err(BadRequest));
        assert_eq!(code(request("x".repeat(65_537))?).await, Err(TooLarge));
        let plain = Request::new(axum::body::Body::from(r#"{"text":"hello"}"#));
        assert_eq!(code(plain).await, Err(UnsupportedMedia));
        Ok(())
    }

    #[tokio::test]
    async fn a_body_may_be_missing_but_not_wrong() -> anyhow::Result<()> {
        let none = Request::new(axum::body::Body::empty());
        assert!(OptionalBody::<Note>::from_request(none, &()).await.is_ok());
        assert!(OptionalBody::<Note>::from_request(request("{")?, &()).await.is_err());
        Ok(())
    }

    #[test]
    fn only_the_nearest_proxy_is_believed() -> anyhow::Result<()> {
        let mut headers = HeaderMap::new();
        assert_eq!(forwarded_for(&headers), None);
        headers.append("x-forwarded-for", "6.6.6.6, 10.0.0.1".parse()?);
        assert_eq!(forwarded_for(&headers), Some("10.0.0.1".parse()?));
        headers.append("x-forwarded-for", "2001:db8::1".parse()?);
        assert_eq!(forwarded_for(&headers), Some("2001:db8::1".parse()?));
        headers.append("x-forwarded-for", "unknown".parse()?);
        assert_eq!(forwarded_for(&headers), None);
        Ok(())
    }

    proptest! {
        #[test]
        fn an_address_is_the_last_entry_whatever_stands_before(
            before in "[ -~]{0,40}", v4: u32, v6: u128, six: bool, junk in "[ -~]{0,20}",
        ) {
            let last: IpAddr = if six {
                std::net::Ipv6Addr::from_bits(v6).into()
            } else {
                std::net::Ipv4Addr::from_bits(v4).into()
            };
            let mut headers = HeaderMap::new();
            headers.append("x-forwarded-for", format!("{before}, {last}").parse().expect("ASCII"));
            prop_assert_eq!(forwarded_for(&headers), Some(last));
            headers.append("x-forwarded-for", junk.parse().expect("ASCII"));
            let parsed = junk.rsplit(',').next().and_then(|entry| entry.trim().parse().ok());
            prop_assert_eq!(forwarded_for(&headers), parsed);
        }
    }

    #[test]
    fn limits_are_told() {
        assert_eq!(limit(None, 50, 200), Ok(50));
        assert_eq!(limit(Some(200), 50, 200), Ok(200));
        assert!(limit(Some(201), 50, 200).is_err() && limit(Some(0), 50, 200).is_err());
    }
}
