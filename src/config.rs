//! All settings of the stack in one value.
//!
//! A [`Profile`](crate::Profile) is a complete [`KeepConfig`]; files, code and environment overlay it. In a file only
//! what differs needs to be said:
//!
//! ```
//! use tower_keep::config::KeepConfig;
//!
//! let config: KeepConfig = toml::from_str(r#"
//!     profile = "azure_b1"
//!     [cache]
//!     capacity_bytes = 33554432
//!     [rate_limit]
//!     requests_max = 100
//!     window_ms = 60000
//! "#)?;
//! assert_eq!(config.cache.capacity_bytes, 32 << 20);
//! assert_eq!(config.database.connections_max, 3, "the profile's number");
//! # Ok::<(), toml::de::Error>(())
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::admin::AdminConfig;
use crate::alerts::AlertsConfig;
use crate::breaker::BreakerConfig;
use crate::cache::CacheConfig;
use crate::connections::ConnectionsConfig;
use crate::database::DatabaseConfig;
use crate::error::{ConfigError, Faults};
use crate::guard::GuardConfig;
use crate::health::HealthConfig;
use crate::http_config::HttpConfig;
use crate::invalidation::InvalidationConfig;
use crate::journal::JournalConfig;
use crate::metrics::MetricsConfig;
use crate::progress::ProgressConfig;
use crate::rate_limit::RateLimitConfig;
use crate::report::ReportConfig;
use crate::route::Route;
use crate::store::RedisConfig;
use crate::tiers::TiersConfig;
use crate::warming::WarmingConfig;

/// The settings of every room.
///
/// Deserialized, it begins with the profile that the field `profile` names (`production` without one)
/// and takes over what is said; an unknown field is an error that names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct KeepConfig {
    /// The service's path templates, where they are known. Then a rule for any other route is a fault,
    /// and metrics can tell routes apart without axum.
    pub routes: Vec<String>,
    /// How long [`Keep::shutdown`](crate::Keep::shutdown) waits for background work: 100 ms to 5 min.
    #[serde(rename = "shutdown_ms", with = "crate::config_time::millis")]
    pub shutdown: Duration,
    /// Where Redis is.
    pub redis: RedisConfig,
    /// What is measured.
    pub metrics: MetricsConfig,
    /// When somebody is told of what.
    pub alerts: AlertsConfig,
    /// How checks of the service's parts run.
    pub health: HealthConfig,
    /// What is kept of days.
    pub report: ReportConfig,
    /// How much is let in.
    pub guard: GuardConfig,
    /// How many connections stay open.
    pub connections: ConnectionsConfig,
    /// When calls are not made because they would fail.
    pub breaker: BreakerConfig,
    /// Who may ask how often.
    pub rate_limit: RateLimitConfig,
    /// How much is remembered of what was invalidated.
    pub journal: JournalConfig,
    /// Which requests make which answers old.
    pub invalidation: InvalidationConfig,
    /// What is stored.
    pub cache: CacheConfig,
    /// Values of typed caches, and what is kept behind memory.
    pub tiers: TiersConfig,
    /// What is computed before it is asked for.
    pub warming: WarmingConfig,
    /// Streams that tell of long work.
    pub progress: ProgressConfig,
    /// What the full stack adds around the service.
    pub http: HttpConfig,
    /// Database pools and slow queries.
    pub database: DatabaseConfig,
    /// Who may look closer, and change things.
    pub admin: AdminConfig,
}

impl KeepConfig {
    /// These settings with what `overlay` says in their place: tables are merged, everything else is
    /// replaced.
    ///
    /// # Errors
    ///
    /// Names the field that is unknown or of the wrong type.
    pub fn overlaid(&self, overlay: Value) -> Result<Self, ConfigError> {
        let rooms = overlay.as_object().cloned().unwrap_or_default();
        let named = |room: &str| rooms.contains_key(room);
        let of_limits = |field: &str| {
            rooms
                .get("rate_limit")
                .is_some_and(|it| it.get(field).is_some())
        };
        // What code has set need not be sayable in a file (a scope of its own, a time below a
        // millisecond), so what is not named does not make the journey through the tree.
        let mut plain = self.clone();
        if !of_limits("rules") {
            plain.rate_limit.rules.clear();
        }
        let of_alerts = rooms
            .get("alerts")
            .is_some_and(|it| it.get("rules").is_some());
        if !of_alerts {
            plain.alerts.rules.clear();
        }
        let mut whole = plain.to_value()?;
        merge(&mut whole, overlay);
        let mut new = Self::from_value(whole)?;
        keep(
            &mut new.rate_limit.rules,
            &self.rate_limit.rules,
            of_limits("rules"),
        );
        keep(
            &mut new.rate_limit.tiers,
            &self.rate_limit.tiers,
            of_limits("tiers"),
        );
        keep(&mut new.redis, &self.redis, named("redis"));
        keep(&mut new.metrics, &self.metrics, named("metrics"));
        keep(&mut new.alerts.rules, &self.alerts.rules, of_alerts);
        keep(&mut new.alerts, &self.alerts, named("alerts"));
        keep(&mut new.health, &self.health, named("health"));
        keep(&mut new.report, &self.report, named("report"));
        keep(&mut new.guard, &self.guard, named("guard"));
        keep(
            &mut new.connections,
            &self.connections,
            named("connections"),
        );
        keep(&mut new.breaker, &self.breaker, named("breaker"));
        keep(&mut new.rate_limit, &self.rate_limit, named("rate_limit"));
        keep(&mut new.journal, &self.journal, named("journal"));
        keep(
            &mut new.invalidation,
            &self.invalidation,
            named("invalidation"),
        );
        keep(&mut new.cache, &self.cache, named("cache"));
        keep(&mut new.tiers, &self.tiers, named("tiers"));
        keep(&mut new.warming, &self.warming, named("warming"));
        keep(&mut new.progress, &self.progress, named("progress"));
        keep(&mut new.http, &self.http, named("http"));
        keep(&mut new.database, &self.database, named("database"));
        keep(&mut new.admin, &self.admin, named("admin"));
        Ok(new)
    }

