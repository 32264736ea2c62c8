//! Who of a fleet speaks about a rule: whoever holds its lease in Redis.
//!
//! One key for each rule, `<prefix>:alert:<rule>`, holds the random name of the instance that speaks. Whoever has
//! something to tell asks for it with `SET .. NX PX`. While the rule fires the lease is short and renewed with
//! every round, so that another instance for which it fires as well speaks up within a minute should the
//! speaker die; once it is over, the lease lasts for the cooldown. A lease for the rule and not for each of its
//! words: whoever has said that something fires is the one who says that it is over.
//!
//! Redis away, slow or refusing: everybody speaks. To hear something twice is better than not at all.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::alerts::alert::{Alert, AlertTurn};
use crate::alerts::rule::{AlertRule, AlertScope};
#[cfg(feature = "redis")]
use crate::store::{Batch, Command, RedisPool, StoreError};

/// Asks whether this instance speaks.
#[derive(Debug)]
pub(crate) struct Speaker {
    /// Rules of which one instance speaks, and how long it is quiet afterwards.
    fleet: HashMap<Arc<str>, Duration>,
    /// How long a lease lasts while a rule fires.
    short: Duration,
    /// Unlike that of any other instance, whatever they are called.
    name: String,
    #[cfg(feature = "redis")]
    redis: RedisPool,
    firing: Mutex<HashMap<Arc<str>, Firing>>,
}

/// The last word about a rule that fires.
#[derive(Clone, Debug)]
enum Firing {
    /// It was told here.
    Here,
    /// Another instance spoke; this is what it was here.
    ByOther(Box<Alert>),
}

impl Speaker {
    pub(crate) fn new(
        rules: &[AlertRule],
        every: Duration,
        #[cfg(feature = "redis")] redis: RedisPool,
    ) -> Self {
        let fleet = rules.iter().filter(|rule| rule.scope == AlertScope::Fleet);
        let fleet = fleet.map(|rule| (rule.name.as_str().into(), rule.cooldown));
        // The standard library seeds its hashers with 128 random bits of the system's.
        let (first, second) = (RandomState::new(), RandomState::new());
        let (first, second) = (first.hash_one(0), second.hash_one(1));
        Self {
            fleet: fleet.collect(),
            short: every.saturating_mul(6),
            name: format!("{first:016x}{second:016x}"),
            #[cfg(feature = "redis")]
            redis,
            firing: Mutex::default(),
        }
    }

    /// Its random name.
    pub(crate) fn name(&self) -> String {
        self.name.clone()
    }

    /// Whether this instance tells `alert`. Waits at most three times for `redis.command_timeout_ms`.
    ///
    /// # Cancellation
    ///
    /// The lease may be this instance's all the same.
    pub(crate) async fn speaks(&self, alert: &Alert) -> bool {
        let Some(cooldown) = self.fleet.get(&alert.rule) else {
            return true;
        };
        let lease = match alert.state {
            AlertTurn::Firing | AlertTurn::Escalated => self.short,
            AlertTurn::Resolved => self.short.max(*cooldown),
        };
        let speaks = self.claim(&alert.rule, lease).await;
        let firing = match (alert.state, speaks) {
            (AlertTurn::Resolved, _) => None,
            (_, true) => Some(Firing::Here),
            (_, false) => Some(Firing::ByOther(Box::new(alert.clone()))),
        };
        match firing {
            Some(firing) => self.lock().insert(Arc::clone(&alert.rule), firing),
            None => self.lock().remove(&alert.rule),
        };
        speaks
    }

    /// Whether the rule fires here and another instance told it.
    pub(crate) fn told_by_other(&self, rule: &str) -> bool {
        matches!(self.lock().get(rule), Some(Firing::ByOther(_)))
    }

    /// What fires here and was told by another instance: to be asked for again, in case that one is gone.
    pub(crate) fn unspoken(&self) -> Vec<Alert> {
        let firing = self.lock();
        let unspoken = firing.values().filter_map(|firing| match firing {
            Firing::ByOther(alert) => Some((**alert).clone()),
            Firing::Here => None,
        });
        unspoken.collect()
    }

    /// Nothing that is done while it is held can panic half-way, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Firing>> {
        self.firing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(not(feature = "redis"))]
impl Speaker {
    /// There is nobody else.
    async fn claim(&self, _: &str, _: Duration) -> bool {
        true
    }

    /// There is nothing to renew.
    pub(crate) async fn renew(&self) {}
}

#[cfg(feature = "redis")]
impl Speaker {
    /// Asks for a rule's lease. Every error lets it speak.
    async fn claim(&self, rule: &str, lease: Duration) -> bool {
        self.ask(rule, lease).await.unwrap_or(true)
    }

    async fn ask(&self, rule: &str, lease: Duration) -> Result<bool, StoreError> {
        let key = self.key(rule);
        let free: Option<String> = self.redis.run(&self.set(&key, "NX", lease)).await?;
        if free.is_some() {
            return Ok(true);
        }
        let holder: Option<String> = self.redis.run(&Command::new("GET").key(&key)).await?;
        let mine = match holder {
            Some(holder) => holder == self.name,
            // It ended in between; somebody else may have been quicker.
            None => {
                let free: Option<String> = self.redis.run(&self.set(&key, "NX", lease)).await?;
                return Ok(free.is_some());
            }
        };
        if mine {
            let _: Option<String> = self.redis.run(&self.set(&key, "XX", lease)).await?;
        }
        Ok(mine)
    }

    /// Renews the leases of rules that fire here and were told here: one round trip, or none.
    pub(crate) async fn renew(&self) {
        let told: Vec<_> = {
            let firing = self.lock();
            let here = firing
                .iter()
                .filter(|(_, firing)| matches!(firing, Firing::Here));
            here.map(|(rule, _)| self.key(rule)).collect()
        };
        if told.is_empty() || !self.redis.status().is_up() {
            return;
        }
        let mut batch = Batch::new();
        for key in &told {
            batch = batch.command(self.set(key, "XX", self.short));
        }
        // What could not be renewed ends, and another instance speaks if it fires there as well.
        let _ = self.redis.run_all(&batch).await;
    }

    fn key(&self, rule: &str) -> String {
        self.redis.key(format_args!("alert:{rule}"))
    }

    fn set(&self, key: &str, when: &'static str, lease: Duration) -> Command {
        let millis = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let set = Command::new("SET").key(key).arg(self.name.as_str());
        set.arg(when).arg("PX").arg(millis.max(1))
    }
}
