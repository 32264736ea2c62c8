//! A shared HTTP cache by RFC 9111, in this process' memory.
//!
//! Only what says that it may be cached is served unasked: by `Cache-Control`, `Expires` or a targeted field
//! (RFC 9213), or by the handler in code ([`CacheFor`]; [`CacheTags`] and [`NoStore`] stand beside it). What
//! has only a validator (`ETag`, `Last-Modified`) is kept to be asked about.
//!
//! **Private by default.** What carries a cookie for the client is never stored, nor what was asked for with
//! credentials (`Authorization`, `Cookie`, `X-Api-Key` by default) unless the answer says `public`,
//! `s-maxage` or `must-revalidate`. [`CacheConfig::rfc9111`] is for gateways that want what the RFC allows
//! instead; read its warning first.
//!
//! - Freshness, age, the client's own directives, `Vary`, validation with the origin and 304 towards the
//!   client follow RFC 9111 and RFC 9110 §13; `stale-while-revalidate` and `stale-if-error` RFC 5861;
//!   each answer says in `Cache-Status` (RFC 9211) where it came from.
//! - Ranges (RFC 9110 §14) are cut from stored answers, one or several at a time; a 206 is stored, and parts
//!   with one strong validator are joined. The answer to a HEAD updates what is stored for GET.
//! - Bodies stream through while they are recorded; what breaks off leaves nothing behind, unless
//!   `finish_when_left` reads on for the next one.
//! - Of many requests for one missing answer one goes to the service and the others wait for it. A URL
//!   whose answers cannot be stored is remembered for a while, so that nobody waits in vain.
//! - Everything stored is stamped with the [journal](crate::journal)'s position before the service was
//!   asked: what was invalidated meanwhile is never served. A successful unsafe request invalidates its
//!   own path and those that its `Location` and `Content-Location` name (RFC 9111 §4.4).
//! - Single routes have their own [`CacheRule`]: a lifetime, tags, whether to store at all, what browsers are
//!   told. Tags come from rules, from code and from `Surrogate-Key` and `Cache-Tag` fields.
//!
//! Requests with `If-Match`, `If-Unmodified-Since`, `Upgrade`, a method in a field
//! (`X-HTTP-Method-Override`) or content go straight through. (Content is told by `Content-Length` and
//! `Transfer-Encoding`: a handler that reads the content of a GET over HTTP/2, where neither need be there,
//! must answer `no-store`.) A client whose condition matches a page that is not stored yet is sent the whole
//! page once. Answers with trailers are not stored. Interim answers (1xx) never reach a Tower service.
//!
//! # The key
//!
//! Host, path and query, compared in full, and what a [`KeyPart`] adds: the tenant, say. An answer that depends
//! on anything else must say so in `Vary`, above all on a field that clients or proxies set at will, such as
//! `X-Forwarded-Proto`, `X-Forwarded-Host` or `X-Original-URL`: whoever sends it first would choose what
//! others see. A request with two `Host` fields, or one that contradicts its target, goes past the cache.
//! `query_ignored`, `query_only` and `query_sorted` make fewer keys of many; see [`CacheConfig`].
//!
//! With a compressing layer outside of this one a page is stored once and compressed for each client; inside,
//! it is stored compressed, once for each `Accept-Encoding` (see `Vary`). Both are right, and tested with
//! tower-http's.
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
//! let parts = CacheParts {
//!     journal, clock: Clock::system(), events: Events::none(), spawner: None, tiers: None,
//! };
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

mod asked;
mod behind;
mod body;
mod change;
mod conditional;
mod config;
mod content;
mod control;
mod deliver;
mod engine;
mod entry;
mod errand;
mod fetch;
mod fields;
mod found;
mod freshen;
mod future;
mod hot;
mod inspect;
mod key;
mod landing;
mod layer;
mod lifetime;
mod list;
mod look;
mod multipart;
mod packed;
mod part;
mod plan;
mod policy;
mod probe;
mod query;
mod range;
mod recording;
mod rule;
mod say;
mod service;
mod status;
mod stop;
mod tags;
mod targeted;
mod terms;
mod vary;
mod well_known;

pub use body::CacheBody;
pub use config::CacheConfig;
pub use control::CacheControl;
pub use engine::{Cache, CacheParts};
pub use future::CacheFuture;
pub use inspect::{StoredAnswer, Totals};
pub use key::KeyPart;
pub use layer::CacheLayer;
pub use rule::{Browser, CacheRule, Store};
pub use say::{CacheFor, CacheTags, NoStore, TAG_BYTES_MAX, TAGS_MAX};
pub use service::CacheService;
pub use status::StatusDetail;
pub use tags::HTTP_NAMESPACE;
