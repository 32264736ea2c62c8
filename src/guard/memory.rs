//! The watch over memory: one reading after another, the level that each gives, and who hears of it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::error::ConfigError;
use crate::event::{Event, Events};
use crate::guard::config::GuardConfig;
use crate::guard::leak::{LeakDetector, LeakEstimate};
use crate::guard::pressure::{Patience, Pressure, Strain};
use crate::host::{MemoryBounds, MemoryProbe};

/// The process' memory at the last sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MemoryReading {
    /// Bytes in use; 0 when there was no reading.
    pub used_bytes: u64,
    /// The budget in bytes; 0 when none could be made, which turns the watch off.
    pub budget_bytes: u64,
    /// The share of the last ten seconds in which something on the machine, or in the control group that
    /// limits the process, stood still for want of memory: 0 to 100, or `None` where nobody knows.
    pub stalled_percent: Option<f32>,
}

/// Reads the memory and judges it.
pub(crate) struct MemoryWatch {
    used_bytes: AtomicU64,
    budget_bytes: u64,
    /// The bits of a percentage; those of a NaN for "unknown".
    stalled: AtomicU32,
    leak: Mutex<Option<LeakEstimate>>,
    clock: Clock,
    events: Events,
    state: Mutex<State>,
}

/// What only the one who samples touches.
struct State {
    probe: Box<dyn MemoryProbe>,
    hooks: Vec<Hook>,
    /// The level without strain. What is shown would be a wrong start for the next one: a level that is
    /// raised for a while would stay for its own hysteresis.
    level: Pressure,
    patience: Patience,
    strain: Strain,
    stalls_read: Option<Moment>,
    leaks: Option<LeakDetector>,
    cached: Option<Box<dyn Fn() -> u64 + Send>>,
    /// A beat may come once more after the watch has ended; it must not raise the level again.
    over: bool,
}

type Hook = Box<dyn Fn(Pressure) + Send + Sync>;

impl MemoryWatch {
    /// A watch, and the level to begin with. Takes no sample.
    ///
    /// # Errors
    ///
    /// When the configured budget is more than the machine has.
    pub(crate) fn new(
        config: &GuardConfig,
        clock: Clock,
        events: Events,
        mut probe: Box<dyn MemoryProbe>,
    ) -> Result<(Self, Pressure), ConfigError> {
        let (used, bounds) = (probe.used_bytes(), probe.bounds());
        if let (true, Some(budget), Some(bounds)) =
            (config.enabled, config.memory_budget_bytes, bounds)
        {
            fits(budget, &bounds, &events)?;
        }
        let budget_bytes = config
            .memory_budget_bytes
            .or_else(|| Some(bounds?.budget_bytes(used?)))
            .unwrap_or(0);
        // A process that begins in calm has nothing to tell; one that does not, does in `sample`.
        let begin = match used {
            Some(_) if config.enabled && budget_bytes > 0 => Pressure::Normal,
            _ => Pressure::Unknown,
        };
        let watch = Self {
            used_bytes: AtomicU64::new(0),
            budget_bytes,
            stalled: AtomicU32::new(f32::NAN.to_bits()),
            leak: Mutex::new(None),
            clock,
            events,
            state: Mutex::new(State {
                probe,
                hooks: Vec::new(),
                level: begin,
                patience: Patience::default(),
                strain: Strain::default(),
                stalls_read: None,
                leaks: (config.leak_watch && budget_bytes > 0)
                    .then(|| LeakDetector::new(budget_bytes)),
                cached: None,
                over: false,
            }),
        };
        Ok((watch, begin))
    }