    /// The settings as a tree, for overlays and for looking at them. Unlike `Debug` it shows everything,
    /// Redis' URL and password and the operators' token included.
    ///
    /// # Errors
    ///
    /// None in practice: all settings are numbers, texts and lists.
    pub fn to_value(&self) -> Result<Value, ConfigError> {
        serde_json::to_value(self)
            .map_err(|error| ConfigError::one("config", "?", error.to_string()))
    }

    pub(crate) fn from_value(whole: Value) -> Result<Self, ConfigError> {
        let seen = whole.clone();
        let mut track = serde_path_to_error::Track::new();
        let inner = serde_path_to_error::Deserializer::new(whole, &mut track);
        Self::deserialize(inner).map_err(|error| {
            let path = track.path().to_string();
            // A URL may hold a password, and the parser's words may quote it.
            if path.starts_with("redis") {
                let allowed = "is no setting of redis, or of the wrong type: url, username, password, \
                     ca_certificate, key_prefix and client_name are texts; max_connections, \
                     command_timeout_ms, connect_timeout_ms, heartbeat_ms, bulk_bytes and \
                     bulk_timeout_ms are whole numbers";
                return ConfigError::one(path, "(hidden)", allowed);
            }
            if path.starts_with("admin") {
                let allowed = "is no setting of admin, or of the wrong type: token is a text";
                return ConfigError::one(path, "(hidden)", allowed);
            }
            let pointer = format!("/{}", path.replace(['.', '['], "/").replace(']', ""));
            let value = match seen.pointer(&pointer) {
                Some(value) if !value.is_object() => value.to_string(),
                _ => "?".to_owned(),
            };
            ConfigError::one(path, value, error.to_string())
        })
    }

    /// The rooms that know no routes of their own know those of the service.
    pub(crate) fn hand_on_routes(&mut self) {
        if self.metrics.routes.is_empty() {
            self.metrics.routes.clone_from(&self.routes);
        }
    }

    /// Notes everything that is out of range or contradicts itself, in every room.
    pub fn check(&self, faults: &mut Faults) {
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(300));
        faults.within_time("shutdown_ms", self.shutdown, least..=most);
        for route in &self.routes {
            if let Err(wrong) = Route::new(route, &[]) {
                faults.add("routes", route, wrong);
            }
        }
        self.redis.check("redis", faults);
        self.metrics.check("metrics", faults);
        self.alerts.check("alerts", faults);
        self.alerts.check_routes("alerts", &self.routes, faults);
        self.health.check("health", faults);
        self.report.check("report", faults);
        self.guard.check("guard", faults);
        self.connections.check("connections", faults);
        self.breaker.check("breaker", faults);
        self.rate_limit.check("rate_limit", faults);
        self.journal.check("journal", faults);
        self.invalidation.check("invalidation", faults);
        self.cache.check("cache", faults);
        self.tiers.check("tiers", faults);
        self.warming.check("warming", faults);
        self.progress.check("progress", faults);
        self.http.check("http", faults);
        self.database.check("database", faults);
        self.admin.check("admin", faults);
        if let Some(budget) = self.guard.memory_budget_bytes
            && self.cache.enabled
            && self.cache.capacity_bytes > budget / 2
        {
            let allowed = format!("must be at most half of guard.memory_budget_bytes = {budget}");
            faults.add("cache.capacity_bytes", self.cache.capacity_bytes, allowed);
        }
    }
}

/// Takes `old` back unless `new` was named.
fn keep<T: Clone>(new: &mut T, old: &T, named: bool) {
    if !named {
        new.clone_from(old);
    }
}

