//! What a service does, in figures: requests by route, and everything the other rooms tell.
//!
//! [`Metrics`] is the engine. Behind a [`MetricsLayer`] it counts requests; as a
//! [`Recorder`](crate::event::Recorder) it counts the [`Event`](crate::event::Event)s of the cache,
//! the limiter, the guard and the rest; [`Metrics::prometheus`] and [`Metrics::snapshot`] give all of
//! it out again. Counting takes relaxed atomics and no lock; labels are bounded whatever arrives.
//!
//! # What is counted when
//!
//! A request is *in flight* from the moment the layer is called until its answer's body has been
//! handed to the connection. It is counted **once**, when it leaves flight:
//!
//! - under its status class, if the answer was delivered to its end: the body said so, its announced
//!   length is used up, or the answer has no body to begin with (`HEAD`, 1xx, 204, 304);
//! - as *cancelled*, if the client went away before that, whether it waited for the answer's head or
//!   was reading the body, or if the body ended in an error;
//! - under 5xx, if the service returned an error instead of an answer, or panicked.
//!
//! So, per route and method, requests begun = the five status classes + cancelled + in flight. A
//! stream that only ends when its reader leaves, such as server-sent events, counts as cancelled.
//!
//! The latency histogram measures the time to the answer's **head**, once for every answer that got
//! that far: a large body read by a slow client says nothing about the service.
//!
//! # What goes out
//!
//! [`Metrics::scrape`] answers a scraper in the format it asks for and writes while it sends;
//! [`Metrics::prometheus`] is the same in one text. [`MetricsConfig::names`] chooses between this crate's names and
//! OpenTelemetry's. With the feature `metrics-facade` a `FacadeBridge` tells everything to the recorder of the
//! `metrics` crate. [`RequestSpanLayer`] tells single requests to `tracing`. Prometheus rules and a Grafana dashboard
//! are in `examples/observability`.
//!
//! However many paths, methods and hosts clients invent, there are at most ten rows for each template, for
//! `unmatched` and for `other`, of at most 32 series each (five status classes, cancelled, unanswered, slow, in flight,
//! bytes received and sent, hits and misses of the cache, and a histogram of 19).
//!
//! # Windows
//!
//! [`Metrics::window`] has the same figures of the last minute, five minutes or hour. A request adds to counts that
//! only ever grow and knows nothing of windows; every ten seconds what they have grown by is put down
//! ([`Metrics::turn`]). 25 such frames are all three windows: some ten bytes for each route that was used, nothing
//! for others. Percentiles are within 5 % of the exact ones. A route and method takes about 3.7 KiB, and
//! 0.4 KiB more for each window that is full of it (`cargo bench --bench metrics -- memory`).
//!
//! [`Metrics::slow_requests`] are the last slow ones with their trace.
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use tower::{Layer, Service, ServiceExt};
//! use tower_keep::clock::Clock;
//! use tower_keep::metrics::{Metrics, MetricsConfig, MetricsLayer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Without axum the layer knows no routes but those it is told.
//! let config = MetricsConfig {
//!     routes: vec!["/contacts/{id}".to_owned()],
//!     ..MetricsConfig::default()
//! };
//! let metrics = Metrics::new(&config, Clock::system())?;
//!
//! let service = tower::service_fn(|_: Request<String>| async {
//!     Ok::<_, std::convert::Infallible>(Response::new(http_body_util::Full::new(Bytes::new())))
//! });
//! let mut service = MetricsLayer::new(metrics.clone()).layer(service);
//! for path in ["/contacts/1", "/contacts/2", "/wp-login.php"] {
//!     let request = Request::builder().uri(path).body(String::new())?;
//!     service.ready().await?.call(request).await?;
//! }
//!
//! let text = metrics.prometheus();
//! let line = r#"keep_http_requests_total{route="/contacts/{id}",method="GET",status="2xx"} 2"#;
//! assert!(text.contains(line));
//! assert!(text.contains(r#"{route="unmatched",method="GET",status="2xx"} 1"#));
//! # Ok(())
//! # }
//! ```

mod accept;
mod body;
mod config;
mod edges;
mod engine;
mod exposition;
#[cfg(feature = "metrics-facade")]
mod facade;
mod families;
mod figures;
mod frame;
#[cfg(feature = "redis")]
mod gathering;
mod gauges;
mod histogram;
mod http_families;
mod layer;
mod named;
mod names;
mod overload;
mod passage;
mod prometheus;
mod reading;
mod routes;
mod rows;
mod scrape;
mod service;
mod shared;
mod sheet;
mod slow;
mod snapshot;
mod span_service;
mod spans;
mod totals;
mod trace_parent;
mod visitor;
mod walk;
mod window;
mod windows;

pub use body::MetricsBody;
pub use config::MetricsConfig;
pub use engine::Metrics;
#[cfg(feature = "metrics-facade")]
pub use facade::FacadeBridge;
pub use figures::Quantiles;
#[cfg(feature = "redis")]
pub(crate) use gathering::{Gathering, Stretch};
pub use histogram::{Histogram, HistogramSnapshot};
pub use layer::MetricsLayer;
pub use names::MetricNames;
pub use overload::{CircuitTotals, ConnectionTotals, GuardTotals};
pub use scrape::{Scrape, ScrapeBody};
pub use service::{MetricsFuture, MetricsService};
pub use slow::SlowRequest;
pub use snapshot::{
    CacheTotals, HttpTotals, RouteFigures, RuleFigures, Snapshot, StatusCounts, TierTotals,
};
pub use span_service::{RequestSpanBody, RequestSpanFuture, RequestSpanLayer, RequestSpanService};
pub use spans::RequestSpans;
pub use window::{Window, WindowFigures};
#[cfg(feature = "redis")]
pub(crate) use windows::Frame;