    /// Reads once. Where the level is no longer `shown`, the new one is handed to `show`, told as an
    /// event, and the hooks hear of it, all on this thread. Does nothing while another thread is at it.
    pub(crate) fn sample(&self, shown: impl Fn() -> Pressure, show: impl FnOnce(Pressure)) {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            // A probe that panicked may be asked again.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if state.over {
            return;
        }
        let used = state.probe.used_bytes();
        self.used_bytes.store(used.unwrap_or(0), Ordering::Relaxed);
        self.read_stalls(&mut state);
        if let Some(used) = used {
            self.look_for_leaks(&mut state, used);
        }
        let level = used.map_or(Pressure::Unknown, |used| {
            let level = state.level.next(used, self.budget_bytes);
            state.patience.temper(level, used, self.budget_bytes)
        });
        state.level = level;
        // Read under the lock: whoever sampled meanwhile has shown another.
        let shown = shown();
        let to = state.strain.temper(level);
        if to == shown {
            return;
        }
        show(to);
        self.events.emit(Event::PressureChanged {
            from: shown.name(),
            to: to.name(),
            used_bytes: used.unwrap_or(0),
            budget_bytes: self.budget_bytes,
        });
        for hook in &state.hooks {
            self.call(hook, to);
        }
    }

    /// The kernel works its averages out anew every two seconds, so they are not asked more often.
    fn read_stalls(&self, state: &mut State) {
        let now = self.clock.now();
        if state
            .stalls_read
            .is_some_and(|read| now.since(read) < STALLS_EVERY)
        {
            return;
        }
        state.stalls_read = Some(now);
        let percent = state.probe.stalled_percent();
        state.strain = state.strain.next(percent);
        let bits = percent.unwrap_or(f32::NAN).to_bits();
        self.stalled.store(bits, Ordering::Relaxed);
    }

    fn look_for_leaks(&self, state: &mut State, used: u64) {
        let Some(leaks) = &mut state.leaks else {
            return;
        };
        // Somebody else's closure: what it panics with would end the beat, and with it the watch.
        let cached = state
            .cached
            .as_ref()
            .map(|cached| catch_unwind(AssertUnwindSafe(cached)));
        let cached = cached.and_then(Result::ok).unwrap_or(0);
        let told = leaks.feed(self.clock.now(), used, cached);
        *self.lock_leak() = leaks.estimate();
        if let Some(estimate) = told {
            self.events.emit(Event::LeakSuspected {
                bytes_per_hour: estimate.bytes_per_hour,
                until_limit: estimate.until_limit,
            });
        }
    }

    /// Calls `hook` with the level `shown` now, and with the new one after each change.
    pub(crate) fn on_pressure(
        &self,
        shown: impl Fn() -> Pressure,
        hook: impl Fn(Pressure) + Send + Sync + 'static,
    ) {
        let mut state = self.lock();
        let hook: Hook = Box::new(hook);
        self.call(&hook, shown());
        state.hooks.push(hook);
    }

    /// From now on, what `cached` says is taken off before a leak is looked for.
    pub(crate) fn caches_hold(&self, cached: impl Fn() -> u64 + Send + 'static) {
        self.lock().cached = Some(Box::new(cached));
    }

    /// Ends the watch: `Unknown` is shown, the hooks hear of it and are let go.
    pub(crate) fn stop(&self, show: impl FnOnce(Pressure)) {
        let mut state = self.lock();
        state.over = true;
        state.cached = None;
        show(Pressure::Unknown);
        for hook in state.hooks.drain(..) {
            self.call(&hook, Pressure::Unknown);
        }
    }

    /// A hook's panic would end the task that samples, and with it the only way back from a critical
    /// level: the service would refuse everybody for ever. So it ends here.
    fn call(&self, hook: &Hook, pressure: Pressure) {
        if catch_unwind(AssertUnwindSafe(|| hook(pressure))).is_err() {
            self.events.emit(Event::Warning {
                text: "a hook for memory pressure panicked; mend it, it frees less than it should",
            });
        }
    }

    /// The last sample and the budget.
    pub(crate) fn reading(&self) -> MemoryReading {
        let stalled = f32::from_bits(self.stalled.load(Ordering::Relaxed));
        MemoryReading {
            used_bytes: self.used_bytes.load(Ordering::Relaxed),
            budget_bytes: self.budget_bytes,
            stalled_percent: (!stalled.is_nan()).then_some(stalled),
        }
    }

    /// The leak that is suspected.
    pub(crate) fn leak(&self) -> Option<LeakEstimate> {
        *self.lock_leak()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_leak(&self) -> MutexGuard<'_, Option<LeakEstimate>> {
        self.leak.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryWatch")
            .field("reading", &self.reading())
            .field("leak", &self.leak())
            .finish_non_exhaustive()
    }
}

/// A budget beyond the machine is a mistake; one beyond the control group may be a group that grows
/// later, but as it stands the kernel ends the process before the guard notices anything.
fn fits(budget: u64, bounds: &MemoryBounds, events: &Events) -> Result<(), ConfigError> {
    if budget > bounds.total_bytes {
        let total = bounds.total_bytes;
        let allowed = format!("must be at most the memory of this machine, {total} bytes");
        return Err(ConfigError::one(
            "guard.memory_budget_bytes",
            budget,
            allowed,
        ));
    }
    if bounds.limit_bytes.is_some_and(|limit| budget > limit) {
        events.emit(Event::Warning { text: BEYOND_GROUP });
    }
    Ok(())
}

const BEYOND_GROUP: &str = "guard.memory_budget_bytes is more than the control group of this process \
     allows: the kernel will end it before the guard sees any pressure; lower it (MEMORY_LIMIT)";

/// How often the kernel's averages change.
const STALLS_EVERY: Duration = Duration::from_secs(2);
