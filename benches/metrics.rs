//! What it costs to be counted, to look back at the last hour, and to be scraped.
//!
//! `cargo bench --bench metrics [-- layer events past memory]`. A request without the layer stands beside each figure,
//! and a table at the end says which goals were met. What peers take for the same is measured by `benches/peers`.

#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench fails by panicking, and measures time"
)]

#[path = "journal/goals.rs"]
#[expect(dead_code, reason = "others need all of it")]
mod goals;

use std::alloc::System;
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::Criterion;
use http::{HeaderValue, Request, Response};
use http_body::Body as _;
use http_body_util::Full;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tower::{Layer, Service};
use tower_keep::clock::{Clock, ManualClock};
use tower_keep::event::{Event, Recorder};
use tower_keep::metrics::{
    Histogram, Metrics, MetricsConfig, MetricsLayer, MetricsService, Window,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

type Body = Full<Bytes>;

/// A name for the command line, and what measures it.
type Group = (&'static str, fn(&mut Criterion));

const GROUPS: &[Group] = &[
    ("layer", layer),
    ("events", events),
    ("past", past),
    ("memory", memory),
];

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(50)
        .measurement_time(Duration::from_secs(2));
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let is_named = |name: &str| asked.iter().any(|word| word == name);
    let all = !GROUPS.iter().any(|(name, _)| is_named(name));
    for (name, group) in GROUPS {
        if all || is_named(name) {
            group(&mut criterion);
        }
    }
    goals::table();
}

/// Answers at once, with a kilobyte.
#[derive(Clone)]
struct Noop(Response<Body>);

impl Noop {
    fn new(fields: &[(&'static str, &'static str)]) -> Self {
        let mut answer = Response::new(Body::from(vec![b'x'; 1024]));
        for (name, value) in fields {
            let value = HeaderValue::from_static(value);
            answer.headers_mut().insert(*name, value);
        }
        Self(answer)
    }
}

impl Service<Request<Body>> for Noop {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(self.0.clone()))
    }
}

/// One request to the end of its answer's body, polled by hand: no executor in the figure.
fn drive<S, B>(service: &mut S, path: &'static str, fields: &[(&'static str, &'static str)])
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes, Error = Infallible>,
{
    let mut request = Request::new(Body::default());
    *request.uri_mut() = http::Uri::from_static(path);
    for (name, value) in fields {
        let value = HeaderValue::from_static(value);
        request.headers_mut().insert(*name, value);
    }
    let mut cx = Context::from_waker(Waker::noop());
    let _ = black_box(service.poll_ready(&mut cx));
    let Poll::Ready(Ok(answer)) = pin!(service.call(request)).poll(&mut cx) else {
        unreachable!("nothing here waits")
    };
    let mut body = pin!(answer.into_body());
    while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut cx) {
        let _ = black_box(frame);
    }
}

fn metrics(routes: usize) -> (Metrics, Clock, ManualClock) {
    let config = MetricsConfig {
        routes: (0..routes)
            .map(|route| format!("/{route}/{{id}}"))
            .collect(),
        ..MetricsConfig::default()
    };
    let (clock, hand) = Clock::manual();
    let metrics = Metrics::new(&config, clock.clone()).expect("settings");
    (metrics, clock, hand)
}

fn layer(criterion: &mut Criterion) {
    let config = MetricsConfig {
        routes: (0..50).map(|route| format!("/{route}/{{id}}")).collect(),
        ..MetricsConfig::default()
    };
    let metrics = Metrics::new(&config, Clock::system()).expect("settings");
    let usual = [
        ("host", "crm.example"),
        ("user-agent", "bench/1"),
        ("accept", "application/json"),
    ];
    let traced = [
        ("host", "crm.example"),
        ("user-agent", "bench/1"),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
    ];
    let answered = [("content-type", "application/json"), ("etag", "\"v1\"")];
    let hit = [("cache-status", "keep; hit"), ("etag", "\"v1\"")];
    let mut group = criterion.benchmark_group("metrics/layer");
    for (name, asked, told) in [
        ("no fields", &[][..], &[][..]),
        ("a few fields", &usual, &answered),
        ("traced", &traced, &answered),
        ("a hit", &usual, &hit),
    ] {
        let mut bare = Noop::new(told);
        let mut counted = MetricsLayer::new(metrics.clone()).layer(bare.clone());
        // In turns, so that what else the machine does meets both.
        let mut differences = Vec::new();
        for _ in 0..9 {
            let without = goals::nanos(|| drive(&mut bare, "/7/42", asked));
            let with = goals::nanos(|| drive(&mut counted, "/7/42", asked));
            differences.push(with - without);
        }
        let adds = goals::quantile(differences, 0.5);
        goals::note(format!("the layer adds, {name}"), adds, 100.0, "ns");
        group.bench_function(format!("{name}, bare"), |bench| {
            bench.iter(|| drive(&mut bare, "/7/42", asked));
        });
        group.bench_function(format!("{name}, counted"), |bench| {
            bench.iter(|| drive(&mut counted, "/7/42", asked));
        });
    }
    group.finish();
}

fn events(criterion: &mut Criterion) {
    let (metrics, ..) = metrics(1);
    let mut group = criterion.benchmark_group("metrics/events");
    let histogram = Histogram::new();
    let took = Duration::from_micros(1234);
    group.bench_function("a histogram's record", |bench| {
        bench.iter(|| histogram.record(black_box(took)));
    });
    for (name, event) in [
        ("a cache hit", Event::CacheHit { stale: false }),
        ("a rule's yes", Event::RateLimitAllowed { rule: "login" }),
        (
            "an admission",
            Event::GuardAdmitted {
                waited: Duration::ZERO,
            },
        ),
    ] {
        group.bench_function(name, |bench| {
            bench.iter(|| metrics.record(black_box(&event)))
        });
    }
    group.finish();
}

