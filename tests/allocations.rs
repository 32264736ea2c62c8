//! What a hit allocates, whether the cache weighs what it holds, and what a request out of the house
//! allocates: counted by the allocator itself.
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
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tower::{Layer, Service};
use tower_keep::cache::{Cache, CacheConfig, CacheLayer, CacheParts};
use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::invalidation::{InvalidateLayer, InvalidationConfig, InvalidationRule};
use tower_keep::invalidation::{Invalidator, Variables};
use tower_keep::journal::{Journal, JournalConfig};
use tower_keep::outbound::{QuotaConfig, QuotaLayer, RemoteQuota};
use tower_keep::tiers::{CacheError, EntryOptions, Getting};
use tower_keep::{Keep, Profile};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn cache() -> Cache {
    let parts = CacheParts {
        journal: Journal::new(&JournalConfig::default(), Events::none()).unwrap(),
        clock: Clock::system(),
        events: Events::none(),
        spawner: None,
        tiers: None,
    };
    Cache::new(&CacheConfig::default(), parts).unwrap()
}

/// A 200 of the usual fields and `bytes` bytes.
fn answer(bytes: usize) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    let response = Response::builder()
        .header("cache-control", "public, max-age=3600")
        .header("content-type", "application/json")
        .header("vary", "accept-language")
        .header("etag", format!("\"{bytes}\""))
        .header("x-request-id", format!("{bytes:032}"))
        .body(Full::from(vec![b'x'; bytes]));
    ready(Ok(response.unwrap()))
}

fn request(path: &str) -> Request<()> {
    Request::get(path)
        .header("host", "example.org")
        .header("accept-language", "de, en")
        .header("cookie", "session=1")
        .body(())
        .unwrap()
}

/// Drives one request to the end of its body without a runtime; nothing here waits.
fn exchange<S, B>(service: &mut S, request: Request<()>) -> usize
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
    let mut bytes = 0;
    while let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut cx) {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
    bytes
}

fn a_hit_allocates_little() {
    let mut service = CacheLayer::new(cache()).layer(tower::service_fn(|_| answer(1000)));
    exchange(&mut service, request("/a?b=c"));
    exchange(&mut service, request("/a?b=c"));
    let mut counts = Vec::new();
    for _ in 0..100 {
        let request = request("/a?b=c");
        let region = Region::new(ALLOCATOR);
        assert_eq!(exchange(&mut service, request), 1000);
        let change = region.change();
        counts.push(change.allocations + change.reallocations);
    }
    counts.sort_unstable();
    // The harness' own thread may allocate in between.
    println!("allocations per hit: {}", counts[50]);
    assert!(counts[50] <= 3, "{counts:?}");
}

/// What remembers that an answer cannot be stored is weighed as well.
fn markers_are_weighed_too() {
    let cache = cache();
    let refusing = tower::service_fn(|_| {
        let response = Response::builder().header("cache-control", "no-store");
        ready(Ok::<_, Infallible>(
            response.body(Full::<Bytes>::default()).unwrap(),
        ))
    });
    let mut service = CacheLayer::new(cache.clone()).layer(refusing);
    let mut warm = request("/warm");
    warm.headers_mut().remove("cookie");
    exchange(&mut service, warm);
    let (region, before) = (Region::new(ALLOCATOR), cache.bytes());
    for i in 0..10_000 {
        let mut request = request(&format!("/contacts/{i}?q=anna"));
        // What is asked with credentials leaves no marker.
        request.headers_mut().remove("cookie");
        exchange(&mut service, request);
    }
    let change = region.change();
    let held = change.bytes_allocated as f64 - change.bytes_deallocated as f64;
    let weighed = (cache.bytes() - before) as f64;
    println!(
        "markers: holds {:.0}, weighed {:.0} each",
        held / 1e4,
        weighed / 1e4
    );
    assert!(weighed >= held * 0.8, "weighed {weighed}, holds {held}");
}

fn the_weight_is_near_the_truth() {
    for bytes in [0, 100, 1_000, 10_000] {
        let cache = cache();
        let mut service =
            CacheLayer::new(cache.clone()).layer(tower::service_fn(move |_| answer(bytes)));
        exchange(&mut service, request("/warm"));
        let region = Region::new(ALLOCATOR);
        let before = cache.bytes();
        for i in 0..2000 {
            let path = format!("/contacts/{i}?q=anna");
            exchange(&mut service, request(&path));
        }
        let change = region.change();
        // Reallocations count in both.
        let held = change.bytes_allocated as f64 - change.bytes_deallocated as f64;
        let weighed = (cache.bytes() - before) as f64;
        println!(
            "{bytes}: holds {:.0}, weighed {:.0} each",
            held / 2e3,
            weighed / 2e3
        );
        assert_eq!(cache.len(), 2001);
        assert!(
            weighed >= held * 0.9,
            "{bytes}: weighed {weighed}, holds {held}"
        );
        assert!(
            weighed <= held * 1.2,
            "{bytes}: weighed {weighed}, holds {held}"
        );
    }
}

