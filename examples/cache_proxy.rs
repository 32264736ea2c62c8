//! A reverse proxy that is nothing but the cache layer before an origin, so that a conformance suite for
//! HTTP caches can be pointed at it.
//!
//! `cargo run --release --example cache_proxy -- --listen 127.0.0.1:8080 --origin http://127.0.0.1:8000`
//!
//! The layer has [`CacheConfig::rfc9111`], what RFC 9111 allows a shared cache, and no special cases. Every
//! method and status from 200 to 999 goes through unchanged, fields of one connection go no further (RFC 9110
//! §7.6.1), nothing is ever sent twice, and an origin that cannot be reached or breaks off is a 502, one that takes too long a 504. Interim answers
//! (1xx) end here: hyper's server has no way to send them on.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use http::header::{
    CONNECTION, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, VIA,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt, service_fn};
use tower_keep::cache::CacheConfig;
use tower_keep::{Keep, Profile};

/// How long the origin may take to begin its answer.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);
/// Shorter than any server's patience, or a connection might close under a request, which is not sent twice.
const IDLE_MAX: Duration = Duration::from_secs(1);

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, hyper::Error>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { listen, origin } = Arguments::read(std::env::args().skip(1))?;
    let keep = Keep::builder(Profile::production())
        .cache(|cache| *cache = CacheConfig::rfc9111())
        .build()?;

    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new())
        .retry_canceled_requests(false)
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_MAX)
        .build(connector);
    let forward = service_fn(move |request| forward(client.clone(), origin.clone(), request));
    // Failures stay failures up to the cache, which may know an answer that serves in their place.
    let cached = keep.cache_layer().layer(forward);

    let listener = TcpListener::bind(listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new());
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = tokio::signal::ctrl_c() => break,
        };
        let Ok((stream, _)) = accepted else {
            // Too many open files, most likely. Accepting again at once would spin until one closes.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let cached = cached.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let cached = cached.clone();
            async move {
                let answered = cached.oneshot(request).await;
                Ok::<_, std::convert::Infallible>(match answered {
                    Ok(response) => response.map(BodyExt::boxed_unsync),
                    Err(failure) => apology(failure),
                })
            }
        });
        let connection =
            server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        connections.spawn(async move {
            // A client that breaks off is its own business.
            let _ = connection.await;
        });
    }
    keep.shutdown().await;
    Ok(())
}

/// Why there is no answer from the origin.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// It could not be reached, or broke off before its answer.
    Broken,
    /// It took longer than [`HEAD_DEADLINE`].
    Late,
}

/// Sends a request on to the origin, once.
async fn forward(
    client: Client<HttpConnector, Incoming>,
    origin: Authority,
    request: Request<Incoming>,
) -> Result<Response<Incoming>, Failure> {
    let (mut head, body) = request.into_parts();
    let target = head.uri.path_and_query().cloned();
    let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let uri = Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(origin)
        .path_and_query(target);
    head.uri = uri.build().map_err(|_| Failure::Broken)?;
    head.version = Version::HTTP_11;
    strip_connection_fields(&mut head.headers);
    head.headers.remove(PROXY_AUTHORIZATION);
    // RFC 9110 §7.6.3: "An intermediary .. MUST send an appropriate Via header field in each message that
    // it forwards" as a gateway does inbound.
    head.headers
        .append(VIA, HeaderValue::from_static("1.1 tower-keep"));
    let sent = client.request(Request::from_parts(head, body));
    match tokio::time::timeout(HEAD_DEADLINE, sent).await {
        Ok(Ok(mut response)) => {
            strip_connection_fields(response.headers_mut());
            *response.version_mut() = Version::HTTP_11;
            Ok(response)
        }
        Ok(Err(_)) => Err(Failure::Broken),
        Err(_) => Err(Failure::Late),
    }
}

/// RFC 9110 §7.6.1: what concerns one connection, and what `Connection` lists.
fn strip_connection_fields(headers: &mut HeaderMap) {
    let lines = headers.get_all(CONNECTION).into_iter();
    let listed: Vec<HeaderName> = lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| *name != HOST)
        .collect();
    for name in listed {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        PROXY_AUTHENTICATE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        headers.remove(name);
    }
}

fn apology(failure: Failure) -> Response<Body> {
    let status = match failure {
        Failure::Broken => StatusCode::BAD_GATEWAY,
        Failure::Late => StatusCode::GATEWAY_TIMEOUT,
    };
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// What the command line says.
struct Arguments {
    listen: SocketAddr,
    origin: Authority,
}

impl Arguments {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut listen, mut origin) = (None, None);
        while let Some(word) = words.next() {
            let value = words
                .next()
                .ok_or_else(|| format!("{word} needs a value; {USAGE}"))?;
            let fault = || format!("{word} cannot be {value:?}; {USAGE}");
            match &*word {
                "--listen" => listen = Some(value.parse().map_err(|_| fault())?),
                "--origin" => {
                    let uri: Uri = value.parse().map_err(|_| fault())?;
                    let plain = uri.scheme() == Some(&Scheme::HTTP) && uri.path() == "/";
                    let authority = uri.authority().filter(|_| plain);
                    origin = Some(authority.cloned().ok_or_else(fault)?);
                }
                _ => return Err(format!("there is no {word}; {USAGE}")),
            }
        }
        match (listen, origin) {
            (Some(listen), Some(origin)) => Ok(Self { listen, origin }),
            _ => Err(USAGE.to_owned()),
        }
    }
}

const USAGE: &str = "usage: cache_proxy --listen 127.0.0.1:PORT --origin http://HOST:PORT";
