//! Profiles: complete settings for a kind of host, each number with its reason.

use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::admin::AdminConfig;
use crate::alerts::AlertsConfig;
use crate::breaker::BreakerConfig;
use crate::cache::CacheConfig;
use crate::config::KeepConfig;
use crate::connections::ConnectionsConfig;
use crate::database::DatabaseConfig;
use crate::env::of_process;
use crate::error::{ConfigError, Fault};
use crate::guard::GuardConfig;
use crate::health::HealthConfig;
use crate::http_config::HttpConfig;
use crate::invalidation::InvalidationConfig;
use crate::journal::JournalConfig;
use crate::metrics::MetricsConfig;
use crate::progress::ProgressConfig;
use crate::rate_limit::RateLimitConfig;
use crate::report::ReportConfig;
use crate::store::RedisConfig;
use crate::tiers::TiersConfig;
use crate::warming::WarmingConfig;

/// A named set of settings to begin with.
#[derive(Clone, Debug)]
pub struct Profile {
    name: &'static str,
    config: KeepConfig,
    /// What was wrong with the variable that chose it; `build()` reports it.
    fault: Option<Fault>,
}

impl Profile {
    /// Azure App Service B1 and everything like it: one core, 1.75 GB of which some 450 MB are left for
    /// the service, three database connections.
    #[must_use]
    pub fn azure_b1() -> Self {
        let mut config = base();
        // One core: 64 requests at once keep it busy through their waits for the database; more only
        // share it into thinner slices, and at 2 MiB each, buffers included, they are some 130 of the 450 MB
        // that are free. With a queue of twice that, nobody waits over half a second.
        config.guard.slots = 64;
        config.guard.queue = 128;
        config.guard.queue_timeout = Duration::from_millis(500);
        // What App Service lets through to an instance of its Basic plans; `from_env` knows better.
        config.connections.connections_max = 350;
        // A seventh of the 450 MB that a B1 leaves free after the platform has taken its share.
        config.cache.capacity_bytes = 64 << 20;
        config.cache.body_bytes_max = 1 << 20;
        config.tiers.capacity_bytes = 16 << 20;
        config.tiers.tenant_bytes_max = 8 << 20;
        // 5 requests a second from one caller are a twentieth of what one core serves at 10 ms each.
        config.rate_limit.requests_max = 300;
        config.rate_limit.window = MINUTE;
        // App Service hands requests on through a front end that has a link-local address and names the
        // client in X-Forwarded-For. Nobody on the internet can have such an address.
        config.rate_limit.trusted_proxies = vec![APP_SERVICE_FRONT_END.to_owned()];
        // Half a MiB of table; one small host does not see more callers within a minute.
        config.rate_limit.keys_max = 65_536;
        config.journal = JournalConfig {
            markers_max: 16_384,
            patterns_max: 1_024,
            records_max: 16_384,
            ..JournalConfig::default()
        };
        // The smallest Redis of Azure takes 256 clients for all instances and all their services: one
        // connection for commands, one in reserve.
        config.redis.max_connections = 2;
        // In the same region it answers within 2 ms. What has not come after 50 is given up, so that
        // memory answers before anybody notices.
        config.redis.command_timeout = Duration::from_millis(50);
        // Nobody is told sooner than after half a minute, so nothing is gained by looking more often.
        config.alerts.every = Duration::from_secs(10);
        // Basic databases allow few connections, and each costs the server 5 to 10 MB.
        config.database.connections_max = 3;
        // On one core, whoever computes for so long keeps everybody else waiting.
        config.metrics.slow_request = Duration::from_secs(1);
        Self::new("azure_b1", config)
    }

    /// A developer's machine: hardly any limits to run into, small memory, and short waits so that
    /// mistakes show.
    #[must_use]
    pub fn development() -> Self {
        let mut config = base();
        config.guard.slots = 50;
        config.guard.queue = 100;
        config.cache.capacity_bytes = 32 << 20;
        config.cache.body_bytes_max = 1 << 20;
        // Reloading a page of many parts over and over must not end in 429.
        config.rate_limit.requests_max = 10_000;
        config.rate_limit.window = MINUTE;
        config.rate_limit.keys_max = 16_384;
        config.database.connections_max = 5;
        // A developer wants to see what would be slow on the small host.
        config.database.slow_query = Duration::from_millis(50);
        config.metrics.server_timing = true;
        config.metrics.slow_request = Duration::from_millis(250);
        // Caches are cold after every change of the code.
        config.alerts.off = vec!["hit_ratio_low".to_owned(), "hit_ratio_very_low".to_owned()];
        // Ctrl-C should end it.
        config.shutdown = Duration::from_secs(2);
        Self::new("development", config)
    }