/// What a remote has left is known: asking, counting and learning from the answer are for nothing.
fn a_request_within_its_remotes_quota_allocates_nothing() {
    let told = |left: u32| {
        let response = Response::builder()
            .header(
                "ratelimit-policy",
                "\"minute\";q=10000;w=60, \"day\";q=90000",
            )
            .header(
                "ratelimit",
                format!("\"minute\";r={left};t=60, \"day\";r={left};t=9000"),
            )
            .header("retry-after", "5");
        response.body(Full::<Bytes>::default()).unwrap()
    };
    let mut answers: Vec<_> = (1_000..2_000).map(told).collect();
    let quota = RemoteQuota::new(&QuotaConfig::default(), Clock::system(), Events::none());
    let remote = tower::service_fn(move |_| ready(Ok::<_, Infallible>(answers.pop().unwrap())));
    let mut service = QuotaLayer::new(quota.unwrap()).layer(remote);
    exchange(&mut service, request("http://api.example.org/"));
    let mut counts = Vec::new();
    for _ in 0..100 {
        let request = request("http://api.example.org/");
        let region = Region::new(ALLOCATOR);
        exchange(&mut service, request);
        let change = region.change();
        counts.push(change.allocations + change.reallocations);
    }
    counts.sort_unstable();
    assert_eq!(counts[50], 0, "{counts:?}");
}

/// Rules that speak of other requests cost a look, even with a closure that would have to be fed.
fn a_write_of_no_rule_allocates_nothing() {
    let rule = |at: usize| InvalidationRule::new(format!("/{at}/{{id}}")).tags(["a:{{id}}"]);
    let config = InvalidationConfig {
        rules: (0..20).map(rule).collect(),
        ..InvalidationConfig::default()
    };
    let journal = Journal::new(&JournalConfig::default(), Events::none()).unwrap();
    let invalidator = Invalidator::new(&config, &[], journal, Events::none()).unwrap();
    let layer = InvalidateLayer::new(invalidator.variables(|_, _| Variables::new()));
    let mut answers: Vec<_> = (0..101)
        .map(|_| Response::new(Full::<Bytes>::default()))
        .collect();
    let inner = tower::service_fn(move |_| ready(Ok::<_, Infallible>(answers.pop().unwrap())));
    let mut service = layer.layer(inner);
    let counted = |service: &mut _, path: &str| {
        let mut request = request(path);
        *request.method_mut() = http::Method::PUT;
        let region = Region::new(ALLOCATOR);
        exchange(service, request);
        let change = region.change();
        change.allocations + change.reallocations
    };
    let mut counts: Vec<_> = (0..100)
        .map(|_| counted(&mut service, "/contacts/7"))
        .collect();
    counts.sort_unstable();
    assert_eq!(counts[50], 0, "{counts:?}");
    assert!(
        counted(&mut service, "/3/7") > 0,
        "a rule speaks of this one"
    );
}

/// What is in memory is found, shared and counted without an allocation, whatever its key is made of.
fn a_hit_of_a_typed_cache_allocates_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let keep = runtime.block_on(async { Keep::builder(Profile::development()).build().unwrap() });
    let cache = keep.cache::<String>("report");
    let tenant = cache.for_tenant("acme");
    let options = EntryOptions::new();
    let allocated = |ask: &dyn Fn() -> Getting<String>| {
        // The first one computes it.
        runtime.block_on(async { ask().await.unwrap() });
        let mut counts = Vec::new();
        for _ in 0..100 {
            let region = Region::new(ALLOCATOR);
            let mut cx = Context::from_waker(Waker::noop());
            let Poll::Ready(Ok(value)) = std::pin::pin!(ask()).poll(&mut cx) else {
                unreachable!("it is in memory")
            };
            drop(value);
            let change = region.change();
            counts.push(change.allocations + change.reallocations);
        }
        counts.sort_unstable();
        counts[50]
    };
    let compute = || ready(Ok::<_, CacheError>("a report".to_owned()));
    let text = allocated(&|| cache.get_or_compute("weekly", &options, compute));
    let tuple = allocated(&|| cache.get_or_compute((7, "weekly"), &options, compute));
    let theirs = allocated(&|| tenant.get_or_compute("weekly", &options, compute));
    assert_eq!((text, tuple, theirs), (0, 0, 0));
}

#[test]
fn hits_allocate_little_and_weights_are_true() {
    a_request_within_its_remotes_quota_allocates_nothing();
    a_write_of_no_rule_allocates_nothing();
    a_hit_allocates_little();
    a_hit_of_a_typed_cache_allocates_nothing();
    the_weight_is_near_the_truth();
    markers_are_weighed_too();
}
