//! What may be asked for: a lock's name, and how long it is held and waited for.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Fault;
use crate::lock::error::LockError;

/// The name of a lock, which is fit for being one.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Name(Arc<str>);

impl Name {
    /// Refuses what is empty, too long, or would tear the lines of a log apart.
    pub(crate) fn new(key: &str) -> Result<Self, LockError> {
        let bytes = key.len();
        if !(1..=KEY_BYTES_MAX).contains(&bytes) {
            let allowed = format!("must have 1 to {KEY_BYTES_MAX} bytes, this one has {bytes}");
            return Err(invalid("key", shown(key), allowed));
        }
        if key.chars().any(char::is_control) {
            let allowed = "must not contain control characters".to_owned();
            return Err(invalid("key", shown(key), allowed));
        }
        Ok(Self(key.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// For how long a lock is held, in whole milliseconds, because Redis counts in them.
pub(crate) fn checked_ttl(ttl: Duration) -> Result<Duration, LockError> {
    within("ttl", ttl, &TTL)?;
    let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    Ok(Duration::from_millis(millis))
}

/// For how long a lock is waited for.
pub(crate) fn checked_wait(wait: Duration) -> Result<Duration, LockError> {
    within("wait", wait, &WAIT)?;
    Ok(wait)
}

fn within(field: &str, value: Duration, range: &RangeInclusive<Duration>) -> Result<(), LockError> {
    if range.contains(&value) {
        return Ok(());
    }
    let allowed = format!("must be {:?} to {:?}", range.start(), range.end());
    Err(invalid(field, format!("{value:?}"), allowed))
}

fn invalid(field: &str, value: String, allowed: String) -> LockError {
    let field = field.to_owned();
    LockError::Invalid(Fault {
        field,
        value,
        allowed,
    })
}

/// A key as it may stand in an error: escaped, and its beginning only.
fn shown(key: &str) -> String {
    let mut begin: String = key.chars().take(SHOWN_MAX).collect();
    if begin.len() < key.len() {
        begin.push('…');
    }
    format!("{begin:?}")
}

/// As long as names of files and of most other things that somebody might want to lock are at most.
const KEY_BYTES_MAX: usize = 512;
/// How many characters of a bad key its error shows.
const SHOWN_MAX: usize = 64;

/// Below lies what a round trip to a busy server may take; above, what somebody should watch over.
const TTL: RangeInclusive<Duration> = Duration::from_millis(100)..=DAY;
const WAIT: RangeInclusive<Duration> = Duration::ZERO..=DAY;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    fn fault<T: fmt::Debug>(checked: Result<T, LockError>) -> String {
        checked.unwrap_err().to_string()
    }

    #[test]
    fn a_key_has_1_to_512_bytes_and_no_control_characters() {
        for fit in ["a", "import:2026-01", "Ä{}%/ 1", &"k".repeat(512)] {
            assert_eq!(Name::new(fit).unwrap().as_str(), fit);
        }
        let empty = fault(Name::new(""));
        assert!(
            empty.contains(r#"key = "": must have 1 to 512 bytes"#),
            "{empty}"
        );
        let long = fault(Name::new(&"ä".repeat(257)));
        assert!(
            long.contains("key = \"ää") && long.contains("has 514"),
            "{long}"
        );
        assert!(long.len() < 300, "the error is as long as the key");
        for control in ["a\nb", "\0", "a\u{7f}", "\u{85}"] {
            let error = fault(Name::new(control));
            assert!(error.contains("control characters"), "{error}");
            assert!(!error.chars().any(char::is_control), "{error:?}");
        }
    }

    #[test]
    fn times_have_bounds_and_errors_name_them() {
        for fit in [Duration::from_millis(100), DAY] {
            assert_eq!(checked_ttl(fit).unwrap(), fit);
        }
        let whole = checked_ttl(Duration::from_micros(100_900)).unwrap();
        assert_eq!(whole, Duration::from_millis(100));
        let short = fault(checked_ttl(Duration::from_millis(99)));
        assert!(
            short.contains("ttl = 99ms: must be 100ms to 86400s"),
            "{short}"
        );
        fault(checked_ttl(DAY + Duration::from_nanos(1)));
        assert_eq!(checked_wait(Duration::ZERO).unwrap(), Duration::ZERO);
        let long = fault(checked_wait(Duration::MAX));
        assert!(long.contains("wait = "), "{long}");
    }
}
