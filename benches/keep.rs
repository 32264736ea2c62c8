//! What each layer, and the whole stack, costs around a service that does nothing.
//!
//! `cargo bench --bench keep`. The bare service stands beside the layers as the floor; building the
//! request and dropping the answer is part of every figure. Allocations are counted, not estimated.

#![allow(
    clippy::expect_used,
    missing_docs,
    reason = "a bench fails by panicking, and criterion's macros make undocumented functions"
)]

use std::alloc::System;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use criterion::{
    BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use http::header::{ACCEPT, ACCEPT_ENCODING, HOST, USER_AGENT};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tower::{Layer, Service, ServiceExt};
use tower_keep::identity::PeerAddr;
use tower_keep::{Keep, Profile};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

type Body = Empty<Bytes>;
type Answer = Response<Full<Bytes>>;

/// Answers with 1 KiB and four fields; `cacheable` says whether it may be stored.
#[derive(Clone)]
struct Noop {
    answer: Answer,
}

impl Noop {
    fn new(cacheable: bool) -> Self {
        let mut answer = Response::new(Full::from(vec![b'x'; 1024]));
        let headers = answer.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.insert("etag", HeaderValue::from_static("\"v1\""));
        headers.insert(
            "date",
            HeaderValue::from_static("Thu, 01 Jan 2026 00:00:00 GMT"),
        );
        let policy = if cacheable {
            "public, max-age=31536000"
        } else {
            "no-store"
        };
        headers.insert("cache-control", HeaderValue::from_static(policy));
        Self { answer }
    }
}

impl Service<Request<Body>> for Noop {
    type Response = Answer;
    type Error = Infallible;
    type Future = Ready<Result<Answer, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(self.answer.clone()))
    }
}

fn request() -> Request<Body> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = http::Uri::from_static("/contacts/7");
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("crm.example"));
    headers.insert(USER_AGENT, HeaderValue::from_static("bench/1"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    request
        .extensions_mut()
        .insert(PeerAddr(SocketAddr::from(([203, 0, 113, 7], 50_000))));
    request
}

/// One request through a service that is ready at once, polled by hand: no executor in the figure.
fn drive<S>(service: &mut S)
where
    S: Service<Request<Body>, Error = Infallible>,
{
    let mut cx = Context::from_waker(Waker::noop());
    let _ = black_box(service.poll_ready(&mut cx));
    let mut answer = std::pin::pin!(service.call(request()));
    match answer.as_mut().poll(&mut cx) {
        Poll::Ready(answer) => drop(black_box(answer)),
        Poll::Pending => unreachable!("nothing here waits"),
    }
}

fn measure<S>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut service: S)
where
    S: Service<Request<Body>, Error = Infallible>,
{
    drive(&mut service);
    let region = Region::new(ALLOCATOR);
    for _ in 0..1_000 {
        drive(&mut service);
    }
    let allocations = region.change().allocations as f64 / 1_000.0;
    println!("{name}: {allocations:.1} allocations per request");
    group.bench_function(name, |bench| bench.iter(|| drive(&mut service)));
}

fn layers(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime can be had");
    let _inside = runtime.enter();
    // A quota that never ends: the figure is of the way that lets requests pass.
    let keep = Keep::builder(Profile::production())
        .rate_limit(|limits| {
            limits.requests_max = 1_000_000;
            limits.window = Duration::from_secs(1);
            limits.burst = Some(1_000_000);
        })
        .build()
        .expect("a valid configuration");
    let strict = Keep::builder(Profile::production())
        .rate_limit(|limits| {
            limits.requests_max = 1;
            limits.window = Duration::from_secs(86_400);
        })
        .build()
        .expect("a valid configuration");

    let mut group = criterion.benchmark_group("keep");
    let (cacheable, uncacheable) = (Noop::new(true), Noop::new(false));
    measure(&mut group, "bare", uncacheable.clone());
    measure(
        &mut group,
        "metrics",
        keep.metrics_layer().layer(uncacheable.clone()),
    );
    measure(
        &mut group,
        "guard",
        keep.guard_layer().layer(uncacheable.clone()),
    );
    measure(
        &mut group,
        "rate_limit/allow",
        keep.rate_limit_layer().layer(uncacheable.clone()),
    );
    measure(
        &mut group,
        "rate_limit/deny",
        strict.rate_limit_layer().layer(uncacheable.clone()),
    );
    measure(
        &mut group,
        "invalidation",
        keep.invalidate_layer().layer(uncacheable.clone()),
    );
    measure(
        &mut group,
        "cache/uncacheable",
        keep.cache_layer().layer(uncacheable.clone()),
    );

    let cached = keep.cache_layer().layer(cacheable.clone());
    // A miss is stored when its body has been read to the end.
    let miss = runtime
        .block_on(cached.clone().oneshot(request()))
        .expect("infallible");
    runtime
        .block_on(miss.into_body().collect())
        .expect("infallible");
    measure(&mut group, "cache/hit", cached);
    measure(&mut group, "stack/hit", keep.layer().layer(cacheable));
    drop(keep.invalidator().purge_everything());
    measure(
        &mut group,
        "stack/uncacheable",
        keep.layer().layer(uncacheable),
    );
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(60).measurement_time(Duration::from_secs(3));
    targets = layers
}
criterion_main!(benches);
