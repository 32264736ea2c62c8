//! Cold entries that wait to be written: which may wait, which go first, which are written next.
//!
//! Everything here is a value's change, without a clock and without waiting; [`Behind`] is who waits.
//!
//! An entry is *waiting* until the store has confirmed it. Those that are not being written are in `line` too,
//! oldest first: from there they are taken for writing, and from there they are pushed out where there is no
//! room.
//!
//! [`Behind`]: crate::tiers::behind::Behind

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use crate::tiers::cold::{ColdEntry, is_storable};

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Entries, those included that are being written.
    pub(crate) entries: usize,
    /// Bytes of keys and frames, with [`ENTRY_OVERHEAD`] for each entry.
    pub(crate) bytes: usize,
}

/// Some seconds of a busy service: what a restart of the database takes. 16 MiB are one in a hundred bytes
/// of a small host.
impl Default for Bounds {
    fn default() -> Self {
        Self {
            entries: 4_096,
            bytes: 16 * 1024 * 1024,
        }
    }
}

/// What became of the entries so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Entries that wait now.
    pub(crate) waiting_entries: usize,
    /// Their bytes, counted as in [`Bounds::bytes`].
    pub(crate) waiting_bytes: usize,
    /// Entries that the store has confirmed.
    pub(crate) written: u64,
    /// Entries that never reached the store: pushed out by newer ones, never let in, run out while they waited,
    /// refused by the store one by one, or left at the end. Not those that a newer entry of their key replaced.
    pub(crate) dropped: u64,
    /// Calls to the store that failed or took too long.
    pub(crate) failures: u64,
    /// Rows that had run out and were deleted.
    pub(crate) swept: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: HashMap<Arc<str>, Waiting>,
    /// The keys of those that are not being written, by their number.
    line: BTreeMap<u64, Arc<str>>,
    next_number: u64,
    figures: Figures,
    /// Nobody writes any more.
    closed: bool,
}

#[derive(Debug)]
struct Waiting {
    entry: ColdEntry,
    /// The place in line. A newer entry of the key inherits it, unless the older one is just being written: then
    /// it gets a number of its own, by which the two are told apart.
    number: u64,
    /// What `written` stood at when the store refused this entry alone.
    refused_at: Option<u64>,
}

impl Queue {
    /// Puts an entry in line, and says whether it is. One of the same key that waits already is replaced.
    pub(crate) fn offer(&mut self, entry: ColdEntry, bounds: Bounds) -> bool {
        let fits = is_storable(&entry.key) && weight(&entry) <= bounds.bytes;
        if self.closed || !fits || !self.make_room(&entry, bounds) {
            self.figures.dropped += 1;
            return false;
        }
        let key = Arc::clone(&entry.key);
        let older = self.forget(&key).map(|older| older.number);
        let number = older.filter(|number| self.line.contains_key(number));
        let number = number.unwrap_or_else(|| {
            self.next_number += 1;
            self.next_number
        });
        self.line.insert(number, Arc::clone(&key));
        self.figures.waiting_bytes += weight(&entry);
        let waiting = Waiting {
            entry,
            number,
            refused_at: None,
        };
        self.entries.insert(key, waiting);
        true
    }

    /// Pushes out the oldest until there is room for one more. There may be none still, where all that waits is
    /// being written.
    fn make_room(&mut self, entry: &ColdEntry, bounds: Bounds) -> bool {
        loop {
            let replaced = self.entries.get(&entry.key);
            let freed = replaced.map_or(0, |older| weight(&older.entry));
            let entries = self.entries.len() + usize::from(replaced.is_none());
            let bytes = self.figures.waiting_bytes - freed + weight(entry);
            if entries <= bounds.entries && bytes <= bounds.bytes {
                return true;
            }
            // The key's own older entry is replaced anyhow, and is not what room is made of.
            let own = replaced.map(|older| older.number);
            let oldest = self.line.iter().find(|(number, _)| Some(**number) != own);
            let Some((&number, key)) = oldest else {
                return false;
            };
            let key = Arc::clone(key);
            self.line.remove(&number);
            self.forget(&key);
            self.figures.dropped += 1;
        }
    }

    /// Takes an entry out, but not out of the line.
    fn forget(&mut self, key: &str) -> Option<Waiting> {
        let waiting = self.entries.remove(key)?;
        self.figures.waiting_bytes -= weight(&waiting.entry);
        Some(waiting)
    }

