//! tower-http-cache: its layer before a slow handler, and its backend's `invalidate` after a change.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_http_cache::backend::CacheBackend;
use tower_http_cache::prelude::{CacheLayer, InMemoryBackend};

use super::cached::{Cached, Database, Outcome, Reading, Served, Target, Tier};

pub(super) struct TowerHttp {
    service: BoxCloneSyncService<Request<Body>, Response<Full<Bytes>>, BoxError>,
    backend: InMemoryBackend,
}

/// Travels with a request, and tells whether the handler was asked.
#[derive(Clone, Default)]
struct Asked(Arc<AtomicBool>);

impl TowerHttp {
    pub(super) fn new(database: &Database) -> Self {
        let database = database.clone();
        let handler = service_fn(move |request: Request<Body>| {
            let database = database.clone();
            async move {
                if let Some(Asked(asked)) = request.extensions().get() {
                    asked.store(true, Ordering::Relaxed);
                }
                let key = key_of(request.uri().path());
                let version = database.look(key).await.unwrap_or(0);
                let body = Full::new(Bytes::from(version.to_string()));
                Ok::<_, Infallible>(Response::new(body))
            }
        });
        let backend = InMemoryBackend::new(10_000);
        let layer = CacheLayer::builder(backend.clone())
            .ttl(Duration::from_secs(3600))
            .build();
        let service = layer.layer(handler).and_then(whole);
        Self {
            service: BoxCloneSyncService::new(service),
            backend,
        }
    }
}

/// Collects the body, whose type has no name that could be written here.
async fn whole<B>(answer: Response<B>) -> Result<Response<Full<Bytes>>, BoxError>
where
    B: BodyExt<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map_err(Into::into)?.to_bytes();
    Ok(Response::from_parts(head, Full::new(body)))
}

fn path_of(key: u32) -> String {
    format!("/{key}")
}

fn key_of(path: &str) -> u32 {
    path.trim_start_matches('/').parse().unwrap_or(0)
}

impl Cached for TowerHttp {
    async fn read(&self, key: u32, _: Reading, _: &Database) -> Option<Served> {
        let asked = Asked::default();
        let request = Request::get(path_of(key)).extension(asked.clone());
        let request = request.body(Body::empty()).ok()?;
        let answer = self.service.clone().oneshot(request).await.ok()?;
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        let from = match asked.0.load(Ordering::Relaxed) {
            true => Tier::Database,
            false => Tier::Hot,
        };
        let version = std::str::from_utf8(&body).ok()?.parse().ok()?;
        Some(Served { version, from })
    }

    async fn invalidate(&self, targets: &[Target]) -> Outcome {
        for target in targets {
            if let Target::Key(key) = target
                && self.backend.invalidate(&path_of(*key)).await.is_err()
            {
                return Outcome::Pending;
            }
        }
        Outcome::Acknowledged
    }
}
