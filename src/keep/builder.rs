//! From settings to running parts.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::admin::AdminConfig;
use crate::alerts::{AlertHandler, AlertsConfig};
use crate::breaker::BreakerConfig;
use crate::cache::{CacheConfig, KeyPart};
use crate::clock::Clock;
use crate::config::KeepConfig;
use crate::connections::ConnectionsConfig;
use crate::database::DatabaseConfig;
use crate::env;
use crate::error::{ConfigError, Faults};
use crate::event::{Events, Recorder, TracingRecorder};
use crate::guard::{Claims, GuardConfig};
use crate::health::HealthCheck;
use crate::http_config::HttpConfig;
use crate::identity::ApiKeyResolver;
use crate::invalidation::{InvalidationConfig, Supplier};
use crate::journal::JournalConfig;
use crate::keep::alerts;
use crate::keep::archive::Archive;
use crate::keep::engines::{Engines, Ground};
use crate::keep::figures;
use crate::keep::gates::noted;
use crate::keep::health;
use crate::keep::hooks::Hooks;
use crate::keep::parts::{Keep, Parts};
use crate::keep::watch;
use crate::metrics::{Metrics, MetricsConfig};
use crate::profile::Profile;
use crate::progress::ProgressConfig;
use crate::rate_limit::{RateLimitConfig, RateLimiter, RefusalWriter};
use crate::store::RedisConfig;
#[cfg(feature = "redis")]
use crate::store::{CredentialsProvider, Script};
#[cfg(feature = "encryption")]
use crate::tiers::SealKeys;
use crate::tiers::{ColdStore, TiersConfig};
use crate::warming::WarmingConfig;

/// Puts a [`Keep`] together. Begin with [`Keep::builder`]; later calls win over earlier ones.
///
/// Nothing is checked before [`build`](Self::build), which then names everything that is wrong at once.
#[must_use]
pub struct KeepBuilder {
    pub(crate) config: KeepConfig,
    faults: Faults,
    pub(crate) api_keys: ApiKeyResolver,
    pub(crate) refusals: RefusalWriter,
    pub(crate) cache_key: Option<KeyPart>,
    pub(crate) invalidation_variables: Option<Supplier>,
    pub(crate) claims: Claims,
    recorders: Vec<Arc<dyn Recorder>>,
    pub(crate) alert_handlers: Vec<Box<dyn AlertHandler>>,
    pub(crate) health_checks: Vec<HealthCheck>,
    pub(crate) hooks: Hooks,
    cold: Option<Arc<dyn ColdStore>>,
    #[cfg(feature = "encryption")]
    seal_keys: Option<SealKeys>,
    clock: Option<Clock>,
    #[cfg(feature = "redis")]
    redis_credentials: Option<Arc<dyn CredentialsProvider>>,
    #[cfg(feature = "redis")]
    redis_scripts: Vec<&'static Script>,
}

impl Keep {
    /// Begins with a profile's settings.
    pub fn builder(profile: Profile) -> KeepBuilder {
        let (config, fault) = profile.into_parts();
        let mut builder = Self::from_config(config);
        if let Some(fault) = fault {
            builder.faults.add(fault.field, fault.value, fault.allowed);
        }
        builder
    }

    /// Begins with these settings, as read from a file.
    pub fn from_config(config: KeepConfig) -> KeepBuilder {
        // Warnings, slow queries and memory pressure go to `tracing`, where a service's log is.
        let recorders: Vec<Arc<dyn Recorder>> = vec![Arc::new(TracingRecorder)];
        let faults = Faults::new();
        KeepBuilder {
            config,
            faults,
            api_keys: ApiKeyResolver::none(),
            refusals: RefusalWriter::default(),
            cache_key: None,
            invalidation_variables: None,
            claims: Claims::new(),
            recorders,
            alert_handlers: Vec::new(),
            health_checks: Vec::new(),
            hooks: Hooks::default(),
            cold: None,
            #[cfg(feature = "encryption")]
            seal_keys: None,
            clock: None,
            #[cfg(feature = "redis")]
            redis_credentials: None,
            #[cfg(feature = "redis")]
            redis_scripts: Vec::new(),
        }
    }
}

impl KeepBuilder {
    /// Lays settings over those so far, from anything that serde can read into a tree, such as
    /// `toml::from_str(text)?` or `serde_json::json!({"cache": {"enabled": false}})`.
    pub fn overlay(mut self, settings: Value) -> Self {
        match self.config.overlaid(settings) {
            Ok(config) => self.config = config,
            Err(error) => self.faults.absorb(error),
        }
        self
    }

