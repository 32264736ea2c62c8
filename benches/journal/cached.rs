//! An invalidation beside a cache that holds few or many of the entries that it names.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use criterion::Criterion;
use http::{HeaderValue, Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower::{Layer, Service, service_fn};
use tower_keep::cache::{Cache, CacheConfig, CacheLayer, CacheParts};
use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::journal::{Journal, Marker};

use crate::alone::{invalidate, journal, pattern};
use crate::goals::{nanos, note, quantile};

/// A cache that holds so many answers, all of one tag, and asks its service for whatever it lacks.
struct Cached {
    journal: Journal,
    forwarded: Arc<AtomicU64>,
    drive: Box<dyn FnMut(u64)>,
}

impl Cached {
    fn holding(entries: u64) -> Self {
        let journal = journal();
        let config = CacheConfig {
            capacity_bytes: (entries * 4096).max(64 << 20),
            ..CacheConfig::default()
        };
        let parts = CacheParts {
            journal: journal.clone(),
            clock: Clock::system(),
            events: Events::none(),
            spawner: None,
            tiers: None,
        };
        let layer = CacheLayer::new(Cache::new(&config, parts).expect("settings"));
        let forwarded = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&forwarded);
        let mut service = layer.layer(service_fn(move |_: Request<()>| {
            count.fetch_add(1, Ordering::Relaxed);
            answer()
        }));
        let drive = move |entry: u64| {
            let target = format!("/items/{entry}");
            let request = Request::get(target).body(()).expect("a request");
            let mut cx = Context::from_waker(Waker::noop());
            let _ = service.poll_ready(&mut cx);
            let Poll::Ready(Ok(answer)) = pin!(service.call(request)).poll(&mut cx) else {
                unreachable!("nothing here waits");
            };
            let mut body = pin!(answer.into_body());
            while let Poll::Ready(Some(_)) = body.as_mut().poll_frame(&mut cx) {}
        };
        let mut cached = Self {
            journal,
            forwarded,
            drive: Box::new(drive),
        };
        (0..entries).for_each(&mut cached.drive);
        // All of them are there: a sample is asked for again.
        assert_eq!(cached.forwarded(|cached| cached.sample(entries)), 0);
        cached
    }

    fn sample(&mut self, entries: u64) {
        (0..100).for_each(|at| (self.drive)(at * entries / 100));
    }

    fn forwarded(&mut self, deed: impl FnOnce(&mut Self)) -> u64 {
        let before = self.forwarded.load(Ordering::Relaxed);
        deed(self);
        self.forwarded.load(Ordering::Relaxed) - before
    }
}

fn answer() -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    let mut answer = Response::new(Full::new(Bytes::from_static(b"{}")));
    let fields = [
        ("cache-control", "max-age=3600"),
        ("surrogate-key", "items"),
    ];
    for (name, value) in fields {
        let headers = answer.headers_mut();
        headers.insert(name, HeaderValue::from_static(value));
    }
    ready(Ok(answer))
}

/// The same invalidation with few and with a million entries in the cache that it concerns.
pub(crate) fn invalidations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal/invalidate");
    let mut million = Cached::holding(1_000_000);
    let tag = ("a tag with 1 / 1M entries", Marker::tag("items"), 1);
    let pattern = ("a pattern over 1k / 1M keys", pattern("*/items/*"), 1_000);
    for (what, marker, entries) in [tag, pattern] {
        let mut few = Cached::holding(entries);
        // By turns, so that whatever else the machine does befalls both.
        let (mut of_few, mut of_many) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            of_few.push(nanos(|| invalidate(&few.journal, marker.clone())));
            of_many.push(nanos(|| invalidate(&million.journal, marker.clone())));
        }
        let (least, most) = (quantile(of_few, 0.5), quantile(of_many, 0.5));
        println!("invalidate {what}: {least:.0} ns / {most:.0} ns");
        note(format!("invalidate {what}, ratio"), most / least, 1.2, "");
        group.bench_function(what, |bench| {
            bench.iter(|| invalidate(&million.journal, marker.clone()));
        });
        // It did what it says: what was asked for is not served any more, here and there.
        assert_eq!(few.forwarded(|cached| (cached.drive)(0)), 1);
        assert_eq!(
            million.forwarded(|cached| cached.sample(1_000_000)),
            100,
            "{what}"
        );
    }
    group.finish();
}
