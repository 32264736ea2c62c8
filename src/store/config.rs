//! Where Redis is, and how it is used.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Faults;
#[cfg(feature = "redis")]
use crate::store::{address::Target, tls, url};

/// Which Redis the instances of a service share, and how. User names and passwords, and so the URL, show
/// up in no error, log or `Debug` output.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// Where it is. Without a URL everything stays in memory. `valkey` may stand for `redis` everywhere,
    /// and `rediss` means TLS (feature `redis-tls`).
    ///
    /// | URL | leads to |
    /// |---|---|
    /// | `redis://[user:password@]host[:6379][/db]` | one server |
    /// | `unix:///run/redis.sock[?db=..&user=..&pass=..]` | one server's socket |
    /// | `redis-sentinel://[user:password@]s1[:26379],s2,../primary[/db]` | the primary that these Sentinels name; their own login is `?sentinel_username=..&sentinel_password=..` |
    /// | `redis-cluster://[user:password@]n1[:6379],n2,..` | the cluster that these nodes belong to |
    ///
    /// In user names and passwords `/`, `?` and `#` are written `%2F`, `%3F` and `%23`.
    pub url: Option<String>,
    /// Who one is there, in place of the user in the URL.
    pub username: Option<String>,
    /// The password, in place of the one in the URL, so that the URL can be without secrets. Here it is
    /// written as it is, without percent signs.
    pub password: Option<String>,
    /// A file of certificates (PEM) that a server's must descend from, in place of the built-in roots.
    pub ca_certificate: Option<PathBuf>,
    /// What all keys begin with, so that services can share one Redis: 1 to 64 printable ASCII
    /// characters without spaces and braces. Empty stands for `keep`.
    pub key_prefix: String,
    /// What the connections are called in `CLIENT LIST`: 1 to 64 printable ASCII characters without spaces.
    pub client_name: String,
    /// The most connections at any time: 1 to 64, in a cluster for each of its nodes. One carries the
    /// commands; the others are the reserve, opened for large values and to take over from the first when it makes
    /// no progress.
    pub max_connections: usize,
    /// The longest that a command may wait for its answer: 1 ms to 1 min. Beyond it memory answers.
    #[serde(rename = "command_timeout_ms", with = "crate::config_time::millis")]
    pub command_timeout: Duration,
    /// The longest that one attempt to connect may take, with TLS and login: 10 ms to 5 min. No request
    /// waits for it.
    #[serde(rename = "connect_timeout_ms", with = "crate::config_time::millis")]
    pub connect_timeout: Duration,
    /// How often an idle connection is asked whether it still works: 10 ms to 5 min. Azure closes
    /// connections that are idle for 10 min.
    #[serde(rename = "heartbeat_ms", with = "crate::config_time::millis")]
    pub heartbeat: Duration,
    /// Requests of at least so many bytes, and those whose replies are announced to be, travel on a
    /// connection of the reserve, so that small ones do not wait behind them: 1 KiB to 512 MiB.
    pub bulk_bytes: u64,
    /// The `command_timeout` of those: 1 ms to 5 min.
    #[serde(rename = "bulk_timeout_ms", with = "crate::config_time::millis")]
    pub bulk_timeout: Duration,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: None,
            username: None,
            password: None,
            ca_certificate: None,
            key_prefix: String::new(),
            client_name: "tower-keep".to_owned(),
            // Three large values may be on their way at once beside the commands.
            max_connections: 4,
            // A Redis nearby answers in 1 ms; a hundred times that is an outage, not a delay.
            command_timeout: Duration::from_millis(100),
            // Time for a name server that is asked twice, and for a TLS handshake with a busy server.
            connect_timeout: Duration::from_secs(5),
            heartbeat: Duration::from_millis(500),
            // A reply of this size holds up those behind it for 0.6 ms on loopback.
            bulk_bytes: 256 << 10,
            bulk_timeout: Duration::from_secs(1),
        }
    }
}

