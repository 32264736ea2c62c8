//! What proxies wrote about where a request came from: the hops, nearest first.
//!
//! Each proxy adds at the right end, so whatever stands further left was claimed by somebody further
//! away. Everything here therefore reads from the right: what a client has put on the left cannot
//! change how the part that our own proxies wrote is understood, not even with an open quote.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, header::FORWARDED};
use serde::{Deserialize, Serialize};

/// The field in which the trusted proxies write the client's address.
///
/// One of the two, not whichever is there: a proxy that writes one passes the other on as the client
/// sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyHeader {
    /// `X-Forwarded-For`, by far the most common.
    #[default]
    XForwardedFor,
    /// `Forwarded` and its `for` parameter (RFC 7239).
    Forwarded,
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl ProxyHeader {
    /// The field's name.
    #[must_use]
    pub const fn name(self) -> HeaderName {
        match self {
            Self::XForwardedFor => X_FORWARDED_FOR,
            Self::Forwarded => FORWARDED,
        }
    }
}

/// The hops of all lines of `header` joined, the nearest first; `None` for one that is no address.
pub(crate) fn hops(
    headers: &HeaderMap,
    header: ProxyHeader,
) -> impl Iterator<Item = Option<IpAddr>> + '_ {
    let quotes = header == ProxyHeader::Forwarded;
    headers
        .get_all(header.name())
        .into_iter()
        .rev()
        .flat_map(move |line| FromRight::of(line.as_bytes(), b',', quotes))
        // RFC 9110 §5.6.1.2: "A recipient MUST parse and ignore a reasonable number of empty list
        // elements".
        .filter(|element| !element.is_empty())
        .map(move |element| match header {
            ProxyHeader::XForwardedFor => std::str::from_utf8(element).ok().and_then(node_ip),
            ProxyHeader::Forwarded => forwarded_for(element),
        })
}

/// The address in one element of `Forwarded`.
///
/// RFC 7239 §4: "Each parameter MUST NOT occur more than once per field-value", so two `for` are
/// none. §6: `unknown` and obfuscated identifiers are no addresses either.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    for pair in FromRight::of(element, b';', true) {
        let text = std::str::from_utf8(pair).ok()?;
        let Some((name, value)) = text.split_once('=') else {
            continue;
        };
        if name.trim_end().eq_ignore_ascii_case("for") && found.replace(value.trim()).is_some() {
            return None;
        }
    }
    let node = found?;
    match node.strip_prefix('"') {
        Some(open) => node_ip(open.strip_suffix('"')?),
        None => node_ip(node),
    }
}

/// The address of a node: bare, with a port, or in brackets with or without one.
fn node_ip(text: &str) -> Option<IpAddr> {
    if let Some(open) = text.strip_prefix('[') {
        let (address, port) = open.split_once(']')?;
        if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
            return None;
        }
        return Some(IpAddr::V6(address.parse().ok()?).to_canonical());
    }
    if let Ok(bare) = text.parse::<IpAddr>() {
        return Some(bare.to_canonical());
    }
    let (address, port) = text.split_once(':')?;
    is_port(port).then_some(())?;
    Some(IpAddr::V4(address.parse().ok()?))
}

/// RFC 7239 §6: `port = 1*5DIGIT`, `obfport = "_" 1*(ALPHA / DIGIT / "." / "_" / "-")`.
fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(hidden) => {
            !hidden.is_empty()
                && hidden
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        }
        None => (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// The parts of a field's line between separators, the rightmost first, without outer blanks.
struct FromRight<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
    /// Whether separators inside quoted strings are part of the text.
    quotes: bool,
}

impl<'a> FromRight<'a> {
    const fn of(line: &'a [u8], separator: u8, quotes: bool) -> Self {
        Self {
            rest: Some(line),
            separator,
            quotes,
        }
    }

    /// Where the rightmost part begins; just behind a separator, or at 0.
    ///
    /// A quote where no string can begin or end spoils everything left of it: with the next one taken for
    /// its other half, what a client has put between quotes would be read as if it stood outside.
    fn begin(&self, line: &[u8]) -> usize {
        let mut quoted = false;
        for (at, &byte) in line.iter().enumerate().rev() {
            if byte == self.separator && !quoted {
                return at + 1;
            }
            if self.quotes && byte == b'"' && !escaped(line, at) {
                let fits = if quoted {
                    opens(line, at)
                } else {
                    closes(line, at)
                };
                if !fits {
                    return 0;
                }
                quoted = !quoted;
            }
        }
        0
    }
}

/// Whether a string may begin at `at`. RFC 7239 §4: `forwarded-pair = token "=" value`.
fn opens(line: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| line.get(before));
    before == Some(&b'=')
}

/// Whether a string may end at `at`: behind it only a separator may follow.
fn closes(line: &[u8], at: usize) -> bool {
    let behind = line.get(at + 1..).unwrap_or_default();
    let next = behind.iter().find(|byte| !matches!(byte, b' ' | b'\t'));
    next.is_none_or(|byte| matches!(byte, b',' | b';'))
}

/// Whether an odd number of backslashes stands before `at`.
fn escaped(line: &[u8], at: usize) -> bool {
    let before = line.get(..at).unwrap_or_default();
    let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\');
    backslashes.count() % 2 == 1
}

