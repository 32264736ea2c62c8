//! The HTTP cache against tower-http-cache and axum-response-cache.
//!
//! All answer the same requests for 10,000 addresses by Zipf's law, called directly; every body is read
//! to its end. RATIO is about the whole request, building it included; the table shows what is left
//! without that as well.
//!
//! What each is given, so that none is made to look slow:
//! - tower-keep: its defaults, `Age` and `Cache-Status` on every hit included; nobody listens to its
//!   events. It copies a body when it stores it, the peers share the origin's.
//! - tower-http-cache: memory (moka) with room for all, its streaming policy off and one cacheable
//!   status: its layer clones the policy on every call, and by default a dozen media types in it
//!   (`tower_http_cache_full` in the table). It wants bodies that are `Sync`, which axum's are not, so
//!   it sits on a service of `Full<Bytes>`.
//! - axum-response-cache: its defaults, an unbounded map with one life for all. It calls the inner service
//!   on every hit and drops the future; the origin here does nothing before it is polled.
//!
//! Neither peer reads `Vary`, credentials or freshness (`axum-response-cache` not even `no-store`), so the
//! answers carry nothing of it but `max-age`, which tower-keep does obey.

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_TYPE, ETAG, LAST_MODIFIED, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use quick_cache::UnitWeighter;
use quick_cache::sync::DefaultLifecycle;
use tower::{Layer, Service, service_fn};
use tower_http_cache::prelude::{CacheLayerBuilder, CachePolicy, InMemoryBackend, StreamingPolicy};
use tower_keep::cache::{Cache, CacheConfig, CacheLayer, CacheParts};
use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::journal::{Journal, JournalConfig};

use crate::Failure;
use crate::measure::{Bench, Case, Compare, Contender, Role};
use crate::traffic::Traffic;

const KEYS: u32 = 10_000;
const KIB: usize = 1 << 10;
const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn run(bench: &Bench) -> Result<(), Failure> {
    hit(bench, "cache/hit_1k", KIB)?;
    hit(bench, "cache/hit_100k", 100 * KIB)?;
    miss_store(bench)?;
    uncacheable(bench)
}

/// Everything is stored before the clock starts.
fn hit(bench: &Bench, name: &'static str, body: usize) -> Result<(), Failure> {
    let traffic = Traffic::zipf(KEYS)?;
    let all = Traffic::each_once(KEYS)?;
    let count = KEYS as usize;
    // Twice what it takes, so that no shard is full.
    let room = Room {
        bytes: (count * (body + 4 * KIB) * 2) as u64,
        entries: u64::from(KEYS) * 2,
    };
    let mut field = Field::new(
        bench,
        traffic,
        Origin::new(body, StatusCode::OK, "max-age=3600"),
    );
    field.enter_caches(room)?;
    field.enter_floor();
    for contender in &mut field.contenders {
        contender.warm(&mut all.clone(), count);
    }
    field.run(name, 50_000, Expect::NothingFromOrigin);
    Ok(())
}

/// Every request is for an address never seen before, in a cache that is full and has to evict; only
/// axum-response-cache's has no bound.
fn miss_store(bench: &Bench) -> Result<(), Failure> {
    let (requests, full) = (5_000, 2 * KEYS);
    // More than the case sends: no address comes twice.
    let traffic = Traffic::each_once(full + 20 * requests)?;
    let room = Room {
        bytes: 16 << 20,
        entries: u64::from(KEYS),
    };
    let origin = Origin::new(KIB, StatusCode::OK, "max-age=3600");
    let mut field = Field::new(bench, traffic, origin);
    field.enter_caches(room)?;
    for contender in &mut field.contenders {
        contender.begin(full as usize);
    }
    field.run(
        "cache/miss_store_1k",
        requests as usize,
        Expect::AllFromOrigin,
    );
    Ok(())
}

