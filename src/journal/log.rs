//! The journal of one process: the sequence and its mirror.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::{ConfigError, Faults};
use crate::event::{Event, Events};
use crate::journal::config::JournalConfig;
use crate::journal::marker::{Marker, Subject};
use crate::journal::mirror::Mirror;
use crate::journal::stamp::{Checked, Receipt, Stamp};

/// An append-only sequence of invalidations. Cheap to clone; all clones are one journal.
#[derive(Clone, Debug)]
pub struct Journal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inc: u64,
    /// The number of the last record that the mirror holds completely.
    last: AtomicU64,
    mirror: RwLock<Mirror>,
    events: Events,
}

impl Journal {
    /// An empty journal.
    ///
    /// # Errors
    ///
    /// Names every bound that is out of range.
    pub fn new(config: &JournalConfig, events: Events) -> Result<Self, ConfigError> {
        let mut faults = Faults::new();
        config.check("journal", &mut faults);
        faults.into_result()?;
        let inc = RandomState::new().hash_one("incarnation");
        let mirror = RwLock::new(Mirror::new(config.markers_max, config.patterns_max));
        Ok(Self {
            shared: Arc::new(Shared {
                inc,
                last: AtomicU64::new(0),
                mirror,
                events,
            }),
        })
    }

    /// Where the journal stands. Read it *before* a computation begins and store it with the result.
    /// Costs one atomic load.
    #[must_use]
    pub fn position(&self) -> Stamp {
        Stamp {
            inc: self.shared.inc,
            seq: self.shared.last.load(Ordering::Acquire),
        }
    }

    /// Appends one record. When it returns, no entry that the markers name and that was stamped
    /// before holds any more, all of them at once. Takes time by the number of markers, not of
    /// entries; an empty record is not made.
    pub fn append(&self, markers: &[Marker]) -> Receipt {
        if markers.is_empty() {
            return Receipt(self.position());
        }
        let seq = {
            // A panic inside cannot leave the mirror claiming more than it holds, so poison is
            // ignored: `last` moves only after the record is in.
            let mut mirror = self
                .shared
                .mirror
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            let seq = self.shared.last.load(Ordering::Relaxed) + 1;
            mirror.apply(seq, markers);
            self.shared.last.store(seq, Ordering::Release);
            seq
        };
        self.shared.events.emit(Event::Invalidated {
            seq,
            markers: markers.len(),
        });
        Receipt(Stamp {
            inc: self.shared.inc,
            seq,
        })
    }

    /// Whether an entry born at `born` may still be served. One comparison if nothing was appended
    /// since `checked`; else a look at the mirror under a read lock.
    #[must_use]
    #[inline]
    pub fn holds(&self, born: Stamp, checked: &Checked, subject: &Subject) -> bool {
        let last = self.shared.last.load(Ordering::Acquire);
        if born.inc == self.shared.inc && checked.seq() == last {
            return true;
        }
        self.judge(born, checked, subject, last)
    }

    fn judge(&self, born: Stamp, checked: &Checked, subject: &Subject, last: u64) -> bool {
        if born.inc != self.shared.inc {
            return false;
        }
        let mirror = self
            .shared
            .mirror
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        // The mirror may already hold more than `last`; judging by more is never wrong.
        // What it was found to hold against before need not be gone through again.
        let holds = mirror.holds(born.seq.max(checked.seq()), subject);
        if holds {
            checked.advance(last);
        }
        holds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Pattern;

    fn journal() -> Journal {
        Journal::new(&JournalConfig::default(), Events::none()).unwrap()
    }

    #[test]
    fn an_entry_computed_before_an_invalidation_and_stored_after_it_does_not_hold() {
        let journal = journal();
        let subject = Subject::of("contact:7", &["contacts".into()]);
        let born = journal.position();
        journal.append(&[Marker::key("contact:7")]);
        // The late store: stamped before, stored now.
        assert!(!journal.holds(born, &Checked::at(born), &subject));
        let reborn = journal.position();
        assert!(journal.holds(reborn, &Checked::at(reborn), &subject));
    }

    #[test]
    fn tags_patterns_and_everything_reach_what_they_name() {
        let other = Subject::of("other", &[]);
        let subject = Subject::of("contact:7", &["contacts".into()]);
        for marker in [
            Marker::tag("contacts"),
            Marker::pattern(Pattern::parse("contact:*").unwrap()),
            Marker::Everything,
        ] {
            let journal = journal();
            let born = journal.position();
            let everything = matches!(marker, Marker::Everything);
            let receipt = journal.append(&[marker]);
            assert_eq!(receipt.0.seq, 1);
            assert!(!journal.holds(born, &Checked::at(born), &subject));
            assert_eq!(journal.holds(born, &Checked::at(born), &other), !everything);
        }
    }

    #[test]
    fn an_entry_of_another_incarnation_never_holds() {
        let (old, new) = (journal(), journal());
        let born = old.position();
        assert!(!new.holds(born, &Checked::at(born), &Subject::of("k", &[])));
    }

    #[test]
    fn an_empty_record_is_not_made() {
        let journal = journal();
        assert_eq!(journal.append(&[]).0, journal.position());
        assert_eq!(journal.position().seq, 0);
    }

    #[test]
    fn readers_never_see_an_acknowledged_invalidation_undone() {
        let journal = journal();
        let subject = Subject::of("k", &[]);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let born = journal.position();
                        let checked = Checked::at(born);
                        let _ = journal.holds(born, &checked, &subject);
                        let receipt = journal.append(&[Marker::key("k")]);
                        assert!(receipt.0.seq > born.seq);
                        assert!(!journal.holds(born, &checked, &subject));
                    }
                });
            }
        });
        assert_eq!(journal.position().seq, 40_000);
    }
}
