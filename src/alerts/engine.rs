//! The engine: judges all rules, round by round, and says what has changed.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::alerts::alert::{Alert, AlertState};
use crate::alerts::config::AlertsConfig;
use crate::alerts::delivery::DeliveryFigures;
use crate::alerts::handler::AlertHandler;
#[cfg(feature = "redis")]
use crate::alerts::lease;
use crate::alerts::rule::AlertRule;
use crate::alerts::sight::Sight;
use crate::alerts::speaker::Speaker;
use crate::alerts::voice::Voice;
use crate::alerts::watch::Watch;
use crate::clock::Clock;
use crate::error::{ConfigError, Faults};
use crate::event::{Event, Events};
use crate::metrics::Metrics;
#[cfg(feature = "redis")]
use crate::store::{RedisPool, Script};
use crate::task::Spawner;

/// Watches figures and tells when they are not what they should be. Cheap to clone; all clones are one.
///
/// The room's documentation says what is told when; see [`alerts`](crate::alerts).
#[derive(Clone)]
pub struct Alerts {
    inner: Arc<Inner>,
}

/// What alerts stand on.
#[derive(Clone, Debug)]
pub struct AlertsParts {
    /// What is looked at.
    pub metrics: Metrics,
    /// How long things last.
    pub clock: Clock,
    /// Who hears of changes besides handlers.
    pub events: Events,
    /// Runs the rounds and the handlers, which end with its owner.
    pub spawner: Spawner,
    /// Where instances agree on who speaks; a disabled pool for one that is alone. It must have been built with
    /// [`Alerts::scripts`], or everybody speaks.
    #[cfg(feature = "redis")]
    pub redis: RedisPool,
}

struct Inner {
    config: AlertsConfig,
    metrics: Metrics,
    clock: Clock,
    events: Events,
    spawner: Spawner,
    instance: Arc<str>,
    voice: Voice,
    /// Held for a round, so that two of them do not step on each other's values.
    round: Mutex<()>,
    standing: Mutex<Standing>,
}

struct Standing {
    watches: Vec<Watch>,
    recent: VecDeque<Alert>,
}

/// How many changes are remembered.
const RECENT: usize = 100;

impl Alerts {
    /// An engine whose rules have seen nothing yet. Nothing runs before [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// All faults that [`AlertsConfig::check`] finds.
    pub fn new(config: &AlertsConfig, parts: AlertsParts) -> Result<Self, ConfigError> {
        Self::of_rules(config, config.in_force(), parts)
    }

    /// One that judges `rules` in the place of those that the settings have in force.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new).
    pub(crate) fn of_rules(
        config: &AlertsConfig,
        rules: Vec<AlertRule>,
        parts: AlertsParts,
    ) -> Result<Self, ConfigError> {
        let mut faults = Faults::new();
        config.check("alerts", &mut faults);
        faults.into_result()?;
        let speaker = Speaker::new(
            &rules,
            config.every,
            #[cfg(feature = "redis")]
            parts.redis,
        );
        let instance = match config.instance.as_str() {
            "" => speaker.name().into(),
            named => named.into(),
        };
        let places = config.queue.max(rules.len());
        let watch = |rule| Watch::new(rule, config.every);
        Ok(Self {
            inner: Arc::new(Inner {
                voice: Voice::new(speaker, places, config.handler_timeout),
                standing: Mutex::new(Standing {
                    watches: rules.into_iter().map(watch).collect(),
                    recent: VecDeque::new(),
                }),
                config: config.clone(),
                metrics: parts.metrics,
                clock: parts.clock,
                events: parts.events,
                spawner: parts.spawner,
                instance,
                round: Mutex::default(),
            }),
        })
    }

