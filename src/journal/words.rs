//! How questions about records and the answers to them are written down, little end first.
//!
//! A question: who asks and the probe's number (8 each), then for each record its incarnation and number (8
//! each), its length (4) and its bytes. An answer: the probe's number, the instance, and where its mirror
//! stands (8 each), whether it is verified and whether it is in its grace (1), the work it was (8), then the entries, 66 bytes each.

use std::sync::Arc;
use std::time::Duration;

use crate::journal::message::{ANSWER, QUESTION};
use crate::journal::probe::{ASKED_MAX, Answer, Asked, Found, TOLD_MAX, Temperature};
use crate::journal::record::Record;

/// Asks about records.
pub(crate) fn question(probe: u64, asker: u64, asked: &[Asked]) -> Vec<u8> {
    let mut bytes = vec![QUESTION];
    bytes.extend(asker.to_le_bytes());
    bytes.extend(probe.to_le_bytes());
    for one in asked.iter().take(ASKED_MAX) {
        let record = one.record.to_bytes();
        bytes.extend(one.inc.to_le_bytes());
        bytes.extend(one.seq.to_le_bytes());
        bytes.extend(
            u32::try_from(record.len())
                .unwrap_or(u32::MAX)
                .to_le_bytes(),
        );
        bytes.extend(record);
    }
    bytes
}

/// Reads what follows the asker: the probe's number, and the records. `None` for what is broken.
pub(crate) fn questioned(bytes: &[u8]) -> Option<(u64, Vec<Asked>)> {
    let mut rest = Rest(bytes);
    let probe = rest.number()?;
    let mut asked = Vec::new();
    while !rest.0.is_empty() && asked.len() < ASKED_MAX {
        let (inc, seq) = (rest.number()?, rest.number()?);
        let len = u32::from_le_bytes(rest.take()?);
        let (record, behind) = rest.0.split_at_checked(len as usize)?;
        rest = Rest(behind);
        let record = Arc::new(Record::from_bytes(record)?);
        asked.push(Asked { inc, seq, record });
    }
    Some((probe, asked))
}

/// Answers a probe.
pub(crate) fn answer(probe: u64, answer: &Answer) -> Vec<u8> {
    let mut bytes = vec![ANSWER];
    for number in [probe, answer.instance, answer.inc, answer.last] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.push(u8::from(answer.verified) | u8::from(answer.in_grace) << 1);
    bytes.extend(answer.work.to_le_bytes());
    for found in answer.found.iter().take(TOLD_MAX) {
        bytes.push(match found.temperature {
            Temperature::Hot => 0,
            Temperature::Warm => 1,
            Temperature::Cold => 2,
        });
        bytes.push(u8::from(found.value.is_some()));
        let (token, hash) = found.value.unwrap_or_default();
        let (inc, seq) = found.born;
        let lasts = u64::try_from(found.lasts.as_millis()).unwrap_or(u64::MAX);
        let (named_by, late) = (found.named_by, found.late);
        for number in [found.key, inc, seq, token, hash, lasts, named_by, late] {
            bytes.extend(number.to_le_bytes());
        }
    }
    bytes
}

/// Reads what follows the probe's number. `None` for what is broken.
pub(crate) fn answered(bytes: &[u8]) -> Option<Answer> {
    let mut rest = Rest(bytes);
    let (instance, inc, last) = (rest.number()?, rest.number()?, rest.number()?);
    let [flags] = rest.take()?;
    let mut answer = Answer {
        instance,
        inc,
        last,
        verified: flags & 1 != 0,
        in_grace: flags & 2 != 0,
        work: rest.number()?,
        found: Vec::new(),
    };
    while !rest.0.is_empty() && answer.found.len() < TOLD_MAX {
        let [temperature, has_value] = rest.take()?;
        let temperature = match temperature {
            0 => Temperature::Hot,
            1 => Temperature::Warm,
            _ => Temperature::Cold,
        };
        let key = rest.number()?;
        let born = (rest.number()?, rest.number()?);
        let value = (rest.number()?, rest.number()?);
        answer.found.push(Found {
            temperature,
            key,
            born,
            value: (has_value == 1).then_some(value),
            lasts: Duration::from_millis(rest.number()?),
            named_by: rest.number()?,
            late: rest.number()?,
        });
    }
    Some(answer)
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::marker::Marker;
    use crate::journal::message::{Message, understand};

    #[test]
    fn a_question_survives_its_bytes() {
        let asked = |seq| Asked {
            inc: 7,
            seq,
            record: Arc::new(Record::of([Marker::tag("a"), Marker::Name(seq)]).soft(true)),
        };
        let all = vec![asked(1), asked(u64::MAX)];
        let said = question(9, 8, &all);
        let Some(Message::Question { asker: 8, rest }) = understand(&said) else {
            panic!("no question: {said:?}");
        };
        assert_eq!(questioned(rest), Some((9, all)));
    }

    #[test]
    fn an_answer_survives_its_bytes() {
        let found = |temperature, value| Found {
            temperature,
            key: 1,
            born: (2, 3),
            value,
            lasts: Duration::from_millis(4),
            named_by: 5,
            late: 6,
        };
        let all = Answer {
            instance: 1,
            inc: 2,
            last: 3,
            verified: true,
            in_grace: true,
            work: 4,
            found: vec![
                found(Temperature::Hot, None),
                found(Temperature::Warm, Some((0, 1))),
                found(Temperature::Cold, Some((u64::MAX, 0))),
            ],
        };
        let said = answer(9, &all);
        let Some(Message::Answer { probe: 9, rest }) = understand(&said) else {
            panic!("no answer: {said:?}");
        };
        assert_eq!(answered(rest), Some(all));
    }

    proptest! {
        #[test]
        fn broken_words_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (questioned(&bytes), answered(&bytes));
        }
    }
}
