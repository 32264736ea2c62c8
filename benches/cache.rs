//! What a hit, a miss and an answer that may not be stored cost, beside their floors.
//!
//! `cargo bench --bench cache`. Building the request and dropping the answer is part of every figure;
//! `request` is that alone. The floor of a hit is a look into quick_cache, a cloned header map and a shared
//! body; the floor of a miss is the service without the cache. 10,000 addresses by Zipf's law (0.99).
//! Allocations are counted. What peers take for the same is measured by `benches/peers`.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    missing_docs,
    reason = "a bench measures by itself, fails by panicking, and criterion's macros make undocumented functions"
)]

use std::alloc::System;
use std::convert::Infallible;
use std::future::{Future, Ready, poll_fn, ready};
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{
    BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_TYPE, ETAG, HOST,
    LAST_MODIFIED, USER_AGENT, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{Full, StreamBody};
use quick_cache::UnitWeighter;
use quick_cache::sync::DefaultLifecycle;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_keep::cache::{Cache, CacheConfig, CacheLayer, CacheParts, CacheService};
use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::journal::{Journal, JournalConfig};
use tower_keep::task::Tasks;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const KEYS: usize = 10_000;
const KIB: usize = 1 << 10;

/// The same requests for everybody: addresses in the order of their draw.
#[derive(Clone)]
struct Traffic {
    requests: Arc<[Request<()>]>,
    draws: Arc<[u32]>,
    at: usize,
}

impl Traffic {
    fn new(keys: usize) -> Self {
        let requests = (0..keys).map(|key| {
            Request::get(format!("/items/{key:08}"))
                .header(HOST, "shop.example")
                .header(USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64; rv:140.0)")
                .header(ACCEPT, "application/json, text/html;q=0.9, */*;q=0.8")
                .header(ACCEPT_ENCODING, "gzip, deflate, br, zstd")
                .body(())
                .expect("a request")
        });
        let requests: Arc<[_]> = requests.collect();
        // The first clone of a `Bytes` made from a `Vec` allocates its count.
        requests.iter().for_each(|request| drop(request.clone()));
        Self {
            requests,
            draws: zipf(keys),
            at: 0,
        }
    }

    fn draw(&mut self) -> Request<()> {
        self.at = (self.at + 1) % self.draws.len();
        self.requests[self.draws[self.at] as usize].clone()
    }
}

fn zipf(keys: usize) -> Arc<[u32]> {
    let mut sums = Vec::with_capacity(keys);
    let mut sum = 0.0;
    for rank in 1..=keys {
        sum += (rank as f64).powf(-0.99);
        sums.push(sum);
    }
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let target = (state >> 11) as f64 / (1_u64 << 53) as f64 * sum;
        let rank = sums.partition_point(|below| *below < target).min(keys - 1);
        // The popular are spread over all keys, lest they lie side by side in memory.
        (rank * 7919 % keys) as u32
    };
    (0..1 << 16).map(|_| draw()).collect()
}

/// A prepared answer of six fields and a body that is shared.
fn answer(status: StatusCode, cache_control: &'static str, body: &Bytes) -> Response<Full<Bytes>> {
    let mut headers = HeaderMap::with_capacity(6);
    for (name, value) in [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, cache_control),
        (ETAG, "\"33a64df551425fcc55e4d42a148795d9f25f89d4\""),
        (LAST_MODIFIED, "Fri, 20 Nov 2026 07:28:00 GMT"),
        (CONTENT_LANGUAGE, "en"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let mut answer = Response::new(Full::new(body.clone()));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}

type Answer = Result<Response<Full<Bytes>>, Infallible>;

fn origin(
    status: StatusCode,
    cache_control: &'static str,
    bytes: usize,
) -> impl Service<
    Request<()>,
    Response = Response<Full<Bytes>>,
    Error = Infallible,
    Future = Ready<Answer>,
> + Clone
+ Send
+ 'static {
    let body = Bytes::from(vec![b'x'; bytes]);
    service_fn(move |_: Request<()>| ready(Ok(answer(status, cache_control, &body))))
}

fn cache(capacity_bytes: u64, tasks: Option<&Tasks>) -> CacheLayer {
    let config = CacheConfig {
        capacity_bytes,
        body_bytes_max: 256 << 10,
        ..CacheConfig::default()
    };
    let journal = Journal::new(&JournalConfig::default(), Events::none());
    let parts = CacheParts {
        journal: journal.expect("a valid configuration"),
        clock: Clock::system(),
        events: Events::none(),
        spawner: tasks.map(Tasks::spawner),
        tiers: None,
    };
    CacheLayer::new(Cache::new(&config, parts).expect("a valid configuration"))
}