    /// Takes the oldest out of the line: at most `most`, and of one batch's bytes, but one at least. What has
    /// run out is not worth writing.
    pub(crate) fn take_batch(&mut self, most: usize, now_ms: u64) -> Vec<Taken> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some((number, key)) = self.line.pop_first() {
            let Some(waiting) = self.entries.get(&key) else {
                continue;
            };
            if waiting.entry.until_ms <= now_ms {
                self.forget(&key);
                self.figures.dropped += 1;
                continue;
            }
            bytes += weight(&waiting.entry);
            if !batch.is_empty() && (batch.len() >= most || bytes > BATCH_BYTES_MAX) {
                self.line.insert(number, key);
                break;
            }
            let entry = waiting.entry.clone();
            batch.push(Taken { entry, number });
        }
        batch
    }

    /// The frame that waits under this key.
    pub(crate) fn waiting(&self, key: &str) -> Option<Bytes> {
        let waiting = self.entries.get(key)?;
        Some(waiting.entry.bytes.clone())
    }

    pub(crate) fn figures(&self) -> Figures {
        Figures {
            waiting_entries: self.entries.len(),
            ..self.figures
        }
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.line.is_empty()
    }

    /// Whether there is enough to write for a whole batch.
    pub(crate) fn fills_a_batch(&self) -> bool {
        self.line.len() >= BATCH_ENTRIES_MAX
    }

    /// The store has deleted so many rows that had run out.
    pub(crate) fn swept(&mut self, rows: u64) {
        self.figures.swept += rows;
    }

    /// A call to the store has failed.
    pub(crate) fn failed(&mut self) {
        self.figures.failures += 1;
    }

    /// Whether this very entry still waits: it was neither replaced nor forgotten.
    fn holds(&self, taken: &Taken) -> bool {
        let waiting = self.entries.get(&taken.entry.key);
        waiting.is_some_and(|waiting| waiting.number == taken.number)
    }

    /// The store has all of these.
    pub(crate) fn confirm(&mut self, batch: &[Taken]) {
        for taken in batch {
            if self.holds(taken) {
                self.forget(&taken.entry.key);
            }
        }
        self.figures.written += batch.len() as u64;
    }

    /// Puts back what could not be written, where it was. An entry that failed alone goes to the end instead: it
    /// may be its fault, and the others shall have their turn. If it fails again alone though others
    /// were written meanwhile, then it was, and it goes.
    pub(crate) fn put_back(&mut self, batch: &[Taken]) {
        let alone = batch.len() == 1;
        for taken in batch {
            let (written, last) = (self.figures.written, self.next_number + 1);
            let waiting = self.entries.get_mut(&taken.entry.key);
            let Some(waiting) = waiting.filter(|waiting| waiting.number == taken.number) else {
                continue;
            };
            if !alone {
                self.line.insert(taken.number, Arc::clone(&taken.entry.key));
            } else if waiting.refused_at.is_some_and(|then| then < written) {
                self.forget(&taken.entry.key);
                self.figures.dropped += 1;
            } else {
                waiting.refused_at.get_or_insert(written);
                waiting.number = last;
                self.next_number = last;
                self.line.insert(last, Arc::clone(&taken.entry.key));
            }
        }
    }

    /// Nobody writes any more: what waits is lost, and nothing is let in.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.figures.dropped += self.entries.len() as u64;
        self.figures.waiting_bytes = 0;
        self.entries.clear();
        self.line.clear();
    }
}

/// An entry that is being written.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) entry: ColdEntry,
    number: u64,
}

fn weight(entry: &ColdEntry) -> usize {
    ENTRY_OVERHEAD + entry.key.len() + entry.bytes.len()
}

/// What an entry that waits costs beside key and frame, about, in bytes.
pub(crate) const ENTRY_OVERHEAD: usize = 192;

/// The most entries of one transaction.
pub(crate) const BATCH_ENTRIES_MAX: usize = 64;

