//! The journal's handle.

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "redis")]
use futures_util::future::join_all;

use crate::clock::{Clock, Moment};
use crate::error::{ConfigError, Faults};
use crate::event::{Event, Events};
use crate::journal::appending::Appending;
use crate::journal::chance;
use crate::journal::config::JournalConfig;
use crate::journal::marker::{Subject, Tenant};
use crate::journal::mirror::Mirror;
use crate::journal::overseer::{Overseer, Sample};
use crate::journal::probe::Asked;
use crate::journal::record::Record;
#[cfg(feature = "redis")]
use crate::journal::scribe::Scribe;
use crate::journal::shard::Shard;
#[cfg(feature = "redis")]
use crate::journal::stamp::Pending;
use crate::journal::stamp::{Checked, Receipt, Stamp, Verdict};
use crate::journal::standing::JournalStatus;

/// An append-only sequence of invalidations. Cheap to clone; all clones are one journal.
#[derive(Clone, Debug)]
pub struct Journal {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    /// At least one.
    pub(crate) parts: Box<[Part]>,
    pub(crate) clock: Clock,
    pub(crate) events: Events,
    pub(crate) overseer: Arc<Overseer>,
}

/// One shard, and who writes to it.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) shard: Arc<Shard>,
    #[cfg(feature = "redis")]
    pub(crate) line: Option<Line>,
}

/// What connects a shard to Redis.
#[cfg(feature = "redis")]
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) scribe: Arc<Scribe>,
    /// Asks the keeper to look after the mirror.
    pub(crate) wake: Arc<tokio::sync::Notify>,
    /// Tells that it has.
    pub(crate) done: Arc<tokio::sync::Notify>,
}

#[cfg(feature = "redis")]
impl Line {
    /// Has the mirror looked after until `enough`, for so long at most. Returns whether it came to that.
    pub(crate) async fn looked_after(
        &self,
        within: Duration,
        enough: impl Fn() -> bool + Send + Sync,
    ) -> bool {
        let looking = async {
            loop {
                let mut done = std::pin::pin!(self.done.notified());
                done.as_mut().enable();
                if enough() {
                    return;
                }
                self.wake.notify_one();
                done.await;
            }
        };
        tokio::time::timeout(within, looking).await.is_ok()
    }
}

impl Journal {
    /// An empty journal of this process alone.
    ///
    /// # Errors
    ///
    /// Names every bound that is out of range.
    pub fn new(config: &JournalConfig, events: Events) -> Result<Self, ConfigError> {
        Self::with_clock(config, Clock::system(), events)
    }

    /// The same with a clock, by which records [settle](Record::settle).
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_clock(
        config: &JournalConfig,
        clock: Clock,
        events: Events,
    ) -> Result<Self, ConfigError> {
        checked(config)?;
        let mirror = Mirror::new(chance::number(), config.markers_max, config.patterns_max);
        let shard = Arc::new(Shard::alone(mirror, clock.clone(), events.clone()));
        let part = Part {
            shard,
            #[cfg(feature = "redis")]
            line: None,
        };
        Ok(Self::of(Box::new([part]), (clock, events), Arc::default()))
    }