/// The least that a hit can cost.
fn floor(
    bytes: usize,
) -> impl Service<
    Request<()>,
    Response = Response<Full<Bytes>>,
    Error = Infallible,
    Future = Ready<Answer>,
> + Clone {
    let store = quick_cache::sync::Cache::<String, Arc<(HeaderMap, Bytes)>, _, _, _>::with(
        KEYS * 2,
        KEYS as u64 * 2,
        UnitWeighter,
        foldhash::quality::RandomState::default(),
        DefaultLifecycle::default(),
    );
    let store = Arc::new(store);
    service_fn(move |request: Request<()>| {
        let path = request.uri().path();
        let stored = store.get(path).unwrap_or_else(|| {
            let body = Bytes::from(vec![b'x'; bytes]);
            let head = answer(StatusCode::OK, "max-age=3600", &body).into_parts().0;
            let fresh = Arc::new((head.headers, body));
            store.insert(path.to_owned(), Arc::clone(&fresh));
            fresh
        });
        let mut answer = Response::new(Full::new(stored.1.clone()));
        *answer.headers_mut() = stored.0.clone();
        ready(Ok(answer))
    })
}

/// Sends a request and reads the answer to its end; everything here is ready at once.
fn drive<S, B>(service: &mut S, request: Request<()>) -> usize
where
    S: Service<Request<()>, Response = Response<B>>,
    B: Body<Data = Bytes>,
{
    let mut cx = Context::from_waker(Waker::noop());
    let _ = service.poll_ready(&mut cx);
    finish(service.call(request))
}

fn finish<F, B, E>(future: F) -> usize
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes>,
{
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(response)) = pin!(future).poll(&mut cx) else {
        return 0;
    };
    let (head, body) = response.into_parts();
    black_box(&head);
    let (mut body, mut bytes) = (pin!(body), 0);
    while let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut cx) {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
    bytes
}

fn measure<S, B>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    traffic: &Traffic,
    mut service: S,
) where
    S: Service<Request<()>, Response = Response<B>>,
    B: Body<Data = Bytes>,
{
    let mut traffic = traffic.clone();
    let region = Region::new(ALLOCATOR);
    let rounds = 10_000;
    for _ in 0..rounds {
        black_box(drive(&mut service, traffic.draw()));
    }
    let allocations = region.change().allocations as f64 / f64::from(rounds);
    println!("{name}: {allocations:.2} allocations, the request's own included");
    group.bench_function(name, |bench| {
        bench.iter(|| drive(&mut service, traffic.draw()));
    });
}

/// Everybody has all addresses stored before the clock starts.
fn hits(criterion: &mut Criterion) {
    for (name, bytes) in [("cache/hit_1k", KIB), ("cache/hit_100k", 100 * KIB)] {
        let mut group = criterion.benchmark_group(name);
        let traffic = Traffic::new(KEYS);
        let nothing = Bytes::new();
        let request = service_fn(move |_: Request<()>| {
            ready(Ok::<_, Infallible>(Response::new(Full::new(
                nothing.clone(),
            ))))
        });
        measure(&mut group, "request", &traffic, request);
        let mut floor = floor(bytes);
        let room = (KEYS * (bytes + 4 * KIB) * 2) as u64;
        let mut cached = cache(room, None).layer(origin(StatusCode::OK, "max-age=3600", bytes));
        for request in traffic.requests.iter() {
            drive(&mut floor, request.clone());
            drive(&mut cached, request.clone());
        }
        measure(&mut group, "floor", &traffic, floor);
        measure(&mut group, "call", &traffic, cached.clone());
        let mut draws = traffic.clone();
        group.bench_function("clone_oneshot", |bench| {
            bench.iter(|| finish(cached.clone().oneshot(draws.draw())));
        });
        group.bench_function("two_threads", |bench| {
            bench.iter_custom(|rounds| both(&cached, &traffic, rounds));
        });
        group.finish();
    }
}

/// How long two threads take that each send so many requests.
fn both<S>(cached: &CacheService<S>, traffic: &Traffic, rounds: u64) -> Duration
where
    S: Service<Request<()>, Response = Response<Full<Bytes>>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (mut cached, mut traffic) = (cached.clone(), traffic.clone());
            traffic.at = thread * 1000;
            scope.spawn(move || {
                for _ in 0..rounds {
                    black_box(drive(&mut cached, traffic.draw()));
                }
            });
        }
    });
    begun.elapsed()
}