/// A metrics whose 500 routes were all used in each step of the last hour, with latencies all over the place.
fn an_hour_of_500_routes() -> (Metrics, ManualClock) {
    let (metrics, _, hand) = metrics(500);
    let mut service = slow(&metrics, &hand);
    let mut chance = 1_u64;
    for _ in 0..370 {
        for route in 0..500 {
            chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            asks(&mut service, route, chance >> 33);
        }
        hand.advance(Duration::from_secs(10));
        metrics.turn();
    }
    (metrics, hand)
}

type Slow = MetricsService<SlowNoop>;

/// Takes as many microseconds as the path says.
#[derive(Clone)]
struct SlowNoop(ManualClock);

impl Service<Request<Body>> for SlowNoop {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let took = request.uri().path().rsplit('/').next();
        let took = took.and_then(|took| took.parse().ok()).expect("a number");
        self.0.advance(Duration::from_micros(took));
        ready(Ok(Response::new(Body::default())))
    }
}

fn slow(metrics: &Metrics, hand: &ManualClock) -> Slow {
    MetricsLayer::new(metrics.clone()).layer(SlowNoop(hand.clone()))
}

fn asks(service: &mut Slow, route: usize, random: u64) {
    // Most are fast, some are not: four orders of magnitude.
    let took = 10_u64.pow((random % 4) as u32) * (1 + random / 4 % 9);
    let request = Request::builder().uri(format!("/{route}/{took}"));
    let request = request.body(Body::default()).expect("a request");
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(answer)) = pin!(service.call(request)).poll(&mut cx) else {
        unreachable!("nothing here waits")
    };
    drop(answer);
}

fn past(criterion: &mut Criterion) {
    let (metrics, hand) = an_hour_of_500_routes();
    let mut group = criterion.benchmark_group("metrics/past of 500 routes");
    for window in Window::ALL {
        group.bench_function(window.name(), |bench| {
            bench.iter(|| black_box(metrics.window(window)));
        });
    }
    group.bench_function("a snapshot", |bench| {
        bench.iter(|| black_box(metrics.snapshot()));
    });
    let mut service = slow(&metrics, &hand);
    group.bench_function("a step in which each was used", |bench| {
        bench.iter_custom(|rounds| {
            let mut took = Duration::ZERO;
            for round in 0..rounds {
                (0..500).for_each(|route| asks(&mut service, route, round));
                let began = Instant::now();
                metrics.turn();
                took += began.elapsed();
            }
            took
        });
    });
    group.finish();
    scrape(&metrics);
}

/// All of it to the end, and the longest that anybody else has to wait meanwhile: medians of many.
fn scrape(metrics: &Metrics) {
    let mut cx = Context::from_waker(Waker::noop());
    let (mut all, mut longest) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let mut body = pin!(metrics.scrape(None).into_body());
        let (mut sum, mut most, mut bytes) = (0.0, 0.0_f64, 0);
        loop {
            let began = Instant::now();
            let polled = body.as_mut().poll_frame(&mut cx);
            let took = began.elapsed().as_secs_f64() * 1e3;
            (sum, most) = (sum + took, most.max(took));
            match polled {
                Poll::Ready(None) => break,
                Poll::Ready(Some(Ok(frame))) => bytes += frame.data_ref().map_or(0, Bytes::len),
                Poll::Ready(Some(Err(never))) => match never {},
                Poll::Pending => {}
            }
        }
        assert!(bytes > 500_000, "all of it");
        all.push(sum);
        longest.push(most);
    }
    goals::note(
        "a scrape of 500 routes",
        goals::quantile(all, 0.5),
        5.0,
        "ms",
    );
    goals::note(
        "its longest piece, 99 % of scrapes",
        goals::quantile(longest, 0.99),
        1.0,
        "ms",
    );
}

/// What a route takes, and that nothing grows with requests where nobody scrapes.
fn memory(_: &mut Criterion) {
    let region = Region::new(ALLOCATOR);
    let held = |region: &Region<'_, System>| {
        let change = region.change();
        change.bytes_allocated as f64 - change.bytes_deallocated as f64
    };
    let (metrics, _, hand) = metrics(500);
    let mut service = slow(&metrics, &hand);
    for route in 0..500 {
        asks(&mut service, route, 5);
    }
    let counts = held(&region) / 500.0;
    println!("a route's counts: {counts:.0} bytes");
    drop((service, metrics));
    let region = Region::new(ALLOCATOR);
    let (metrics, _) = an_hour_of_500_routes();
    let all = held(&region) / 500.0;
    println!("and with the windows of an hour in which it was used in every step: {all:.0} bytes");
    let each = (all - counts) / 3.0;
    goals::note(
        "memory of a route's window, of three",
        each / 1024.0,
        1.0,
        "KiB",
    );

    let (flat, _, hand) = self::metrics(50);
    let mut service = slow(&flat, &hand);
    let mut chance = 7_u64;
    let mut many = |requests: usize| {
        for request in 0..requests {
            chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            asks(&mut service, request % 50, chance >> 33);
            if request % 10_000 == 0 {
                hand.advance(Duration::from_secs(10));
                flat.turn();
            }
        }
    };
    // Until every window is full.
    many(3_700_000);
    let region = Region::new(ALLOCATOR);
    many(10_000_000);
    let grown = held(&region) / 1024.0 / 1024.0;
    goals::note(
        "growth over 10 M requests that nobody scrapes",
        grown.abs(),
        1.0,
        "MiB",
    );
    drop(metrics);
}
