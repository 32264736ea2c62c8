//! Settings from environment variables.
//!
//! Two families. The plain names that services of this kind already use:
//!
//! | variable | setting | form |
//! |---|---|---|
//! | `REDIS_URL`, else `AZURE_REDIS_URL` | `redis.url` | URL |
//! | `REDIS_USERNAME`, `REDIS_PASSWORD` | `redis.username`, `redis.password` | text |
//! | `REDIS_KEY_PREFIX` | `redis.key_prefix` | text |
//! | `REDIS_MAX_CONNECTIONS` | `redis.max_connections` | number |
//! | `REDIS_COMMAND_TIMEOUT` | `redis.command_timeout_ms` | milliseconds, or with a unit: `50ms`, `1s` |
//! | `ENABLE_RATE_LIMITING` | `rate_limit.enabled` | `true`/`false`, `1`/`0`, `yes`/`no`, `on`/`off` |
//! | `ENABLE_REDIS_CACHING` | `cache.enabled` | the same |
//! | `ENABLE_STREAMING` | `progress.enabled` | the same |
//! | `ENABLE_METRICS` | `metrics.enabled` | the same |
//! | `CACHE_MAX_SIZE_MB` | `cache.capacity_bytes` | MiB |
//! | `CACHE_TTL_DEFAULT` | `cache.ttl_default_ms` | seconds, or with a unit: `500ms`, `30s`, `5m`, `1h`, `1d` |
//! | `RATE_LIMIT_WINDOW` | `rate_limit.window_ms` | seconds, or with a unit |
//! | `RATE_LIMIT_MAX_REQUESTS` | `rate_limit.requests_max` | number |
//! | `MEMORY_LIMIT` | `guard.memory_budget_bytes` | MiB, or with a unit: `450M`, `1G`, `471859200B` |
//! | `SLOW_QUERY_THRESHOLD` | `database.slow_query_ms` | milliseconds, or with a unit |
//!
//! On App Service [`Profile::from_env`](crate::Profile::from_env) also takes `connections.connections_max` from the platform's
//! `WEBSOCKET_CONCURRENT_REQUEST_LIMIT`, where that is a number above 0, or -1 for no limit.
//!
//! And a `KEEP_` name for every setting there is (the operators' token is `KEEP_ADMIN_TOKEN`): `cache.capacity_bytes` is `KEEP_CACHE_CAPACITY_BYTES`,
//! in the setting's own unit. A limit that one variable sets takes along what the profile had chosen for the
//! larger one (the cache's capacity for `MEMORY_LIMIT`, the largest body for `CACHE_MAX_SIZE_MB`). Lists of texts are separated by commas; rules and tables are JSON. Where both
//! names are set the `KEEP_` one counts. An empty variable counts as not set.

use std::ffi::OsString;

use serde_json::{Map, Value};

use crate::config::KeepConfig;
use crate::error::{ConfigError, Faults};

/// `config` with what `vars` say in its place. All variables are read before anything is reported.
pub(crate) fn overlay(
    config: &KeepConfig,
    var: &dyn Fn(&str) -> Option<String>,
    faults: &mut Faults,
) -> Result<KeepConfig, ConfigError> {
    let tree = config.to_value()?;
    let var = |name: &str| var(name).filter(|value| !value.is_empty());
    let mut over = Map::new();
    plain_names(&var, &mut over, faults);
    keep_names(&tree, &var, &mut over, faults);
    if over.is_empty() {
        return Ok(config.clone());
    }
    let said =
        |room: &str, field: &str| over.get(room).is_some_and(|room| room.get(field).is_some());
    let said_capacity = said("cache", "capacity_bytes");
    let said_body = said("cache", "body_bytes_max");
    let said_budget = said("guard", "memory_budget_bytes");
    let mut config = config.overlaid(Value::Object(over))?;
    // One variable alone must not fail for a number of the profile's that no longer fits beside it.
    if let Some(budget) = config.guard.memory_budget_bytes.filter(|_| said_budget)
        && !said_capacity
    {
        config.cache.capacity_bytes = config.cache.capacity_bytes.min(budget / 4);
    }
    if (said_capacity || said_budget) && !said_body {
        let fits = config.cache.capacity_bytes / 4;
        config.cache.body_bytes_max = config.cache.body_bytes_max.min(fits);
    }
    Ok(config)
}

