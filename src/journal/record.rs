//! One invalidation, and how it is written down.
//!
//! A record is bytes, little end first: flags (1 byte, whose upper half is the version of this format),
//! then, where the flags say so, for how long it settles in ms (4) and the tenant (8), the number of names
//! (2) and the names (8 each), and patterns to the end: the length (2) and the text of each.

use std::sync::Arc;
use std::time::Duration;

use crate::journal::marker::{Marker, Subject, Tenant};
use crate::pattern::Pattern;

/// What is appended to the journal in one step: no reader sees half of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    markers: Vec<Marker>,
    soft: bool,
    settle: Duration,
    tenant: Option<Tenant>,
}

impl Record {
    /// A record that names these.
    #[must_use]
    pub fn of(markers: impl Into<Vec<Marker>>) -> Self {
        Self {
            markers: markers.into(),
            ..Self::default()
        }
    }

    /// Makes entries stale instead of unusable: they may be served while they are fetched anew, or
    /// where that fails, as far as their terms allow.
    #[must_use]
    pub const fn soft(mut self, soft: bool) -> Self {
        self.soft = soft;
        self
    }

    /// For databases whose replicas lag: what is computed within this time after the invalidation was
    /// heard of may still be old, and is not stored. At most [`SETTLE_MAX`].
    #[must_use]
    pub fn settle(mut self, settle: Duration) -> Self {
        self.settle = settle.min(SETTLE_MAX);
        self
    }

    /// Concerns entries of this tenant only.
    #[must_use]
    pub fn of_tenant(mut self, tenant: &str) -> Self {
        self.tenant = Some(Tenant::of(tenant));
        self
    }

    /// What it names.
    #[must_use]
    pub fn markers(&self) -> &[Marker] {
        &self.markers
    }

    pub(crate) const fn is_soft(&self) -> bool {
        self.soft
    }

    pub(crate) const fn settles(&self) -> Duration {
        self.settle
    }

    pub(crate) const fn tenant(&self) -> Option<Tenant> {
        self.tenant
    }

    /// Whether it names `subject`.
    pub(crate) fn names(&self, subject: &Subject) -> bool {
        if self.tenant.is_some() && self.tenant != subject.tenant() {
            return false;
        }
        let all = subject.tenant().map(|Tenant(all)| all);
        self.markers.iter().any(|marker| match marker {
            Marker::Name(name) => subject.names().contains(name) || all == Some(*name),
            Marker::Pattern(pattern) => pattern.matches(subject.key()),
            Marker::Everything => true,
        })
    }

    /// The record as bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let everything = self.markers.contains(&Marker::Everything);
        let mut names: Vec<u64> = Vec::new();
        let mut patterns: Vec<&str> = Vec::new();
        for marker in &self.markers {
            match marker {
                Marker::Name(name) => names.push(*name),
                Marker::Pattern(pattern) => patterns.push(pattern.as_str()),
                Marker::Everything => {}
            }
        }
        // More names than can be counted are as good as all: whoever needs that wants a tag.
        let everything = everything || names.len() > usize::from(u16::MAX);
        let flags = [
            (self.soft, SOFT),
            (!self.settle.is_zero(), SETTLES),
            (self.tenant.is_some(), TENANT),
            (everything, EVERYTHING),
        ];
        let flags = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag);
        let mut bytes = vec![FORMAT << 4 | flags.fold(0, |all, flag| all | flag)];
        if !self.settle.is_zero() {
            let millis = u32::try_from(self.settle.as_millis())
                .unwrap_or(u32::MAX)
                .max(1);
            bytes.extend(millis.to_le_bytes());
        }
        if let Some(Tenant(tenant)) = self.tenant {
            bytes.extend(tenant.to_le_bytes());
        }
        if everything {
            return bytes;
        }
        bytes.extend((names.len() as u16).to_le_bytes());
        names
            .iter()
            .for_each(|name| bytes.extend(name.to_le_bytes()));
        for text in patterns {
            bytes.extend((text.len() as u16).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        bytes
    }

    /// Reads a record; `None` if it is of another format, or broken.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        let [flags] = rest.take()?;
        if flags >> 4 != FORMAT {
            return None;
        }
        let mut record = Self::default().soft(flags & SOFT != 0);
        if flags & SETTLES != 0 {
            record.settle = Duration::from_millis(u32::from_le_bytes(rest.take()?).into());
        }
        if flags & TENANT != 0 {
            record.tenant = Some(Tenant(u64::from_le_bytes(rest.take()?)));
        }
        if flags & EVERYTHING != 0 {
            record.markers.push(Marker::Everything);
            return rest.0.is_empty().then_some(record);
        }
        for _ in 0..u16::from_le_bytes(rest.take()?) {
            let name = u64::from_le_bytes(rest.take()?);
            record.markers.push(Marker::Name(name));
        }
        while !rest.0.is_empty() {
            let len = usize::from(u16::from_le_bytes(rest.take()?));
            let (text, behind) = rest.0.split_at_checked(len)?;
            let pattern = Pattern::parse(std::str::from_utf8(text).ok()?).ok()?;
            record.markers.push(Marker::Pattern(Arc::new(pattern)));
            rest = Rest(behind);
        }
        Some(record)
    }
}