impl<'a> Iterator for FromRight<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.rest.take()?;
        let begin = self.begin(line);
        if let Some(separator) = begin.checked_sub(1) {
            self.rest = line.get(..separator);
        }
        line.get(begin..).map(<[u8]>::trim_ascii)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(header: ProxyHeader, lines: &[&[u8]]) -> Vec<Option<String>> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header.name(), http::HeaderValue::from_bytes(line).unwrap());
        }
        hops(&headers, header)
            .map(|hop| hop.map(|ip| ip.to_string()))
            .collect()
    }

    #[test]
    fn every_way_to_write_a_node_gives_its_address() {
        for (text, ip) in [
            ("203.0.113.7", Some("203.0.113.7")),
            ("203.0.113.7:51234", Some("203.0.113.7")),
            ("203.0.113.7:_hidden", Some("203.0.113.7")),
            ("2001:db8::7", Some("2001:db8::7")),
            ("[2001:db8::7]", Some("2001:db8::7")),
            ("[2001:db8::7]:443", Some("2001:db8::7")),
            ("::ffff:203.0.113.7", Some("203.0.113.7")),
            ("[::ffff:203.0.113.7]:443", Some("203.0.113.7")),
            ("", None),
            ("unknown", None),
            ("_obfuscated", None),
            ("203.0.113.7:", None),
            ("203.0.113.7:port", None),
            ("203.0.113.7:123456", None),
            ("203.0.113.7:_", None),
            ("203.0.113.007", None),
            ("203.0.113", None),
            ("[203.0.113.7]:80", None),
            ("[2001:db8::7", None),
            ("[2001:db8::7]443", None),
            ("[2001:db8::7]:", None),
            ("fe80::1%eth0", None),
            ("203.0.113.7 1", None),
        ] {
            assert_eq!(node_ip(text), ip.map(|ip| ip.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn hops_come_nearest_first_over_all_lines() {
        let read = read(
            ProxyHeader::XForwardedFor,
            &[b"1.1.1.1, 2.2.2.2:80", b" ,3.3.3.3,\t[2001:db8::7]:443 ,"],
        );
        let read: Vec<_> = read.iter().map(Option::as_deref).collect();
        assert_eq!(
            read,
            [
                Some("2001:db8::7"),
                Some("3.3.3.3"),
                Some("2.2.2.2"),
                Some("1.1.1.1")
            ]
        );
    }

    #[test]
    fn bytes_that_are_no_text_spoil_only_their_own_hop() {
        let read = read(ProxyHeader::XForwardedFor, &[b"\xff\xfe, 3.3.3.3"]);
        assert_eq!(read, [Some("3.3.3.3".to_owned()), None]);
    }

    #[test]
    fn the_forwarded_field_is_read_by_rfc_7239() {
        for (line, nearest) in [
            ("for=192.0.2.43", Some("192.0.2.43")),
            (
                "For=\"[2001:db8:cafe::17]:4711\"",
                Some("2001:db8:cafe::17"),
            ),
            (
                "for=1.1.1.1, for=192.0.2.60;proto=http;by=203.0.113.43",
                Some("192.0.2.60"),
            ),
            (
                "proto=https ; for=\"192.0.2.43:_gateway\"",
                Some("192.0.2.43"),
            ),
            (
                "for=192.0.2.43;host=\"a;for=1.1.1.1,b\"",
                Some("192.0.2.43"),
            ),
            (
                "for=192.0.2.43;ext=\"say \\\"hi, you\\\"\"",
                Some("192.0.2.43"),
            ),
            // A client's open quote does not swallow what the proxy has added.
            ("for=\"1.1.1.1, for=192.0.2.43", Some("192.0.2.43")),
            ("for=\", for=\"[2001:db8::7]:443\"", Some("2001:db8::7")),
            ("for=unknown", None),
            ("for=_secret", None),
            ("by=203.0.113.43", None),
            ("for=1.1.1.1;for=2.2.2.2", None),
            ("for=\"1.1.1.1", None),
            // What stands inside of a string is no hop, whatever broken quote comes behind it.
            (
                "host=\"a, for=1.1.1.1;\\\"\";for=\"10.0.0.1\", for=x\"g",
                None,
            ),
            (
                "host=\"a, for=1.1.1.1;\\\"\";for=\"10.0.0.1\", for=x\";g",
                None,
            ),
            ("for=\"192.0.2.43\"x", None),
            ("for=\"192.0.2.43\" ; by=x", Some("192.0.2.43")),
        ] {
            let first = read(ProxyHeader::Forwarded, &[line.as_bytes()]).remove(0);
            assert_eq!(first.as_deref(), nearest, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_or_hide_what_the_proxy_added(
            hostile in proptest::collection::vec(
                prop_oneof![Just(b'"'), Just(b','), Just(b';'), Just(b'\\'), Just(b'='), 0x20u8..=0xff],
                0..80,
            ),
        ) {
            let hostile: Vec<u8> = hostile.into_iter().filter(|byte| *byte != 0x7f).collect();
            for (header, added) in [
                (ProxyHeader::XForwardedFor, &b", 203.0.113.7:51234"[..]),
                (ProxyHeader::Forwarded, &b", for=\"203.0.113.7:51234\";proto=https"[..]),
            ] {
                let line = [&hostile, added].concat();
                let read = read(header, &[&line]);
                prop_assert_eq!(read[0].as_deref(), Some("203.0.113.7"));
            }
        }
    }
}