/// A variable of the process. Bytes that are no text are shown as such, so that they fail where they are
/// read instead of counting as not set.
pub(crate) fn of_process(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// Notes variables that begin like a room's (`KEEP_CACHE_..`) and name none of its settings: a typing
/// error that would go unnoticed otherwise.
pub(crate) fn note_unknown(
    config: &KeepConfig,
    vars: impl Iterator<Item = (OsString, OsString)>,
    faults: &mut Faults,
) {
    let Ok(tree) = config.to_value() else { return };
    let rooms = || tree.as_object().into_iter().flatten();
    let begins = |room: &str| format!("KEEP_{}_", room.to_uppercase());
    for (name, value) in vars {
        let Some(name) = name.to_str() else { continue };
        let of_a_room = |(room, fields): &(&String, &Value)| {
            fields.is_object() && name.starts_with(&begins(room))
        };
        // The longest, should one room's name begin another's.
        let Some((room, fields)) = rooms().filter(of_a_room).max_by_key(|(room, _)| room.len())
        else {
            continue;
        };
        let known = |field: &String| name == format!("{}{}", begins(room), field.to_uppercase());
        let mut fields = fields
            .as_object()
            .into_iter()
            .flatten()
            .map(|(field, _)| field);
        if !fields.any(known) {
            let shown = if is_secret(room) {
                "(hidden)".into()
            } else {
                value.to_string_lossy()
            };
            faults.add(
                name,
                shown,
                format!("names no setting of the room `{room}`"),
            );
        }
    }
}

/// `redis.url` alone.
pub(crate) fn redis_url(var: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    ["REDIS_URL", "AZURE_REDIS_URL"]
        .into_iter()
        .find_map(|name| var(name).filter(|value| !value.is_empty()))
}

fn plain_names(
    var: &dyn Fn(&str) -> Option<String>,
    over: &mut Map<String, Value>,
    faults: &mut Faults,
) {
    if let Some(url) = redis_url(var) {
        set(over, "redis", "url", Value::String(url));
    }
    for (name, room, field, form) in PLAIN_NAMES {
        let Some(text) = var(name) else { continue };
        match (form.read)(&text) {
            Some(value) => set(over, room, field, value),
            None => faults.add(*name, &text, form.allowed),
        }
    }
}

/// How the text of a variable becomes a setting, and what to say when it does not.
#[derive(Clone, Copy)]
struct Form {
    read: fn(&str) -> Option<Value>,
    allowed: &'static str,
}

const SWITCH: Form = Form {
    read: read_bool,
    allowed: "must be true or false, 1 or 0, yes or no, on or off",
};
const TEXT: Form = Form {
    read: read_text,
    allowed: "must be a text",
};
const NUMBER: Form = Form {
    read: read_number,
    allowed: "must be a whole number of zero or more",
};
const FRACTION: Form = Form {
    read: read_fraction,
    allowed: "must be a number like 0.25",
};
const MIB: Form = Form {
    read: read_mib,
    allowed: "must be a number of MiB, or a size like 450M or 1G",
};
const SECONDS: Form = Form {
    read: read_seconds,
    allowed: TIME_ALLOWED,
};
const MILLIS: Form = Form {
    read: read_millis,
    allowed: TIME_ALLOWED,
};
const LIST: Form = Form {
    read: read_list,
    allowed: "must be a list: a,b or a JSON array",
};
const TABLE: Form = Form {
    read: read_table,
    allowed: "must be a JSON object",
};
const ANY: Form = Form {
    read: read_any,
    allowed: "",
};

const TIME_ALLOWED: &str = "must be a time of zero or more, like 500ms, 30s, 5m, 1h or 1d";

/// The variable, the room, the field, and the form.
const PLAIN_NAMES: &[(&str, &str, &str, Form)] = &[
    ("REDIS_USERNAME", "redis", "username", TEXT),
    ("REDIS_PASSWORD", "redis", "password", TEXT),
    ("REDIS_KEY_PREFIX", "redis", "key_prefix", TEXT),
    ("REDIS_MAX_CONNECTIONS", "redis", "max_connections", NUMBER),
    (
        "REDIS_COMMAND_TIMEOUT",
        "redis",
        "command_timeout_ms",
        MILLIS,
    ),
    ("ENABLE_RATE_LIMITING", "rate_limit", "enabled", SWITCH),
    ("ENABLE_REDIS_CACHING", "cache", "enabled", SWITCH),
    ("ENABLE_STREAMING", "progress", "enabled", SWITCH),
    ("ENABLE_METRICS", "metrics", "enabled", SWITCH),
    ("CACHE_MAX_SIZE_MB", "cache", "capacity_bytes", MIB),
    ("CACHE_TTL_DEFAULT", "cache", "ttl_default_ms", SECONDS),
    ("RATE_LIMIT_WINDOW", "rate_limit", "window_ms", SECONDS),
    (
        "RATE_LIMIT_MAX_REQUESTS",
        "rate_limit",
        "requests_max",
        NUMBER,
    ),
    ("MEMORY_LIMIT", "guard", "memory_budget_bytes", MIB),
    ("SLOW_QUERY_THRESHOLD", "database", "slow_query_ms", MILLIS),
];

/// `KEEP_<ROOM>_<FIELD>` for every field of every room, and `KEEP_<FIELD>` for those of none.
fn keep_names(
    tree: &Value,
    var: &dyn Fn(&str) -> Option<String>,
    over: &mut Map<String, Value>,
    faults: &mut Faults,
) {
    for (room, fields) in tree.as_object().into_iter().flatten() {
        let Some(fields) = fields.as_object() else {
            let name = format!("KEEP_{}", room.to_uppercase());
            if let Some(value) = keep_value(&name, fields, var, faults) {
                over.insert(room.clone(), value);
            }
            continue;
        };
        for (field, current) in fields {
            let name = format!("KEEP_{}_{}", room.to_uppercase(), field.to_uppercase());
            // Of these rooms the settings that may be absent are all texts, and a password may consist of digits.
            let text = Value::String(String::new());
            let current = if is_secret(room) && current.is_null() {
                &text
            } else {
                current
            };
            if let Some(value) = keep_value(&name, current, var, faults) {
                set(over, room, field, value);
            }
        }
    }
}

/// Whether a room has settings that nobody may read in a fault.
fn is_secret(room: &str) -> bool {
    matches!(room, "redis" | "admin")
}

/// Reads the variable `name` in the form that the setting has now.
fn keep_value(
    name: &str,
    current: &Value,
    var: &dyn Fn(&str) -> Option<String>,
    faults: &mut Faults,
) -> Option<Value> {
    let text = var(name)?;
    let form = match current {
        Value::Bool(_) => SWITCH,
        Value::Number(number) if number.is_f64() => FRACTION,
        Value::Number(_) => NUMBER,
        Value::Array(_) => LIST,
        Value::Object(_) => TABLE,
        Value::String(_) => TEXT,
        Value::Null => ANY,
    };
    let value = (form.read)(&text);
    if value.is_none() {
        // URLs, users, passwords and tokens are texts and cannot fail here, so nothing secret is said.
        faults.add(name, &text, form.allowed);
    }
    value
}

fn set(over: &mut Map<String, Value>, room: &str, field: &str, value: Value) {
    let fields = over
        .entry(room)
        .or_insert_with(|| Value::Object(Map::new()));
    if let Some(fields) = fields.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
}

fn read_bool(text: &str) -> Option<Value> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(Value::Bool(true)),
        "false" | "0" | "no" | "off" => Some(Value::Bool(false)),
        _ => None,
    }
}

