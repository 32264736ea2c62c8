//! The guard itself: an entrance for requests, and a watch over memory.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use http::Request;

use crate::clock::Clock;
use crate::error::{ConfigError, Faults};
use crate::event::{Event, Events};
use crate::guard::admission::{Admission, Entrance, Permit};
use crate::guard::config::GuardConfig;
use crate::guard::memory::{MemoryProbe, MemoryReading, NoProbe};
use crate::guard::pressure::{Pressure, PressureCell};
use crate::guard::slots::Slots;
use crate::identity::RequestView;
use crate::route::Route;

/// Decides who comes in, and watches the memory of the process. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Guard {
    shared: Arc<Shared>,
}

struct Shared {
    enabled: bool,
    entrance: Arc<Entrance>,
    critical: Vec<Route>,
    used_bytes: AtomicU64,
    budget_bytes: u64,
    watch: Mutex<Watch>,
}

/// What only the one who samples touches.
struct Watch {
    probe: Box<dyn MemoryProbe>,
    hooks: Vec<Hook>,
}

type Hook = Box<dyn Fn(Pressure) + Send + Sync>;

impl Guard {
    /// A guard that reads the memory of this process, where it knows how (Linux); elsewhere the
    /// pressure stays [`Pressure::Unknown`]. Takes a first sample.
    ///
    /// # Errors
    ///
    /// All faults of the configuration, as fields of `guard`.
    pub fn new(config: &GuardConfig, clock: Clock, events: Events) -> Result<Self, ConfigError> {
        Self::with_probe(config, clock, events, system_probe())
    }

    /// A guard with another source of memory readings.
    ///
    /// # Errors
    ///
    /// All faults of the configuration, as fields of `guard`.
    pub fn with_probe(
        config: &GuardConfig,
        clock: Clock,
        events: Events,
        mut probe: Box<dyn MemoryProbe>,
    ) -> Result<Self, ConfigError> {
        let mut faults = Faults::new();
        config.check("guard", &mut faults);
        faults.into_result()?;
        // The check has gone through the same templates, so none is lost here.
        let critical = config.critical.iter();
        let critical = critical.filter_map(|template| Route::new(template, &[]).ok());
        let used_bytes = probe.used_bytes();
        let budget_bytes = config.memory_budget_bytes.or_else(|| {
            let bounds = probe.bounds()?;
            Some(bounds.budget_bytes(used_bytes?))
        });
        // A process that begins in calm has nothing to tell; one that does not, does in `sample`.
        let begin = match used_bytes.and(budget_bytes) {
            Some(_) if config.enabled => Pressure::Normal,
            _ => Pressure::Unknown,
        };
        let guard = Self {
            shared: Arc::new(Shared {
                enabled: config.enabled,
                entrance: Arc::new(Entrance {
                    slots: Slots::new(config.slots, config.queue),
                    pressure: PressureCell::new(begin),
                    clock,
                    events,
                    queue_timeout: config.queue_timeout,
                    retry_after: config.retry_after,
                }),
                critical: critical.collect(),
                used_bytes: AtomicU64::new(0),
                budget_bytes: budget_bytes.unwrap_or(0),
                watch: Mutex::new(Watch {
                    probe,
                    hooks: Vec::new(),
                }),
            }),
        };
        guard.sample();
        Ok(guard)
    }

    /// Asks for a slot, for a request that may (`critical`) or may not be served at
    /// [`Pressure::Critical`]. Lock-free while nobody waits.
    ///
    /// To wait takes a Tokio timer: outside of a runtime with time enabled, `admit` panics when all
    /// slots are taken and the queue has places.
    #[inline]
    pub fn admit(&self, critical: bool) -> Admission {
        self.admit_if(|| critical)
    }

    /// The same for a request, whose route is looked up only when it matters.
    #[inline]
    pub(crate) fn admit_request<B>(&self, request: &Request<B>) -> Admission {
        self.admit_if(|| self.is_critical(&RequestView::of(request)))
    }

