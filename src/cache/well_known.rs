//! Values that nearly every service sends. Stored as constants they take up no memory, and copying them
//! for an answer touches no count that other threads touch as well.

use http::HeaderValue;

/// `value` as a constant, if it is one of those.
pub(crate) fn well_known(value: &HeaderValue) -> Option<HeaderValue> {
    let bytes = value.as_bytes();
    if value.is_sensitive() || bytes.len() > LONGEST {
        return None;
    }
    let from = LIST.partition_point(|known| known.len() < bytes.len());
    let mut alike = LIST
        .get(from..)?
        .iter()
        .take_while(|known| known.len() == bytes.len());
    alike.find(|known| known.as_bytes() == bytes).cloned()
}

macro_rules! values {
    ($($value:literal),* $(,)?) => {
        /// By length, so that a value is compared with those of its own length only.
        static LIST: [HeaderValue; [$($value),*].len()] = [$(HeaderValue::from_static($value)),*];
    };
}

values![
    "*",
    "0",
    "br",
    "en",
    "DENY",
    "gzip",
    "true",
    "zstd",
    "bytes",
    "Origin",
    "origin",
    "public",
    "nosniff",
    "no-cache",
    "text/css",
    "image/png",
    "max-age=0",
    "max-age=5",
    "text/html",
    "SAMEORIGIN",
    "font/woff2",
    "image/jpeg",
    "image/webp",
    "max-age=10",
    "max-age=30",
    "max-age=60",
    "max-age=300",
    "max-age=600",
    "no-referrer",
    "same-origin",
    "max-age=3600",
    "1; mode=block",
    "image/svg+xml",
    "max-age=86400",
    "Accept-Encoding",
    "accept-encoding",
    "application/xml",
    "text/javascript",
    "application/json",
    "public, max-age=60",
    "public, max-age=300",
    "public, max-age=3600",
    "public, max-age=86400",
    "application/javascript",
    "application/octet-stream",
    "application/problem+json",
    "text/html; charset=utf-8",
    "text/plain; charset=utf-8",
    "strict-origin-when-cross-origin",
    "max-age=31536000; includeSubDomains",
    "public, max-age=31536000, immutable",
];

const LONGEST: usize = 36;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_is_the_same_value() {
        assert!(LIST.is_sorted_by_key(HeaderValue::len));
        for known in &LIST {
            assert!(known.len() <= LONGEST, "{known:?}");
            let copy = HeaderValue::from_bytes(known.as_bytes()).unwrap();
            assert_eq!(well_known(&copy).as_ref(), Some(known));
        }
        let mut secret = HeaderValue::from_static("en");
        secret.set_sensitive(true);
        assert_eq!(well_known(&secret), None);
        assert_eq!(well_known(&HeaderValue::from_static("EN")), None);
    }
}
