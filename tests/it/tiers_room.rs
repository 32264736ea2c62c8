//! Instances of a service that have nothing but tiers, for tests of them.

use std::sync::Arc;
use std::time::Duration;

use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::journal::{Journal, JournalConfig, JournalParts};
use tower_keep::store::{RedisConfig, RedisPool, StoreParts};
use tower_keep::task::Tasks;
use tower_keep::tiers::{ColdStore, SealKeys, Tiers, TiersConfig, TiersParts};

use crate::store::{until, until_up};

/// One instance of a service.
pub struct Instance {
    pub tiers: Tiers,
    pub journal: Journal,
    pub pool: RedisPool,
    pub tasks: Tasks,
    pub clock: Clock,
}

/// What an instance is made of.
#[derive(Clone, Default)]
pub struct Plan {
    pub redis: Option<RedisConfig>,
    pub clock: Option<Clock>,
    pub cold: Option<Arc<dyn ColdStore>>,
    pub seals: Option<SealKeys>,
    pub events: Events,
    pub tiers: TiersConfig,
    pub journal: JournalConfig,
}

impl Plan {
    pub fn redis(url: &str) -> Self {
        let redis = RedisConfig {
            url: Some(url.to_owned()),
            // Tests share a machine with other tests.
            command_timeout: Duration::from_secs(5),
            ..RedisConfig::default()
        };
        let journal = JournalConfig {
            // The first instance of a journal waits until the leases of an older one would have ended.
            acknowledge_within: Duration::from_secs(5),
            ..JournalConfig::default()
        };
        Self {
            redis: Some(redis),
            journal,
            ..Self::default()
        }
    }

    /// Builds it, without waiting for Redis.
    pub fn build(&self) -> Instance {
        let tasks = Tasks::new().unwrap();
        let clock = self.clock.clone().unwrap_or_default();
        let parts = StoreParts {
            clock: clock.clone(),
            scripts: [Journal::scripts(), Tiers::scripts()].concat(),
            ..StoreParts::new(tasks.spawner())
        };
        let pool = match &self.redis {
            Some(config) => RedisPool::new(config, &parts).unwrap(),
            None => RedisPool::disabled(),
        };
        let parts = JournalParts {
            clock: clock.clone(),
            events: Events::none(),
            redis: pool.clone(),
            spawner: tasks.spawner(),
        };
        let journal = Journal::shared(&self.journal, parts).unwrap();
        let parts = TiersParts {
            journal: journal.clone(),
            clock: clock.clone(),
            events: self.events.clone(),
            spawner: tasks.spawner(),
            redis: pool.clone(),
            cold: self.cold.clone(),
            seal_keys: self.seals.clone(),
        };
        Instance {
            tiers: Tiers::new(&self.tiers, parts).unwrap(),
            journal,
            pool,
            tasks,
            clock,
        }
    }

    /// Builds it, and waits until it follows the journal.
    pub async fn start(&self) -> Instance {
        let instance = self.build();
        if self.redis.is_some() {
            until_up(&instance.pool).await;
            instance.verified().await;
        }
        instance
    }
}

impl Instance {
    pub async fn verified(&self) {
        until("the journal is heard", || {
            self.journal.status() == tower_keep::journal::JournalStatus::Verified
        })
        .await;
    }
}
