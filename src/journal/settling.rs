//! Invalidations whose effect on a lagging replica is still awaited.
//!
//! A computation that begins right after an invalidation may read a replica that has not heard of the
//! change. Its stamp is younger than the record, so the journal would let it pass; hence nothing is stored
//! that was begun within the time that the record asks for. All of that happens where the computation
//! runs, by its own clock, so clocks of several machines are never compared.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::clock::Moment;
use crate::journal::marker::Subject;
use crate::journal::record::Record;

/// Records that settle, oldest first, and until when.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    windows: VecDeque<(Moment, Arc<Record>)>,
    /// The end of the last window: nearly always long past.
    until: Moment,
    /// What began earlier is not stored, because windows had to be forgotten.
    floor: Moment,
}

/// The most windows; with more, the oldest stands for everything.
const WINDOWS_MAX: usize = 256;

impl Settling {
    /// A record was heard of at `now`.
    pub(crate) fn begin(&mut self, record: &Record, now: Moment) {
        if record.settles().is_zero() {
            return;
        }
        let until = now.plus(record.settles());
        self.until = self.until.max(until);
        // A computation may take longer than its window, so windows stay until there are too many.
        self.windows.push_back((until, Arc::new(record.clone())));
        if self.windows.len() > WINDOWS_MAX
            && let Some((until, _)) = self.windows.pop_front()
        {
            self.floor = self.floor.max(until);
        }
    }

    /// Whether what was begun at `began` may be stored.
    #[inline]
    pub(crate) fn allows(&self, began: Moment, subject: &Subject) -> bool {
        if began >= self.until {
            return true;
        }
        let concerns =
            |(until, record): &(Moment, Arc<Record>)| began < *until && record.names(subject);
        began >= self.floor && !self.windows.iter().any(concerns)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::journal::marker::Marker;

    #[test]
    fn too_many_windows_cost_misses_and_nothing_else() {
        let mut settling = Settling::default();
        let at = |millis: u64| Moment::from_nanos(millis * 1_000_000);
        for n in 0..1_000 {
            let record = Record::of([Marker::key(&n.to_string())]).settle(Duration::from_secs(1));
            settling.begin(&record, at(n));
        }
        let of = |key: &str| Subject::of(key, &[]);
        assert!(settling.windows.len() <= WINDOWS_MAX);
        assert!(
            !settling.allows(at(1_000), &of("3")),
            "forgotten, so everything"
        );
        assert!(!settling.allows(at(1_800), &of("999")));
        assert!(settling.allows(at(1_800), &of("3")));
        assert!(settling.allows(at(1_999), &of("999")));
    }
}
