//! A shared HTTP cache by RFC 9111, in this process' memory.
//!
//! Only what says that it may be cached is served unasked: by `Cache-Control`, by `Expires`, or by the handler
//! in code ([`CacheFor`]; [`CacheTags`] and [`NoStore`] stand beside it). What has only a validator (`ETag`,
//! `Last-Modified`) is kept to be asked about. What carries a cookie for the client never is, nor what
//! was asked for with credentials (`Authorization`, `Cookie`, `X-Api-Key` by default) unless the answer
//! says `public`, `s-maxage` or `must-revalidate`.
//!
//! - Freshness, age, the client's own directives, `Vary`, validation with the origin and 304 towards the
//!   client follow RFC 9111 and RFC 9110 §13; `stale-while-revalidate` and `stale-if-error` RFC 5861;
//!   each answer says in `Cache-Status` (RFC 9211) where it came from.
//! - Bodies stream through while they are recorded; what breaks off leaves nothing behind.
//! - Of many requests for one missing answer one goes to the service and the others wait for it. A URL
//!   whose answers cannot be stored is remembered for a while, so that nobody waits in vain.
//! - Everything stored is stamped with the [journal](crate::journal)'s position before the service was
//!   asked: what was invalidated meanwhile is never served. A successful unsafe request invalidates its
//!   own path (RFC 9111 §4.4).
//!
//! Requests with `Range`, `If-Match`, `If-Unmodified-Since`, `Upgrade` or content go straight through. (Content
//! is told by `Content-Length` and `Transfer-Encoding`: a handler that reads the content of a GET over HTTP/2,
//! where neither need be there, must answer `no-store`.) A client whose condition matches a page that is not
//! stored yet is sent the whole page once.
//!
//! The key is host, path and query. An answer that depends on anything else, such as `X-Forwarded-Proto`, must
//! say so in `Vary`.
//!
//! ```
//! use std::time::Duration;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{Layer, ServiceExt};
//! use tower_keep::cache::{Cache, CacheConfig, CacheFor, CacheLayer, CacheParts};
//! use tower_keep::clock::Clock;
//! use tower_keep::event::Events;
//! use tower_keep::journal::{Journal, JournalConfig};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let journal = Journal::new(&JournalConfig::default(), Events::none())?;
//! let parts =
//!     CacheParts { journal, clock: Clock::system(), events: Events::none(), spawner: None };
//! let cache = Cache::new(&CacheConfig::default(), parts)?;
//! let slow = tower::service_fn(|_: Request<()>| async {
//!     let mut answer = Response::new(Full::from("computed once"));
//!     answer.extensions_mut().insert(CacheFor(Duration::from_secs(60)));
//!     Ok::<_, std::convert::Infallible>(answer)
//! });
//! let service = CacheLayer::new(cache).layer(slow);
//!
//! let miss = service.clone().oneshot(Request::get("/report").body(())?).await?;
//! assert_eq!(miss.headers()["cache-status"], "keep; fwd=uri-miss; stored");
//! http_body_util::BodyExt::collect(miss.into_body()).await?; // stored at the clean end
//! let hit = service.oneshot(Request::get("/report").body(())?).await?;
//! assert_eq!(hit.headers()["cache-status"], "keep; hit");
//! assert_eq!(hit.headers()["age"], "0");
//! # Ok(()) }
//! ```

mod body;
mod change;
mod conditional;
mod config;
mod control;
mod deliver;
mod engine;
mod entry;
mod errand;
mod flight;
mod future;
mod hot;
mod key;
mod layer;
mod list;
mod look;
mod policy;
mod recording;
mod say;
mod service;
mod status;
mod vary;

pub use body::CacheBody;
pub use config::CacheConfig;
pub use control::CacheControl;
pub use engine::{Cache, CacheParts};
pub use future::CacheFuture;
pub use layer::CacheLayer;
pub use say::{CacheFor, CacheTags, NoStore, TAG_BYTES_MAX, TAGS_MAX};
pub use service::CacheService;