    /// Takes over what the process' environment says; see [`env`](mod@crate::env) for the names.
    pub fn env(mut self) -> Self {
        env::note_unknown(&self.config, std::env::vars_os(), &mut self.faults);
        self.env_from(env::of_process)
    }

    /// As [`env`](Self::env), with variables from elsewhere.
    pub fn env_from(mut self, var: impl Fn(&str) -> Option<String>) -> Self {
        match env::overlay(&self.config, &var, &mut self.faults) {
            Ok(config) => self.config = config,
            Err(error) => self.faults.absorb(error),
        }
        self
    }

    /// Takes the Redis URL, and nothing else, from `REDIS_URL` or else `AZURE_REDIS_URL`. Without either
    /// everything stays in memory. With the feature `redis` the connection is made in the background, and
    /// health tells how it is; without that feature a URL is a fault.
    pub fn redis_from_env(mut self) -> Self {
        if let Some(url) = env::redis_url(&env::of_process) {
            self.config.redis.url = Some(url);
        }
        self
    }

    /// The service's path templates. With them, a rule for any other route is a fault, and metrics can
    /// tell routes apart without axum.
    pub fn routes(mut self, routes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.config.routes = routes.into_iter().map(Into::into).collect();
        self
    }

    /// Changes where Redis is and how it is used.
    pub fn redis(mut self, change: impl FnOnce(&mut RedisConfig)) -> Self {
        change(&mut self.config.redis);
        self
    }

    /// Scripts of the service's own, to be called with `keep.redis().call(..)`.
    #[cfg(feature = "redis")]
    pub fn redis_scripts(mut self, scripts: impl IntoIterator<Item = &'static Script>) -> Self {
        self.redis_scripts.extend(scripts);
        self
    }

    /// Who knows the user and password for Redis, where they expire and have to be renewed. They take the
    /// place of those in the settings. Without a Redis URL nobody is asked.
    #[cfg(feature = "redis")]
    pub fn redis_credentials(mut self, provider: impl CredentialsProvider) -> Self {
        self.redis_credentials = Some(Arc::new(provider));
        self
    }

    /// Changes the metrics' settings.
    pub fn metrics(mut self, change: impl FnOnce(&mut MetricsConfig)) -> Self {
        change(&mut self.config.metrics);
        self
    }

    /// Changes what is watched, and how it is told.
    pub fn alerts(mut self, change: impl FnOnce(&mut AlertsConfig)) -> Self {
        change(&mut self.config.alerts);
        self
    }

    /// Changes the guard's settings.
    pub fn guard(mut self, change: impl FnOnce(&mut GuardConfig)) -> Self {
        change(&mut self.config.guard);
        self
    }

    /// Changes how many connections may stay open.
    pub fn connections(mut self, change: impl FnOnce(&mut ConnectionsConfig)) -> Self {
        change(&mut self.config.connections);
        self
    }

    /// Changes the settings of circuit breakers.
    pub fn breaker(mut self, change: impl FnOnce(&mut BreakerConfig)) -> Self {
        change(&mut self.config.breaker);
        self
    }

    /// Changes the rate limiter's settings.
    pub fn rate_limit(mut self, change: impl FnOnce(&mut RateLimitConfig)) -> Self {
        change(&mut self.config.rate_limit);
        self
    }

    /// Changes how invalidations are kept and confirmed.
    pub fn journal(mut self, change: impl FnOnce(&mut JournalConfig)) -> Self {
        change(&mut self.config.journal);
        self
    }

    /// Changes the invalidation rules.
    pub fn invalidation(mut self, change: impl FnOnce(&mut InvalidationConfig)) -> Self {
        change(&mut self.config.invalidation);
        self
    }

    /// Changes the cache's settings.
    pub fn cache(mut self, change: impl FnOnce(&mut CacheConfig)) -> Self {
        change(&mut self.config.cache);
        self
    }

    /// Changes the settings of typed caches, and of what is kept behind memory.
    pub fn tiers(mut self, change: impl FnOnce(&mut TiersConfig)) -> Self {
        change(&mut self.config.tiers);
        self
    }

    /// Changes what is computed before it is asked for, and how fast.
    pub fn warming(mut self, change: impl FnOnce(&mut WarmingConfig)) -> Self {
        change(&mut self.config.warming);
        self
    }