    pub(crate) fn of(
        parts: Box<[Part]>,
        (clock, events): (Clock, Events),
        overseer: Arc<Overseer>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                parts,
                clock,
                events,
                overseer,
            }),
        }
    }

    /// Where the journal stands for entries without a tenant. Read it *before* a computation begins and
    /// store it with the result. Costs a lock that is nearly always free.
    #[must_use]
    pub fn position(&self) -> Stamp {
        self.part(None).shard.position()
    }

    /// The same for entries of a tenant, which may stand in another shard.
    #[must_use]
    pub fn position_for(&self, tenant: &str) -> Stamp {
        self.part(Some(Tenant::of(tenant))).shard.position()
    }

    /// Appends one record. When this returns, no entry that it names and that was stamped before is served
    /// by this process any more, all of them at once; when the result has been awaited and is a [`Receipt`],
    /// by no instance. Takes time by the number of markers, not of entries; an empty record is not made.
    ///
    /// With several shards a record that is for no tenant is one record in each, and the receipt is that of the
    /// shard that entries without a tenant are in: [`position`](Self::position) tells of the same.
    pub fn append(&self, record: impl Into<Record>) -> Appending {
        let record = record.into();
        if record.markers().is_empty() {
            return Appending::ready(Ok(Receipt(self.position())));
        }
        match (&*self.shared.parts, record.tenant()) {
            ([only], _) => self.append_to(only, record),
            (_, Some(tenant)) => self.append_to(self.part(Some(tenant)), record),
            #[cfg(feature = "redis")]
            (several, None) => {
                let each = several
                    .iter()
                    .map(|part| self.append_to(part, record.clone()));
                let each: Vec<Appending> = each.collect();
                Appending::waiting(async move {
                    let outcomes = join_all(each).await;
                    // What belongs to no tenant is stamped in the first, so its receipt is the one that counts.
                    let first = outcomes.first().copied();
                    let failed = outcomes.into_iter().find(Result::is_err);
                    failed.or(first).unwrap_or(Err(Pending::Queued))
                })
            }
            #[cfg(not(feature = "redis"))]
            (several, None) => {
                let mut outcomes = several
                    .iter()
                    .map(|part| self.append_to(part, record.clone()));
                let first = outcomes.next();
                outcomes.for_each(drop);
                first.unwrap_or(Appending::ready(Ok(Receipt(self.position()))))
            }
        }
    }

    fn append_to(&self, part: &Part, record: Record) -> Appending {
        #[cfg(feature = "redis")]
        if let Some(line) = &part.line {
            return line.scribe.append(record);
        }
        let markers = record.markers().len();
        let at = part.shard.change(|mirror, now| {
            mirror.append(&record, now);
            mirror.position()
        });
        self.shared.events.emit(Event::Invalidated {
            seq: at.seq,
            markers,
        });
        self.shared
            .overseer
            .offer(self.shared.clock.now(), || Sample {
                shard: 0,
                asked: Asked {
                    inc: at.inc,
                    seq: at.seq,
                    record: Arc::new(record),
                },
                #[cfg(feature = "redis")]
                appended: None,
            });
        Appending::ready(Ok(Receipt(at)))
    }

    /// What is to be said at `now` of an entry in this process' memory that was born at `born`. One
    /// comparison if nothing was appended since `checked`; else a look at the mirror under a read lock.
    #[must_use]
    #[inline]
    pub fn judge(&self, born: Stamp, checked: &Checked, subject: &Subject, now: Moment) -> Verdict {
        let part = match &*self.shared.parts {
            // Most journals are in one part, and then nobody need read whose entry it is.
            [only] => only,
            _ => self.part(subject.tenant()),
        };
        part.shard.judge(born, checked, subject, now)
    }

    /// Whether an entry may be served as fresh, now.
    #[must_use]
    pub fn holds(&self, born: Stamp, checked: &Checked, subject: &Subject) -> bool {
        self.judge(born, checked, subject, self.shared.clock.now()) == Verdict::Fresh
    }

    /// Whether the result of a computation that began at `began` may be stored: not while a replica that it
    /// may have read is given time to catch up. See [`Record::settle`].
    #[must_use]
    pub fn has_settled(&self, began: Moment, subject: &Subject) -> bool {
        self.part(subject.tenant())
            .shard
            .has_settled(began, subject)
    }

    /// Waits until it is known of everything whether it still holds, at most so long, and returns whether it
    /// is. For whoever has something that is [`Unverified`](Verdict::Unverified): usually that takes a
    /// moment. Returns at once where Redis is away, and where there is none.
    pub async fn reverified(&self, tenant: Option<&str>, within: Duration) -> bool {
        let part = self.part(tenant.map(Tenant::of));
        let verified = || part.shard.is_verified();
        #[cfg(feature = "redis")]
        if let Some(line) = &part.line
            && !verified()
            && line.scribe.line.pool.status().is_up()
        {
            return line.looked_after(within, verified).await;
        }
        let _ = within;
        verified()
    }

    /// How it is; with several shards, how the worst of them is.
    #[must_use]
    pub fn status(&self) -> JournalStatus {
        let of = |part: &Part| part.shard.status();
        let mut each = self.shared.parts.iter().map(of);
        let worse = each.find(|status| *status != JournalStatus::Verified);
        worse.unwrap_or(JournalStatus::Verified)
    }

    /// What an operator wants to know.
    #[must_use]
    pub fn figures(&self) -> JournalFigures {
        let mut figures = JournalFigures::default();
        for part in &self.shared.parts {
            // Before the mirror is locked: whoever appends locks the queue first, and the mirror within.
            #[cfg(feature = "redis")]
            if let Some(line) = &part.line {
                figures.waiting += line.scribe.waiting();
            }
            let mirror = part.shard.read();
            figures.markers += mirror.len();
            figures.bytes += mirror.bytes();
        }
        figures
    }

    /// How many shards there are.
    #[cfg(feature = "redis")]
    pub(crate) fn shards(&self) -> usize {
        self.shared.parts.len()
    }

    /// In which of them what belongs to `tenant` is.
    #[cfg(feature = "redis")]
    pub(crate) fn shard_of(&self, tenant: Option<&str>) -> usize {
        tenant.map_or(0, |tenant| Tenant::of(tenant).shard(self.shards()))
    }

    #[inline]
    pub(crate) fn part(&self, tenant: Option<Tenant>) -> &Part {
        let parts = &self.shared.parts;
        &parts[tenant.map_or(0, |tenant| tenant.shard(parts.len()))]
    }
}