    /// The scripts that a pool must know: for [`StoreParts::scripts`](crate::store::StoreParts::scripts).
    #[cfg(feature = "redis")]
    #[must_use]
    pub const fn scripts() -> &'static [&'static Script] {
        &lease::SCRIPTS
    }

    /// Starts the rounds and the telling, until the spawner's owner shuts down; what waits then is still told,
    /// as far as its deadline allows. Call it once.
    pub fn start(&self) {
        let Inner {
            config, spawner, ..
        } = &*self.inner;
        if !config.enabled {
            return;
        }
        let (told, every, stopped) = (self.clone(), config.every, spawner.clone());
        spawner.spawn(async move { told.inner.voice.run(stopped, every).await });
        let judged = self.clone();
        spawner.every(config.every, move || {
            judged.judge();
        });
    }

    /// Has `handler` told of alerts from now on.
    pub fn on_alert(&self, handler: impl AlertHandler) {
        self.add(Box::new(handler));
    }

    pub(crate) fn add(&self, handler: Box<dyn AlertHandler>) {
        // Nobody would ever close its queue, and a shutdown would wait for its task until the deadline.
        if !self.inner.config.enabled {
            return;
        }
        self.inner.voice.add(handler, &self.inner.spawner);
    }

    /// Judges every rule once, as is done every `alerts.every_ms` by itself. Returns how many changes there were
    /// to tell; nothing is judged where alerts are not enabled. Takes a snapshot of the metrics for each window
    /// that a rule looks at. Not to be called by a measure's closure, which would wait for itself.
    pub fn judge(&self) -> usize {
        let inner = &*self.inner;
        if !inner.config.enabled {
            return 0;
        }
        let _round = inner.round.lock().unwrap_or_else(PoisonError::into_inner);
        let told = self.changes();
        for alert in &told {
            inner.events.emit(Event::AlertChanged {
                rule: &alert.rule,
                severity: alert.severity.name(),
                state: alert.state.name(),
            });
            inner.voice.tell(alert.clone());
        }
        told.len()
    }

    fn changes(&self) -> Vec<Alert> {
        let inner = &*self.inner;
        // Values are read before the lock is taken: a gauge may show how many rules fire.
        let rules: Vec<_> = {
            let standing = inner.lock();
            standing.watches.iter().map(Watch::rule).collect()
        };
        let sight = Sight::new(&inner.metrics);
        let values: Vec<_> = rules.iter().map(|rule| sight.value(rule.look())).collect();
        let at = (inner.clock.now(), inner.clock.wall());
        let mut standing = inner.lock();
        let judged = standing.watches.iter_mut().zip(values);
        let told: Vec<Alert> = judged
            .filter_map(|(watch, value)| watch.judge(value, at, &inner.instance))
            .collect();
        for alert in &told {
            if standing.recent.len() == RECENT {
                standing.recent.pop_back();
            }
            standing.recent.push_front(alert.clone());
        }
        let blind = standing.watches.iter().filter_map(Watch::blind).collect();
        drop(standing);
        inner.voice.speaker.is_blind_to(blind);
        told
    }

    /// Where every rule stands: the built-in ones first, in the order of the settings.
    #[must_use]
    pub fn states(&self) -> Vec<AlertState> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let standing = inner.lock();
        let state = |watch: &Watch| {
            let by_other = inner.voice.speaker.told_by_other(watch.name());
            watch.state(now, by_other)
        };
        standing.watches.iter().map(state).collect()
    }

    /// The last 100 changes, the newest first. They are what rules here have said, whoever of a fleet told
    /// them on.
    #[must_use]
    pub fn recent(&self) -> Vec<Alert> {
        self.inner.lock().recent.iter().cloned().collect()
    }

    /// How many rules fire, those within their cooldown included.
    #[must_use]
    pub fn firing(&self) -> usize {
        let standing = self.inner.lock();
        standing
            .watches
            .iter()
            .filter(|watch| watch.fires())
            .count()
    }

    /// How alerts reached their handlers.
    #[must_use]
    pub fn figures(&self) -> DeliveryFigures {
        self.inner.voice.figures()
    }

    /// The settings it was made with.
    #[must_use]
    pub fn config(&self) -> &AlertsConfig {
        &self.inner.config
    }

    /// What this instance is called in alerts.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.inner.instance
    }
}

impl Inner {
    /// A rule that was judged half-way is judged again in the next round, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Alerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alerts")
            .field("instance", &self.inner.instance)
            .field("voice", &self.inner.voice)
            .finish_non_exhaustive()
    }
}
