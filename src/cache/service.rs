//! The Tower service: looks, and serves, waits or fetches.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service as TowerService;

use crate::cache::behind::{Behind, Writing};
use crate::cache::body::CacheBody;
use crate::cache::change::Change;
use crate::cache::deliver::{nothing_stored, pass_through, serve};
use crate::cache::engine::Cache;
use crate::cache::errand::Errand;
use crate::cache::freshen::Asking;
use crate::cache::future::{CacheFuture, Then};
use crate::cache::key::CacheKey;
use crate::cache::landing::{Landing, Passenger};
use crate::cache::look::{Company, look, look_again};
use crate::cache::recording::UNATTENDED_MAX;
use crate::cache::status::{FwdReason, Service};
use crate::cache::stop::Stop;
use crate::tiers::Waited;

/// Caches the answers of `S`. See the [module](crate::cache).
#[derive(Clone, Debug)]
pub struct CacheService<S> {
    inner: S,
    cache: Cache,
}

impl<S> CacheService<S> {
    /// `inner` behind `cache`.
    pub const fn new(inner: S, cache: Cache) -> Self {
        Self { inner, cache }
    }

    /// The service behind the cache.
    pub const fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S, ReqBody, ResBody> TowerService<Request<ReqBody>> for CacheService<S>
where
    S: TowerService<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    ReqBody: Send + 'static,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Send,
{
    type Response = Response<CacheBody<ResBody>>;
    type Error = S::Error;
    type Future = CacheFuture<S::Future, ResBody, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let cache = &self.cache;
        if !cache.config().enabled {
            return CacheFuture::forward(self.inner.call(request), Then::Untouched);
        }
        match look(cache, &request) {
            Stop::Serve(found) => CacheFuture::ready(serve(cache, &found, request.headers())),
            Stop::ServeAndFetch(found, errand) => {
                let response = serve(cache, &found, request.headers());
                self.refresh(errand, request);
                CacheFuture::ready(response)
            }
            Stop::Pass(reason) => {
                cache.tell_forwarded(reason);
                let then = Then::Pass(cache.clone(), reason);
                CacheFuture::forward(self.inner.call(request), then)
            }
            Stop::Unsafe => {
                let change = Change::new(cache, &mut request);
                CacheFuture::forward(self.inner.call(request), Then::Change(Box::new(change)))
            }
            Stop::Fetch(errand) if errand.looks_behind().is_some() => {
                let (cache, ready) = (cache.clone(), self.take_ready());
                CacheFuture::slow(fetch(cache, ready, request, (errand, false)))
            }
            Stop::Fetch(errand) => {
                let errand = errand.set_out(&mut request);
                CacheFuture::forward(self.inner.call(request), Then::Errand(errand))
            }
            Stop::Inquire(inquiry) => {
                let asking = Box::new(Asking::new(cache, inquiry));
                CacheFuture::forward(self.inner.call(request), Then::Asking(asking))
            }
            Stop::Wait(passenger, reason) => {
                let (cache, ready) = (cache.clone(), self.take_ready());
                let awaited = Awaited::Flight(passenger, reason);
                CacheFuture::slow(follow(cache, ready, request, awaited))
            }
            Stop::Verify(key) => {
                let (cache, ready) = (cache.clone(), self.take_ready());
                CacheFuture::slow(follow(cache, ready, request, Awaited::Journal(key)))
            }
            Stop::Refuse => CacheFuture::ready(nothing_stored(cache)),
        }
    }
}

impl<S: Clone> CacheService<S> {
    /// The inner service that `poll_ready` was called on; a clone takes its place.
    fn take_ready(&mut self) -> S {
        let clone = self.inner.clone();
        std::mem::replace(&mut self.inner, clone)
    }

    /// Fetches an answer anew in the background, with the request of the client that was served the
    /// stale one.
    fn refresh<ReqBody, ResBody>(&mut self, errand: Box<Errand>, request: Request<ReqBody>)
    where
        S: TowerService<Request<ReqBody>, Response = Response<ResBody>> + Send + 'static,
        S::Future: Send + 'static,
        ReqBody: Send + 'static,
        ResBody: Body<Data = Bytes> + Send + 'static,
    {
        let ready = self.take_ready();
        refresh(&self.cache, ready, request, errand);
    }
}