/// Nobody may store a 404 that says `no-store`. (A 200 that says so is stored by axum-response-cache.)
fn uncacheable(bench: &Bench) -> Result<(), Failure> {
    let traffic = Traffic::zipf(KEYS)?;
    let room = Room {
        bytes: 128 << 20,
        entries: u64::from(KEYS) * 2,
    };
    let origin = Origin::new(KIB, StatusCode::NOT_FOUND, "no-store");
    let mut field = Field::new(bench, traffic, origin);
    field.enter_caches(room)?;
    field.run("cache/uncacheable_1k", 20_000, Expect::AllFromOrigin);
    Ok(())
}

/// How much a cache may keep, in the unit that it counts in.
#[derive(Clone, Copy)]
struct Room {
    bytes: u64,
    entries: u64,
}

/// Where the answers have to come from, or the figures mean nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    NothingFromOrigin,
    AllFromOrigin,
}

/// Everybody who takes part in a case, and the origins behind them.
struct Field<'a> {
    bench: &'a Bench,
    traffic: Traffic,
    origin: Origin,
    contenders: Vec<Contender>,
    watched: Vec<(&'static str, Origin)>,
}

impl<'a> Field<'a> {
    /// Nobody but the baseline, and the origin without any cache.
    fn new(bench: &'a Bench, traffic: Traffic, origin: Origin) -> Self {
        let body = origin.bodies[0].clone();
        let request_only = service_fn(move |_: Request<Body>| {
            let answer = Response::new(Full::new(body.clone()));
            ready(Ok::<_, Infallible>(answer))
        });
        let no_cache = origin.own().service::<Body>();
        let contenders = vec![
            bench.contender("request_only", Role::Baseline, &traffic, request_only),
            bench.contender("no_cache", Role::Context, &traffic, no_cache),
        ];
        Self {
            bench,
            traffic,
            origin,
            contenders,
            watched: Vec::new(),
        }
    }

    /// tower-keep and its peers, each before an origin of its own.
    fn enter_caches(&mut self, room: Room) -> Result<(), Failure> {
        let ours = tower_keep(room)?.layer(self.origin("tower_keep").service::<Body>());
        self.enter("tower_keep", Role::Ours, ours);

        let lean = CachePolicy::default()
            .with_streaming_policy(StreamingPolicy::disabled())
            .with_statuses([200])
            .with_negative_ttl(Duration::ZERO)
            .with_ttl(HOUR);
        let layer = tower_http_cache(room).policy(lean).build();
        let peer = layer.layer(self.origin("tower_http_cache").service::<Full<Bytes>>());
        self.enter("tower_http_cache", Role::Peer, peer);

        let layer = tower_http_cache(room)
            .ttl(HOUR)
            .negative_ttl(Duration::ZERO);
        let layer = layer.statuses([200]).build();
        let name = "tower_http_cache_full";
        let peer = layer.layer(self.origin(name).service::<Full<Bytes>>());
        self.enter(name, Role::Context, peer);

        let layer = axum_response_cache::CacheLayer::with_lifespan(HOUR);
        let peer = layer.layer(self.origin("axum_response_cache").service::<Body>());
        self.enter("axum_response_cache", Role::Peer, peer);
        Ok(())
    }

    /// The least that a hit can cost: find it, clone its fields, share its body.
    fn enter_floor(&mut self) {
        let found = self.origin("floor");
        let entries = self.traffic.keys();
        let store = Arc::new(quick_cache::sync::Cache::with(
            entries * 2,
            entries as u64 * 2,
            UnitWeighter,
            foldhash::quality::RandomState::default(),
            DefaultLifecycle::default(),
        ));
        let floor = service_fn(move |request: Request<Body>| {
            let path = request.uri().path();
            let stored: Arc<(HeaderMap, Bytes)> = store.get(path).unwrap_or_else(|| {
                let fresh: Response<Bytes> = found.answer();
                let (head, body) = fresh.into_parts();
                let fresh = Arc::new((head.headers, body));
                store.insert(path.to_owned(), Arc::clone(&fresh));
                fresh
            });
            let mut answer = Response::new(Full::new(stored.1.clone()));
            *answer.headers_mut() = stored.0.clone();
            ready(Ok::<_, Infallible>(answer))
        });
        self.enter("floor", Role::Peer, floor);
    }

