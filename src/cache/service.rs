//! The Tower service: looks, and serves, waits or fetches.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use tower_service::Service as TowerService;

use crate::cache::body::CacheBody;
use crate::cache::change::Change;
use crate::cache::deliver::{nothing_stored, pass_through, serve, without_content};
use crate::cache::engine::Cache;
use crate::cache::errand::Errand;
use crate::cache::flight::{Landing, Passenger};
use crate::cache::future::{CacheFuture, Then};
use crate::cache::look::{Company, Fetch, Stop, look};
use crate::cache::status::{FwdReason, Service};
use crate::event::Event;

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
        match look(cache, &request, Company::Shared) {
            Stop::Serve(entry, now, service) => {
                let response = serve(cache, &entry, request.headers(), now, service);
                CacheFuture::ready(for_method(response, request.method()))
            }
            Stop::ServeAndFetch(entry, now, fetch) => {
                let service = Service::WhileRevalidate;
                let response = serve(cache, &entry, request.headers(), now, service);
                self.refresh(fetch, request);
                CacheFuture::ready(response)
            }
            Stop::Pass(reason) => {
                cache.emit(Event::CacheForwarded {
                    reason: reason.as_str(),
                });
                let then = Then::Pass(cache.clone(), reason);
                CacheFuture::forward(self.inner.call(request), then)
            }
            Stop::Unsafe => {
                let change = Change::new(cache, &request);
                CacheFuture::forward(self.inner.call(request), Then::Change(Box::new(change)))
            }
            Stop::Fetch(fetch) => {
                let errand = Box::new(Errand::new(cache, fetch, &mut request));
                CacheFuture::forward(self.inner.call(request), Then::Errand(errand))
            }
            Stop::Wait(passenger, reason) => {
                let (cache, ready) = (cache.clone(), self.take_ready());
                CacheFuture::slow(follow(cache, ready, request, (passenger, reason)))
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
    fn refresh<ReqBody, ResBody>(&mut self, fetch: Fetch, mut request: Request<ReqBody>)
    where
        S: TowerService<Request<ReqBody>, Response = Response<ResBody>> + Send + 'static,
        S::Future: Send + 'static,
        ReqBody: Send + 'static,
        ResBody: Body<Data = Bytes> + Send + 'static,
    {
        let Some(spawner) = self.cache.spawner().cloned() else {
            return;
        };
        let errand = Box::new(Errand::new(&self.cache, fetch, &mut request));
        let mut ready = self.take_ready();
        spawner.spawn(async move {
            // Should the service fail, dropping the errand hands the flight on.
            let Ok(response) = ready.call(request).await else {
                return;
            };
            let mut body = std::pin::pin!(errand.arrive(response).into_body());
            // The recording commits itself at the end.
            while let Some(Ok(_)) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {}
        });
    }
}

/// Waits for somebody else's answer, and fetches it itself if that comes to nothing. Dropping the
/// future at any point leaves nothing behind.
async fn follow<S, ReqBody, ResBody>(
    cache: Cache,
    mut ready: S,
    mut request: Request<ReqBody>,
    (mut passenger, mut reason): (Passenger, FwdReason),
) -> Result<Response<CacheBody<ResBody>>, S::Error>
where
    S: TowerService<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body<Data = Bytes>,
{
    let began = cache.clock().now();
    let stop = loop {
        // However often leaders come and go, the waiting has an end.
        let waited = cache.clock().now().since(began);
        let left = cache.flight_wait().saturating_sub(waited);
        let company = match passenger.wait(left).await {
            Landing::Stored | Landing::Gone => Company::Shared,
            Landing::Unusable => Company::Alone,
        };
        match look(&cache, &request, company) {
            Stop::Wait(again, why) => (passenger, reason) = (again, why),
            stop => break stop,
        }
    };
    match stop {
        Stop::Serve(entry, now, service) => {
            let service = if service.is_stale() {
                service
            } else {
                Service::Collapsed(reason)
            };
            Ok(serve(&cache, &entry, request.headers(), now, service))
        }
        // Whoever waited for a fresh answer and finds one that is stale already is served that.
        Stop::ServeAndFetch(entry, now, _) => Ok(serve(
            &cache,
            &entry,
            request.headers(),
            now,
            Service::WhileRevalidate,
        )),
        Stop::Fetch(fetch) => {
            let errand = Box::new(Errand::new(&cache, fetch, &mut request));
            match ready.call(request).await {
                Ok(response) => Ok(errand.arrive(response)),
                Err(error) => errand.stand_in().ok_or(error),
            }
        }
        Stop::Refuse => Ok(nothing_stored(&cache)),
        // A request that once waited is a GET that takes part; these cannot come.
        Stop::Pass(_) | Stop::Unsafe | Stop::Wait(..) => {
            let response = ready.call(request).await?;
            Ok(pass_through(&cache, response, FwdReason::Bypass))
        }
    }
}

fn for_method<B>(response: Response<CacheBody<B>>, method: &Method) -> Response<CacheBody<B>> {
    if *method == Method::HEAD {
        without_content(response)
    } else {
        response
    }
}