impl From<&[Marker]> for Record {
    fn from(markers: &[Marker]) -> Self {
        Self::of(markers)
    }
}

impl From<&Vec<Marker>> for Record {
    fn from(markers: &Vec<Marker>) -> Self {
        Self::of(markers.as_slice())
    }
}

impl From<Vec<Marker>> for Record {
    fn from(markers: Vec<Marker>) -> Self {
        Self::of(markers)
    }
}

impl<const N: usize> From<&[Marker; N]> for Record {
    fn from(markers: &[Marker; N]) -> Self {
        Self::of(markers.as_slice())
    }
}

impl<const N: usize> From<[Marker; N]> for Record {
    fn from(markers: [Marker; N]) -> Self {
        Self::of(markers)
    }
}

/// The longest time that a record settles: a minute. A replica that lags more serves nobody.
pub const SETTLE_MAX: Duration = Duration::from_secs(60);

/// Bytes that are still to be read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }
}

const FORMAT: u8 = 1;
const SOFT: u8 = 1;
const SETTLES: u8 = 2;
const TENANT: u8 = 4;
const EVERYTHING: u8 = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn markers() -> impl Strategy<Value = Vec<Marker>> {
        let names = prop::collection::vec(any::<u64>().prop_map(Marker::Name), 0..5);
        let patterns = r"[a:é*]{1,6}\*"
            .prop_map(|text| Marker::Pattern(Arc::new(Pattern::parse(&text).unwrap())));
        (names, prop::collection::vec(patterns, 0..3))
            .prop_map(|(names, patterns)| [names, patterns].concat())
    }

    proptest! {
        #[test]
        fn a_record_survives_its_bytes(
            markers in markers(), soft: bool, settle in 0u64..60_000, tenant in prop::option::of("[a-z]{1,4}"),
        ) {
            let record = Record::of(markers).soft(soft).settle(Duration::from_millis(settle));
            let record = match tenant {
                Some(tenant) => record.of_tenant(&tenant),
                None => record,
            };
            prop_assert_eq!(Record::from_bytes(&record.to_bytes()), Some(record));
        }

        #[test]
        fn bytes_of_any_kind_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Record::from_bytes(&bytes);
        }

        #[test]
        fn a_record_that_was_cut_short_is_none(markers in markers(), cut in 1usize..40) {
            let whole = Record::of(markers).to_bytes();
            let cut = whole.len().saturating_sub(cut);
            if let Some(read) = Record::from_bytes(&whole[..cut]) {
                // Between two patterns there is no telling; what is left is whole.
                prop_assert!(read.to_bytes() == whole[..cut]);
            }
        }
    }

    #[test]
    fn one_name_is_eleven_bytes() {
        assert_eq!(Record::of([Marker::tag("t")]).to_bytes().len(), 11);
        assert_eq!(Record::of([Marker::Everything]).to_bytes().len(), 1);
    }

    #[test]
    fn more_names_than_can_be_counted_are_everything() {
        let record = Record::of(vec![Marker::Name(7); 65_536]);
        let read = Record::from_bytes(&record.to_bytes()).unwrap();
        assert_eq!(read.markers(), [Marker::Everything]);
    }

    #[test]
    fn a_record_of_another_format_is_none() {
        assert_eq!(Record::from_bytes(&[0x20, 0, 0]), None);
        assert_eq!(Record::from_bytes(&[]), None);
    }
}
