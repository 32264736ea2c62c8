//! A sheet of counts as bytes: what happened within ten seconds takes some ten bytes for each route that was
//! used, and nothing for others.
//!
//! Numbers are written seven bits at a time, least first. Only the same version of this crate reads what it has
//! written: frames live for an hour at most, in memory or in Redis.

use std::sync::Arc;

use crate::metrics::histogram::HistogramSnapshot;
use crate::metrics::sheet::{RouteRow, Sheet};
use crate::metrics::totals::Word;

/// The sheet as bytes.
pub(crate) fn encoded(sheet: &Sheet) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Most counts are zero most of the time, so their places are written with them.
    sparse(&mut bytes, &sheet.counts);
    for times in &sheet.times {
        histogram(&mut bytes, times);
    }
    number(&mut bytes, sheet.words.len() as u64);
    for ((word, name), count) in &sheet.words {
        number(&mut bytes, *word as u64);
        text(&mut bytes, name);
        number(&mut bytes, *count);
    }
    number(&mut bytes, sheet.rules.len() as u64);
    for (name, counts) in &sheet.rules {
        text(&mut bytes, name);
        sparse(&mut bytes, counts);
    }
    number(&mut bytes, sheet.routes.len() as u64);
    for ((route, method), row) in &sheet.routes {
        text(&mut bytes, route);
        number(&mut bytes, (*method).into());
        number(&mut bytes, row.in_flight);
        sparse(&mut bytes, &row.counts);
        histogram(&mut bytes, &row.latency);
    }
    bytes.shrink_to_fit();
    bytes
}

/// The sheet that was written; nothing if these are other bytes than ours.
pub(crate) fn decoded(bytes: &[u8]) -> Option<Sheet> {
    let mut reader = Reader::of(bytes);
    let mut sheet = Sheet {
        counts: reader.sparse()?,
        ..Sheet::default()
    };
    for times in &mut sheet.times {
        *times = reader.histogram()?;
    }
    for _ in 0..reader.number()? {
        let word = *Word::ALL.get(usize::try_from(reader.number()?).ok()?)?;
        let name = reader.text()?;
        sheet.words.insert((word, name), reader.number()?);
    }
    for _ in 0..reader.number()? {
        let name = reader.text()?;
        sheet.rules.insert(name, reader.sparse()?);
    }
    for _ in 0..reader.number()? {
        let name = (reader.text()?, u8::try_from(reader.number()?).ok()?);
        let row = RouteRow {
            in_flight: reader.number()?,
            counts: reader.sparse()?,
            latency: reader.histogram()?,
        };
        sheet.routes.insert(name, row);
    }
    reader.bytes.is_empty().then_some(sheet)
}

pub(crate) fn number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    number(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

/// The numbers that are not zero, each behind its distance from the last.
fn sparse(bytes: &mut Vec<u8>, numbers: &[u64]) {
    let set = || {
        let numbers = numbers.iter().enumerate();
        numbers.filter(|(_, number)| **number > 0)
    };
    number(bytes, set().count() as u64);
    let mut last = 0;
    for (place, value) in set() {
        number(bytes, (place - last) as u64);
        number(bytes, *value);
        last = place;
    }
}

fn histogram(bytes: &mut Vec<u8>, histogram: &HistogramSnapshot) {
    number(bytes, histogram.sum_nanos());
    number(bytes, histogram.buckets().len() as u64);
    let mut last = 0;
    for (bucket, count) in histogram.buckets() {
        number(bytes, (bucket - last).into());
        number(bytes, *count);
        last = *bucket;
    }
}

/// What is left to read.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn of(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// What nobody has read yet.
    #[cfg(feature = "redis")]
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for place in 0..10 {
            let (byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            let part = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if place == 9 && part > 1 {
                return None;
            }
            number |= part << (7 * place);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn text(&mut self) -> Option<Arc<str>> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(std::str::from_utf8(text).ok()?.into())
    }

    fn sparse<const N: usize>(&mut self) -> Option<[u64; N]> {
        let mut numbers = [0; N];
        let mut place = 0_usize;
        for _ in 0..self.number()? {
            place = place.checked_add(usize::try_from(self.number()?).ok()?)?;
            *numbers.get_mut(place)? = self.number()?;
        }
        Some(numbers)
    }

    fn histogram(&mut self) -> Option<HistogramSnapshot> {
        let (sum, length) = (self.number()?, self.number()?);
        // Each takes two bytes at the least, so that no length asks for more than there is.
        let most = (self.bytes.len() / 2) as u64;
        let mut counts = Vec::with_capacity(length.min(most) as usize);
        let mut bucket = 0_u64;
        for _ in 0..length {
            bucket = bucket.checked_add(self.number()?)?;
            counts.push((u16::try_from(bucket).ok()?, self.number()?));
        }
        HistogramSnapshot::of(counts, sum)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::metrics::histogram::Histogram;

    fn histograms() -> impl Strategy<Value = HistogramSnapshot> {
        let times = prop::collection::vec(0_u64..100_000_000_000, 0..20);
        times.prop_map(|times| {
            let histogram = Histogram::new();
            for nanos in times {
                histogram.record(Duration::from_nanos(nanos));
            }
            histogram.snapshot()
        })
    }

    fn rows() -> impl Strategy<Value = RouteRow> {
        (any::<[u64; 12]>(), any::<u64>(), histograms()).prop_map(|(counts, in_flight, latency)| {
            RouteRow {
                counts,
                in_flight,
                latency,
            }
        })
    }

    prop_compose! {
        fn sheets()(
            counts in prop::collection::vec(any::<u64>(), 27),
            words in prop::collection::btree_map((0..Word::ALL.len(), "[a-z]{0,8}"), 1_u64.., 0..9),
            times in prop::collection::vec(histograms(), 5),
            rules in prop::collection::btree_map("\\PC{0,8}", any::<[u64; 3]>(), 0..4),
            routes in prop::collection::btree_map(("/\\PC{0,8}", any::<u8>()), rows(), 0..5),
        ) -> Sheet {
            let words = words.into_iter();
            Sheet {
                counts: counts.try_into().unwrap(),
                words: words.map(|((word, name), count)| ((Word::ALL[word], name.into()), count)).collect(),
                times: times.try_into().unwrap(),
                rules: rules.into_iter().map(|(name, counts)| (name.into(), counts)).collect(),
                routes: routes.into_iter().map(|((route, method), row)| ((route.into(), method), row)).collect(),
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(sheet in sheets()) {
            let bytes = encoded(&sheet);
            prop_assert_eq!(decoded(&bytes), Some(sheet));
            for end in 0..bytes.len() {
                prop_assert_eq!(decoded(&bytes[..end]), None, "cut off at {}", end);
            }
        }

        #[test]
        fn other_bytes_are_read_as_something_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(sheet) = decoded(&bytes) {
                prop_assert_eq!(decoded(&encoded(&sheet)), Some(sheet));
            }
        }
    }

    #[test]
    fn lengths_that_cannot_be_meant_take_no_memory() {
        let mut bytes = vec![0; 5];
        number(&mut bytes, u64::MAX);
        assert_eq!(decoded(&bytes), None);
        assert_eq!(decoded(&[0xff; 64]), None);
        assert_eq!(decoded(&[]), None);
    }
}
