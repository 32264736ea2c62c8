//! A million requests of somebody who invents paths, methods, hosts and `Accept` fields, and what they leave behind.
//!
//! In a process of its own, and in one test, because the allocator counts for all threads.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "tests fail by panicking, and their helpers are not an API"
)]

use std::alloc::System;
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response};
use http_body::Body;
use http_body_util::Full;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tower::{Layer, Service};
use tower_keep::clock::Clock;
use tower_keep::metrics::{
    Metrics, MetricsConfig, MetricsLayer, RequestSpanLayer, RequestSpans, ScrapeBody,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const REQUESTS: usize = 1_000_000;
const ROUTES: [&str; 3] = [
    "/contacts/{id}",
    "/contacts/{id}/notes/{note}",
    "/files/{*path}",
];

/// As many rows as there are: each template but that of notes, which no path here is of, and `unmatched`, with nine
/// methods and `_OTHER`.
const ROWS: usize = ROUTES.len() * 10;
/// Five status classes; cancelled, unanswered, slow, in flight; bytes received and sent; hits and misses; and a
/// histogram of sixteen limits, +Inf, sum and count.
const SERIES_OF_A_ROW: usize = 5 + 4 + 2 + 2 + 19;

/// Numbers that look like any (xorshift).
struct Chance(u64);

impl Chance {
    fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        self.number() as usize % end
    }

    fn word(&mut self, longest: usize) -> String {
        const LETTERS: &[u8] =
            b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&'*+-.^_`|~";
        let length = 1 + self.below(longest);
        let mut letter = || char::from(LETTERS[self.below(LETTERS.len())]);
        (0..length).map(|_| letter()).collect()
    }

    fn request(&mut self) -> Request<()> {
        const KNOWN: [&str; 10] = [
            "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "get",
        ];
        let method = match self.below(3) {
            0 => KNOWN[self.below(KNOWN.len())].to_owned(),
            _ => self.word(24),
        };
        let path = match self.below(4) {
            0 => format!("/contacts/{}", self.word(30)),
            1 => format!("/files/{}/{}?{}", self.word(9), self.word(9), self.word(9)),
            _ => format!("/{}/{}", self.word(40), self.word(40)),
        };
        let host = format!(
            "{}.example",
            self.word(12).replace(['^', '`', '|', '#'], "x")
        );
        let trace = format!(
            "00-{:032x}-{:016x}-0{}",
            self.number(),
            self.number(),
            self.below(4)
        );
        Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path.replace(['^', '`', '|', '#'], "x"))
            .header("host", host)
            .header("traceparent", trace)
            .header("content-length", self.length())
            .body(())
            .unwrap()
    }

    /// How long a body claims to be: nothing, all that a number can hold, and more.
    fn length(&mut self) -> &'static str {
        const LENGTHS: [&str; 5] = [
            "0",
            "1099511627776",
            "18446744073709551613",
            "18446744073709551616",
            "-1",
        ];
        LENGTHS[self.below(LENGTHS.len())]
    }

    /// Right, wrong, nonsense and far too long.
    fn accept(&mut self) -> HeaderValue {
        let text = match self.below(6) {
            0 => "application/openmetrics-text;version=1.0.0".to_owned(),
            1 => format!("application/openmetrics-text;q=0.{}", self.below(5_000)),
            2 => format!("{}/{};q={}", self.word(9), self.word(9), self.word(3)),
            3 => format!("text/plain;a=\"{}", self.word(90)),
            4 => ",;=\"".repeat(self.below(3_000)),
            _ => format!("{},", self.word(40)).repeat(self.below(400)),
        };
        HeaderValue::from_str(&text).unwrap()
    }
}

fn answer(request: &Request<()>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    let status = match request.uri().path().len() % 5 {
        0 => 101,
        1 => 301,
        2 => 404,
        3 => 503,
        _ => 200,
    };
    let by_cache = ["keep; hit", "keep; fwd=uri-miss; stored"];
    ready(Ok(Response::builder()
        .status(status)
        .header("cache-status", by_cache[request.uri().path().len() % 2])
        .body(Full::from("text"))
        .unwrap()))
}

/// Drives one request without a runtime; nothing here waits. Every other client leaves before the body's end.
fn exchange<S, B>(service: &mut S, request: Request<()>, to_the_end: bool)
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible>,
    B: Body<Data = Bytes, Error = Infallible>,
{
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let Poll::Ready(Ok(response)) = std::pin::pin!(service.call(request)).poll(&mut cx) else {
        unreachable!("the service is always ready")
    };
    let mut body = std::pin::pin!(response.into_body());
    while to_the_end && matches!(body.as_mut().poll_frame(&mut cx), Poll::Ready(Some(_))) {}
}

/// The lines of a text that are no comments, and the longest piece it came in.
fn series_of(body: ScrapeBody) -> (usize, usize) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut body = std::pin::pin!(body);
    let (mut series, mut longest) = (0, 0);
    loop {
        match body.as_mut().poll_frame(&mut cx) {
            Poll::Pending => {}
            Poll::Ready(None) => return (series, longest),
            Poll::Ready(Some(frame)) => {
                let piece = frame.unwrap().into_data().unwrap();
                let lines = piece.split_inclusive(|byte| *byte == b'\n');
                series += lines.filter(|line| !line.starts_with(b"#")).count();
                longest = longest.max(piece.len());
            }
        }
    }
}

#[test]
fn a_million_hostile_requests_add_no_series_and_no_memory() {
    let config = MetricsConfig {
        routes: ROUTES.map(str::to_owned).to_vec(),
        trace_sample: 0.1,
        ..MetricsConfig::default()
    };
    let metrics = Metrics::new(&config, Clock::system()).unwrap();
    let spans = RequestSpanLayer::new(RequestSpans::new(&config, Clock::system()));
    let service = tower::service_fn(|request: Request<()>| answer(&request));
    let mut service = spans.layer(MetricsLayer::new(metrics.clone()).layer(service));
    #[cfg(feature = "metrics-facade")]
    let mut bridge = tower_keep::metrics::FacadeBridge::new(&metrics);
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    // What a text has besides: counters and histograms of the rooms, which told nothing and will not.
    let (besides, _) = series_of(metrics.scrape(None).into_body());
    let mut held = None;
    let mut most = 0;
    for number in 0..REQUESTS {
        let request = chance.request();
        exchange(&mut service, request, number % 2 == 0);
        if number % 10_000 == 9_999 {
            let accept = chance.accept();
            let (series, longest) = series_of(metrics.scrape(Some(&accept)).into_body());
            assert!(longest < 40 << 10, "{longest}");
            most = most.max(series);
            #[cfg(feature = "metrics-facade")]
            bridge.publish();
        }
        if number == REQUESTS / 10 {
            // Every row is there by now.
            held = Some(Region::new(ALLOCATOR));
        }
    }
    assert_eq!(metrics.snapshot().routes.len(), ROWS);
    assert_eq!(most, besides + ROWS * SERIES_OF_A_ROW);
    assert_eq!(metrics.snapshot().http.requests, REQUESTS as u64);
    let change = held.unwrap().change();
    let kept = change.bytes_allocated as i64 - change.bytes_deallocated as i64;
    println!("{most} series at most, {kept} bytes kept by 900,000 requests");
    assert!(kept.abs() < 64 << 10, "{kept}");
    assert!(
        change.bytes_allocated > 100 << 20,
        "the allocator does count"
    );
}
