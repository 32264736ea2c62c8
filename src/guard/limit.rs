//! A limit on how many of something happen at once, with a queue before it; for anything but HTTP.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::error::{ConfigError, Faults};
use crate::event::Events;
use crate::guard::adaptive::Adaptive;
use crate::guard::admission::{Admission, Permit, admit};
use crate::guard::claim::Claim;
use crate::guard::entrance::{Entrance, EntranceConfig};
use crate::guard::pressure::{Pressure, PressureCell};
use crate::guard::rule::{QUEUE_MAX, SLOTS_MAX};
use crate::refusal::Refusal;

/// How much of something may happen at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitConfig {
    /// How many at once: 1 to 100,000.
    pub slots: usize,
    /// How many may wait; 0 refuses at once. At most 100,000.
    pub queue: usize,
    /// How long one may wait: 1 ms to 60 s.
    #[serde(rename = "queue_timeout_ms", with = "crate::config_time::millis")]
    pub queue_timeout: Duration,
}

impl Default for LimitConfig {
    fn default() -> Self {
        Self {
            slots: 16,
            queue: 64,
            queue_timeout: Duration::from_secs(1),
        }
    }
}

/// Slots and a queue, around anything: a pool of connections, a program that is started, a remote. Cheap to
/// clone; all clones are one.
///
/// ```
/// # use std::time::Duration;
/// # use tower_keep::{clock::Clock, event::Events, guard::{Claim, ConcurrencyLimit, LimitConfig}};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = LimitConfig { slots: 3, queue: 32, queue_timeout: Duration::from_secs(3) };
/// let database = ConcurrencyLimit::new(&config, Clock::system(), Events::none())?;
/// let rows = database.run(Claim::default(), async { 42 }).await?;
/// assert_eq!((rows, database.in_flight()), (42, 0));
/// # Ok(()) }
/// ```
///
/// Served as the guard serves: the more important first, tenants in turns, in the order of arrival unless the
/// queue stands. Taking and giving back a slot is one atomic operation each while nobody waits.
#[derive(Clone)]
pub struct ConcurrencyLimit {
    entrance: Arc<Entrance>,
}

impl ConcurrencyLimit {
    /// A limit of its own. `events` hear of it as they hear of the guard.
    ///
    /// # Errors
    ///
    /// All faults of the configuration, as fields of `limit`.
    pub fn new(config: &LimitConfig, clock: Clock, events: Events) -> Result<Self, ConfigError> {
        let mut faults = Faults::new();
        config.check("limit", &mut faults);
        faults.into_result()?;
        let config = EntranceConfig {
            slots: config.slots,
            slots_min: 1,
            adaptive: Adaptive::Off,
            latency_target: Duration::ZERO,
            queue: config.queue,
            queue_timeout: config.queue_timeout,
            // Whoever waits for something like a connection is patient: the timeout alone bounds it.
            codel_target: config.queue_timeout,
            codel_interval: config.queue_timeout,
            retry_after: Duration::from_secs(1),
            of_route: false,
        };
        let pressure = Arc::new(PressureCell::new(Pressure::Unknown));
        Ok(Self {
            entrance: Arc::new(Entrance::new(&config, pressure, clock, events)),
        })
    }

    /// Asks for a slot. To wait takes a Tokio timer: outside of a runtime with time enabled it panics when
    /// all slots are taken and the queue has places.
    pub fn admit(&self, claim: impl Into<Claim>) -> Admission {
        let claim = claim.into();
        admit(&self.entrance, None, || claim)
    }

    /// A slot, waited for if need be. Safe to drop at any await: the place in the queue, or the slot, is given
    /// back.
    ///
    /// # Errors
    ///
    /// [`Refusal::Overloaded`] where no place was left, or the wait has grown too long.
    pub async fn acquire(&self, claim: impl Into<Claim> + Send) -> Result<Permit, Refusal> {
        match self.admit(claim) {
            Admission::Admitted(permit) => Ok(permit),
            Admission::Wait(waiting) => waiting.await,
            Admission::Refused(refusal) => Err(refusal),
        }
    }

    /// Does `work` while a slot is held.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire); then the work was not begun.
    pub async fn run<F: Future + Send>(
        &self,
        claim: impl Into<Claim> + Send,
        work: F,
    ) -> Result<F::Output, Refusal> {
        let permit = self.acquire(claim).await?;
        let output = work.await;
        drop(permit);
        Ok(output)
    }

    /// How many slots are taken.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.entrance.slots().taken()
    }

    /// How many wait for one.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.entrance.slots().waiting()
    }
}

impl LimitConfig {
    /// Notes a fault for every number that cannot be meant; `room` is where the settings sit in the whole
    /// configuration.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        faults.within(format!("{room}.slots"), self.slots, 1..=SLOTS_MAX, "slots");
        let queue = format!("{room}.queue");
        faults.within(queue, self.queue, 0..=QUEUE_MAX, "requests");
        let timeout = format!("{room}.queue_timeout_ms");
        let range = Duration::from_millis(1)..=Duration::from_secs(60);
        faults.within_time(timeout, self.queue_timeout, range);
    }
}

impl fmt::Debug for ConcurrencyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimit")
            .field("in_flight", &self.in_flight())
            .field("queued", &self.queued())
            .finish_non_exhaustive()
    }
}
