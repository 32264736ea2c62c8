//! What the rooms tell: one event enum, and the recorders that listen.
//!
//! Whoever decides something emits an [`Event`]; the metrics room counts them and knows no feature.
//! Emitting is a plain call on the caller's thread, so a recorder must be quick and must not block.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Something that happened. Borrowed: a recorder copies what it wants to keep.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The cache answered from memory, without anybody's waiting. What it sends in place of a failed answer is told
    /// as forwarded, and what another request has brought as collapsed.
    CacheHit {
        /// Whether the answer was past its freshness lifetime (RFC 5861).
        stale: bool,
    },
    /// The cache let a request through to the service. What it fetches anew behind a client's back is not told.
    CacheForwarded {
        /// Why, in the words of RFC 9211 §2.2: `uri-miss`, `vary-miss`, `stale`, `bypass`, ..
        reason: &'static str,
    },
    /// The cache might have answered a request, and did not: told as the request is let through if something stale is
    /// stored, else when an answer is there that may be served to others. What the client wanted anew is no miss.
    CacheMissed {
        /// Whether something was stored, and was past its freshness lifetime.
        stale: bool,
    },
    /// A follower shared the answer of a request that was already under way.
    CacheCollapsed,
    /// The cache stored an answer, whoever it was fetched for, and wherever it was found.
    CacheStored {
        /// Bytes it takes up, fields and overhead included.
        bytes: usize,
    },
    /// A value or an answer was found behind memory. (What is found in memory is counted without an event.)
    TierHit {
        /// `warm` or `cold`.
        tier: &'static str,
    },
    /// A typed cache had a value computed.
    ValueComputed {
        /// How long it took.
        took: Duration,
        /// Whether there is none.
        failed: bool,
    },
    /// What is stored behind memory could not be read, and counts as a miss.
    EntryUnreadable {
        /// `warm` or `cold`.
        tier: &'static str,
        /// Why: `foreign`, `truncated`, `corrupt`, `newer`, `other_key`, `sealed`, `codec`, `value`, ..
        why: &'static str,
    },
    /// Something was done before somebody had to wait for it, or was tried.
    Warmed {
        /// Why: `invalidated` while in use, `near_expiry`, `boot`, `scheduled`.
        class: &'static str,
        /// What came of it: `computed`, `found`, `joined`, `failed`, `dropped`.
        outcome: &'static str,
    },
    /// A rate limit rule let a request through.
    RateLimitAllowed {
        /// The rule's name.
        rule: &'a str,
    },
    /// A rate limit rule said no.
    RateLimitDenied {
        /// The rule's name.
        rule: &'a str,
        /// Whether the rule only watches (shadow mode), so that the request went on.
        shadow: bool,
    },
    /// A client went on although it was refused, or somebody said so, and is banned.
    ClientBanned {
        /// Who: `caller:alice`, `ip:203.0.113.7`.
        who: &'a str,
        /// For how long.
        lasts: Duration,
    },
    /// A request was refused because of who sent it.
    ClientShutOut {
        /// `banned` or `deny_listed`.
        why: &'static str,
    },
    /// A request carried no peer address, so that it shares one bucket with all others like it.
    PeerUnknown,
    /// The guard let a request in.
    GuardAdmitted {
        /// How long it waited in the queue.
        waited: Duration,
    },
    /// The guard turned a request away.
    GuardRefused {
        /// `overloaded` (no slot and no place in the queue), `memory_pressure`, and of those who waited in vain
        /// `queue_timeout`, `shed` (the queue had stood for too long) and `displaced` (by somebody more important);
        /// for a slot of the route's own `route_full` in place of all but `memory_pressure`.
        why: &'static str,
        /// How long it had waited in the queue, if it had.
        waited: Duration,
    },
    /// A client left while its request waited for a slot.
    GuardLeft {
        /// How long it had waited.
        waited: Duration,
    },
    /// How many requests may be inside at once has been adapted.
    GuardSlotsChanged {
        /// How many from now on.
        slots: usize,
    },
    /// Tasks that are ready to run wait for the runtime, longer than they should, for some time now.
    RuntimeLagging {
        /// How long they wait.
        lag: Duration,
    },
    /// Memory was given back, or was tried to be.
    MemoryRelieved {
        /// How: `freeze`, `evict`, `purge`, `close`, `shed`.
        action: &'static str,
        /// The bytes before: of what is stored for `freeze` and `evict`, else of the process.
        before_bytes: u64,
        /// The same afterwards.
        after_bytes: u64,
    },
    /// What the process uses beside its caches grows and grows.
    LeakSuspected {
        /// How fast.
        bytes_per_hour: u64,
        /// How long until the budget is used up if it goes on.
        until_limit: Duration,
    },
    /// A circuit breaker changed its state.
    CircuitChanged {
        /// The circuit's name: what is called.
        circuit: &'a str,
        /// The state before: `closed`, `open`, `half_open`.
        from: &'static str,
        /// The state now.
        to: &'static str,
    },
    /// A call was not made, because its circuit is open.
    CircuitRefused {
        /// The circuit's name.
        circuit: &'a str,
    },
    /// A long-lived connection (WebSocket, event stream) was let in.
    ConnectionOpened,
    /// A long-lived connection is gone.
    ConnectionClosed {
        /// `ended`, or `stale` where it had not been heard of for too long, or `relieved` to save memory.
        why: &'static str,
    },
    /// A long-lived connection was not let in.
    ConnectionRefused {
        /// `full`, `tenant_full` or `memory_pressure`.
        why: &'static str,
    },
    /// The level of memory pressure changed.
    PressureChanged {
        /// The level before.
        from: &'static str,
        /// The level now.
        to: &'static str,
        /// Bytes in use by the process.
        used_bytes: u64,
        /// The process' budget in bytes.
        budget_bytes: u64,
    },
    /// An invalidation was recorded in the journal.
    Invalidated {
        /// Its position in the journal.
        seq: u64,
        /// How many markers (keys, tags, patterns) it holds.
        markers: usize,
    },
    /// An invalidation was carried out here, and could not be confirmed everywhere in time.
    InvalidationPending {
        /// `queued` while Redis is away, `unanswered` where it took too long, `unconfirmed` where an instance did.
        why: &'static str,
    },
    /// This instance does not know any more whether what it stores still holds.
    JournalUnverified {
        /// `disconnected`, `gap`, `replaced`, `silent` or `stopped`.
        why: &'static str,
    },
    /// It knows again, or for the first time.
    JournalVerified,
    /// The journal's past was lost, so that everything stored before is old.
    JournalReplaced,
    /// An acknowledged invalidation was checked: all instances were asked whether it was carried out.
    CoherencyChecked {
        /// How long after the acknowledgement: `10ms`, `100ms`, `1s`, `10s`, `60s`, or `on_demand`.
        window: &'static str,
    },
    /// What an instance would serve, or says that it knows, breaks a promise. Told for each check that finds it.
    CoherencyViolation {
        /// Which promise: `served`, `stamped`, `heard`, `equal` or `expiry`.
        invariant: &'static str,
        /// How long after the acknowledgement.
        window: &'static str,
        /// Where and how, in words.
        detail: &'a str,
    },
    /// A database query ended, or was given up.
    QueryFinished {
        /// The name the caller gave it.
        name: &'a str,
        /// How long it took.
        took: Duration,
        /// Whether that is above the configured threshold.
        slow: bool,
    },
    /// A request waited for its remote's quota before it was sent.
    RemoteQuotaWaited {
        /// The remote's name.
        remote: &'a str,
        /// For how long.
        waited: Duration,
    },
    /// A request was not sent, because its remote's quota did not allow it in time.
    RemoteQuotaRefused {
        /// The remote's name.
        remote: &'a str,
    },
    /// A remote told this instance to leave it alone. What others were told is theirs to tell.
    RemoteQuotaBlocked {
        /// The remote's name.
        remote: &'a str,
        /// For how long.
        lasts: Duration,
    },
    /// A progress stream took a step.
    ProgressPublished,
    /// Redis is there: commands are sent.
    RedisUp,
    /// Redis is away, or away for another reason than before: commands fail at once.
    RedisDown {
        /// Why, in words.
        reason: &'a str,
    },
    /// Redis answered a command, or a batch of them; a refusal is an answer as well.
    RedisAnswered {
        /// How long that took.
        took: Duration,
    },
    /// A command, or a batch, got no answer from Redis. Those that were not sent, since it is away, are not told.
    RedisFailed {
        /// `timeout`, `lost`, or `crowded` where too many were under way.
        why: &'static str,
    },
    /// Somebody waited for a database connection, or for a slot before one, in vain or not.
    DatabaseWaited {
        /// For how long.
        waited: Duration,
        /// Whether it came.
        served: bool,
    },
    /// An alert fired, got worse, or is over.
    AlertChanged {
        /// The rule's name.
        rule: &'a str,
        /// `warning`, `critical` or `emergency`.
        severity: &'static str,
        /// `firing`, `escalated` or `resolved`.
        state: &'static str,
    },
    /// Something is set up in a way that cannot be meant. Told once per cause.
    Warning {
        /// What, and what to do about it.
        text: &'a str,
    },
}

