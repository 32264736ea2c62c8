//! Under which key an entry lies in Redis and in the cold store.

use std::fmt::Write;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::encoding::{Place, encoded};

/// The key of a typed cache's entry. One that is long, or nobody's business, is a hash.
pub(crate) fn place(
    prefix: &str,
    tenant: Option<&str>,
    (cache, text): (&str, &str),
    secret: bool,
) -> Arc<str> {
    // Neither a brace nor a slash comes through the encoding, nor does a `#`.
    let cache = encoded(cache, Place::Name);
    let plain = match tenant {
        Some(tenant) => format!("{}/{cache}:{text}", encoded(tenant, Place::Name)),
        None => format!("{cache}:{text}"),
    };
    if plain.len() > PLACE_MAX || secret {
        return hashed_place(prefix, &cache, &plain);
    }
    format!("{prefix}:v:{{{plain}}}").into()
}

/// The key of an entry whose identity may be anything.
pub(crate) fn hashed_place(prefix: &str, cache: &str, identity: &str) -> Arc<str> {
    let mut place = format!("{prefix}:v:{{{cache}:#");
    for byte in Sha256::digest(identity.as_bytes()).iter().take(16) {
        // Writing to a String does not fail.
        let _ = write!(place, "{byte:02x}");
    }
    place.push('}');
    place.into()
}

/// Longer keys are stored under their hash.
const PLACE_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_entries_share_a_place() {
        let place = |tenant, cache, text| place("keep", tenant, (cache, text), false);
        assert_eq!(
            &*place(None, "report", "7:weekly"),
            "keep:v:{report:7:weekly}"
        );
        assert_eq!(
            &*place(Some("a/b"), "report", "7"),
            "keep:v:{a%2Fb/report:7}"
        );
        assert_ne!(place(Some("a"), "b", "c"), place(None, "a/b", "c"));
        assert_ne!(place(None, "a:b", "c"), place(None, "a", "b:c"));
        let long = "x".repeat(10 << 10);
        let hashed = place(None, "report", &long);
        assert!(
            hashed.len() < 60 && hashed.starts_with("keep:v:{report:#"),
            "{hashed}"
        );
        assert_ne!(hashed, place(None, "report", &long[1..]));
    }

    #[test]
    fn a_secret_key_does_not_show() {
        let hashed = place("keep", Some("acme"), ("mail", "ada"), true);
        assert!(
            !hashed.contains("acme") && !hashed.contains("ada"),
            "{hashed}"
        );
    }
}