    /// A rehearsal for production on half the machine.
    #[must_use]
    pub fn staging() -> Self {
        let mut config = base();
        config.guard.slots = 100;
        config.guard.queue = 200;
        config.cache.capacity_bytes = 128 << 20;
        config.rate_limit.requests_max = 1_000;
        config.rate_limit.window = MINUTE;
        config.database.connections_max = 10;
        config.metrics.server_timing = true;
        config.metrics.slow_request = Duration::from_millis(500);
        Self::new("staging", config)
    }

    /// A host with at least two cores and 4 GB.
    #[must_use]
    pub fn production() -> Self {
        let mut config = base();
        // 200 requests at once; with 512 waiting and 10 ms each on two cores, the last one waits 2.5 s,
        // so the queue's timeout of half a second is what turns the excess away.
        config.guard.slots = 200;
        config.guard.queue = 512;
        config.cache.capacity_bytes = 256 << 20;
        config.tiers.capacity_bytes = 128 << 20;
        // 1,000 a minute is what a busy page needs from one signed-in user.
        config.rate_limit.requests_max = 1_000;
        config.rate_limit.window = MINUTE;
        config.database.connections_max = 20;
        Self::new("production", config)
    }

    /// The profile for where the process runs: on Azure App Service (`WEBSITE_SITE_NAME` is set)
    /// [`azure_b1`](Self::azure_b1) for the Free, Shared, Basic and Standard tiers (`WEBSITE_SKU`, also where it is
    /// missing) and [`production`](Self::production) for larger ones; elsewhere what `KEEP_PROFILE` names;
    /// else [`production`](Self::production). An unknown name is reported by `build()`.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_vars(&of_process)
    }

    /// As [`from_env`](Self::from_env), with variables from elsewhere.
    #[must_use]
    pub fn from_vars(var: &dyn Fn(&str) -> Option<String>) -> Self {
        let var = |name: &str| var(name).filter(|value| !value.trim().is_empty());
        if var("WEBSITE_SITE_NAME").is_some() {
            let sku = var("WEBSITE_SKU").unwrap_or_default().to_ascii_lowercase();
            let small = ["", "free", "shared", "dynamic", "basic", "standard"];
            if small.contains(&sku.trim()) {
                return Self::azure_b1().with_web_sockets(&var).named_by(&var);
            }
            let mut larger = Self::production().with_web_sockets(&var).named_by(&var);
            larger.config.rate_limit.trusted_proxies = vec![APP_SERVICE_FRONT_END.to_owned()];
            return larger;
        }
        let Some(name) = var("KEEP_PROFILE") else {
            return Self::production();
        };
        Self::named(&name).unwrap_or_else(|error| {
            let mut profile = Self::production();
            let fault = error.faults().first().cloned();
            profile.fault = fault.map(|fault| Fault {
                field: "KEEP_PROFILE".to_owned(),
                ..fault
            });
            profile
        })
    }

    /// The profile of this name: `azure_b1`, `development`, `staging` or `production`.
    ///
    /// # Errors
    ///
    /// When there is none of that name.
    pub fn named(name: &str) -> Result<Self, ConfigError> {
        match name.trim() {
            "azure_b1" => Ok(Self::azure_b1()),
            "development" => Ok(Self::development()),
            "staging" => Ok(Self::staging()),
            "production" => Ok(Self::production()),
            other => {
                let allowed = "must be azure_b1, development, staging or production";
                Err(ConfigError::one("profile", format!("{other:?}"), allowed))
            }
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Its settings.
    #[must_use]
    pub const fn config(&self) -> &KeepConfig {
        &self.config
    }

    /// As many connections as App Service says that it lets through; -1 stands for no limit. What is neither
    /// is the platform's word and nobody's mistake here, so the profile's own number stays.
    fn with_web_sockets(mut self, var: &dyn Fn(&str) -> Option<String>) -> Self {
        let said = var("WEBSOCKET_CONCURRENT_REQUEST_LIMIT").unwrap_or_default();
        let own = ConnectionsConfig::default().connections_max;
        match said.trim().parse::<i64>() {
            Ok(-1) => self.config.connections.connections_max = own,
            Ok(limit) if (1..=1_000_000).contains(&limit) => {
                self.config.connections.connections_max = usize::try_from(limit).unwrap_or(own);
            }
            _ => {}
        }
        self
    }

    /// Named as App Service names the instance; by the beginning of it, which is what its portal shows.
    fn named_by(mut self, var: &dyn Fn(&str) -> Option<String>) -> Self {
        let instance = var("WEBSITE_INSTANCE_ID");
        self.config.health.instance = instance.map(|id| id.chars().take(8).collect());
        self
    }

    pub(crate) fn into_parts(self) -> (KeepConfig, Option<Fault>) {
        (self.config, self.fault)
    }

    const fn new(name: &'static str, config: KeepConfig) -> Self {
        Self {
            name,
            config,
            fault: None,
        }
    }
}

/// Deserialized, a configuration is its profile's with what is said in its place.
impl<'de> Deserialize<'de> for KeepConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;

        let mut said = Value::deserialize(deserializer)?;
        let profile = match said
            .as_object_mut()
            .and_then(|table| table.remove("profile"))
        {
            None => Profile::production(),
            Some(Value::String(name)) => Profile::named(&name).map_err(Error::custom)?,
            Some(other) => {
                return Err(Error::custom(format!(
                    "profile = {other}: must be a profile's name"
                )));
            }
        };
        profile.config().overlaid(said).map_err(Error::custom)
    }
}