/// Listens to events.
///
/// # Contract
///
/// `record` is called on the thread of the request, possibly many times per request and from many
/// threads at once. It must neither block nor panic, and should take no more than some tens of
/// nanoseconds for the events of the hot path (`CacheHit`, `RateLimitAllowed`, `GuardAdmitted`).
pub trait Recorder: Send + Sync + 'static {
    /// Takes note of `event`.
    fn record(&self, event: &Event<'_>);
}

/// Tells all recorders. Cheap to clone; costs next to nothing where nobody listens.
#[derive(Clone, Default)]
pub struct Events {
    recorders: Arc<[Arc<dyn Recorder>]>,
}

impl Events {
    /// Nobody listens.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// These listen, in this order.
    #[must_use]
    pub fn to(recorders: Vec<Arc<dyn Recorder>>) -> Self {
        Self {
            recorders: recorders.into(),
        }
    }

    /// Tells everyone about `event`.
    #[inline]
    pub fn emit(&self, event: Event<'_>) {
        for recorder in &*self.recorders {
            recorder.record(&event);
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("recorders", &self.recorders.len())
            .finish()
    }
}

/// Writes warnings and changes of memory pressure to [`tracing`]; the builder adds it by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingRecorder;

impl Recorder for TracingRecorder {
    fn record(&self, event: &Event<'_>) {
        match event {
            Event::Warning { text } => tracing::warn!(target: "tower_keep", "{text}"),
            Event::ClientBanned { who, lasts } => {
                tracing::warn!(target: "tower_keep", who, lasts_s = lasts.as_secs(), "client banned");
            }
            Event::RedisUp => tracing::info!(target: "tower_keep", "redis is up"),
            Event::RedisDown { reason } => {
                tracing::warn!(target: "tower_keep", reason, "redis is down");
            }
            Event::JournalUnverified { why } => {
                tracing::warn!(target: "tower_keep", why, "invalidations are not heard");
            }
            Event::JournalVerified => {
                tracing::info!(target: "tower_keep", "invalidations are heard");
            }
            Event::JournalReplaced => {
                tracing::warn!(target: "tower_keep", "the journal was lost: what was stored is old");
            }
            Event::CoherencyViolation {
                invariant,
                window,
                detail,
            } => tracing::error!(
                target: "tower_keep", invariant, window, detail, "an instance breaks a promise of the journal"
            ),
            Event::RemoteQuotaBlocked { remote, lasts } => tracing::warn!(
                target: "tower_keep", remote, lasts_ms = lasts.as_millis() as u64,
                "a remote wants to be left alone"
            ),
            Event::PressureChanged {
                from,
                to,
                used_bytes,
                budget_bytes,
            } => tracing::warn!(
                target: "tower_keep", from, to, used_bytes, budget_bytes, "memory pressure changed"
            ),
            Event::RuntimeLagging { lag } => tracing::warn!(
                target: "tower_keep", lag_ms = lag.as_millis() as u64, "the runtime lags behind"
            ),
            Event::LeakSuspected {
                bytes_per_hour,
                until_limit,
            } => tracing::warn!(
                target: "tower_keep", bytes_per_hour, until_limit_s = until_limit.as_secs(),
                "memory grows although caches do not: a leak?"
            ),
            Event::CircuitChanged { circuit, from, to } => {
                tracing::warn!(target: "tower_keep", circuit, from, to, "circuit changed");
            }
            Event::AlertChanged {
                rule,
                severity,
                state,
            } => tracing::warn!(target: "tower_keep", rule, severity, state, "alert"),
            Event::QueryFinished {
                name,
                took,
                slow: true,
            } => tracing::warn!(
                target: "tower_keep", name, took_ms = took.as_millis() as u64, "slow query"
            ),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Recorder for Heard {
        fn record(&self, event: &Event<'_>) {
            self.0.lock().unwrap().push(format!("{event:?}"));
        }
    }

    #[test]
    fn every_recorder_hears_every_event() {
        let (first, second) = (Arc::new(Heard::default()), Arc::new(Heard::default()));
        let events = Events::to(vec![
            Arc::<Heard>::clone(&first),
            Arc::<Heard>::clone(&second),
        ]);
        events.emit(Event::CacheHit { stale: false });
        Events::none().emit(Event::PeerUnknown);
        assert_eq!(*first.0.lock().unwrap(), ["CacheHit { stale: false }"]);
        assert_eq!(*first.0.lock().unwrap(), *second.0.lock().unwrap());
    }
}