    #[inline]
    fn admit_if(&self, critical: impl Fn() -> bool) -> Admission {
        if self.shared.enabled {
            self.shared.entrance.admit(critical)
        } else {
            Admission::Admitted(Permit::unguarded())
        }
    }

    /// Whether the request's route is among the critical ones: by the template that axum matched, or
    /// by its path.
    #[must_use]
    pub fn is_critical(&self, request: &RequestView<'_>) -> bool {
        let matched = request.matched_template();
        self.shared
            .critical
            .iter()
            .any(|route| matched == Some(&**route.template()) || route.matches(request))
    }

    /// Reads the memory once, and acts if the level has changed: waiters learn of a critical one,
    /// [`Event::PressureChanged`] is emitted, and the hooks are called on this thread.
    ///
    /// Meant for a beat of [`GuardConfig::memory_sample`]. Takes microseconds, besides the hooks; does
    /// nothing while another thread is at it.
    pub fn sample(&self) {
        if !self.shared.enabled {
            return;
        }
        let mut watch = match self.shared.watch.try_lock() {
            Ok(watch) => watch,
            // A probe that panicked may be asked again.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let used = watch.probe.used_bytes();
        self.shared
            .used_bytes
            .store(used.unwrap_or(0), Ordering::Relaxed);
        let budget_bytes = self.shared.budget_bytes;
        let from = self.pressure();
        let to = used.map_or(Pressure::Unknown, |used| from.next(used, budget_bytes));
        if from == to {
            return;
        }
        let entrance = &self.shared.entrance;
        entrance.set_pressure(to);
        entrance.events.emit(Event::PressureChanged {
            from: from.name(),
            to: to.name(),
            used_bytes: used.unwrap_or(0),
            budget_bytes,
        });
        for hook in &watch.hooks {
            self.call(hook, to);
        }
    }

    /// Calls `hook` with the present level now, and with the new one after each change.
    ///
    /// Hooks run one after another on the thread that samples, so they should be quick and hand long
    /// work to a task. A hook must not register another. One that panics is reported as
    /// [`Event::Warning`] and called again the next time.
    pub fn on_pressure(&self, hook: impl Fn(Pressure) + Send + Sync + 'static) {
        let mut watch = self
            .shared
            .watch
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let hook: Hook = Box::new(hook);
        self.call(&hook, self.pressure());
        watch.hooks.push(hook);
    }

    /// A hook's panic would end the task that samples, and with it the only way back from a critical
    /// level: the service would refuse everybody for ever. So it ends here.
    fn call(&self, hook: &Hook, pressure: Pressure) {
        if catch_unwind(AssertUnwindSafe(|| hook(pressure))).is_err() {
            self.shared.entrance.events.emit(Event::Warning {
                text: "a hook for memory pressure panicked; mend it, it frees less than it should",
            });
        }
    }

    /// The level of memory pressure: one atomic load.
    #[must_use]
    #[inline]
    pub fn pressure(&self) -> Pressure {
        self.shared.entrance.pressure.load()
    }

    /// The last sample and the budget.
    #[must_use]
    pub fn memory(&self) -> MemoryReading {
        MemoryReading {
            used_bytes: self.shared.used_bytes.load(Ordering::Relaxed),
            budget_bytes: self.shared.budget_bytes,
        }
    }

    /// How many slots are taken.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.entrance.slots.taken()
    }

    /// How many requests wait for a slot.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.shared.entrance.slots.waiting()
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("enabled", &self.shared.enabled)
            .field("in_flight", &self.in_flight())
            .field("queued", &self.queued())
            .field("pressure", &self.pressure())
            .field("memory", &self.memory())
            .finish_non_exhaustive()
    }
}

#[cfg(target_os = "linux")]
fn system_probe() -> Box<dyn MemoryProbe> {
    match crate::guard::procfs::ProcProbe::open() {
        Some(probe) => Box::new(probe),
        None => Box::new(NoProbe),
    }
}

#[cfg(not(target_os = "linux"))]
fn system_probe() -> Box<dyn MemoryProbe> {
    Box::new(NoProbe)
}