/// What all profiles begin with: every room's own defaults.
fn base() -> KeepConfig {
    KeepConfig {
        routes: Vec::new(),
        // App Service kills a container 10 s after it asked it to stop by default, and systemd after
        // 90 s; 8 s leave time for the process' own goodbyes in both.
        shutdown: Duration::from_secs(8),
        redis: RedisConfig::default(),
        metrics: MetricsConfig::default(),
        alerts: AlertsConfig::default(),
        health: HealthConfig::default(),
        report: ReportConfig::default(),
        guard: GuardConfig::default(),
        connections: ConnectionsConfig::default(),
        breaker: BreakerConfig::default(),
        rate_limit: RateLimitConfig::default(),
        journal: JournalConfig::default(),
        invalidation: InvalidationConfig::default(),
        cache: CacheConfig::default(),
        tiers: TiersConfig::default(),
        warming: WarmingConfig::default(),
        progress: ProgressConfig::default(),
        http: HttpConfig::default(),
        database: DatabaseConfig::default(),
        // Nobody is let in before somebody has chosen a token.
        admin: AdminConfig::default(),
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// Where requests come from inside of an App Service container (RFC 3927).
const APP_SERVICE_FRONT_END: &str = "169.254.0.0/16";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Faults;

    fn from(vars: &[(&str, &str)]) -> Profile {
        Profile::from_vars(&|name| {
            vars.iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn every_profile_passes_its_own_checks_and_is_found_by_name() {
        for profile in [
            Profile::azure_b1(),
            Profile::development(),
            Profile::staging(),
            Profile::production(),
        ] {
            let mut faults = Faults::new();
            profile.config().check(&mut faults);
            faults.into_result().unwrap();
            let found = Profile::named(profile.name()).unwrap();
            assert_eq!(found.config(), profile.config());
        }
    }

    #[test]
    fn the_host_chooses_the_profile() {
        for (vars, name) in [
            (&[][..], "production"),
            (&[("WEBSITE_SITE_NAME", "crm")], "azure_b1"),
            (
                &[("WEBSITE_SITE_NAME", "crm"), ("WEBSITE_SKU", "Basic")],
                "azure_b1",
            ),
            (
                &[("WEBSITE_SITE_NAME", "crm"), ("WEBSITE_SKU", "Standard")],
                "azure_b1",
            ),
            (
                &[("WEBSITE_SITE_NAME", "crm"), ("WEBSITE_SKU", "PremiumV3")],
                "production",
            ),
            (&[("WEBSITE_SKU", "Basic")], "production"),
            (&[("KEEP_PROFILE", "staging")], "staging"),
            (&[("KEEP_PROFILE", "")], "production"),
        ] {
            let profile = from(vars);
            assert_eq!(profile.name(), name, "{vars:?}");
            let behind_a_front_end = !profile.config().rate_limit.trusted_proxies.is_empty();
            let on_app_service = vars.iter().any(|(name, _)| *name == "WEBSITE_SITE_NAME");
            assert_eq!(behind_a_front_end, on_app_service, "{vars:?}");
            assert_eq!(profile.into_parts().1, None);
        }
    }

    #[test]
    fn app_service_says_how_many_web_sockets_it_lets_through() {
        for (site, sku, said, connections_max) in [
            ("crm", "Basic", "", 350),
            ("crm", "Basic", "350", 350),
            ("crm", "Free", "5", 5),
            ("crm", "Standard", "-1", 10_000),
            ("crm", "PremiumV3", "-1", 10_000),
            ("crm", "PremiumV3", "", 10_000),
            ("crm", "Basic", "0", 350),
            ("crm", "Basic", "-2", 350),
            ("crm", "Basic", "many", 350),
            ("crm", "Basic", "99999999999999999999", 350),
            ("", "Basic", "5", 10_000),
        ] {
            let profile = from(&[
                ("WEBSITE_SITE_NAME", site),
                ("WEBSITE_SKU", sku),
                ("WEBSOCKET_CONCURRENT_REQUEST_LIMIT", said),
            ]);
            let config = &profile.config().connections;
            assert_eq!(config.connections_max, connections_max, "{sku} {said:?}");
            assert_eq!(profile.into_parts().1, None);
        }
    }

    #[test]
    fn an_unknown_name_waits_for_build_to_be_reported() {
        let (_, fault) = from(&[("KEEP_PROFILE", "huge")]).into_parts();
        let fault = fault.unwrap();
        assert_eq!((&*fault.field, &*fault.value), ("KEEP_PROFILE", "\"huge\""));
    }
}
