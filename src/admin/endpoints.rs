//! The operator's endpoints as a router.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};

use crate::health::HealthBoard;
use crate::metrics::Metrics;

/// What the endpoints read; see [`admin`](crate::admin).
#[derive(Clone)]
pub struct AdminEndpoints {
    /// Shown by `/metrics`.
    pub metrics: Metrics,
    /// Shown by `/health`.
    pub health: HealthBoard,
    /// Asked by `/ready`, on the request's thread: it must not block.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl AdminEndpoints {
    /// A router for `/alive`, `/ready`, `/health` and `/metrics`, to be merged or nested. It needs
    /// nothing of the application's state.
    pub fn router<S: Clone + Send + Sync + 'static>(self) -> Router<S> {
        let Self {
            metrics,
            health,
            ready,
        } = self;
        Router::new()
            .route("/alive", get(async || text(StatusCode::OK, "alive")))
            .route("/ready", get(async move || readiness(ready())))
            .route("/health", get(async move || summary(&health)))
            .route("/metrics", get(async move || figures(&metrics)))
    }
}

impl fmt::Debug for AdminEndpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminEndpoints")
            .field("metrics", &self.metrics)
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const PROMETHEUS_TEXT: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

fn readiness(ready: bool) -> Response<Body> {
    if ready {
        text(StatusCode::OK, "ready")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "not ready")
    }
}

fn summary(board: &HealthBoard) -> Response<Body> {
    let health = board.health();
    match serde_json::to_vec(&health) {
        Ok(json) => answer(health.http_status(), JSON, json.into()),
        // Text and words of ours always make JSON; if they ever do not, the code still tells.
        Err(_) => text(health.http_status(), "no summary"),
    }
}

fn figures(metrics: &Metrics) -> Response<Body> {
    answer(StatusCode::OK, PROMETHEUS_TEXT, metrics.prometheus().into())
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    answer(status, TEXT, text.into())
}

/// An answer that no cache may keep: all of these are about now.
fn answer(status: StatusCode, content_type: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::clock::Clock;
    use crate::health::HealthStatus;
    use crate::metrics::MetricsConfig;

    async fn ask(endpoints: &AdminEndpoints, path: &str) -> (u16, String, String) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let router: Router = endpoints.clone().router();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.headers()["cache-control"], "no-store");
        let content_type = response.headers()["content-type"]
            .to_str()
            .unwrap()
            .to_owned();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (
            status,
            content_type,
            String::from_utf8(body.to_vec()).unwrap(),
        )
    }

    #[tokio::test]
    async fn each_endpoint_answers_its_question() {
        let ready = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ready);
        let endpoints = AdminEndpoints {
            metrics: Metrics::new(&MetricsConfig::default(), Clock::system()).unwrap(),
            health: HealthBoard::new(),
            ready: Arc::new(move || seen.load(Ordering::Relaxed)),
        };
        let (status, _, body) = ask(&endpoints, "/alive").await;
        assert_eq!((status, &*body), (200, "alive"));

        assert_eq!(ask(&endpoints, "/ready").await.0, 503);
        ready.store(true, Ordering::Relaxed);
        assert_eq!(ask(&endpoints, "/ready").await.0, 200);

        for (state, status, word) in [
            (HealthStatus::Degraded, 200, "degraded"),
            (HealthStatus::Unhealthy, 503, "unhealthy"),
        ] {
            endpoints.health.set("redis", state, "gone");
            let (code, content_type, body) = ask(&endpoints, "/health").await;
            assert_eq!((code, &*content_type), (status, "application/json"));
            let json: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(json["status"], word);
            assert_eq!(json["components"]["redis"]["detail"], "gone");
        }

        let (status, content_type, body) = ask(&endpoints, "/metrics").await;
        assert_eq!(
            (status, &*content_type),
            (200, "text/plain; version=0.0.4; charset=utf-8")
        );
        assert!(body.contains("# TYPE keep_http_requests_total counter\n"));
    }
}