/// Fetches an answer anew in the background, with the request of the client that was served the stale one.
fn refresh<S, ReqBody, ResBody>(
    cache: &Cache,
    ready: S,
    request: Request<ReqBody>,
    errand: Box<Errand>,
) where
    S: TowerService<Request<ReqBody>, Response = Response<ResBody>> + Send + 'static,
    S::Future: Send + 'static,
    ReqBody: Send + 'static,
    ResBody: Body<Data = Bytes> + Send + 'static,
{
    let (Some(spawner), cache) = (cache.spawner().cloned(), cache.clone()) else {
        return;
    };
    spawner.spawn(async move {
        // Nobody waits for it, so nobody would give it up.
        let refreshed = refreshed(&cache, ready, request, errand);
        let _ = tokio::time::timeout(UNATTENDED_MAX, refreshed).await;
    });
}

async fn refreshed<S, ReqBody, ResBody>(
    cache: &Cache,
    mut ready: S,
    mut request: Request<ReqBody>,
    mut errand: Box<Errand>,
) where
    S: TowerService<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body<Data = Bytes> + Send + 'static,
{
    if let Some(tiers) = errand.looks_behind().cloned() {
        let (key, stale) = (&errand.fetch.key, errand.fetch.stale.as_deref());
        match cache
            .look_behind(&tiers, key, request.headers(), stale)
            .await
        {
            // Another instance has just done so.
            Behind::Found(entry) => {
                let key = Some(errand.fetch.key.clone());
                return errand.land(Landing::Stored(entry, key));
            }
            Behind::Ask(writing, old) => {
                errand.fetch.writing = Some(writing);
                errand.fetch.stale = old.or(errand.fetch.stale.take());
            }
        }
    }
    let errand = errand.prepare(&mut request);
    // Should the service fail, dropping the errand hands the flight on.
    let Ok(response) = ready.call(request).await else {
        return;
    };
    let mut body = std::pin::pin!(errand.arrive(response).into_body());
    // The recording commits itself at the end.
    while let Some(Ok(_)) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {}
}

/// Fetches an answer: from behind memory, or from the service. Others may have just found out that that one
/// `failed`. Dropping the future hands the flight on.
async fn fetch<S, ReqBody, ResBody>(
    cache: Cache,
    mut ready: S,
    mut request: Request<ReqBody>,
    (mut errand, failed): (Box<Errand>, bool),
) -> Result<Response<CacheBody<ResBody>>, S::Error>
where
    S: TowerService<Request<ReqBody>, Response = Response<ResBody>> + Send + 'static,
    S::Future: Send + 'static,
    ReqBody: Send + 'static,
    ResBody: Body<Data = Bytes> + Send + 'static,
{
    if let Some(tiers) = errand.looks_behind().cloned() {
        let (key, stale) = (&errand.fetch.key, errand.fetch.stale.as_deref());
        match cache
            .look_behind(&tiers, key, request.headers(), stale)
            .await
        {
            Behind::Found(entry) => {
                let key = errand.fetch.key.clone();
                errand.land(Landing::Stored(Arc::clone(&entry), Some(key.clone())));
                match look_again(&cache, &request, Company::Shared, Some((entry, key, false))) {
                    Stop::Serve(found) => return Ok(serve(&cache, &found, request.headers())),
                    Stop::ServeAndFetch(found, errand) => {
                        let response = serve(&cache, &found, request.headers());
                        refresh(&cache, ready, request, errand);
                        return Ok(response);
                    }
                    // It has wishes of its own, or what was found is gone again.
                    Stop::Fetch(next) => errand = next,
                    _ => return pass(&cache, ready, request, errand.fetch.reason).await,
                }
                errand.fetch.writing = Some(Writing::beside_others());
            }
            Behind::Ask(writing, old) => {
                errand.fetch.writing = Some(writing);
                errand.fetch.stale = old.or(errand.fetch.stale.take());
            }
        }
    }
    let mut errand = errand.set_out(&mut request);
    if failed && let Some(instead) = errand.spare_the_service() {
        return Ok(instead);
    }
    match ready.call(request).await {
        Ok(response) => Ok(errand.arrive(response)),
        Err(error) => errand.stand_in().ok_or(error),
    }
}

