//! What this process knows of the journal: a state machine over values, without a clock, a lock or Redis.
//!
//! The mirror follows one incarnation. Records come from two sides, heard as they are appended and read
//! where something was missed, and in any order: what is entered only ever makes more entries go. `last`
//! moves on only over records that are entered without a gap, so it is a lower bound of what the mirror
//! holds, and what is stamped with it may be judged too severely but never too mildly.

use crate::clock::Moment;
use crate::journal::marker::Subject;
use crate::journal::record::Record;
use crate::journal::settling::Settling;
use crate::journal::stamp::{Stamp, Verdict};
use crate::journal::tables::Tables;
use crate::journal::times::Times;

/// What has been invalidated, as far as this process has heard.
#[derive(Debug)]
pub(crate) struct Mirror {
    inc: u64,
    /// The number of the last record up to which nothing is missing.
    last: u64,
    /// Records beyond a gap that are entered already, from and to.
    ahead: Option<(u64, u64)>,
    /// How often anything changed that entries are judged by.
    epoch: u64,
    /// The journal's past is unknown: there are records of another incarnation.
    lost: bool,
    recorded: Layer,
    /// What was invalidated here and is not recorded yet, by epochs: what waits, and what was sent.
    waiting: Layer,
    sent: Layer,
    settling: Settling,
    times: Times,
}

/// What becomes of a record that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It is entered, and nothing is missing.
    Entered,
    /// It is entered, but some before it are missing.
    Gap,
    /// It is of another incarnation.
    Foreign,
}

/// Hard and soft invalidations.
#[derive(Debug)]
struct Layer {
    hard: Tables,
    soft: Tables,
}

impl Layer {
    fn new(names_max: usize, patterns_max: usize) -> Self {
        let tables = || Tables::new(names_max, patterns_max);
        Self {
            hard: tables(),
            soft: tables(),
        }
    }

    fn enter(&mut self, seq: u64, record: &Record) {
        let tables = if record.is_soft() {
            &mut self.soft
        } else {
            &mut self.hard
        };
        tables.enter(seq, record.markers(), record.tenant());
    }

    #[inline]
    fn verdict(&self, born: u64, subject: &Subject) -> Verdict {
        if !self.hard.holds(born, subject) {
            Verdict::Gone
        } else if !self.soft.holds(born, subject) {
            Verdict::Expired
        } else {
            Verdict::Fresh
        }
    }

    fn raise_floor(&mut self, seq: u64) {
        self.hard.raise_floor(seq);
    }

    fn clear(&mut self) {
        self.hard.clear();
        self.soft.clear();
    }

    fn len(&self) -> usize {
        self.hard.len() + self.soft.len()
    }

    fn bytes(&self) -> usize {
        self.hard.bytes() + self.soft.bytes()
    }
}

impl Mirror {
    /// A mirror of the incarnation `inc`, which has no records.
    pub(crate) fn new(inc: u64, names_max: usize, patterns_max: usize) -> Self {
        let layer = || Layer::new(names_max, patterns_max);
        Self {
            inc,
            last: 0,
            ahead: None,
            // Not zero, which is where entries from elsewhere stand.
            epoch: 1,
            lost: false,
            recorded: layer(),
            waiting: layer(),
            sent: layer(),
            settling: Settling::default(),
            times: Times::default(),
        }
    }

    pub(crate) const fn position(&self) -> Stamp {
        Stamp {
            inc: self.inc,
            seq: self.last,
            here: self.epoch,
        }
    }

    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether nothing is missing: neither a record nor the whole past.
    pub(crate) const fn is_complete(&self) -> bool {
        !self.lost && self.ahead.is_none()
    }

    pub(crate) const fn is_lost(&self) -> bool {
        self.lost
    }

    /// What is to be said of an entry that was born at `born` and found to hold at the epoch `checked`.
    pub(crate) fn verdict(&self, born: Stamp, checked: u64, subject: &Subject) -> Verdict {
        if self.lost {
            return Verdict::Unverified;
        }
        if born.inc != self.inc {
            return Verdict::Gone;
        }
        let layers = [
            (&self.recorded, born.seq),
            (&self.waiting, checked),
            (&self.sent, checked),
        ];
        let verdicts = layers.map(|(layer, born)| layer.verdict(born, subject));
        if verdicts.contains(&Verdict::Gone) {
            Verdict::Gone
        } else if verdicts.contains(&Verdict::Expired) {
            Verdict::Expired
        } else {
            Verdict::Fresh
        }
    }

