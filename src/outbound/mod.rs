//! Remote quotas: what the services that we call allow us, honoured before they have to say no.
//!
//! A [`RemoteQuota`] learns from every answer of a remote how much it has left and when it wants to be
//! left alone, and counts requests under way against it. A [`QuotaLayer`] puts it before an HTTP client:
//! a request that the remote would refuse waits for its turn, or is answered 429 here, for nothing.
//!
//! ```
//! use http::{Request, Response};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_keep::clock::Clock;
//! use tower_keep::event::Events;
//! use tower_keep::outbound::{QuotaConfig, QuotaLayer, RemoteQuota};
//! use tower_keep::refusal::Refusal;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // In place of a client, such as hyper-util's or one behind reqwest: a remote that allows two.
//! # let mut left = 2;
//! let remote = service_fn(move |_: Request<String>| {
//! #   left -= 1;
//!     let told = format!("\"minute\";r={left};t=60");
//!     let response = Response::builder().header("ratelimit", told).body(String::new());
//!     async move { response }
//! });
//! let quota = RemoteQuota::new(&QuotaConfig::default(), Clock::system(), Events::none())?;
//! let mut client = ServiceBuilder::new().layer(QuotaLayer::new(quota.clone())).service(remote);
//!
//! let request = || Request::get("https://api.example.com/v1/things").body(String::new());
//! for _ in 0..2 {
//!     assert_eq!(client.ready().await?.call(request()?).await?.status(), 200);
//! }
//! // The third is not sent. It would have to wait for a minute, and the budget is five seconds.
//! let third = client.ready().await?.call(request()?).await?;
//! assert_eq!(third.status(), 429);
//! assert!(matches!(third.extensions().get(), Some(Refusal::OverQuota { .. })));
//!
//! let standing = quota.standing("api.example.com").unwrap_or_default();
//! assert_eq!((standing.left, standing.under_way), (Some(0), 0));
//! # Ok(())
//! # }
//! ```
//!
//! Customised: a quota for each token instead of each host, no waiting, and shared with the other
//! instances of the service.
//!
//! ```
//! # use std::borrow::Cow;
//! # use std::time::Duration;
//! # use tower_keep::clock::Clock;
//! # use tower_keep::event::Events;
//! # use tower_keep::outbound::{QuotaConfig, RemoteQuota};
//! # fn quota() -> Result<RemoteQuota, tower_keep::error::ConfigError> {
//! let config = QuotaConfig { wait_max: Duration::ZERO, ..QuotaConfig::default() };
//! let quota = RemoteQuota::new(&config, Clock::system(), Events::none())?
//!     // Put there by whoever chose the token. The token itself is no name: names are shown.
//!     .remotes(|request| {
//!         let account = request.extensions.get::<&'static str>()?;
//!         Some(Cow::Owned(format!("api.example.com/{account}")))
//!     });
//! // With the feature `redis`: `.share(keep.redis(), &keep.spawner())`.
//! # Ok(quota)
//! # }
//! # quota().unwrap();
//! ```
//!
//! # What is understood
//!
//! | a remote says | what is done |
//! |---|---|
//! | `Retry-After` with 429, 503 or 403 | nothing is sent until then; whatever else it said is void |
//! | `RateLimit` and `RateLimit-Policy` (IETF draft), several windows | as many are sent as each has left |
//! | `RateLimit-Remaining`, `X-RateLimit-Remaining`, `X-Rate-Limit-Remaining`, with `-Limit` and `-Reset` | as one such window; the reset in seconds, as a date, or as Unix time in s or ms |
//! | 429 without any of them | 1 s of rest, twice as long for each one that follows, up to 64 s |
//!
//! A malformed field is ignored as a whole. No remote is believed for longer than
//! [`QuotaConfig::block_max`], whatever it says. Dates are read against the remote's own `Date`. Answers
//! with an `Age` come from a cache and speak of somebody else's request. GitHub counts its resources
//! apart, so name them apart: `github/core`, `github/search`.
//!
//! # What is sent
//!
//! A request is counted when it is sent and until its answer comes, so a hundred at once do not all find
//! the three that were left. An answer's number replaces what was known, unless it is older; of two
//! that may have overtaken each other the lower one counts. A request that failed without an answer is
//! given back; one whose future was dropped under way has probably been counted over there,
//! and stays so until a later answer knows better.
//!
//! After a wait, requests go in the order in which they came. If the remote has told its limit, a new
//! window begins with so many; if not, one goes ahead, and good answers double how many may be under way.
//! Ends are scattered by up to a tenth (at most 1 s), only ever later, so that instances do not come back
//! at the same moment.
//!
//! # Refusals
//!
//! Refused are requests that would wait for longer than [`QuotaConfig::wait_max`] as soon as that is
//! known, and those beyond [`QuotaConfig::waiting_max`]. They are answered here: 429,
//! `application/problem+json`, `Retry-After`, and a [`Refusal::OverQuota`](crate::refusal::Refusal) in the
//! extensions, whose rule is the remote's name; a remote's own 429 has none. The error type stays the
//! client's.
//!
//! # Several instances
//!
//! `RemoteQuota::share` (feature `redis`) connects the instances of a service:
//!
//! - What makes a remote off limits is told over a channel and heard at once, and kept in a key, which
//!   whoever comes later reads before its first request to that remote.
//! - What is left is handed out by Redis, from what the remote told last less what all instances hold:
//!   from the time the first answer is in Redis until it is lost, all of them together send no more than
//!   the remote has left. Each may hold up to 64 in advance for a second or two, and only while there
//!   are plenty; what a killed instance held comes back after 10 s.
//! - A remote that tells nothing costs Redis a call or two for each instance, and none after them.
//! - While Redis is away, each goes on with what it knows, so that N instances may send N times what is
//!   left until the remote's answers tell better. Nobody waits for a Redis that does not answer.
//!
//! # Cost
//!
//! A request that may be sent takes a look into a map, a lock of its remote's own and no allocation; one
//! that waits is boxed. Remotes are bounded by [`QuotaConfig::remotes_max`], waiting requests by
//! [`QuotaConfig::waiting_max`].

mod clearance;
mod config;
mod desk;
#[cfg(feature = "redis")]
mod exchange;
mod fields;
mod future;
mod layer;
#[cfg(feature = "redis")]
mod lease;
mod ledger;
mod line;
mod list;
mod names;
#[cfg(feature = "redis")]
mod news;
mod quota;
mod remote;
mod remotes;
#[cfg(feature = "redis")]
mod server_time;
mod service;
mod standing;
#[cfg(feature = "redis")]
mod sync;
#[cfg(feature = "redis")]
mod ward;
mod window;

pub use clearance::{Clearance, UnderWay, Waiting};
pub use config::QuotaConfig;
pub use future::QuotaFuture;
pub use layer::QuotaLayer;
pub use quota::RemoteQuota;
pub use service::QuotaService;
pub use standing::RemoteStanding;
