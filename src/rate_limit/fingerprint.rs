//! What a client says of itself in every request, in one of 256 classes.
//!
//! Fields that change from request to request (`Accept`, `Referer`, `Cookie`) would tell one page's requests
//! apart; these stay the same for as long as the browser is. A client can write whatever it likes into them:
//! with a class of its own for every text it would have as many quotas as texts, so the classes are few.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;

use foldhash::quality::FixedState;
use http::{HeaderMap, HeaderName, header};

/// The fields, in the order in which they are read.
const FIELDS: [HeaderName; 5] = [
    header::USER_AGENT,
    header::ACCEPT_LANGUAGE,
    header::ACCEPT_ENCODING,
    HeaderName::from_static("sec-ch-ua"),
    HeaderName::from_static("sec-ch-ua-platform"),
];

/// How much of each is read: more than browsers write, and little enough to cost nothing.
const FIELD_BYTES_MAX: usize = 256;

/// The class of a client, the same on all instances of one build. Another one for each address, so that
/// nobody is followed by it from one to the next.
pub(crate) fn fingerprint(client: IpAddr, headers: &HeaderMap) -> u8 {
    let mut hasher = FixedState::default().build_hasher();
    match client {
        IpAddr::V4(ip) => hasher.write_u32(ip.to_bits()),
        IpAddr::V6(ip) => hasher.write_u128(ip.to_bits()),
    }
    for field in &FIELDS {
        let text = headers.get(field).map(|value| {
            let text = value.as_bytes();
            text.get(..FIELD_BYTES_MAX).unwrap_or(text)
        });
        // One that is absent is another thing than an empty one.
        hasher.write_usize(text.map_or(usize::MAX, <[u8]>::len));
        hasher.write(text.unwrap_or_default());
    }
    let [class, ..] = hasher.finish().to_le_bytes();
    class
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http::HeaderValue;

    use super::*;

    fn class(fields: &[(&'static str, &str)]) -> u8 {
        let mut headers = HeaderMap::new();
        for (name, text) in fields {
            headers.append(*name, HeaderValue::from_str(text).unwrap());
        }
        fingerprint("203.0.113.7".parse().unwrap(), &headers)
    }

    #[test]
    fn only_what_stays_the_same_over_requests_matters() {
        let plain = [("user-agent", "Firefox/140"), ("accept-language", "de")];
        let same = class(&plain);
        let more = [("accept", "text/html"), ("cookie", "a=1"), ("referer", "/")];
        assert_eq!(class(&[&plain[..], &more].concat()), same);
        assert_eq!(class(&[plain[1], plain[0]]), same);
        // Other lines than the first, and what stands behind 256 bytes, are not read.
        assert_eq!(class(&[plain[0], plain[1], ("user-agent", "x")]), same);
        let long = "x".repeat(300);
        assert_eq!(
            class(&[("user-agent", &long)]),
            class(&[("user-agent", &long[..299])])
        );
    }

    /// Classes are few, so that one pair may share theirs; of five pairs at most one does.
    #[test]
    fn who_describes_itself_otherwise_is_told_apart() {
        let others = [
            class(&[]),
            class(&[("user-agent", "")]),
            class(&[("accept-language", "Firefox/140")]),
            class(&[("user-agent", "Firefox/140")]),
            class(&[("user-agent", "Firefox/14"), ("accept-language", "0")]),
            class(&[("user-agent", "Firefox/140"), ("sec-ch-ua", "a")]),
        ];
        assert!(BTreeSet::from(others).len() >= 5, "{others:?}");
    }

    #[test]
    fn the_classes_are_evenly_filled_and_differ_by_address() {
        let mut filled = [0_u32; 256];
        let mut moved = 0;
        for at in 0..25_600 {
            let mut headers = HeaderMap::new();
            let agent = HeaderValue::from_str(&format!("client {at}")).unwrap();
            headers.insert(header::USER_AGENT, agent);
            let here = fingerprint("203.0.113.7".parse().unwrap(), &headers);
            let there = fingerprint("2001:db8::".parse().unwrap(), &headers);
            filled[usize::from(here)] += 1;
            moved += u32::from(here != there);
        }
        // 100 are expected in each, give or take 10.
        assert!(filled.iter().all(|count| (50..150).contains(count)));
        assert!(moved > 25_000, "{moved}");
    }
}
