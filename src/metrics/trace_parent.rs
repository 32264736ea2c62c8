//! The trace that a request belongs to (W3C Trace Context, `traceparent`).

use http::HeaderMap;
use http::header::HeaderName;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The field as it came, if it is as long as it should be: a copy for whoever may have to look at it closely later, when
/// the request is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceField([u8; 55]);

impl TraceField {
    /// Nothing where there is no such field. Costs a look-up then.
    #[inline]
    pub(crate) fn of(fields: &HeaderMap) -> Option<Self> {
        let mut values = fields.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::read(value.as_bytes()),
            // "If the vendor failed to parse traceparent": two of them say nothing that holds.
            _ => None,
        }
    }

    /// `00-<trace id>-<parent id>-<flags>`; later versions may append to it.
    #[inline]
    fn read(text: &[u8]) -> Option<Self> {
        let (known, rest) = text.split_first_chunk()?;
        let ends = match rest.first() {
            None => true,
            Some(b'-') => !known.starts_with(b"00"),
            Some(_) => false,
        };
        ends.then_some(Self(*known))
    }

    /// What it says; nothing if it is malformed.
    pub(crate) fn parse(self) -> Option<TraceParent> {
        let Self(known) = self;
        let version = hex(known.get(..2)?)?;
        let dashes = [2, 35, 52].map(|at| known.get(at) == Some(&b'-'));
        if dashes != [true; 3] || version == 0xff {
            return None;
        }
        let (trace_id, parent) = (hex(known.get(3..35)?)?, hex(known.get(36..52)?)?);
        let flags = hex(known.get(53..)?)?;
        (trace_id != 0 && parent != 0).then_some(TraceParent {
            trace_id,
            sampled: flags & 1 == 1,
        })
    }
}

/// What the caller says of its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent {
    /// 16 bytes, never zero.
    pub(crate) trace_id: u128,
    /// Whether the caller has recorded it.
    pub(crate) sampled: bool,
}

/// A number of at most 32 lower-case digits.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const ID: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;

    fn parse(text: &str) -> Option<TraceParent> {
        TraceField::read(text.as_bytes())?.parse()
    }

    #[test]
    fn the_trace_and_its_flag_are_read() {
        for (flags, sampled) in [("00", false), ("01", true), ("03", true), ("02", false)] {
            let text = format!("00-{ID:032x}-00f067aa0ba902b7-{flags}");
            let read = parse(&text);
            let expected = TraceParent {
                trace_id: ID,
                sampled,
            };
            assert_eq!(read, Some(expected));
        }
        let later = format!("01-{ID:032x}-00f067aa0ba902b7-01-more");
        assert!(parse(&later).is_some());
    }

    #[test]
    fn what_is_malformed_is_no_trace() {
        for text in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            "00-4bf92f3577b34da6a3ce929d0e0e473\u{e9}-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        let mut fields = HeaderMap::new();
        let text = format!("00-{ID:032x}-00f067aa0ba902b7-01");
        let value = HeaderValue::from_str(&text).unwrap();
        fields.append("traceparent", value.clone());
        assert!(TraceField::of(&fields).is_some());
        fields.append("traceparent", value);
        assert_eq!(TraceField::of(&fields), None, "two of them");
    }
}
