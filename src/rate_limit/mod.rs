//! Rate limits: who may ask how often, decided in memory for less than a refusal costs to send.
//!
//! A [`RateLimiter`] holds [`Rule`]s. Each speaks of some requests (a path template, methods),
//! counts them against somebody (a [`Scope`]: the signed-in caller, the client's address, a tenant,
//! everybody) and grants a [`Quota`], if need be another one per tier. All rules that speak of a
//! request must let it through; if one does not, none counts it.
//!
//! ```
//! use std::time::Duration;
//!
//! use http::{Method, Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_keep::clock::Clock;
//! use tower_keep::event::Events;
//! use tower_keep::rate_limit::{Quota, RateLimitConfig, RateLimitLayer, RateLimiter, Rule, Scope};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let login = Rule::new("login", Quota::requests(5).per(Duration::from_secs(3600)).burst(1))
//!     .route("/login")
//!     .methods([Method::POST])
//!     .scope(Scope::Ip);
//! // Beside it, the rule `default` for every request: 600 a minute per caller or address.
//! let config = RateLimitConfig { rules: vec![login], ..RateLimitConfig::default() };
//! // A clock that stands still, for the example's sake; `Clock::system()` in a service.
//! let (clock, _hand) = Clock::manual();
//! let limiter = RateLimiter::new(&config, &[], clock, Events::none())?;
//!
//! let service = ServiceBuilder::new()
//!     .layer(RateLimitLayer::new(limiter))
//!     .service(service_fn(async |_| Ok::<_, std::io::Error>(Response::new(String::new()))));
//!
//! let login = || Request::post("/login").body(());
//! let first = service.clone().oneshot(login()?).await?;
//! assert_eq!(first.status(), 200);
//! assert_eq!(first.headers()["ratelimit-policy"], "\"login\";q=5;w=3600");
//!
//! let second = service.clone().oneshot(login()?).await?;
//! assert_eq!(second.status(), 429);
//! assert_eq!(second.headers()["retry-after"], "720");
//!
//! // The refused request was not counted by `default` either, of whose 600 one is gone.
//! let other = service.oneshot(Request::get("/").body(())?).await?;
//! assert_eq!(other.headers()["ratelimit"], "\"default\";r=598;t=1");
//! # Ok(())
//! # }
//! ```
//!
//! **Who is counted.** The peer comes from axum's `ConnectInfo` (feature `axum`) or from
//! [`PeerAddr`](crate::identity::PeerAddr); requests without one, as above, share a bucket. What
//! proxies say about the client is believed only if they are named in the configuration.
//! [`Caller`](crate::identity::Caller)s are told by the application.
//!
//! **Memory** is fixed when the limiter is built, whatever comes in: a table of 10 bytes per key, and as large a
//! one beside it where there are penalties. In a fleet a few kilobytes of leases and questions come on top.
//!
//! **What a request counts** may be several tokens, known before it goes on or only by its answer
//! ([`RequestCost`]), or nothing after all ([`Count`]).
//!
//! **Without HTTP**, [`RateLimiter::rule`] counts anything that has a name. [`RateLimiter::peek`] looks and
//! counts nothing, [`RateLimiter::top`] names those who press hardest, and [`RateLimiter::reconfigure`] replaces
//! the rules while requests come.
//!
//! **Who goes on after a refusal** is banned if [`PenaltyConfig`] says so.
//!
//! **Several instances** count together through Redis where the stack has one (feature `redis`). A decision over
//! any number of rules is one round trip (in a cluster two, where they count against several), made only where
//! this instance does not know better: what Redis has denied is denied here until its time, but for rules that
//! give back by the answer, which ask each time. By [`Mode::Leased`] tokens are taken in advance, never more of
//! them than the quota. While Redis is away each instance grants its share of every quota, by how many instances
//! it has seen, and Redis hears of it afterwards. One that starts meanwhile has seen none, and grants all of it
//! unless [`instances`](RateLimitConfig::instances) says better.

#[cfg(feature = "redis")]
mod ask;
#[cfg(feature = "redis")]
mod ban_script;
#[cfg(feature = "redis")]
mod ban_store;
#[cfg(feature = "redis")]
mod ban_talk;
#[cfg(feature = "redis")]
mod bans;
mod body;
#[cfg(feature = "redis")]
mod bought;
mod calendar;
mod charges;
mod check;
mod compiled;
mod config;
mod cost;
mod count;
mod decision;
mod digest;
mod direct;
mod engine;
mod escape;
mod fingerprint;
#[cfg(feature = "redis")]
mod fleet;
#[cfg(feature = "redis")]
mod flights;
mod future;
mod gcra;
mod headers;
mod here;
mod in_force;
#[cfg(feature = "redis")]
mod join;
mod layer;
#[cfg(feature = "redis")]
mod leases;
mod ledger;
mod limiter;
mod lists;
mod mode;
mod one;
#[cfg(feature = "redis")]
mod outage;
mod owner;
mod penalty;
mod penalty_config;
mod period;
mod place;
#[cfg(feature = "redis")]
mod presence;
mod preset;
#[cfg(feature = "redis")]
mod question;
mod quota;
mod rule;
mod rule_text;
mod rules;
mod scope;
#[cfg(feature = "redis")]
mod script;
mod service;
mod settle;
#[cfg(feature = "redis")]
mod shared;
mod slot;
#[cfg(feature = "redis")]
mod spoken;
mod subject;
mod table;
mod terms;
#[cfg(all(test, feature = "redis"))]
#[path = "../../tests/it/redis/mod.rs"]
pub(crate) mod test_redis;
mod ticks;
#[cfg(feature = "redis")]
mod together;
mod top;
#[cfg(all(test, feature = "redis"))]
mod twin;
#[cfg(feature = "redis")]
mod voice;
mod who;
mod writer;

pub use crate::identity::ResponseView;
pub use body::RateLimitBody;
pub use check::Check;
pub use config::RateLimitConfig;
pub use cost::{Cost, CustomCost, RequestCost};
pub use count::{Count, CustomCount};
pub use decision::{Decision, Standing};
pub use future::RateLimitFuture;
#[cfg(feature = "redis")]
pub use join::RateLimitParts;
pub use layer::RateLimitLayer;
pub use limiter::RateLimiter;
pub use mode::Mode;
pub use one::{RuleCheck, RuleLimiter};
pub use penalty_config::PenaltyConfig;
pub use period::Period;
pub use quota::{Quota, Requests};
pub use rule::Rule;
pub use scope::{CustomScope, Scope};
pub use service::RateLimitService;
pub use top::TopEntry;
pub use writer::RefusalWriter;
