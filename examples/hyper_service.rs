//! The keep without axum: hyper accepts, `tower` composes, and the routes are our own.
//!
//! `cargo run --example hyper_service`, then, twice: `curl -i http://127.0.0.1:3000/primes/20000`
//!
//! Two things that axum would have said must be said here: which peer a connection has
//! ([`PeerAddr`], else all clients share one quota), and which path templates there are (else all
//! requests count as one route).

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::{ServiceBuilder, service_fn};
use tower_keep::identity::PeerAddr;
use tower_keep::{Keep, Profile};

/// The one template; requests are counted under it.
const PRIMES: &str = "/primes/{count}";
/// More primes than this take too long for an answer.
const COUNT_MAX: usize = 50_000;
/// How long connections may finish at the end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let keep = Keep::builder(Profile::from_env())
        .routes([PRIMES])
        .env()
        .build()?;
    let service = ServiceBuilder::new()
        .layer(keep.layer())
        .service(service_fn(answer));

    let port = match std::env::var("PORT") {
        Ok(text) => text.parse()?,
        Err(_) => 3000,
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on http://{}", listener.local_addr()?);

    let server = auto::Builder::new(TokioExecutor::new());
    let draining = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut stop = pin!(tokio::signal::ctrl_c());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stop => break,
        };
        let Ok((stream, peer)) = accepted else {
            // Too many open files, most likely. Accepting again at once would spin until one closes.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // The layers' state is in the layers: a clone for each connection still counts as one.
        let service = ServiceBuilder::new()
            .map_request(move |request| from(peer, request))
            .service(service.clone());
        let connection = server
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
            .into_owned();
        let connection = draining.watch(connection);
        connections.spawn(async move {
            // A client that breaks off is its own business.
            let _ = connection.await;
        });
        while connections.try_join_next().is_some() {}
    }
    keep.drain();
    drop(listener);
    if tokio::time::timeout(DRAIN_DEADLINE, draining.shutdown())
        .await
        .is_err()
    {
        eprintln!("some requests took more than {DRAIN_DEADLINE:?} to finish and were left");
    }
    keep.shutdown().await;
    Ok(())
}

/// Notes where a request came from.
fn from(peer: SocketAddr, mut request: Request<Incoming>) -> Request<Incoming> {
    request.extensions_mut().insert(PeerAddr(peer));
    request
}

/// `GET /primes/{count}`: the last of the first `count` primes, found the slow way.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let Some(count) = request.uri().path().strip_prefix("/primes/") else {
        return Ok(text(StatusCode::NOT_FOUND, "try /primes/20000"));
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only");
        let allowed = header::HeaderValue::from_static("GET, HEAD");
        refused.headers_mut().insert(header::ALLOW, allowed);
        return Ok(refused);
    }
    let Ok(count @ 1..=COUNT_MAX) = count.parse() else {
        let fault = format!("count is a number from 1 to {COUNT_MAX}");
        return Ok(text(StatusCode::BAD_REQUEST, fault));
    };
    let found = tokio::task::spawn_blocking(move || prime(count)).await;
    let Ok(prime) = found else {
        return Ok(text(StatusCode::INTERNAL_SERVER_ERROR, "no prime today"));
    };
    let mut answer = text(StatusCode::OK, format!("prime {count} is {prime}"));
    // The keep takes it from here: who asks for the same number today gets the same answer.
    let today = header::HeaderValue::from_static("public, max-age=86400");
    answer.headers_mut().insert(header::CACHE_CONTROL, today);
    Ok(answer)
}

fn text(status: StatusCode, line: impl Into<String>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(line.into() + "\n"));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The `count`-th prime, by dividing each number by the primes before it.
fn prime(count: usize) -> u64 {
    let mut primes: Vec<u64> = Vec::with_capacity(count);
    let mut last = 1;
    while primes.len() < count {
        last += 1;
        let known = primes.iter().take_while(|prime| *prime * *prime <= last);
        if known.into_iter().all(|prime| last % prime != 0) {
            primes.push(last);
        }
    }
    last
}