fn read_text(text: &str) -> Option<Value> {
    Some(Value::String(text.to_owned()))
}

fn read_number(text: &str) -> Option<Value> {
    text.trim().parse::<u64>().ok().map(Value::from)
}

fn read_fraction(text: &str) -> Option<Value> {
    text.trim().parse::<f64>().ok().map(Value::from)
}

fn read_list(text: &str) -> Option<Value> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).ok();
    }
    let members = text
        .split(',')
        .map(str::trim)
        .filter(|member| !member.is_empty());
    Some(
        members
            .map(|member| Value::String(member.to_owned()))
            .collect(),
    )
}

fn read_table(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().filter(Value::is_object)
}

/// A setting that may be absent is a number or a table if it looks like one.
fn read_any(text: &str) -> Option<Value> {
    let number_or_table = read_number(text).or_else(|| read_table(text));
    number_or_table.or_else(|| read_text(text))
}

fn read_mib(text: &str) -> Option<Value> {
    let (number, unit) = split_unit(text);
    let shift = match unit
        .to_ascii_lowercase()
        .trim_end_matches("ib")
        .trim_end_matches('b')
    {
        "" if unit.eq_ignore_ascii_case("b") => 0,
        "k" => 10,
        "" | "m" => 20,
        "g" => 30,
        _ => return None,
    };
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(1 << shift)
        .map(Value::from)
}