    /// Whether the result of a computation that began at `began` may be stored; see [`Record::settle`].
    pub(crate) fn has_settled(&self, began: Moment, subject: &Subject) -> bool {
        self.settling.allows(began, subject)
    }

    /// Enters a record that was appended here, where nobody else appends. Returns its number.
    pub(crate) fn append(&mut self, record: &Record, now: Moment) -> u64 {
        let seq = self.last + 1;
        self.hear(self.inc, seq, record, now);
        seq
    }

    /// Hears of the record `seq` of the incarnation `inc`.
    pub(crate) fn hear(&mut self, inc: u64, seq: u64, record: &Record, now: Moment) -> Heard {
        if inc != self.inc {
            self.lose();
            return Heard::Foreign;
        }
        if seq <= self.last {
            return Heard::Entered;
        }
        self.enter(seq, record, now);
        if seq == self.last + 1 {
            self.last = seq;
            self.close_gap();
        } else {
            self.ahead = match self.ahead {
                Some((from, to)) if seq == to + 1 => Some((from, seq)),
                Some((from, to)) if (from..=to).contains(&seq) => Some((from, to)),
                // What lies between will be read, and so will what was there before.
                _ => Some((seq, seq)),
            };
        }
        if self.ahead.is_some() {
            Heard::Gap
        } else {
            Heard::Entered
        }
    }

    /// Learns a record that was missed, from a reading in order that began behind `last`. Where numbers
    /// are missing it has been forgotten by everybody, and entries from before it no longer hold.
    pub(crate) fn learn(&mut self, inc: u64, seq: u64, record: &Record, now: Moment) {
        if inc != self.inc || seq <= self.last {
            return;
        }
        if seq > self.last + 1 {
            self.recorded.raise_floor(seq - 1);
        }
        self.enter(seq, record, now);
        self.last = seq;
        self.close_gap();
    }

    /// Nothing is known of the records up to `seq`, and nothing will be.
    pub(crate) fn skip_to(&mut self, inc: u64, seq: u64) {
        if inc == self.inc && seq > self.last {
            self.recorded.raise_floor(seq);
            self.last = seq;
            self.close_gap();
            self.epoch += 1;
        }
    }

    /// There are records of another incarnation: nobody knows what of this one still holds.
    pub(crate) fn lose(&mut self) {
        self.lost = true;
        self.epoch += 1;
    }

    /// Follows another incarnation from its beginning; or the same one, where it was lost for a moment.
    pub(crate) fn follow(&mut self, inc: u64) {
        if inc != self.inc {
            (self.inc, self.last, self.ahead) = (inc, 0, None);
            self.recorded.clear();
            self.times.clear();
        }
        self.lost = false;
        self.epoch += 1;
    }

    /// Carries out here what waits to be recorded.
    pub(crate) fn queue(&mut self, record: &Record, now: Moment) {
        self.epoch += 1;
        self.waiting.enter(self.epoch, record);
        self.settling.begin(record, now);
    }

    /// What waits is sent. As long as an earlier one is under way nothing is set apart from it.
    pub(crate) fn send(&mut self) {
        if self.sent.len() == 0 {
            std::mem::swap(&mut self.sent, &mut self.waiting);
        }
    }

    /// A record that was queued here is the record `seq` of `inc` now.
    pub(crate) fn recorded(&mut self, (inc, seq): (u64, u64), record: &Record, now: Moment) {
        if inc == self.inc {
            // It need not have been heard yet; that it will be only moves `last`.
            self.enter(seq, record, now);
        } else {
            self.lose();
        }
    }

    /// All that was sent is recorded; and where `idle`, so is all that waited.
    pub(crate) fn sent(&mut self, idle: bool) {
        self.sent.clear();
        if idle {
            self.waiting.clear();
        }
    }

    /// A moment before which the record `seq` of `inc` was not known here, for about a minute after it.
    pub(crate) fn not_before(&self, inc: u64, seq: u64) -> Option<Moment> {
        if inc == self.inc {
            self.times.not_before(seq)
        } else {
            None
        }
    }