/// Sends a request to the service, whose answer is not stored.
async fn pass<S, ReqBody, ResBody>(
    cache: &Cache,
    mut ready: S,
    request: Request<ReqBody>,
    reason: FwdReason,
) -> Result<Response<CacheBody<ResBody>>, S::Error>
where
    S: TowerService<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body<Data = Bytes> + Send + 'static,
{
    cache.tell_forwarded(reason);
    let response = ready.call(request).await?;
    Ok(pass_through(cache, response, reason))
}

/// What a request waits for before it is decided about.
enum Awaited {
    /// Somebody else's answer.
    Flight(Passenger, FwdReason),
    /// The journal's word on what is stored under this key.
    Journal(CacheKey),
}

/// How long a request waits for the journal's word; longer than Redis takes to answer.
const WORD_MAX: Duration = Duration::from_millis(50);

/// Waits for somebody else's answer, and fetches it itself if that comes to nothing. Dropping the
/// future at any point leaves nothing behind.
async fn follow<S, ReqBody, ResBody>(
    cache: Cache,
    mut ready: S,
    request: Request<ReqBody>,
    mut awaited: Awaited,
) -> Result<Response<CacheBody<ResBody>>, S::Error>
where
    S: TowerService<Request<ReqBody>, Response = Response<ResBody>> + Send + 'static,
    S::Future: Send + 'static,
    ReqBody: Send + 'static,
    ResBody: Body<Data = Bytes> + Send + 'static,
{
    let began = cache.clock().now();
    let mut reason = None;
    let (stop, failed) = loop {
        // However often leaders come and go, the waiting has an end.
        let waited = cache.clock().now().since(began);
        let left = cache.flight_wait().saturating_sub(waited);
        let landing = match awaited {
            Awaited::Flight(passenger, why) => {
                reason = Some(why);
                passenger.wait(left).await
            }
            Awaited::Journal(key) => {
                cache.journal().reverified(key.part(), WORD_MAX).await;
                Waited::Gone
            }
        };
        let failed = matches!(landing, Waited::Landed(Landing::Failed));
        let (company, brought) = match landing {
            Waited::Landed(Landing::Stored(entry, Some(key))) => {
                // What was computed since this request came is its own, whatever was invalidated meanwhile and
                // whether that can be known or not.
                let is_its_own = entry.began > began;
                (Company::Shared, Some((entry, key, is_its_own)))
            }
            Waited::Landed(Landing::Stored(_, None)) => (Company::Shared, None),
            Waited::Gone => (Company::Shared, None),
            // Nobody waits for longer than this, whoever leads.
            Waited::TooLong | Waited::Landed(Landing::Unusable | Landing::Failed) => {
                (Company::Alone, None)
            }
        };
        match look_again(&cache, &request, company, brought) {
            Stop::Wait(passenger, why) => awaited = Awaited::Flight(passenger, why),
            stop => break (stop, failed),
        }
    };
    match stop {
        Stop::Serve(mut found) => {
            if let Some(reason) = reason.filter(|_| !found.service.is_stale()) {
                found.service = Service::Collapsed(reason);
            }
            Ok(serve(&cache, &found, request.headers()))
        }
        // Whoever waited for a fresh answer and finds one that is stale already is served that.
        Stop::ServeAndFetch(found, _) => Ok(serve(&cache, &found, request.headers())),
        // Others may have just found out that the service fails.
        Stop::Fetch(errand) => fetch(cache, ready, request, (errand, failed)).await,
        Stop::Refuse => Ok(nothing_stored(&cache)),
        // A request that once waited is a GET that takes part; these cannot come.
        Stop::Unsafe | Stop::Wait(..) | Stop::Inquire(_) | Stop::Verify(_) => {
            let response = ready.call(request).await?;
            Ok(pass_through(&cache, response, FwdReason::Bypass))
        }
        Stop::Pass(reason) => pass(&cache, ready, request, reason).await,
    }
}
