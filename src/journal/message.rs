//! What instances say to each other on the journal's channels.

/// A record was appended: the incarnation, its number, who appended it, and the record.
pub(crate) const RECORD: u8 = b'r';
/// The same, by somebody who waits for confirmations.
pub(crate) const RECORD_TO_CONFIRM: u8 = b'R';
/// An incarnation begins.
const BEGIN: u8 = b'N';
/// An instance has carried out everything up to a number.
const CONFIRM: u8 = b'C';

/// What does an instance know, and what would it serve?
pub(crate) const QUESTION: u8 = b'Q';
/// It says so.
pub(crate) const ANSWER: u8 = b'A';

/// A message, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    Record {
        inc: u64,
        seq: u64,
        writer: u64,
        confirm: bool,
        record: &'a [u8],
    },
    Begin {
        inc: u64,
    },
    Confirm {
        instance: u64,
        inc: u64,
        seq: u64,
    },
    Question {
        asker: u64,
        rest: &'a [u8],
    },
    Answer {
        probe: u64,
        rest: &'a [u8],
    },
}

/// Reads a message; `None` for one that this version does not know.
pub(crate) fn understand(bytes: &[u8]) -> Option<Message<'_>> {
    let (kind, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first_chunk::<8>()?;
    let first = u64::from_le_bytes(*first);
    match *kind {
        RECORD | RECORD_TO_CONFIRM => {
            let (seq, rest) = rest.split_first_chunk()?;
            let (writer, record) = rest.split_first_chunk()?;
            Some(Message::Record {
                inc: first,
                // Lua counts in doubles, which are exact far beyond the last record.
                seq: f64::from_le_bytes(*seq) as u64,
                writer: u64::from_le_bytes(*writer),
                confirm: *kind == RECORD_TO_CONFIRM,
                record,
            })
        }
        BEGIN => Some(Message::Begin { inc: first }),
        CONFIRM => {
            let (inc, rest) = rest.split_first_chunk()?;
            let (seq, _) = rest.split_first_chunk()?;
            Some(Message::Confirm {
                instance: first,
                inc: u64::from_le_bytes(*inc),
                seq: u64::from_le_bytes(*seq),
            })
        }
        QUESTION => Some(Message::Question { asker: first, rest }),
        ANSWER => Some(Message::Answer { probe: first, rest }),
        _ => None,
    }
}

/// Says that an instance has carried out everything up to a number.
pub(crate) fn confirmation(instance: u64, inc: u64, seq: u64) -> Vec<u8> {
    let mut message = vec![CONFIRM];
    for number in [instance, inc, seq] {
        message.extend(number.to_le_bytes());
    }
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_confirmation_survives_its_bytes() {
        let said = confirmation(7, u64::MAX, 1 << 40);
        let heard = Message::Confirm {
            instance: 7,
            inc: u64::MAX,
            seq: 1 << 40,
        };
        assert_eq!(understand(&said), Some(heard));
    }

    proptest! {
        #[test]
        fn a_message_of_any_kind_is_heard_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = understand(&bytes);
        }
    }
}