/// Lays `over` onto `base`.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (name, value) in over {
                merge(base.entry(name).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

impl Serialize for KeepConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::identity::RequestView;
    use crate::profile::Profile;
    use crate::rate_limit::{Quota, Rule, Scope};

    fn faults(config: &KeepConfig) -> Vec<String> {
        let mut faults = Faults::new();
        config.check(&mut faults);
        match faults.into_result() {
            Ok(()) => Vec::new(),
            Err(error) => error
                .faults()
                .iter()
                .map(|fault| fault.field.clone())
                .collect(),
        }
    }

    #[test]
    fn what_is_not_said_is_the_profiles() {
        let config: KeepConfig =
            serde_json::from_value(json!({"profile": "azure_b1", "cache": {"enabled": false}}))
                .unwrap();
        let mut expected = Profile::azure_b1().config().clone();
        expected.cache.enabled = false;
        assert_eq!(config, expected);
    }

    #[test]
    fn a_config_survives_being_written_and_read() {
        for profile in [
            Profile::azure_b1(),
            Profile::development(),
            Profile::production(),
        ] {
            let written = serde_json::to_value(profile.config()).unwrap();
            assert_eq!(KeepConfig::from_value(written).unwrap(), *profile.config());
        }
    }

    #[test]
    fn a_wrong_field_is_named_with_its_value() {
        let base = Profile::production().config().clone();
        let error = base
            .overlaid(json!({"guard": {"slots": "many"}}))
            .unwrap_err();
        assert_eq!(error.faults()[0].field, "guard.slots");
        assert_eq!(error.faults()[0].value, "\"many\"");
        let error = base.overlaid(json!({"cache": {"capcity": 1}})).unwrap_err();
        assert!(
            error.to_string().contains("unknown field `capcity`"),
            "{error}"
        );
        let error = base
            .overlaid(json!({"cache": {"ttl_default_ms": -1}}))
            .unwrap_err();
        assert_eq!(error.faults()[0].field, "cache.ttl_default_ms");
        assert_eq!(error.faults()[0].value, "-1");
        for redis in [
            json!({"url": 7}),
            json!("redis://:secret@h"),
            json!({"pw": "secret"}),
            json!({"password": ["secret"]}),
            json!({"max_connections": "secret"}),
        ] {
            let error = base.overlaid(json!({ "redis": redis })).unwrap_err();
            assert_eq!(error.faults()[0].value, "(hidden)");
            assert!(error.faults()[0].field.starts_with("redis"), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let rules = json!({"rate_limit": {"rules": [{"name": "a", "quota": "lots"}]}});
        let error = base.overlaid(rules).unwrap_err();
        assert_eq!(error.faults()[0].value, "\"lots\"", "{error}");
    }

    #[test]
    fn what_only_code_can_say_survives_an_overlay() {
        let mut config = Profile::production().config().clone();
        let scope = Scope::custom(|request: &RequestView<'_>| request.uri.query().map(Into::into));
        let swift = Quota::requests(1).per(Duration::from_micros(1500));
        config
            .rate_limit
            .rules
            .push(Rule::new("custom", swift).scope(scope));
        config.rate_limit.tiers.insert("swift".to_owned(), swift);
        let same = config.overlaid(json!({})).unwrap();
        assert_eq!(same.rate_limit.rules[0].quota, Some(swift));
        let less = config
            .overlaid(json!({"rate_limit": {"requests_max": 7}}))
            .unwrap();
        assert_eq!(less.rate_limit.requests_max, 7);
        assert_eq!(less.rate_limit.rules[0].quota, Some(swift));
        assert_eq!(less.rate_limit.tiers["swift"], swift);
        let other = json!({"rate_limit": {"rules": [{"name": "a", "quota": {"requests": 1, "per_ms": 1000}}]}});
        assert_eq!(
            config.overlaid(other).unwrap().rate_limit.rules[0].name,
            "a"
        );
    }

    #[test]
    fn an_unknown_profile_is_named() {
        let read = serde_json::from_value::<KeepConfig>(json!({"profile": "b1"}));
        assert!(read.unwrap_err().to_string().contains("azure_b1"));
        assert!(serde_json::from_value::<KeepConfig>(json!({"profile": 1})).is_err());
    }

    #[test]
    fn every_room_is_checked_and_contradictions_between_rooms_are_found() {
        let mut config = Profile::production().config().clone();
        assert_eq!(faults(&config), Vec::<String>::new());
        config.guard.slots = 0;
        config.cache.capacity_bytes = 0;
        config.database.connections_max = 0;
        config.routes = vec!["no-slash".to_owned()];
        config.redis.url = Some("ftp://x".to_owned());
        let found = faults(&config);
        for field in [
            "guard.slots",
            "cache.capacity_bytes",
            "database.connections_max",
            "routes",
            "redis.url",
        ] {
            assert!(
                found.iter().any(|found| found == field),
                "{field} in {found:?}"
            );
        }
        let mut config = Profile::production().config().clone();
        config.guard.memory_budget_bytes = Some(64 << 20);
        config.cache.capacity_bytes = 60 << 20;
        config.cache.body_bytes_max = 1 << 20;
        assert_eq!(faults(&config), ["cache.capacity_bytes"]);
    }
}
