//! When records were heard of, for about a minute: whoever checks stamps asks for that.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Moment;

/// Numbers of records, and no later than when they were heard of.
#[derive(Debug, Default)]
pub(crate) struct Times {
    marks: VecDeque<(u64, Moment)>,
}

/// The marks that are kept, in 16 KiB: of the last records each has one.
const MARKS_MAX: usize = 1_024;

/// Half of them are older and so far apart, which makes 65 seconds of them.
const DISTANCE: Duration = Duration::from_millis(128);

impl Times {
    /// A record was heard of at `now`.
    pub(crate) fn note(&mut self, seq: u64, now: Moment) {
        if self.marks.back().is_some_and(|(last, _)| seq <= *last) {
            return;
        }
        if self.marks.len() >= MARKS_MAX {
            self.thin_out();
        }
        self.marks.push_back((seq, now));
    }

    /// Makes room for as many again.
    fn thin_out(&mut self) {
        let mut kept: Option<Moment> = None;
        self.marks.retain(|(_, at)| {
            let stays = kept.is_none_or(|kept| at.since(kept) >= DISTANCE);
            if stays {
                kept = Some(*at);
            }
            stays
        });
        let surplus = self.marks.len().saturating_sub(MARKS_MAX / 2);
        self.marks.drain(..surplus);
    }

    /// A moment at which the record `seq` was not known before, if there is still a mark for it.
    pub(crate) fn not_before(&self, seq: u64) -> Option<Moment> {
        let behind = self.marks.partition_point(|(marked, _)| *marked <= seq);
        let mark = self.marks.get(behind.checked_sub(1)?)?;
        Some(mark.1)
    }

    pub(crate) fn clear(&mut self) {
        self.marks.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_never_later_than_the_record_was_heard_of() {
        let (mut times, mut heard) = (Times::default(), Vec::new());
        for seq in 1..=5_000_u64 {
            // Bursts and pauses.
            let now = Moment::from_nanos(seq * 7_000_000 + seq % 10 * 1_000);
            times.note(seq, now);
            heard.push(now);
        }
        assert!(times.marks.len() <= MARKS_MAX);
        for (now, seq) in heard.iter().zip(1..) {
            let mark = times.not_before(seq).unwrap();
            assert!(mark <= *now, "{seq}");
            assert!(now.since(mark) < DISTANCE * 2, "{seq}");
        }
        assert_eq!(times.not_before(0), None);
    }

    #[test]
    fn old_marks_go_and_what_is_older_than_all_of_them_has_none() {
        let mut times = Times::default();
        for seq in 1..=2_000_u64 {
            times.note(seq, Moment::from_nanos(seq * 1_000_000_000));
        }
        assert!(times.marks.len() <= MARKS_MAX);
        assert_eq!(times.not_before(900), None);
        let last = Moment::from_nanos(2_000 * 1_000_000_000);
        assert_eq!(times.not_before(u64::MAX), Some(last));
    }
}
