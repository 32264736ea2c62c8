//! The id of an event: a Redis stream id, which is also the SSE id and the `Last-Event-ID`.

use std::fmt;
use std::str::FromStr;

/// Where an event stands in its stream: `<milliseconds since 1970>-<number within them>`.
///
/// Ids of one stream only ever grow, even if the wall clock is set back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub ms: u64,
    /// The how-manieth of its millisecond, from 0.
    pub n: u64,
}

/// The text is no event id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event id has the form <milliseconds>-<number>")]
pub struct NotAnId;

impl EventId {
    /// The id before all others.
    pub(crate) const ZERO: Self = Self { ms: 0, n: 0 };

    /// The id of the event that follows this one and happens at `ms`.
    pub(crate) const fn next(self, ms: u64) -> Self {
        if ms > self.ms {
            return Self { ms, n: 0 };
        }
        match self.n.checked_add(1) {
            Some(n) => Self { ms: self.ms, n },
            None => Self {
                ms: self.ms.saturating_add(1),
                n: 0,
            },
        }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.n)
    }
}

impl FromStr for EventId {
    type Err = NotAnId;

    /// Reads what [`Display`](fmt::Display) writes, and nothing else: no sign, no blank, no half.
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let (ms, n) = text.split_once('-').ok_or(NotAnId)?;
        let number = |digits: &str| {
            // `u64::from_str` would take a leading `+`.
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<u64>().ok().filter(|_| plain).ok_or(NotAnId)
        };
        Ok(Self {
            ms: number(ms)?,
            n: number(n)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_whole_ids_are_read() {
        for bad in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "+1-0",
            "1-+0",
            " 1-0",
            "1-0 ",
            "1-0-0",
            "x-1",
            "1-\u{661}",
            "18446744073709551616-0",
        ] {
            assert_eq!(bad.parse::<EventId>(), Err(NotAnId), "{bad:?}");
        }
        assert_eq!("17-3".parse(), Ok(EventId { ms: 17, n: 3 }));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ms: u64, n: u64) {
            let id = EventId { ms, n };
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn ids_grow_whatever_the_wall_clock_does(times in prop::collection::vec(0..50_u64, 1..200)) {
            let mut last = EventId::ZERO;
            for ms in times {
                let next = last.next(ms);
                prop_assert!(next > last);
                last = next;
            }
        }

        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text: String) {
            if text.parse::<EventId>().is_ok() {
                prop_assert!(text.chars().all(|c| c.is_ascii_digit() || c == '-'));
            }
        }
    }
}
