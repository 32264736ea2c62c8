//! A limiter that counts together with those of other instances.

use std::fmt;
use std::sync::Arc;

use crate::clock::Clock;
use crate::error::ConfigError;
use crate::event::Events;
use crate::rate_limit::ban_talk::CHANNEL;
use crate::rate_limit::bans::BanSink;
use crate::rate_limit::config::RateLimitConfig;
use crate::rate_limit::fleet::{Fleet, FleetParts};
use crate::rate_limit::ledger::SharedLedger;
use crate::rate_limit::limiter::{RateLimiter, books, check};
use crate::rate_limit::outage::Outage;
use crate::rate_limit::presence::Presence;
use crate::rate_limit::shared::Shared;
use crate::rate_limit::spoken::Spoken;
use crate::rate_limit::voice::Voice;
use crate::store::{RedisPool, RedisStatus};
use crate::task::Spawner;

/// What a limiter needs to count together with others.
pub struct RateLimitParts {
    /// Tells the time.
    pub clock: Clock,
    /// Hears of decisions.
    pub events: Events,
    /// Where the buckets live. It must have been built with [`scripts`](RateLimiter::scripts).
    pub redis: RedisPool,
    /// Starts what goes on in the background.
    pub spawner: Spawner,
}

impl RateLimiter {
    /// The scripts that a pool must know which a limiter counts through: for
    /// [`StoreParts::scripts`](crate::store::StoreParts::scripts).
    #[must_use]
    pub fn scripts() -> &'static [&'static crate::store::Script] {
        &crate::rate_limit::shared::SCRIPTS
    }

    /// A limiter that counts through Redis, together with all that have the same keys there; in memory if
    /// none is configured. Never waits for Redis: while it is away, this instance grants its share.
    ///
    /// # Errors
    ///
    /// All faults of the settings.
    pub fn shared(
        config: &RateLimitConfig,
        known_routes: &[String],
        parts: RateLimitParts,
    ) -> Result<Self, ConfigError> {
        let RateLimitParts {
            clock,
            events,
            redis,
            spawner,
        } = parts;
        check(config, known_routes)?;
        let mut books = books(config, clock.clone(), events.clone());
        if !config.enabled || redis.status() == RedisStatus::Disabled {
            return Self::with(config, known_routes, Arc::new(books));
        }
        let shared = Shared::new(redis.clone(), spawner.clone());
        let outage = Arc::new(Outage::new(config.instances.unwrap_or(1)));
        let fleet = Fleet::new(FleetParts {
            shared: shared.clone(),
            spawner: spawner.clone(),
            clock: clock.clone(),
            events,
            table: Arc::clone(&books.table),
            penalties: books.penalties.clone(),
            outage: Arc::clone(&outage),
        });
        books.shared = Some(SharedLedger {
            fleet: fleet.clone(),
            outage: Arc::clone(&outage),
            spoken: Spoken::default(),
            voice: Voice::new(shared.clone(), spawner.clone()),
        });
        let ledger = Arc::new(books);
        let limiter = Self::with(config, known_routes, Arc::clone(&ledger))?;
        if ledger.penalties.is_some() {
            let ledger = Arc::downgrade(&ledger);
            redis.subscribe(redis.key(CHANNEL), Arc::new(BanSink { ledger }));
        }
        let presence = Presence {
            fleet,
            shared,
            outage,
            clock,
            fixed: config.instances.is_some(),
        };
        presence.start(&spawner, redis.watch());
        Ok(limiter)
    }
}

impl fmt::Debug for RateLimitParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitParts").finish_non_exhaustive()
    }
}