/// Every address is new to the cache, which is full and has to evict.
fn misses(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cache/miss_store_1k");
    let at = AtomicUsize::new(0);
    let traffic = Traffic::new(1);
    let fresh = || {
        let mut request = traffic.requests[0].clone();
        let at = at.fetch_add(1, Ordering::Relaxed);
        *request.uri_mut() = format!("/new/{at:012}").parse().expect("a target");
        request
    };
    let mut bare = origin(StatusCode::OK, "max-age=3600", KIB);
    group.bench_function("no_cache", |bench| bench.iter(|| drive(&mut bare, fresh())));
    let mut cached = cache(16 << 20, None).layer(bare.clone());
    for _ in 0..20_000 {
        drive(&mut cached, fresh());
    }
    group.bench_function("cache", |bench| bench.iter(|| drive(&mut cached, fresh())));
    group.finish();
}

/// The service says `no-store`, and the cache knows by now.
fn uncacheable(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cache/uncacheable_1k");
    let traffic = Traffic::new(KEYS);
    let bare = origin(StatusCode::OK, "no-store", KIB);
    let cached = cache(64 << 20, None).layer(bare.clone());
    measure(&mut group, "no_cache", &traffic, bare);
    measure(&mut group, "cache", &traffic, cached);
    group.finish();
}

/// What clients wait for while a service takes its time.
fn waits(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("a runtime");
    let tasks = runtime.block_on(async { Tasks::new().expect("inside of a runtime") });
    let mut group = criterion.benchmark_group("cache/wait");
    group.sample_size(10);

    // The head is there at once, the body comes in four pieces of 100 ms each.
    let streaming = service_fn(|_: Request<()>| async {
        let pieces = futures_stream(4, Duration::from_millis(100));
        let mut response = Response::new(StreamBody::new(pieces));
        let minute = HeaderValue::from_static("max-age=60");
        response.headers_mut().insert(CACHE_CONTROL, minute);
        Ok::<_, Infallible>(response)
    });
    let cached = cache(16 << 20, Some(&tasks)).layer(streaming);
    let at = AtomicUsize::new(0);
    group.bench_function("first_byte_of_a_400_ms_miss", |bench| {
        bench.iter_custom(|rounds| {
            let mut waited = Duration::ZERO;
            for _ in 0..rounds {
                let at = at.fetch_add(1, Ordering::Relaxed);
                let request = Request::get(format!("/{at}")).body(()).expect("a request");
                waited += runtime.block_on(async {
                    let begun = Instant::now();
                    let response = cached.clone().oneshot(request).await.expect("an answer");
                    let mut body = pin!(response.into_body());
                    let first = poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
                    assert!(first.is_some(), "there is a first piece");
                    begun.elapsed()
                });
            }
            waited
        });
    });

    // Stale at once, and a fresh one takes 300 ms.
    let slow = service_fn(|_: Request<()>| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let fields = "max-age=0, stale-while-revalidate=3600";
        Ok::<_, Infallible>(answer(StatusCode::OK, fields, &Bytes::from_static(b"slow")))
    });
    let cached = cache(16 << 20, Some(&tasks)).layer(slow);
    let ask = || {
        let request = Request::get("/").body(()).expect("a request");
        runtime.block_on(async {
            let begun = Instant::now();
            let response = cached.clone().oneshot(request).await.expect("an answer");
            let mut body = pin!(response.into_body());
            while poll_fn(|cx| body.as_mut().poll_frame(cx)).await.is_some() {}
            begun.elapsed()
        })
    };
    ask();
    group.bench_function("stale_while_revalidate_of_300_ms", |bench| {
        bench.iter_custom(|rounds| (0..rounds).map(|_| ask()).sum());
    });
    group.finish();
}

/// So many pieces, the first at once.
fn futures_stream(
    pieces: u32,
    every: Duration,
) -> impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + 'static {
    futures_util::stream::unfold(0, move |at| async move {
        if at == pieces {
            return None;
        }
        if at > 0 {
            tokio::time::sleep(every).await;
        }
        Some((Ok(Frame::data(Bytes::from_static(b"piece"))), at + 1))
    })
}

criterion_group!(benches, hits, misses, uncacheable, waits);
criterion_main!(benches);