impl RedisConfig {
    /// Notes everything that cannot be right.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        self.check_place(room, faults);
        let field = |name: &str| format!("{room}.{name}");
        let odd = |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b'{' | b'}');
        if self.key_prefix.len() > 64 || self.key_prefix.bytes().any(odd) {
            let allowed = "must be at most 64 printable ASCII characters without spaces and braces";
            let value = format!("{:?}", self.key_prefix);
            faults.add(field("key_prefix"), value, allowed);
        }
        let plain = self.client_name.bytes().all(|byte| byte.is_ascii_graphic());
        if !plain || !(1..=64).contains(&self.client_name.len()) {
            let allowed = "must be 1 to 64 printable ASCII characters without spaces";
            let value = format!("{:?}", self.client_name);
            faults.add(field("client_name"), value, allowed);
        }
        let connections = self.max_connections;
        faults.within(field("max_connections"), connections, 1..=64, "connections");
        let bulk = self.bulk_bytes;
        faults.within(field("bulk_bytes"), bulk, 1 << 10..=512 << 20, "bytes");
        let millis = Duration::from_millis;
        for (name, time, least, most) in [
            ("command_timeout_ms", self.command_timeout, 1, 60_000),
            ("connect_timeout_ms", self.connect_timeout, 10, 300_000),
            ("heartbeat_ms", self.heartbeat, 10, 300_000),
            ("bulk_timeout_ms", self.bulk_timeout, 1, 300_000),
        ] {
            faults.within_time(field(name), time, millis(least)..=millis(most));
        }
    }

    /// What all keys begin with.
    #[cfg(feature = "redis")]
    pub(crate) fn prefix(&self) -> &str {
        if self.key_prefix.is_empty() {
            "keep"
        } else {
            &self.key_prefix
        }
    }

    /// Where the URL leads, with the login from beside it; or nothing, and what is wrong is noted.
    #[cfg(feature = "redis")]
    pub(crate) fn target(&self, room: &str, faults: &mut Faults) -> Option<Target> {
        let given = self.url.as_deref()?;
        let mut target = match url::read(given) {
            Ok(target) => target,
            Err(words) => {
                faults.add(format!("{room}.url"), redacted(given), words);
                return None;
            }
        };
        let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let login = &mut target.login;
        login.username = said(&self.username).or_else(|| login.username.take());
        login.password = said(&self.password).or_else(|| login.password.take());
        if login.username.is_some() && login.password.is_none() {
            // Redis has no login without a password, so this would silently be nobody's.
            let allowed =
                "is a user name without a password (a password alone is redis://:password@host)";
            faults.add(format!("{room}.username"), "(hidden)", allowed);
            return None;
        }
        if target.uses_tls() && !cfg!(feature = "redis-tls") {
            faults.add(format!("{room}.url"), redacted(given), tls::NEEDS_FEATURE);
            return None;
        }
        if let Some(path) = self.ca_certificate.as_ref().filter(|_| !target.uses_tls()) {
            let allowed = "is for encrypted connections: the URL must begin with rediss or valkeys";
            let field = format!("{room}.ca_certificate");
            faults.add(field, path.display(), allowed);
            return None;
        }
        Some(target)
    }

    #[cfg(feature = "redis")]
    fn check_place(&self, room: &str, faults: &mut Faults) {
        let _ = self.target(room, faults);
    }

    #[cfg(not(feature = "redis"))]
    fn check_place(&self, room: &str, faults: &mut Faults) {
        if let Some(url) = &self.url {
            let allowed = "needs the feature `redis`";
            faults.add(format!("{room}.url"), redacted(url), allowed);
        }
    }
}