    /// A store that outlives Redis, for entries of typed caches and of the HTTP cache: see
    /// [`ColdStore`](crate::tiers::ColdStore).
    pub fn cold_store(mut self, store: Arc<dyn ColdStore>) -> Self {
        self.cold = Some(store);
        self
    }

    /// Keys for caches that are [`sealed`](crate::tiers::TypedCache::sealed).
    #[cfg(feature = "encryption")]
    pub fn seal_keys(mut self, keys: SealKeys) -> Self {
        self.seal_keys = Some(keys);
        self
    }

    /// Changes the settings of progress streams.
    pub fn progress(mut self, change: impl FnOnce(&mut ProgressConfig)) -> Self {
        change(&mut self.config.progress);
        self
    }

    /// Changes what the full stack adds around the service.
    pub fn http(mut self, change: impl FnOnce(&mut HttpConfig)) -> Self {
        change(&mut self.config.http);
        self
    }

    /// Changes the settings of database pools.
    pub fn database(mut self, change: impl FnOnce(&mut DatabaseConfig)) -> Self {
        change(&mut self.config.database);
        self
    }

    /// Changes the settings of the operator's endpoints.
    pub fn admin(mut self, change: impl FnOnce(&mut AdminConfig)) -> Self {
        change(&mut self.config.admin);
        self
    }

    /// Adds somebody who hears of every [`Event`](crate::event::Event).
    pub fn recorder(mut self, recorder: Arc<dyn Recorder>) -> Self {
        self.recorders.push(recorder);
        self
    }

    /// Replaces the machine's clock; for tests.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// The settings as they are now.
    #[must_use]
    pub const fn config(&self) -> &KeepConfig {
        &self.config
    }

    /// Checks everything and starts the parts. Waits for nothing and opens no connection.
    ///
    /// # Errors
    ///
    /// Names every fault with its field, its value and what is allowed; also when called outside of a
    /// Tokio runtime.
    pub fn build(self) -> Result<Keep, ConfigError> {
        let Self {
            mut config,
            mut faults,
            api_keys,
            refusals,
            cache_key,
            invalidation_variables,
            claims,
            mut recorders,
            alert_handlers,
            health_checks,
            hooks,
            cold,
            #[cfg(feature = "encryption")]
            seal_keys,
            clock,
            #[cfg(feature = "redis")]
            redis_credentials,
            #[cfg(feature = "redis")]
            redis_scripts,
        } = self;
        config.hand_on_routes();
        config.check(&mut faults);
        health::check(&health_checks, &mut faults);
        let clock = clock.unwrap_or_default();
        let metrics = Metrics::of_stack(&config.metrics, clock.clone(), config.cache.tells());
        let metrics = noted(metrics, &mut faults);
        if let Some(metrics) = metrics.as_ref().filter(|_| config.metrics.enabled) {
            recorders.push(Arc::new(metrics.clone()));
        }
        let events = Events::to(recorders);
        let ground = Ground {
            config,
            clock,
            events,
            health_checks,
            cold,
            hooks,
            #[cfg(feature = "encryption")]
            seal_keys,
            #[cfg(feature = "redis")]
            credentials: redis_credentials,
            #[cfg(feature = "redis")]
            scripts: redis_scripts,
        };
        let callers = ground.hooks.callers.clone();
        let claims = claims.callers(callers.clone());
        // What is wrong with a rule's route only its engine can tell, so all of them are asked before
        // anything is reported.
        let told = |limiter: RateLimiter| {
            limiter
                .callers(callers)
                .api_keys(api_keys)
                .refusals(refusals)
        };
        let engines = Engines::new(&ground, told, &mut faults);
        let (Some(metrics), Some(engines)) = (metrics, engines) else {
            return Err(faults.into_error());
        };
        faults.into_result()?;
        engines.tell_guard(&ground, claims);
        let engines = engines.told(cache_key, invalidation_variables);
        let keep = Keep::of(parts(ground, metrics, engines)?);
        watch::start(&keep)?;
        alerts::start(&keep, alert_handlers)?;
        Ok(keep)
    }
}

/// What stands on the engines.
fn parts(ground: Ground, metrics: Metrics, engines: Engines) -> Result<Parts, ConfigError> {
    let board = health::board(&ground);
    Ok(Parts {
        fleet: figures::fleet(&metrics, &engines, &ground),
        alerts: alerts::alerts(&ground, &metrics, &engines, &board)?,
        archive: Archive::new(&ground, &metrics, &engines),
        board,
        ground,
        metrics,
        engines,
        draining: Arc::default(),
    })
}

impl fmt::Debug for KeepBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepBuilder")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