    fn enter<S, B>(&mut self, name: &'static str, role: Role, service: S)
    where
        S: Service<Request<Body>, Response = Response<B>> + 'static,
        S::Error: Debug,
        B: HttpBody<Data = Bytes>,
        B::Error: Debug,
    {
        let contender = self.bench.contender(name, role, &self.traffic, service);
        self.contenders.push(contender);
    }

    /// An origin of its own for `name`, whose runs are watched.
    fn origin(&mut self, name: &'static str) -> Origin {
        let origin = self.origin.own();
        self.watched.push((name, origin.clone()));
        origin
    }

    fn run(self, name: &'static str, requests: usize, expect: Expect) {
        let before: Vec<u64> = self.watched.iter().map(|(_, one)| one.runs()).collect();
        let sent = Case {
            name,
            requests,
            compare: Compare::Total,
            contenders: self.contenders,
        }
        .run();
        let expected = match expect {
            Expect::NothingFromOrigin => 0,
            Expect::AllFromOrigin => sent,
        };
        for ((who, origin), before) in self.watched.iter().zip(before) {
            let runs = origin.runs() - before;
            if runs != expected {
                println!("WARNING: {runs} of {sent} answers to {who} were the origin's instead of");
                println!("{expected}; its figures in {name} mean nothing\n");
            }
        }
    }
}

fn tower_keep(room: Room) -> Result<CacheLayer, Failure> {
    let config = CacheConfig {
        capacity_bytes: room.bytes,
        body_bytes_max: 256 << 10,
        ..CacheConfig::default()
    };
    let parts = CacheParts {
        journal: Journal::new(&JournalConfig::default(), Events::none())?,
        clock: Clock::system(),
        events: Events::none(),
        spawner: None,
        tiers: None,
    };
    Ok(CacheLayer::new(Cache::new(&config, parts)?))
}

fn tower_http_cache(room: Room) -> CacheLayerBuilder<InMemoryBackend> {
    CacheLayerBuilder::new(InMemoryBackend::new(room.entries))
}

/// What stands behind a cache: a prepared answer of six fields and one of many bodies. A clone is the
/// same origin and counts with it.
#[derive(Clone)]
struct Origin {
    status: StatusCode,
    headers: HeaderMap,
    bodies: Arc<[Bytes]>,
    runs: Arc<AtomicU64>,
}

impl Origin {
    fn new(body: usize, status: StatusCode, cache_control: &'static str) -> Self {
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
        // Every body has a count of its own, as in life, but their bytes are the same ones: whoever
        // shares them needs no gigabyte for ten thousand bodies of 100 KiB.
        let content: Arc<[u8]> = vec![b'x'; body].into();
        let bodies = (0..KEYS).map(|_| Bytes::from_owner(Arc::clone(&content)));
        Self {
            status,
            headers,
            bodies: bodies.collect(),
            runs: Arc::default(),
        }
    }

    /// The same answers, counted anew.
    fn own(&self) -> Self {
        Self {
            runs: Arc::default(),
            ..self.clone()
        }
    }

    /// How many answers it has given.
    fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    fn answer<B: From<Bytes>>(&self) -> Response<B> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed) as usize;
        let body = self.bodies[run % self.bodies.len()].clone();
        let mut answer = Response::new(B::from(body));
        *answer.status_mut() = self.status;
        *answer.headers_mut() = self.headers.clone();
        answer
    }

    /// Answers when it is polled, and does next to nothing before.
    fn service<B>(
        self,
    ) -> impl Service<Request<Body>, Response = Response<B>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static
    where
        B: From<Bytes> + Send + 'static,
    {
        let origin = Arc::new(self);
        service_fn(move |_: Request<Body>| {
            let origin = Arc::clone(&origin);
            async move { Ok::<_, Infallible>(origin.answer()) }
        })
    }
}