/// The most bytes of one transaction, unless a single entry has more: 1 MiB.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WIDE: Bounds = Bounds {
        entries: 100,
        bytes: 1 << 20,
    };

    fn entry(key: &str, bytes: &str) -> ColdEntry {
        ColdEntry {
            key: key.into(),
            bytes: Bytes::copy_from_slice(bytes.as_bytes()),
            until_ms: 1_000,
        }
    }

    fn queue(keys: &[&str]) -> Queue {
        let mut queue = Queue::default();
        for key in keys {
            assert!(queue.offer(entry(key, "1"), WIDE));
        }
        queue
    }

    fn keys(batch: &[Taken]) -> Vec<&str> {
        batch.iter().map(|taken| &*taken.entry.key).collect()
    }

    #[test]
    fn what_comes_again_takes_the_place_of_what_waits() {
        let mut queue = queue(&["a", "b"]);
        assert!(queue.offer(entry("a", "22"), WIDE));
        assert_eq!(queue.waiting("a").unwrap(), "22");
        assert_eq!(queue.figures().waiting_entries, 2);
        let batch = queue.take_batch(64, 0);
        assert_eq!(keys(&batch), ["a", "b"], "it keeps its place");
        assert_eq!(batch[0].entry.bytes, "22");
        queue.confirm(&batch);
        let figures = Figures {
            written: 2,
            ..Figures::default()
        };
        assert_eq!(queue.figures(), figures);
    }

    #[test]
    fn what_comes_while_the_older_is_written_waits_on_whatever_becomes_of_that() {
        for succeeds in [true, false] {
            let mut queue = queue(&["a", "b"]);
            let batch = queue.take_batch(64, 0);
            assert_eq!(queue.waiting("a").unwrap(), "1", "it is not written yet");
            assert!(queue.offer(entry("a", "2"), WIDE));
            if succeeds {
                queue.confirm(&batch);
            } else {
                queue.put_back(&batch);
            }
            assert_eq!(queue.waiting("a").unwrap(), "2");
            let next = queue.take_batch(64, 0);
            let expected: &[&str] = if succeeds { &["a"] } else { &["b", "a"] };
            assert_eq!(keys(&next), expected);
            queue.confirm(&next);
            assert_eq!(queue.figures().waiting_bytes, 0);
        }
    }

    #[test]
    fn where_there_is_no_room_the_oldest_in_line_go() {
        let two = Bounds { entries: 2, ..WIDE };
        let mut queue = Queue::default();
        for key in ["a", "b", "c"] {
            assert!(queue.offer(entry(key, "1"), two));
        }
        assert_eq!(queue.waiting("a"), None);
        assert!(queue.offer(entry("b", "2"), two), "that takes no room");
        assert_eq!(queue.figures().dropped, 1);
        let batch = queue.take_batch(1, 0);
        assert_eq!(keys(&batch), ["b"]);
        assert!(queue.offer(entry("d", "1"), two));
        assert_eq!(queue.waiting("c"), None, "what is being written stays");
        let rest = queue.take_batch(1, 0);
        assert!(
            !queue.offer(entry("e", "1"), two),
            "all of it is being written"
        );
        assert_eq!(queue.figures().dropped, 3);
        queue.put_back(&batch);
        queue.put_back(&rest);
        assert_eq!(queue.figures().waiting_entries, 2);
    }

    #[test]
    fn bytes_are_bounded_too_and_what_can_never_be_written_is_not_let_in() {
        let room = 2 * (ENTRY_OVERHEAD + 11);
        let bounds = Bounds {
            entries: 9,
            bytes: room,
        };
        let mut queue = Queue::default();
        let too_large = "x".repeat(room);
        for (key, bytes) in [("a", &*too_large), ("", "1"), ("nul\0", "1")] {
            assert!(!queue.offer(entry(key, bytes), bounds));
        }
        for key in ["a", "b", "c"] {
            assert!(queue.offer(entry(key, "0123456789"), bounds));
        }
        assert_eq!(queue.waiting("a"), None);
        assert_eq!(queue.figures().waiting_bytes, room);
        // A larger one for the same key pushes out the others, not itself.
        assert!(queue.offer(entry("b", &"x".repeat(100)), bounds));
        assert_eq!(
            (queue.waiting("c"), queue.figures().waiting_entries),
            (None, 1)
        );
        queue.close();
        assert!(!queue.offer(entry("d", "1"), bounds));
        let figures = Figures {
            dropped: 3 + 2 + 2,
            ..Figures::default()
        };
        assert_eq!(queue.figures(), figures);
    }

    #[test]
    fn a_batch_has_as_many_as_asked_for_and_a_mebibyte_but_one_at_least() {
        let large = "x".repeat(BATCH_BYTES_MAX / 2);
        let wide = Bounds {
            entries: 9,
            bytes: 9 * BATCH_BYTES_MAX,
        };
        let mut queue = Queue::default();
        let larger = "x".repeat(2 * BATCH_BYTES_MAX);
        for (key, bytes) in [("a", &larger), ("b", &large), ("c", &large), ("d", &large)] {
            assert!(queue.offer(entry(key, bytes), wide));
        }
        let small = String::from("1");
        for key in ["e", "f"] {
            assert!(queue.offer(entry(key, &small), wide));
        }
        let mut seen = Vec::new();
        for most in [64, 64, 64, 2, 2] {
            let batch = queue.take_batch(most, 0);
            seen.push(keys(&batch).join(""));
        }
        assert_eq!(seen, ["a", "b", "c", "de", "f"]);
    }

    #[test]
    fn what_has_run_out_is_not_written() {
        let mut queue = queue(&["a"]);
        let later = ColdEntry {
            until_ms: 1_001,
            ..entry("b", "1")
        };
        assert!(queue.offer(later, WIDE));
        assert_eq!(keys(&queue.take_batch(64, 1_000)), ["b"]);
        assert_eq!((queue.waiting("a"), queue.figures().dropped), (None, 1));
    }

    #[test]
    fn what_fails_alone_goes_to_the_end_and_the_second_time_away_if_others_did_not_fail() {
        let mut queue = queue(&["bad", "good"]);
        for _ in 0..3 {
            // Nothing can be written: it may be anybody's fault.
            for key in ["bad", "good"] {
                let alone = queue.take_batch(1, 0);
                assert_eq!(keys(&alone), [key]);
                queue.put_back(&alone);
            }
        }
        let together = queue.take_batch(2, 0);
        queue.put_back(&together);
        let alone = queue.take_batch(1, 0);
        assert_eq!(
            keys(&alone),
            ["bad"],
            "who failed with others keeps the place"
        );
        queue.put_back(&alone);
        let good = queue.take_batch(1, 0);
        queue.confirm(&good);
        let alone = queue.take_batch(1, 0);
        queue.put_back(&alone);
        let figures = Figures {
            written: 1,
            dropped: 1,
            ..Figures::default()
        };
        assert_eq!(queue.figures(), figures);
        assert!(!queue.has_work());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Offer(u8, usize, u64),
        Take(usize),
        Confirm,
        PutBack,
        Pass,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..12u8, 0..700usize, 1..30u64).prop_map(|(key, len, until)| Step::Offer(key, len, until)),
            2 => (1..6usize).prop_map(Step::Take),
            1 => Just(Step::Confirm),
            1 => Just(Step::PutBack),
            1 => Just(Step::Pass),
        ]
    }

    proptest! {
        /// Whatever happens: the bounds hold, the sums are right, every entry that was offered is somewhere, and
        /// what waits under a key is what was offered last.
        #[test]
        fn nothing_is_lost_uncounted_and_nothing_exceeds_the_bounds(
            steps in prop::collection::vec(step(), 1..120),
        ) {
            let bounds = Bounds { entries: 5, bytes: 2_000 };
            let (mut queue, mut batch) = (Queue::default(), Vec::new());
            let (mut offered, mut replaced, mut now_ms) = (0, 0, 0);
            let mut written_late = 0;
            for (count, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Offer(key, len, until_ms) => {
                        let (key, mark) = (format!("key {key}"), count as u8);
                        let bytes = Bytes::from(vec![mark; len]);
                        let before = queue.entries.contains_key(&*key);
                        offered += 1;
                        let entry = ColdEntry { key: key.as_str().into(), bytes: bytes.clone(), until_ms };
                        if queue.offer(entry, bounds) {
                            replaced += u64::from(before);
                            prop_assert_eq!(queue.waiting(&key), Some(bytes));
                        }
                    }
                    Step::Take(most) if batch.is_empty() => {
                        batch = queue.take_batch(most, now_ms);
                        prop_assert!(batch.len() <= most);
                    }
                    Step::Take(_) => {}
                    Step::Confirm => {
                        // Replaced while they were being written, and written all the same.
                        written_late += batch.iter().filter(|taken| !queue.holds(taken)).count() as u64;
                        queue.confirm(&batch);
                        batch.clear();
                    }
                    Step::PutBack => {
                        queue.put_back(&batch);
                        batch.clear();
                    }
                    Step::Pass => now_ms += 3,
                }
                let figures = queue.figures();
                let bytes: usize = queue.entries.values().map(|waiting| weight(&waiting.entry)).sum();
                prop_assert_eq!(figures.waiting_bytes, bytes);
                prop_assert!(figures.waiting_entries <= bounds.entries && bytes <= bounds.bytes);
                let known = figures.written - written_late + figures.dropped + replaced;
                prop_assert_eq!(offered, known + figures.waiting_entries as u64);
                let in_line = queue.line.iter().all(|(number, key)| queue.entries[key].number == *number);
                prop_assert!(in_line);
                let taken = batch.iter().filter(|taken| queue.holds(taken)).count();
                prop_assert_eq!(queue.line.len() + taken, queue.entries.len());
            }
        }
    }
}
