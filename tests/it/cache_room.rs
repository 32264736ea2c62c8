//! What the cache's tests share: a cache with a clock moved by hand, before a service made of a closure.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use tokio::sync::mpsc;
use tower::{Layer, Service, ServiceExt};
use tower_keep::cache::{Cache, CacheBody, CacheConfig, CacheLayer, CacheParts, CacheService};
use tower_keep::clock::{Clock, ManualClock};
use tower_keep::event::Events;
use tower_keep::journal::{Journal, JournalConfig};
use tower_keep::task::Tasks;

/// Why a service or a body of these tests fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken")
    }
}

impl std::error::Error for Broken {}

impl From<Infallible> for Broken {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

pub type Content = UnsyncBoxBody<Bytes, Broken>;
pub type Answer = Result<Response<Content>, Broken>;
pub type Working = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A body of these bytes in one piece.
pub fn full(bytes: impl Into<Bytes>) -> Content {
    Full::new(bytes.into()).map_err(Broken::from).boxed_unsync()
}

pub fn empty() -> Content {
    Empty::new().map_err(Broken::from).boxed_unsync()
}

/// A body whose frames are sent by the test; it ends when the sender is dropped.
pub fn piped() -> (Pipe, Content) {
    let (sender, frames) = mpsc::unbounded_channel();
    (Pipe(sender), Piped(frames).boxed_unsync())
}

pub struct Pipe(mpsc::UnboundedSender<Result<Frame<Bytes>, Broken>>);

impl Pipe {
    /// Returns whether anybody still listens.
    pub fn send(&self, data: impl Into<Bytes>) -> bool {
        self.0.send(Ok(Frame::data(data.into()))).is_ok()
    }

    pub fn trailers(&self) {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", http::HeaderValue::from_static("1"));
        let _ = self.0.send(Ok(Frame::trailers(trailers)));
    }

    pub fn break_off(&self) {
        let _ = self.0.send(Err(Broken));
    }
}

struct Piped(mpsc::UnboundedReceiver<Result<Frame<Bytes>, Broken>>);

impl Body for Piped {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.0.poll_recv(cx)
    }
}

/// A cache, and what moves it.
pub struct Room {
    pub cache: Cache,
    pub hand: ManualClock,
    /// Background refreshes run here.
    pub tasks: Tasks,
}

/// A cache of the default settings.
pub fn room() -> Room {
    room_with(|_| {})
}

pub fn room_with(change: impl FnOnce(&mut CacheConfig)) -> Room {
    room_heard_by(Events::none(), change)
}

pub fn room_heard_by(events: Events, change: impl FnOnce(&mut CacheConfig)) -> Room {
    let mut config = CacheConfig::default();
    change(&mut config);
    let (clock, hand) = Clock::manual();
    let tasks = Tasks::new().unwrap();
    let parts = CacheParts {
        journal: Journal::with_clock(&JournalConfig::default(), clock.clone(), Events::none())
            .unwrap(),
        clock,
        events,
        spawner: Some(tasks.spawner()),
        tiers: None,
    };
    let cache = Cache::new(&config, parts).unwrap();
    Room { cache, hand, tasks }
}

impl Room {
    /// The service made of `work`, behind this cache.
    pub fn before(&self, work: impl Fn(Request<()>) -> Working + Send + Sync + 'static) -> Cached {
        CacheLayer::new(self.cache.clone()).layer(Origin {
            work: Arc::new(work),
            calls: Arc::default(),
        })
    }

    /// A service that answers at once.
    pub fn answering(
        &self,
        answer: impl Fn(&Request<()>) -> Response<Content> + Send + Sync + 'static,
    ) -> Cached {
        self.before(move |request| {
            let response = answer(&request);
            Box::pin(async move { Ok(response) })
        })
    }

    pub fn pass_secs(&self, secs: u64) {
        self.hand.advance(Duration::from_secs(secs));
    }
}

/// A service made of a closure; counts how often it is called.
#[derive(Clone)]
pub struct Origin {
    work: Arc<dyn Fn(Request<()>) -> Working + Send + Sync>,
    calls: Arc<AtomicUsize>,
}

pub type Cached = CacheService<Origin>;

impl Origin {
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Service<Request<()>> for Origin {
    type Response = Response<Content>;
    type Error = Broken;
    type Future = Working;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Working {
        self.calls.fetch_add(1, Ordering::SeqCst);
        (self.work)(request)
    }
}

/// A response that was read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn field(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// What the cache says it did.
    pub fn said(&self) -> &str {
        self.field("cache-status")
            .strip_prefix("keep; ")
            .unwrap_or_default()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

pub async fn send(
    service: &Cached,
    request: Request<()>,
) -> Result<Response<CacheBody<Content>>, Broken> {
    service.clone().oneshot(request).await
}

pub async fn read(response: Response<CacheBody<Content>>) -> Result<Seen, Broken> {
    let (parts, body) = response.into_parts();
    Ok(Seen {
        status: parts.status,
        headers: parts.headers,
        body: body.collect().await?.to_bytes(),
    })
}

/// Sends a request and reads the answer to its end.
pub async fn ask(service: &Cached, request: Request<()>) -> Seen {
    read(send(service, request).await.unwrap()).await.unwrap()
}

/// A request of this method, path and fields.
pub fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

pub fn get(path: &str) -> Request<()> {
    request("GET", path, &[])
}

pub fn get_with(path: &str, fields: &[(&str, &str)]) -> Request<()> {
    request("GET", path, fields)
}

/// A 200 of these fields and this body.
pub fn answer(fields: &[(&str, &str)], body: Content) -> Response<Content> {
    let mut response = Response::builder();
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(body).unwrap()
}

pub fn text(fields: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Content> {
    answer(fields, full(body))
}

/// Lets everything that can run without time passing run.
pub async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
