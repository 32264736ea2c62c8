//! Circuit breakers: what fails all the time is left alone for a while.
//!
//! A dependency that hangs or fails takes down whoever goes on calling it: each call holds a slot, a connection and
//! memory until its timeout, for an answer that would not have come. A [`CircuitBreaker`] counts what comes of calls.
//! When too many have failed it opens: calls are not made for a while ([`open_ms`](BreakerConfig::open), 30 s) and
//! refused at once, which gives the dependency time to recover and the service room for everything else. Then a
//! few probes see whether it works again.
//!
//! # Around handlers
//!
//! ```
//! use axum::{Router, routing::get};
//! use http::{Request, StatusCode};
//! use tower::ServiceExt;
//! use tower_keep::breaker::CircuitState;
//! use tower_keep::refusal::Refusal;
//! use tower_keep::{Keep, Profile};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keep = Keep::builder(Profile::development()).build()?;
//! let app: Router = Router::new()
//!     .route("/report", get(async || StatusCode::INTERNAL_SERVER_ERROR))
//!     .layer(keep.breaker_layer("reports")) // inside, so that the cache may have an answer
//!     .layer(keep.layer());
//!
//! for status in [500, 500, 500, 500, 500, 503] {
//!     let request = Request::get("/report").body(axum::body::Body::empty())?;
//!     let answer = app.clone().oneshot(request).await?;
//!     assert_eq!(answer.status(), status);
//! #   let refusal: Option<&Refusal> = answer.extensions().get();
//! #   assert_eq!(refusal.is_some(), status == 503);
//! }
//! assert_eq!(keep.breaker("reports").state(), CircuitState::Open);
//! # Ok(())
//! # }
//! ```
//!
//! A refusal is an answer: 503, `Retry-After`, `application/problem+json`, and a
//! [`Refusal::CircuitOpen`](crate::refusal::Refusal) in the extensions. The [cache](crate::cache) outside of it takes
//! that for a service that cannot be reached, and answers with what it has where `stale-if-error` or
//! [`stale_if_disconnected`](crate::cache::CacheConfig::stale_if_disconnected) allows.
//!
//! # Before a client
//!
//! One circuit for each host, with an answer of the application's own while it is open:
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_keep::breaker::{BreakerConfig, BreakerLayer, CircuitBreakers, Outcome};
//! use tower_keep::clock::Clock;
//! use tower_keep::event::Events;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = BreakerConfig { consecutive_failures: Some(3), ..BreakerConfig::default() };
//! let breakers = CircuitBreakers::new(&config, Clock::system(), Events::none())?;
//! // In place of a client, such as hyper-util's: one of the hosts cannot be reached.
//! let client = service_fn(|request: Request<String>| async move {
//!     match request.uri().host() {
//!         Some("down.test") => Err(std::io::Error::other("connection refused")),
//!         _ => Ok(Response::new(String::new())),
//!     }
//! });
//! let layer = BreakerLayer::by_host(breakers.clone())
//!     // Without this, 5xx and errors are failures.
//!     .outcomes(|answer| match answer.status.as_u16() {
//!         429 | 500.. => Outcome::Failed,
//!         _ => Outcome::Succeeded,
//!     })
//!     .fallback(|_refusal, request| {
//!         let rates = request.uri.path() == "/rates";
//!         rates.then(|| Response::new(Bytes::from_static(b"{\"EUR\":1}")))
//!     });
//! let mut client = ServiceBuilder::new().layer(layer).service(client);
//!
//! let get = |uri: &str| Request::get(uri).body(String::new());
//! for _ in 0..3 {
//!     assert!(client.ready().await?.call(get("http://down.test/rates")?).await.is_err());
//! }
//! assert_eq!(client.ready().await?.call(get("http://down.test/rates")?).await?.status(), 200);
//! assert_eq!(client.ready().await?.call(get("http://down.test/other")?).await?.status(), 503);
//! assert_eq!(client.ready().await?.call(get("http://up.test/rates")?).await?.status(), 200);
//! assert_eq!(breakers.open().concat(), "down.test");
//! # Ok(())
//! # }
//! ```
//!
//! # Without Tower
//!
//! [`CircuitBreaker::run`] is for futures that return a `Result`; [`CircuitBreaker::admit`] for anything else.
//!
//! ```
//! # use tower_keep::breaker::{BreakerConfig, CallError, CircuitBreaker};
//! # use tower_keep::{clock::Clock, event::Events};
//! # async fn query() -> Result<u64, std::io::Error> { Ok(42) }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let config = BreakerConfig::default();
//! let database = CircuitBreaker::new("database", &config, Clock::system(), Events::none())?;
//! let total = match database.run(query()).await {
//!     Ok(total) => Some(total),
//!     Err(CallError::Refused(_)) => None, // it was not asked
//!     Err(CallError::Failed(error)) => return Err(error.into()),
//! };
//! # assert_eq!(total, Some(42));
//! # Ok(())
//! # }
//! ```
//!
//! # When it opens
//!
//! | what | default | for |
//! |---|---|---|
//! | failures in a row | 5 | what is called once in a while and is down |
//! | share of failures | 50 % of at least 20 calls in 10 s | what answers now and then |
//! | share of slow calls | off | what answers, but too late for anybody |
//!
//! A success never opens a circuit. Of calls that were made before the last change of state, nothing is counted.
//!
//! # Calls that are called off
//!
//! A timeout *around* a call drops it, and what is dropped has no result: a breaker that counts results sees
//! nothing of a dependency that hangs. Here the dropped call tells by itself. If it had lasted for
//! [`cancelled_after_ms`](BreakerConfig::cancelled_after) (1 s), it has failed; if not, its client has just left, and
//! it counts for nothing. Timeouts shorter than that need a shorter time there. A call whose thread panics has failed.
//!
//! # Half-open
//!
//! [`probes`](BreakerConfig::probes) (3) calls are made; all have to succeed to close the circuit, and one that fails
//! opens it again, for twice as long each time where [`open_max_ms`](BreakerConfig::open_max) is set. Where none comes
//! back within [`probe_ms`](BreakerConfig::probe), they have failed. A probe that is called off before gives its place
//! to another: one client that leaves says nothing. But as many as there are probes (and two at least) that had lasted
//! for `cancelled_after_ms`, with none that has succeeded in between, open it again. So whatever hangs, a circuit is
//! never stuck, unless calls that are called off count for nothing.
//!
//! # What is counted as what
//!
//! The head of the response decides. What a layer further inside has [refused](crate::refusal) by itself is ignored:
//! nobody was called. An error is a failure.
//!
//! # Cost
//!
//! Two looks at the clock, two loads and an addition for a call that succeeds; no lock and no allocation, however long
//! the window is. By host or by name, one lookup under a shared lock is added. Circuits are bounded by
//! [`circuits_max`](BreakerConfig::circuits_max).

mod breakers;
mod call;
mod circuit;
mod config;
mod engine;
mod fallback;
mod future;
mod layer;
mod machine;
mod names;
mod outcome;
mod rules;
mod service;
mod state;
mod window;

pub use breakers::CircuitBreakers;
pub use call::Call;
pub use circuit::{CircuitFigures, CircuitState};
pub use config::BreakerConfig;
pub use engine::{CallError, CircuitBreaker};
pub use future::BreakerFuture;
pub use layer::BreakerLayer;
pub use outcome::Outcome;
pub use service::BreakerService;