/// A URL without what may be secret: its scheme, and nothing else.
fn redacted(given: &str) -> String {
    #[cfg(feature = "redis")]
    if let Some(scheme) = url::scheme(given) {
        return format!("{scheme}://(hidden)");
    }
    let _ = given;
    "(hidden)".to_owned()
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Taken apart, so that a new field has to say here whether it may be shown.
        let Self {
            url,
            username,
            password,
            ca_certificate,
            key_prefix,
            client_name,
            max_connections,
            command_timeout,
            connect_timeout,
            heartbeat,
            bulk_bytes,
            bulk_timeout,
        } = self;
        f.debug_struct("RedisConfig")
            .field("url", &url.as_deref().map(redacted))
            .field("username", &username.as_ref().map(|_| "(hidden)"))
            .field("password", &password.as_ref().map(|_| "(hidden)"))
            .field("ca_certificate", ca_certificate)
            .field("key_prefix", key_prefix)
            .field("client_name", client_name)
            .field("max_connections", max_connections)
            .field("command_timeout", command_timeout)
            .field("connect_timeout", connect_timeout)
            .field("heartbeat", heartbeat)
            .field("bulk_bytes", bulk_bytes)
            .field("bulk_timeout", bulk_timeout)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(config: &RedisConfig) -> Vec<String> {
        let mut faults = Faults::new();
        config.check("redis", &mut faults);
        let error = faults.into_error();
        error.faults().iter().map(ToString::to_string).collect()
    }

    fn at(url: &str) -> RedisConfig {
        RedisConfig {
            url: Some(url.to_owned()),
            ..RedisConfig::default()
        }
    }

    #[test]
    fn nothing_is_wrong_with_the_defaults() {
        assert_eq!(faults_of(&RedisConfig::default()), Vec::<String>::new());
    }

    #[test]
    fn every_setting_has_its_range() {
        let default = RedisConfig::default;
        let millis = Duration::from_millis;
        for (config, field) in [
            (
                RedisConfig {
                    max_connections: 0,
                    ..default()
                },
                "redis.max_connections = 0: must be 1 to 64 connections",
            ),
            (
                RedisConfig {
                    max_connections: 65,
                    ..default()
                },
                "redis.max_connections = 65",
            ),
            (
                RedisConfig {
                    command_timeout: Duration::ZERO,
                    ..default()
                },
                "redis.command_timeout_ms = 0ns: must be 1ms to 60s",
            ),
            (
                RedisConfig {
                    connect_timeout: millis(9),
                    ..default()
                },
                "redis.connect_timeout_ms",
            ),
            (
                RedisConfig {
                    heartbeat: millis(300_001),
                    ..default()
                },
                "redis.heartbeat_ms",
            ),
            (
                RedisConfig {
                    bulk_bytes: 0,
                    ..default()
                },
                "redis.bulk_bytes = 0: must be 1024 to 536870912 bytes",
            ),
            (
                RedisConfig {
                    bulk_timeout: Duration::ZERO,
                    ..default()
                },
                "redis.bulk_timeout_ms",
            ),
        ] {
            let faults = faults_of(&config);
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].starts_with(field), "{faults:?}");
        }
    }

    #[test]
    fn names_that_redis_would_take_apart_are_refused() {
        for prefix in ["a b", "a{b}", "ä", &"x".repeat(65)] {
            let key_prefix = prefix.to_owned();
            let faults = faults_of(&RedisConfig {
                key_prefix,
                ..RedisConfig::default()
            });
            assert!(faults[0].starts_with("redis.key_prefix"), "{faults:?}");
        }
        for name in ["", "a b", "a\n", "ä", &"x".repeat(65)] {
            let client_name = name.to_owned();
            let faults = faults_of(&RedisConfig {
                client_name,
                ..RedisConfig::default()
            });
            assert!(faults[0].starts_with("redis.client_name"), "{faults:?}");
        }
    }

    #[test]
    fn a_password_never_shows() {
        for url in [
            "http://user:secret@h",
            "secret",
            "redis://h/secret",
            "secret://h",
        ] {
            let config = RedisConfig {
                username: Some("secret-user".to_owned()),
                password: Some("secret".to_owned()),
                ..at(url)
            };
            let faults = faults_of(&config);
            assert!(faults[0].starts_with("redis.url = "), "{faults:?}");
            let shown = format!("{faults:?} {config:?}");
            assert!(!shown.contains("secret"), "{shown}");
        }
    }

    #[cfg(feature = "redis")]
    mod place {
        use super::*;

        #[test]
        fn urls_of_all_forms_pass() {
            for url in [
                "redis://h:6379/0",
                "unix:///run/redis.sock",
                "valkey-sentinel://s1,s2/primary",
                "redis-cluster://n1,n2:7000",
            ] {
                assert_eq!(faults_of(&at(url)), Vec::<String>::new(), "{url}");
            }
        }

        #[test]
        fn what_is_wrong_with_a_url_is_told_with_its_scheme_alone() {
            let faults = faults_of(&at("redis://:secret@h:0"));
            let told = "redis.url = redis://(hidden): must have a port of 1 to 65535, or none";
            assert_eq!(faults, [told]);
        }

        #[test]
        fn a_login_beside_the_url_takes_the_place_of_the_one_in_it() {
            let login = |config: &RedisConfig| {
                let target = config.target("redis", &mut Faults::new()).unwrap();
                (target.login.username, target.login.password)
            };
            let some = |text: &str| Some(text.to_owned());
            let mut config = at("redis://u:p@h");
            assert_eq!(login(&config), (some("u"), some("p")));
            config.password = some("of/its?own");
            assert_eq!(login(&config), (some("u"), some("of/its?own")));
            config.username = some("other");
            assert_eq!(login(&config), (some("other"), some("of/its?own")));
            config.password = some("");
            assert_eq!(login(&config).1, some("p"), "empty says nothing");
        }

        #[test]
        fn a_user_without_a_password_is_nobody() {
            for (url, username) in [("redis://u@h", None), ("redis://h", Some("u".to_owned()))] {
                let faults = faults_of(&RedisConfig {
                    username,
                    ..at(url)
                });
                assert!(
                    faults[0].starts_with("redis.username = (hidden)"),
                    "{faults:?}"
                );
            }
        }

        #[test]
        fn certificates_are_for_encrypted_connections() {
            let ca_certificate = Some("/etc/ca.pem".into());
            let faults = faults_of(&RedisConfig {
                ca_certificate,
                ..at("redis://h")
            });
            assert!(
                faults[0].starts_with("redis.ca_certificate = /etc/ca.pem"),
                "{faults:?}"
            );
        }
    }
}
