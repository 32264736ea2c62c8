//! Alerts: somebody is told when figures are not what they should be, once, and again when it is over.
//!
//! [`Alerts`] judges its rules every `alerts.every_ms` (10 s) against the [metrics](crate::metrics), and tells
//! [`AlertHandler`]s what has changed: closures, or a [`Webhook`]. A keep comes with the rules below; others are
//! said in settings or in code.
//!
//! ```
//! use tower_keep::alerts::{Alert, AlertError, AlertRule, Measure, Severity};
//! use tower_keep::{Keep, Profile};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keep = Keep::builder(Profile::azure_b1())
//!     .overlay(toml::from_str(r#"
//!         [alerts]
//!         off = ["hit_ratio_low"]
//!         [[alerts.rules]]
//!         name = "checkout_slow"
//!         measure = "response_p95"
//!         route = "/checkout"
//!         threshold = 1.5
//!         for_ms = 60000
//!     "#)?)
//!     .alert(AlertRule {
//!         severity: Severity::Critical,
//!         advice: "call the warehouse".to_owned(),
//!         ..AlertRule::above("stock_unknown", Measure::of(|| Some(0.0)), 0.5)
//!     })
//!     .on_alert(async |alert: Alert| {
//!         eprintln!("{} {}: {}", alert.severity.name(), alert.state.name(), alert.detail);
//!         Ok::<(), AlertError>(())
//!     })
//!     .build()?;
//! for state in keep.alerts().states() {
//!     println!("{} {:?} {}", state.rule, state.state, state.detail);
//! }
//! # Ok(()) }
//! ```
//!
//! # The built-in rules
//!
//! | rule | fires | for | is over | severity | who speaks |
//! |---|---|---|---|---|---|
//! | `response_slow` | p95 of responses > 3 s in 5 min | 1 min | ≤ 2.5 s | warning, worse every 10 min | fleet |
//! | `errors` | > 5 % of answers are 5xx in 5 min | 1 min | ≤ 3 % | critical, emergency after 10 min | fleet |
//! | `unanswered` | > 10 % of requests are given up before an answer begins in 5 min | 1 min | ≤ 5 % | critical, emergency after 10 min | fleet |
//! | `slow_queries` | > 10 a minute in 5 min | 1 min | ≤ 5 | warning | fleet |
//! | `hit_ratio_low` | < 70 % of asks are served by the cache in 5 min | 10 min | ≥ 75 % | warning | fleet |
//! | `hit_ratio_very_low` | < 50 % | 10 min | ≥ 55 % | critical | fleet |
//! | `memory_high` | > 80 % of the budget | 30 s | ≤ 75 % | warning | instance |
//! | `memory_very_high` | > 90 % | 30 s | ≤ 85 % | critical | instance |
//! | `memory_exhausted` | > 95 % | 30 s | ≤ 90 % | emergency | instance |
//! | `concurrency_full` | > 95 % of the guard's slots | 30 s | ≤ 85 % | warning | instance |
//! | `queue_long` | > 80 % of the places of `guard.queue` are taken, or > 1,000 | 30 s | ≤ half of that | critical | instance |
//! | `redis_down` | Redis is away | 30 s | | critical | instance |
//! | `journal_unverified` | not all invalidations may be heard | 1 min | | warning | instance |
//!
//! Ratios and percentiles need 50 requests within their window to mean anything. A rule in the settings takes
//! the place of a built-in one of its name; `alerts.off` lists those that are not judged, and
//! `alerts.built_in = false` leaves out all of them.
//!
//! # A rule's states
//!
//! `ok` → `pending`, as soon as the value is beyond the threshold → `firing`, when it was so for `for_ms` →
//! `escalated`, one severity worse, after each `escalate_after_ms` → `resolved`, when the value is back behind
//! `resolve` → `ok`, when `cooldown_ms` is over. Handlers hear of `firing`, `escalated` and `resolved`, once
//! each. A rule that fires again within its cooldown is not told before that ends, and then only if it still
//! fires; so however a value flaps, there are two alerts in a cooldown at the most, and those of escalation.
//!
//! Where a measure has no value (nobody asked, there is no such gauge) a rule stays what it is, time does not
//! count, and its state says so. A process that was asleep, or whose clock leaps, counts no more than two rounds
//! for that.
//!
//! # A fleet speaks with one voice
//!
//! Instances with a common Redis agree on who speaks about a rule of scope `fleet`: whoever finds it firing first
//! takes the rule's lease, tells that it fires, that it got worse and that it is over, and keeps the lease for the
//! cooldown. The others stay silent, and show it ([`AlertState::told_by_other`]). If the speaker is gone, or its
//! rule has no value any more (taken out of rotation, too few requests), another instance for which the rule fires
//! speaks within seven rounds, and one that is over it by then says so. If it is over for the speaker and not for
//! another instance, that one says within three rounds that it fires.
//!
//! While Redis is away everybody speaks who has something new to say, and those that were silent when it went do so
//! after seven rounds: to hear something twice is better than not at all. Once it is back one of them has the word.
//! Rules of scope `instance` are told by each instance for itself.
//!
//! What nobody says: that it is over, where an instance dies while a rule fires for it alone, or for a rule of scope
//! `instance`. Nothing remembers such an alert, nor does the instance itself when it is started again. Whoever opens
//! incidents from alerts should close those of an instance ([`Alert::instance`]) that is gone.
//!
//! # Handlers
//!
//! Each has its own queue and its own task, so one that hangs, fails or panics holds up nobody else. It has
//! `alerts.handler_timeout_ms` for an alert and three tries. When its queue of `alerts.queue` is full, the
//! oldest word about the same rule makes room for the newest, so that the last word about every rule is always
//! told. At [`Keep::shutdown`](crate::Keep::shutdown) what waits is still told within `shutdown_ms`.

mod alert;
mod built_in;
mod config;
mod delivery;
mod engine;
mod handler;
#[cfg(feature = "redis")]
mod lease;
mod machine;
mod measure;
mod outbox;
mod rule;
mod severity;
mod sight;
mod speaker;
mod voice;
mod watch;
mod webhook;

pub use alert::{Alert, AlertStage, AlertState, AlertTurn};
pub use config::AlertsConfig;
pub use delivery::DeliveryFigures;
pub use engine::{Alerts, AlertsParts};
pub use handler::{AlertError, AlertHandler};
pub use measure::{CustomMeasure, Measure};
pub use rule::{AlertRule, AlertScope, Comparison};
pub use severity::Severity;
pub use webhook::Webhook;