    /// Passes over a record as if it had been entered. Wrong on purpose.
    #[cfg(all(feature = "redis", feature = "fault-injection"))]
    pub(crate) const fn overlook(&mut self, inc: u64, seq: u64) {
        if inc == self.inc && seq == self.last + 1 {
            self.last = seq;
        }
    }

    /// Forgets without raising the floor. Wrong on purpose.
    #[cfg(feature = "fault-injection")]
    pub(crate) fn forget(&mut self) {
        self.recorded.clear();
        self.epoch += 1;
    }

    /// How many names and patterns are remembered.
    pub(crate) fn len(&self) -> usize {
        self.recorded.len() + self.waiting.len() + self.sent.len()
    }

    /// Roughly what they take up, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.recorded.bytes() + self.waiting.bytes() + self.sent.bytes()
    }

    fn enter(&mut self, seq: u64, record: &Record, now: Moment) {
        self.recorded.enter(seq, record);
        self.settling.begin(record, now);
        self.times.note(seq, now);
        self.epoch += 1;
    }

    fn close_gap(&mut self) {
        if let Some((from, to)) = self.ahead
            && from <= self.last + 1
        {
            self.last = self.last.max(to);
            self.ahead = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::journal::marker::Marker;

    const NOW: Moment = Moment::from_nanos(0);

    fn mirror() -> Mirror {
        Mirror::new(1, 1_000, 100)
    }

    fn of(key: &str) -> Record {
        Record::of([Marker::key(key)])
    }

    fn subject(key: &str) -> Subject {
        Subject::of(key, &[])
    }

    fn judged(mirror: &Mirror, born: Stamp, key: &str) -> Verdict {
        mirror.verdict(born, born.here, &subject(key))
    }

    #[test]
    fn what_was_born_before_a_record_is_gone_and_what_was_born_after_it_is_fresh() {
        let mut mirror = mirror();
        let before = mirror.position();
        assert_eq!(mirror.hear(1, 1, &of("k"), NOW), Heard::Entered);
        assert_eq!(judged(&mirror, before, "k"), Verdict::Gone);
        assert_eq!(judged(&mirror, before, "other"), Verdict::Fresh);
        assert_eq!(judged(&mirror, mirror.position(), "k"), Verdict::Fresh);
        assert_eq!(judged(&mirror, Stamp::stored(2, 9), "k"), Verdict::Gone);
    }

    #[test]
    fn a_soft_record_makes_stale_and_a_hard_one_beats_it() {
        let mut mirror = mirror();
        let before = mirror.position();
        mirror.hear(1, 1, &of("k").soft(true), NOW);
        assert_eq!(judged(&mirror, before, "k"), Verdict::Expired);
        mirror.hear(1, 2, &of("k"), NOW);
        assert_eq!(judged(&mirror, before, "k"), Verdict::Gone);
    }

    #[test]
    fn a_gap_is_noticed_and_closed_by_reading_although_more_is_heard_meanwhile() {
        let mut mirror = mirror();
        let before = mirror.position();
        assert_eq!(mirror.hear(1, 3, &of("c"), NOW), Heard::Gap);
        assert!(!mirror.is_complete());
        assert_eq!(mirror.position().seq, 0, "a lower bound");
        assert_eq!(
            judged(&mirror, before, "c"),
            Verdict::Gone,
            "what is heard counts at once"
        );
        assert_eq!(mirror.hear(1, 4, &of("d"), NOW), Heard::Gap);
        mirror.learn(1, 1, &of("a"), NOW);
        mirror.learn(1, 2, &of("b"), NOW);
        assert!(mirror.is_complete());
        assert_eq!(mirror.position().seq, 4);
        assert_eq!(judged(&mirror, before, "a"), Verdict::Gone);
        assert_eq!(mirror.hear(1, 5, &of("e"), NOW), Heard::Entered);
    }

    #[test]
    fn a_gap_in_what_was_heard_beyond_a_gap_is_read_as_well() {
        let mut mirror = mirror();
        mirror.hear(1, 3, &of("c"), NOW);
        mirror.hear(1, 7, &of("g"), NOW);
        for seq in 1..=5 {
            mirror.learn(1, seq, &of("x"), NOW);
        }
        assert!(!mirror.is_complete(), "6 is missing");
        mirror.learn(1, 6, &of("f"), NOW);
        assert!(mirror.is_complete());
        assert_eq!(mirror.position().seq, 7);
    }

    #[test]
    fn what_everybody_has_forgotten_raises_the_floor() {
        let mut mirror = mirror();
        mirror.hear(1, 1, &of("a"), NOW);
        let old = mirror.position();
        // Records 2 to 4 were trimmed.
        mirror.learn(1, 5, &of("e"), NOW);
        assert_eq!(judged(&mirror, old, "untouched"), Verdict::Gone);
        assert_eq!(
            judged(&mirror, Stamp::stored(1, 4), "untouched"),
            Verdict::Fresh
        );
        mirror.skip_to(1, 9);
        assert_eq!(
            judged(&mirror, Stamp::stored(1, 8), "untouched"),
            Verdict::Gone
        );
    }

    #[test]
    fn another_incarnation_leaves_nothing_to_be_served() {
        let mut mirror = mirror();
        let old = mirror.position();
        assert_eq!(mirror.hear(2, 1, &of("k"), NOW), Heard::Foreign);
        assert_eq!(judged(&mirror, old, "other"), Verdict::Unverified);
        mirror.follow(2);
        assert_eq!(judged(&mirror, old, "other"), Verdict::Gone);
        assert_eq!(judged(&mirror, mirror.position(), "k"), Verdict::Fresh);
    }

    #[test]
    fn what_waits_to_be_recorded_counts_here_at_once() {
        let mut mirror = mirror();
        let before = mirror.position();
        mirror.queue(&of("k"), NOW);
        assert_eq!(judged(&mirror, before, "k"), Verdict::Gone);
        assert_eq!(
            judged(&mirror, Stamp::stored(1, 0), "k"),
            Verdict::Gone,
            "from elsewhere"
        );
        let after = mirror.position();
        assert_eq!(
            judged(&mirror, after, "k"),
            Verdict::Fresh,
            "computed since"
        );
        mirror.send();
        mirror.queue(&of("later"), NOW);
        mirror.recorded((1, 1), &of("k"), NOW);
        mirror.sent(false);
        assert_eq!(
            judged(&mirror, before, "k"),
            Verdict::Gone,
            "by the record now"
        );
        assert_eq!(
            judged(&mirror, before, "later"),
            Verdict::Gone,
            "still waits"
        );
        assert_eq!(mirror.position().seq, 0, "not heard yet");
        assert_eq!(mirror.hear(1, 1, &of("k"), NOW), Heard::Entered);
        assert_eq!(judged(&mirror, mirror.position(), "k"), Verdict::Fresh);
    }

    #[test]
    fn a_record_of_an_incarnation_that_is_not_known_yet_loses_the_mirror() {
        let mut mirror = mirror();
        let before = mirror.position();
        mirror.queue(&of("k"), NOW);
        mirror.send();
        mirror.recorded((2, 2), &of("k"), NOW);
        mirror.sent(true);
        assert_eq!(judged(&mirror, before, "k"), Verdict::Unverified);
    }

    #[test]
    fn whatever_changes_moves_the_epoch() {
        let mut mirror = mirror();
        let mut last = mirror.epoch();
        let mut moved = |mirror: &Mirror| {
            assert!(mirror.epoch() > last);
            last = mirror.epoch();
        };
        mirror.hear(1, 1, &of("k"), NOW);
        moved(&mirror);
        mirror.queue(&of("k"), NOW);
        moved(&mirror);
        mirror.recorded((1, 2), &of("k"), NOW);
        moved(&mirror);
        mirror.learn(1, 3, &of("k"), NOW);
        moved(&mirror);
        mirror.skip_to(1, 5);
        moved(&mirror);
        mirror.lose();
        moved(&mirror);
        mirror.follow(2);
        moved(&mirror);
    }

    #[test]
    fn a_record_settles_for_computations_that_begin_within_its_time() {
        let mut mirror = mirror();
        let at = |millis: u64| Moment::from_nanos(millis * 1_000_000);
        mirror.hear(1, 1, &of("k").settle(Duration::from_millis(50)), at(100));
        assert!(!mirror.has_settled(at(120), &subject("k")));
        assert!(mirror.has_settled(at(120), &subject("other")));
        assert!(mirror.has_settled(at(150), &subject("k")));
    }
}