fn read_seconds(text: &str) -> Option<Value> {
    read_time(text, 1_000)
}

fn read_millis(text: &str) -> Option<Value> {
    read_time(text, 1)
}

/// A time in milliseconds; a bare number counts in units of `bare` of them.
fn read_time(text: &str, bare: u64) -> Option<Value> {
    let (number, unit) = split_unit(text);
    let millis = match unit {
        "" => bare,
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(millis)
        .map(Value::from)
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|char: char| !char.is_ascii_digit())
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;
    use crate::rate_limit::{Mode, Rule};

    fn with(vars: &[(&str, &str)]) -> Result<KeepConfig, ConfigError> {
        let base = Profile::production().config().clone();
        let mut faults = Faults::new();
        let look = |name: &str| {
            vars.iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        };
        let config = overlay(&base, &look, &mut faults);
        faults.into_result()?;
        config
    }

    #[test]
    fn the_plain_names_reach_their_settings() {
        let config = with(&[
            ("REDIS_URL", ""),
            ("AZURE_REDIS_URL", "rediss://h:6380"),
            ("REDIS_USERNAME", "crm-user"),
            ("REDIS_PASSWORD", "12345"),
            ("REDIS_KEY_PREFIX", "crm"),
            ("REDIS_MAX_CONNECTIONS", "2"),
            ("REDIS_COMMAND_TIMEOUT", "50"),
            ("ENABLE_RATE_LIMITING", "off"),
            ("ENABLE_REDIS_CACHING", "0"),
            ("ENABLE_STREAMING", "No"),
            ("ENABLE_METRICS", "FALSE"),
            ("CACHE_MAX_SIZE_MB", "32"),
            ("CACHE_TTL_DEFAULT", "5m"),
            ("RATE_LIMIT_WINDOW", "60"),
            ("RATE_LIMIT_MAX_REQUESTS", "77"),
            ("MEMORY_LIMIT", "450M"),
            ("SLOW_QUERY_THRESHOLD", "250"),
        ])
        .unwrap();
        assert_eq!(config.redis.url.as_deref(), Some("rediss://h:6380"));
        assert_eq!(config.redis.username.as_deref(), Some("crm-user"));
        assert_eq!(config.redis.password.as_deref(), Some("12345"));
        assert_eq!(config.redis.key_prefix, "crm");
        assert_eq!(config.redis.max_connections, 2);
        assert_eq!(config.redis.command_timeout.as_millis(), 50);
        assert!(!config.rate_limit.enabled && !config.cache.enabled);
        assert!(!config.progress.enabled && !config.metrics.enabled);
        assert_eq!(config.cache.capacity_bytes, 32 << 20);
        assert_eq!(config.cache.ttl_default.as_secs(), 300);
        assert_eq!(config.rate_limit.window.as_secs(), 60);
        assert_eq!(config.rate_limit.requests_max, 77);
        assert_eq!(config.guard.memory_budget_bytes, Some(450 << 20));
        assert_eq!(config.database.slow_query.as_millis(), 250);
    }

    #[test]
    fn one_variable_alone_takes_along_what_no_longer_fits() {
        for (name, value) in [
            ("MEMORY_LIMIT", "450"),
            ("MEMORY_LIMIT", "64"),
            ("CACHE_MAX_SIZE_MB", "8"),
        ] {
            let config = with(&[(name, value)]).unwrap();
            let mut faults = Faults::new();
            config.check(&mut faults);
            faults.into_result().unwrap();
        }
        let config = with(&[
            ("CACHE_MAX_SIZE_MB", "8"),
            ("KEEP_CACHE_BODY_BYTES_MAX", "8388608"),
        ]);
        let mut faults = Faults::new();
        config.unwrap().check(&mut faults);
        assert!(
            !faults.is_empty(),
            "what both names say is a contradiction still"
        );
    }

    #[test]
    fn every_setting_has_a_keep_name_that_wins_over_the_plain_one() {
        let config = with(&[
            ("CACHE_MAX_SIZE_MB", "32"),
            ("KEEP_CACHE_CAPACITY_BYTES", "67108864"),
            ("KEEP_CACHE_CREDENTIAL_HEADERS", "cookie, x-token"),
            ("KEEP_ROUTES", "/a,/b/{id}"),
            ("KEEP_SHUTDOWN_MS", "2000"),
            ("KEEP_GUARD_MEMORY_BUDGET_BYTES", "1073741824"),
            ("KEEP_REDIS_URL", "redis://h"),
            ("KEEP_METRICS_NAMES", "open_telemetry"),
            ("KEEP_METRICS_TRACE_SAMPLE", "0.25"),
            (
                "KEEP_RATE_LIMIT_RULES",
                r#"[{"name":"login","route":"/login","quota":{"requests":5,"per_ms":60000}}]"#,
            ),
        ])
        .unwrap();
        assert_eq!(config.cache.capacity_bytes, 64 << 20);
        assert_eq!(config.cache.credential_headers, ["cookie", "x-token"]);
        assert_eq!(config.routes, ["/a", "/b/{id}"]);
        assert_eq!(config.shutdown.as_secs(), 2);
        assert_eq!(config.guard.memory_budget_bytes, Some(1 << 30));
        assert_eq!(config.redis.url.as_deref(), Some("redis://h"));
        assert_eq!(config.metrics.trace_sample, 0.25);
        let error = with(&[("KEEP_METRICS_TRACE_SAMPLE", "a third")]).unwrap_err();
        assert_eq!(error.faults()[0].value, "a third");
        assert_eq!(config.rate_limit.rules.len(), 1);
    }

    #[test]
    fn who_is_limited_and_how_is_said_in_variables_too() {
        let config = with(&[
            ("KEEP_RATE_LIMIT_KNOWN_TIERS", "free, pro"),
            ("KEEP_RATE_LIMIT_ADMIN_BYPASS", "yes"),
            ("KEEP_RATE_LIMIT_ALLOW", "10.0.0.0/8, caller:probe"),
            ("KEEP_RATE_LIMIT_DENY", r#"["tenant:acme, inc"]"#),
            ("KEEP_RATE_LIMIT_PENALTY", r#"{"strikes": 3}"#),
            ("KEEP_RATE_LIMIT_MODE", "leased"),
            ("KEEP_RATE_LIMIT_INSTANCES", "4"),
            ("KEEP_RATE_LIMIT_EXPOSE_HEADERS", "on"),
            (
                "KEEP_RATE_LIMIT_RULES",
                r#"[{"preset":"search","route":"/a"}]"#,
            ),
        ]);
        let limits = config.unwrap().rate_limit;
        assert_eq!(limits.known_tiers, ["free", "pro"]);
        assert!(limits.admin_bypass && limits.expose_headers);
        assert_eq!(limits.allow, ["10.0.0.0/8", "caller:probe"]);
        assert_eq!(limits.deny, ["tenant:acme, inc"]);
        assert_eq!(limits.penalty.map(|penalty| penalty.strikes), Some(3));
        assert_eq!((limits.mode, limits.instances), (Mode::Leased, Some(4)));
        assert_eq!(limits.rules, [Rule::search("/a")]);

        for (name, value) in [
            ("KEEP_RATE_LIMIT_PENALTY", "often"),
            ("KEEP_RATE_LIMIT_PENALTY", r#"{"strike": 3}"#),
            ("KEEP_RATE_LIMIT_MODE", "fast"),
            ("KEEP_RATE_LIMIT_INSTANCES", "many"),
        ] {
            let error = with(&[(name, value)]).unwrap_err();
            let field = error.faults()[0].field.to_uppercase().replace('.', "_");
            assert!(format!("KEEP_{field}").starts_with(name), "{error}");
        }
    }

    #[test]
    fn every_setting_of_redis_has_a_keep_name() {
        let config = with(&[
            ("REDIS_PASSWORD", "plain"),
            ("KEEP_REDIS_URL", "7"),
            ("KEEP_REDIS_USERNAME", "8"),
            ("KEEP_REDIS_PASSWORD", "123456"),
            ("KEEP_REDIS_CA_CERTIFICATE", "/etc/ca.pem"),
            ("KEEP_REDIS_KEY_PREFIX", "9"),
            ("KEEP_REDIS_CLIENT_NAME", "crm"),
            ("KEEP_REDIS_MAX_CONNECTIONS", "3"),
            ("KEEP_REDIS_COMMAND_TIMEOUT_MS", "60"),
            ("KEEP_REDIS_CONNECT_TIMEOUT_MS", "1000"),
            ("KEEP_REDIS_HEARTBEAT_MS", "250"),
            ("KEEP_REDIS_BULK_BYTES", "65536"),
            ("KEEP_REDIS_BULK_TIMEOUT_MS", "2000"),
        ]);
        let redis = config.unwrap().redis;
        let millis = std::time::Duration::from_millis;
        let expected = crate::store::RedisConfig {
            url: Some("7".to_owned()),
            username: Some("8".to_owned()),
            password: Some("123456".to_owned()),
            ca_certificate: Some("/etc/ca.pem".into()),
            key_prefix: "9".to_owned(),
            client_name: "crm".to_owned(),
            max_connections: 3,
            command_timeout: millis(60),
            connect_timeout: millis(1_000),
            heartbeat: millis(250),
            bulk_bytes: 65_536,
            bulk_timeout: millis(2_000),
        };
        assert_eq!(redis, expected);
    }

    #[test]
    fn what_redis_is_told_in_secret_shows_in_no_fault() {
        let error = with(&[
            ("REDIS_URL", "redis://:s3cr3t@h"),
            ("REDIS_PASSWORD", "s3cr3t"),
            ("KEEP_REDIS_PASSWORD", "s3cr3t"),
            ("KEEP_REDIS_USERNAME", "s3cr3t"),
            ("KEEP_REDIS_MAX_CONNECTIONS", "99999999999999999999"),
            ("KEEP_REDIS_HEARTBEAT_MS", "soon"),
        ]);
        let error = error.unwrap_err();
        assert_eq!(error.faults().len(), 2, "{error}");
        assert!(!error.to_string().contains("s3cr3t"), "{error}");

        let config = Profile::production().config().clone();
        let mut faults = Faults::new();
        let vars = ["KEEP_REDIS_PASWORD", "KEEP_REDIS_PASSWORD"];
        let vars = vars.into_iter().map(|name| (name.into(), "s3cr3t".into()));
        note_unknown(&config, vars, &mut faults);
        let error = faults.into_error();
        assert_eq!(error.faults().len(), 1);
        assert!(!error.to_string().contains("s3cr3t"), "{error}");
    }

    #[test]
    fn all_variables_that_do_not_parse_are_named_at_once() {
        let error = with(&[
            ("ENABLE_METRICS", "maybe"),
            ("CACHE_MAX_SIZE_MB", "-5"),
            ("RATE_LIMIT_WINDOW", "1 fortnight"),
            ("RATE_LIMIT_MAX_REQUESTS", "lots"),
            ("MEMORY_LIMIT", "1X"),
            ("KEEP_GUARD_SLOTS", "1.5"),
        ])
        .unwrap_err();
        let fields: Vec<&str> = error.faults().iter().map(|fault| &*fault.field).collect();
        assert_eq!(
            fields,
            [
                "ENABLE_METRICS",
                "CACHE_MAX_SIZE_MB",
                "RATE_LIMIT_WINDOW",
                "RATE_LIMIT_MAX_REQUESTS",
                "MEMORY_LIMIT",
                "KEEP_GUARD_SLOTS"
            ]
        );
        assert_eq!(error.faults()[1].value, "-5");
    }

    #[test]
    fn a_mistyped_name_of_a_rooms_setting_is_told() {
        let config = Profile::production().config().clone();
        let mut faults = Faults::new();
        let vars = [
            "KEEP_CACHE_CAPACTIY_BYTES",
            "KEEP_CACHE_CAPACITY_BYTES",
            "KEEP_ALIVE",
            "KEEP_PROFILE",
        ];
        let vars = vars.into_iter().map(|name| (name.into(), "7".into()));
        note_unknown(&config, vars, &mut faults);
        let error = faults.into_error();
        assert_eq!(error.faults().len(), 1);
        assert_eq!(error.faults()[0].field, "KEEP_CACHE_CAPACTIY_BYTES");
    }

    #[test]
    fn sizes_and_times_take_units() {
        for (text, bytes) in [
            ("1", 1_u64 << 20),
            ("1m", 1 << 20),
            ("1MiB", 1 << 20),
            ("2GB", 2 << 30),
            ("3k", 3 << 10),
            ("7B", 7),
        ] {
            assert_eq!(read_mib(text), Some(Value::from(bytes)), "{text}");
        }
        for text in [
            "",
            "m",
            "1.5",
            "-1",
            "1T",
            "99999999999999999999",
            "18446744073709551615",
        ] {
            assert_eq!(read_mib(text), None, "{text}");
        }
        for (text, millis) in [
            ("2", 2_000_u64),
            ("2ms", 2),
            ("2s", 2_000),
            ("2 m", 120_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(read_seconds(text), Some(Value::from(millis)), "{text}");
        }
    }
}
