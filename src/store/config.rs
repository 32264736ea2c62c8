//! Where Redis is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Faults;

/// Which Redis the instances of a service share. Its URL may hold a password, so it shows up in no
/// error, log or `Debug` output.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// `redis://`, `rediss://`, `unix://`, `valkey://` or `valkeys://`. Without one everything stays in memory.
    pub url: Option<String>,
    /// What all keys begin with, so that services can share one Redis: 1 to 64 printable ASCII
    /// characters without spaces and braces. Empty stands for `keep`.
    pub key_prefix: String,
}

impl RedisConfig {
    /// Notes everything that cannot be right.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        if let Some(url) = &self.url {
            let scheme = url
                .split_once("://")
                .map(|(scheme, rest)| (scheme, !rest.is_empty()));
            let known = matches!(
                scheme,
                Some((
                    "redis" | "rediss" | "unix" | "redis+unix" | "valkey" | "valkeys",
                    true
                ))
            );
            if !known {
                faults.add(
                    format!("{room}.url"),
                    redacted(url),
                    "must begin with redis://, rediss://, unix://, valkey:// or valkeys://",
                );
            }
        }
        let odd = |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b'{' | b'}');
        if self.key_prefix.len() > 64 || self.key_prefix.bytes().any(odd) {
            let allowed = "must be at most 64 printable ASCII characters without spaces and braces";
            faults.add(
                format!("{room}.key_prefix"),
                format!("{:?}", self.key_prefix),
                allowed,
            );
        }
    }
}

/// A URL without what may be secret: its scheme, and nothing else.
fn redacted(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://(hidden)"),
        None => "(hidden)".to_owned(),
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("url", &self.url.as_deref().map(redacted))
            .field("key_prefix", &self.key_prefix)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(url: Option<&str>, prefix: &str) -> String {
        let config = RedisConfig {
            url: url.map(str::to_owned),
            key_prefix: prefix.to_owned(),
        };
        let mut faults = Faults::new();
        config.check("redis", &mut faults);
        faults
            .into_result()
            .map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn urls_of_known_schemes_and_plain_prefixes_pass() {
        for url in [
            "redis://h:6379/0",
            "rediss://:pw@h:6380",
            "unix:///run/redis.sock",
        ] {
            assert_eq!(faults(Some(url), "crm"), "");
        }
        assert_eq!(faults(None, ""), "");
    }

    #[test]
    fn a_password_never_shows() {
        let text = faults(Some("http://user:secret@h"), "");
        assert!(text.contains("redis.url = http://(hidden)"), "{text}");
        assert!(!faults(Some("secret"), "").contains("secret"));
        let url = Some("redis://:secret@h".to_owned());
        assert!(
            !format!(
                "{:?}",
                RedisConfig {
                    url,
                    ..RedisConfig::default()
                }
            )
            .contains("secret")
        );
    }

    #[test]
    fn prefixes_with_braces_or_spaces_are_refused() {
        for prefix in ["a b", "a{b}", "ä", &"x".repeat(65)] {
            assert!(
                faults(None, prefix).contains("redis.key_prefix"),
                "{prefix}"
            );
        }
    }
}
