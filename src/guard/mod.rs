//! The guard: how many requests are inside at once, who may wait, who is first, and what happens when
//! memory runs out.
//!
//! A small host dies of what it has let in, not of what knocks: thirty reports under way at once
//! need the memory of thirty reports. The [`Guard`] gives each request a slot until its answer's
//! **body** has ended, lets a bounded number wait for one for a bounded time, and refuses the rest at once with
//! `503`, `Retry-After` and problem details, which costs less than serving anybody late.
//!
//! # Who waits, and who is first
//!
//! - Four classes, after Google's SRE book ([`Criticality`]): a request belongs to one by its route
//!   ([`GuardRule`]), by a closure of the service's ([`Claims::judge`]), or by a field, if it comes from a peer that is
//!   trusted. The more important is served first, and takes the last place in the queue from the less important.
//! - Within a class everybody's tenants take turns: by the caller's tenant, the caller, or the client's address.
//! - In the order of arrival, unless the queue has not been empty for `codel_interval`: then the newest is
//!   first, whose client is still there (adaptive LIFO). Where even the least wait of an interval was above
//!   `codel_target`, whoever has waited for twice that is turned away (controlled delay).
//! - A route may have slots and a queue of its own, beside those for all.
//!
//! # How many are inside
//!
//! `slots` at most, and fewer in two cases. By option the number follows what requests take ([`Adaptive`]). And
//! while the runtime *lags*, that is while tasks which are ready wait for a thread, it shrinks by itself and
//! requests are let in by turns: where handlers compute instead of waiting, the queue that makes everybody late is
//! the runtime's own, before any layer has seen the request. By turns, what has arrived at the pacer's worker
//! stands in the guard's line before the next is let in, so that the line can choose.
//!
//! A slot is held for as long as its client sends and reads, so a service that strangers can reach
//! needs time limits of its own inside of the guard (tower-http's `TimeoutLayer`, a body timeout).
//! Answers that stay open and do nothing, such as event streams, give their slot back with their head
//! if they carry [`LongLived`]; those of [`progress`](crate::progress) do.
//!
//! # Memory
//!
//! It also watches the memory of the process. As the use nears the budget, the [`Pressure`] rises
//! through its levels: other rooms hear of it ([`Guard::on_pressure`]) and give memory back, from
//! 90 % on HTTP/1 connections are closed after their answer, and from 95 % on only what is
//! [`Critical`](Criticality::Critical) is served. All of that costs a request one atomic load: the reading itself is
//! done by whoever calls [`Guard::sample`] once a second.
//!
//! ```
//! use tower_keep::clock::Clock;
//! use tower_keep::event::Events;
//! use tower_keep::guard::{Guard, GuardConfig, GuardLayer};
//!
//! # fn main() -> Result<(), tower_keep::error::ConfigError> {
//! let config = GuardConfig { slots: 32, queue: 64, ..GuardConfig::default() };
//! let guard = Guard::new(&config, Clock::system(), Events::none())?;
//! let app: axum::Router = axum::Router::new()
//!     .route("/report", axum::routing::get(|| async { "a report" }))
//!     .layer(GuardLayer::new(guard.clone()));
//! assert_eq!((guard.in_flight(), guard.queued()), (0, 0));
//! # Ok(())
//! # }
//! ```
//!
//! The engine works without Tower as well ([`ConcurrencyLimit`] is the same without memory and HTTP):
//!
//! ```
//! # use tower_keep::{clock::Clock, event::Events, guard::{Guard, GuardConfig}, refusal::Refusal};
//! use tower_keep::guard::{Admission, Criticality};
//!
//! async fn export(guard: &Guard) -> Result<(), Refusal> {
//!     let _permit = match guard.admit(Criticality::Sheddable) {
//!         Admission::Admitted(permit) => permit,
//!         Admission::Wait(waiting) => waiting.await?,
//!         Admission::Refused(refusal) => return Err(refusal),
//!     };
//!     // .. the work, while `_permit` lives.
//!     Ok(())
//! }
//! ```

mod adaptive;
mod admission;
mod body;
mod canary;
mod claim;
mod codel;
mod config;
mod criticality;
#[cfg(test)]
mod dice;
mod engine;
mod entrance;
mod future;
mod lag;
mod layer;
mod leak;
mod limit;
mod line;
mod memory;
mod pressure;
mod rule;
mod runtime;
mod service;
mod slots;

pub use adaptive::Adaptive;
pub use admission::{Admission, Permit, Waiting};
pub use body::{GuardBody, LongLived};
pub(crate) use canary::Canary;
pub use claim::{Claim, Claims};
pub use config::GuardConfig;
pub use criticality::Criticality;
pub use engine::Guard;
pub use future::GuardFuture;
pub use layer::GuardLayer;
pub use leak::{LeakDetector, LeakEstimate};
pub use limit::{ConcurrencyLimit, LimitConfig};
pub use memory::MemoryReading;
pub use pressure::Pressure;
pub use rule::GuardRule;
pub use runtime::RuntimeReading;
pub(crate) use runtime::RuntimeSampler;
pub use service::GuardService;

pub use crate::host::{MemoryBounds, MemoryProbe};