/// Figures of a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalFigures {
    /// Names and patterns that are remembered as invalidated.
    pub markers: usize,
    /// Roughly what they take up, in bytes.
    pub bytes: usize,
    /// Invalidations that wait for Redis.
    pub waiting: usize,
}

pub(crate) fn checked(config: &JournalConfig) -> Result<(), ConfigError> {
    let mut faults = Faults::new();
    config.check("journal", &mut faults);
    faults.into_result()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::marker::Marker;
    use crate::pattern::Pattern;

    fn journal() -> Journal {
        Journal::new(&JournalConfig::default(), Events::none()).unwrap()
    }

    fn append(journal: &Journal, markers: &[Marker]) -> Receipt {
        journal.append(markers).now().unwrap().unwrap()
    }

    #[test]
    fn an_entry_computed_before_an_invalidation_and_stored_after_it_does_not_hold() {
        let journal = journal();
        let subject = Subject::of("contact:7", &["contacts".into()]);
        let born = journal.position();
        append(&journal, &[Marker::key("contact:7")]);
        // The late store: stamped before, stored now.
        assert!(!journal.holds(born, &Checked::at(born), &subject));
        let reborn = journal.position();
        assert!(journal.holds(reborn, &Checked::at(reborn), &subject));
    }

    #[test]
    fn tags_patterns_and_everything_reach_what_they_name() {
        let other = Subject::of("other", &[]);
        let subject = Subject::of("contact:7", &["contacts".into()]).in_namespace("typed");
        for marker in [
            Marker::tag("contacts"),
            Marker::namespace("typed"),
            Marker::pattern(Pattern::parse("contact:*").unwrap()),
            Marker::Everything,
        ] {
            let journal = journal();
            let born = journal.position();
            let everything = matches!(marker, Marker::Everything);
            let receipt = append(&journal, &[marker]);
            assert_eq!(receipt.0.seq, 1);
            assert!(!journal.holds(born, &Checked::at(born), &subject));
            assert_eq!(journal.holds(born, &Checked::at(born), &other), !everything);
        }
    }

    #[test]
    fn an_entry_of_another_incarnation_never_holds() {
        let (old, new) = (journal(), journal());
        let born = old.position();
        let born = Stamp::from_bytes(born.to_bytes());
        assert!(!new.holds(born, &Checked::at(born), &Subject::of("k", &[])));
    }

    #[test]
    fn an_empty_record_is_not_made() {
        let journal = journal();
        assert_eq!(append(&journal, &[]).0, journal.position());
        assert_eq!(journal.position().seq, 0);
    }

    #[test]
    fn a_soft_invalidation_makes_stale_and_no_more() {
        let journal = journal();
        let (subject, born) = (Subject::of("k", &[]), journal.position());
        let checked = Checked::at(born);
        drop(journal.append(Record::of([Marker::key("k")]).soft(true)));
        let now = journal.shared.clock.now();
        for _ in 0..2 {
            assert_eq!(
                journal.judge(born, &checked, &subject, now),
                Verdict::Expired
            );
        }
        append(&journal, &[Marker::key("k")]);
        assert_eq!(journal.judge(born, &checked, &subject, now), Verdict::Gone);
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
                        let receipt = append(&journal, &[Marker::key("k")]);
                        assert!(receipt.0.seq > born.seq);
                        assert!(!journal.holds(born, &checked, &subject));
                    }
                });
            }
        });
        assert_eq!(journal.position().seq, 40_000);
    }
}
