//! What a computation is told of the key whose value is wanted.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

/// The key of a value that is to be computed: the parts that it was once asked for with, and whose it is. Cheap
/// to clone.
///
/// ```
/// # use tower_keep::warming::{KeyPartError, WarmKey};
/// // What was asked for as `(7, "weekly")`:
/// fn report(key: &WarmKey) -> Result<(u64, String), KeyPartError> {
///     Ok((key.part(0)?, key.part(1)?))
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WarmKey {
    tenant: Option<Arc<str>>,
    text: Arc<str>,
}

/// A key has not the part that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("part {nth} of the key `{key}` is not what it should be")]
pub struct KeyPartError {
    nth: usize,
    key: Arc<str>,
}

impl WarmKey {
    pub(crate) const fn new(tenant: Option<Arc<str>>, text: Arc<str>) -> Self {
        Self { tenant, text }
    }

    /// Whose value is wanted; `None` where it is the same for everybody.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// The text of the key: `7:weekly`, its parts encoded.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its parts, decoded.
    pub fn parts(&self) -> impl Iterator<Item = String> {
        let decoded = |part| percent_decode_str(part).decode_utf8_lossy().into_owned();
        self.text.split(':').map(decoded)
    }

    /// The part that stands at `nth`, from 0 on, as a number or whatever it is.
    ///
    /// # Errors
    ///
    /// Where there is no such part, or it is no `P`. Keys come from Redis as well, so do not count on it.
    pub fn part<P: FromStr>(&self, nth: usize) -> Result<P, KeyPartError> {
        let part = self.parts().nth(nth).and_then(|part| part.parse().ok());
        part.ok_or_else(|| KeyPartError {
            nth,
            key: Arc::clone(&self.text),
        })
    }
}

impl fmt::Display for WarmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiers::EntryKey;

    #[test]
    fn parts_come_out_as_they_went_in() {
        let text = (7, "a:b/ü%3A", "", true).key_text();
        let key = WarmKey::new(Some("acme".into()), text.into());
        assert_eq!(key.part(0), Ok(7_u64));
        assert_eq!(key.part::<String>(1).unwrap(), "a:b/ü%3A");
        assert_eq!(key.part::<String>(2).unwrap(), "");
        assert_eq!(key.part(3), Ok(true));
        assert_eq!(key.parts().count(), 4);
        assert_eq!(key.tenant(), Some("acme"));
        let error = key.part::<u8>(1).unwrap_err().to_string();
        assert!(error.starts_with("part 1 of the key `7:"), "{error}");
        assert!(key.part::<String>(4).is_err());
    }
}
