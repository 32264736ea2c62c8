//! The mirror as its readers see it: shared by all threads, judged mostly by one comparison.

use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::event::{Event, Events};
use crate::journal::marker::Subject;
use crate::journal::mirror::{Heard, Mirror};
use crate::journal::record::Record;
use crate::journal::stamp::{Checked, Stamp, Verdict};
use crate::journal::standing::{JournalStatus, Standing, Unverified};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, PoisonError};
use crate::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// One shard of the journal, as this process knows it.
#[derive(Debug)]
pub(crate) struct Shard {
    /// The mirror's epoch, for those who need not look at more.
    epoch: AtomicU64,
    /// Until when its word is good; without end where there is nobody else.
    serves_until: AtomicU64,
    mirror: RwLock<Mirror>,
    standing: Mutex<Standing>,
    pub(crate) clock: Clock,
    pub(crate) events: Events,
    /// For how long an unverified mirror is believed all the same.
    grace: Duration,
    #[cfg(feature = "fault-injection")]
    pub(crate) sabotage: crate::journal::sabotage::Sabotage,
}

impl Shard {
    /// The only one there is: it is always right.
    pub(crate) fn alone(mirror: Mirror, clock: Clock, events: Events) -> Self {
        Self::of(
            mirror,
            (clock, events),
            (Standing::verified(), u64::MAX, Duration::ZERO),
        )
    }

    /// One of several, which has not heard anything yet.
    pub(crate) fn deaf(mirror: Mirror, clock: Clock, events: Events, grace: Duration) -> Self {
        let now = clock.now();
        let until = now.plus(grace).as_nanos();
        Self::of(
            mirror,
            (clock, events),
            (Standing::starting(now), until, grace),
        )
    }

    fn of(
        mirror: Mirror,
        (clock, events): (Clock, Events),
        (standing, until, grace): (Standing, u64, Duration),
    ) -> Self {
        Self {
            epoch: AtomicU64::new(mirror.epoch()),
            serves_until: AtomicU64::new(until),
            mirror: RwLock::new(mirror),
            standing: Mutex::new(standing),
            clock,
            events,
            grace,
            #[cfg(feature = "fault-injection")]
            sabotage: crate::journal::sabotage::Sabotage::default(),
        }
    }

    pub(crate) fn position(&self) -> Stamp {
        self.read().position()
    }

    /// What is to be said of an entry at `now`. One comparison with each of two numbers if nothing has
    /// changed since it was last found to hold.
    #[inline]
    pub(crate) fn judge(
        &self,
        born: Stamp,
        checked: &Checked,
        subject: &Subject,
        now: Moment,
    ) -> Verdict {
        let in_time = now.as_nanos() < self.serves_until.load(Ordering::Acquire);
        if in_time && checked.epoch() == self.epoch.load(Ordering::Acquire) {
            return Verdict::Fresh;
        }
        self.look(born, checked, subject, in_time)
    }

    fn look(&self, born: Stamp, checked: &Checked, subject: &Subject, in_time: bool) -> Verdict {
        let mirror = self.read();
        let verdict = mirror.verdict(born, checked.epoch(), subject);
        match verdict {
            // What is gone stays gone, whoever is asked.
            Verdict::Gone => Verdict::Gone,
            _ if !in_time => Verdict::Unverified,
            Verdict::Fresh => {
                checked.advance(mirror.epoch());
                Verdict::Fresh
            }
            Verdict::Expired | Verdict::Unverified => verdict,
        }
    }

    pub(crate) fn has_settled(&self, began: Moment, subject: &Subject) -> bool {
        self.read().has_settled(began, subject)
    }

    /// Lets `change` happen to the mirror, whole or not at all for those who judge meanwhile.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Mirror, Moment) -> T) -> T {
        let now = self.clock.now();
        let mut mirror = self.write();
        let outcome = change(&mut mirror, now);
        self.epoch.store(mirror.epoch(), Ordering::Release);
        outcome
    }

    /// Hears a record from the channel. Whatever is missing then is for the keeper to find out.
    pub(crate) fn hear(&self, inc: u64, seq: u64, record: &Record) -> Heard {
        let heard = self.change(|mirror, now| mirror.hear(inc, seq, record, now));
        match heard {
            Heard::Entered => {}
            Heard::Gap => self.doubt(Unverified::Gap),
            Heard::Foreign => self.doubt(Unverified::Replaced),
        }
        heard
    }

    /// From now on the mirror's word is not good: at once, or once the grace is over.
    pub(crate) fn doubt(&self, why: Unverified) {
        let now = self.clock.now();
        let mut standing = self.standing();
        let until = now.plus(self.grace).as_nanos();
        self.serves_until.fetch_min(until, Ordering::AcqRel);
        let is_news = standing.doubt(why, now);
        drop(standing);
        if is_news {
            self.tell();
        }
    }

    /// The mirror's word is good for so long, if nothing was doubted since `doubts` were counted.
    pub(crate) fn vouch(&self, doubts: u64, until: Moment) -> bool {
        let mut standing = self.standing();
        if standing.doubts() != doubts || !standing.is_subscribed() || !self.read().is_complete() {
            return false;
        }
        let until = until.plus(self.grace).as_nanos();
        self.serves_until.store(until, Ordering::Release);
        let is_news = standing.vouch();
        drop(standing);
        if is_news {
            self.tell();
        }
        true
    }

    /// Tells how it is, with no lock held: whoever hears of it may ask. One tells at a time, until what was told last is
    /// how it is; so nothing is told too late, and what came and went meanwhile not at all.
    fn tell(&self) {
        if !self.standing().begin_to_tell() {
            return;
        }
        let _turn = Turn(self);
        loop {
            let news = self.standing().news();
            self.events.emit(match news {
                None => return,
                Some(Ok(())) => Event::JournalVerified,
                Some(Err(why)) => Event::JournalUnverified { why: why.as_str() },
            });
        }
    }

    /// Whether the mirror's word is good, now.
    pub(crate) fn is_verified(&self) -> bool {
        self.standing().unverified().is_none()
            && self.clock.now().as_nanos() < self.serves_until.load(Ordering::Acquire)
    }

    /// How it is, as far as it has been noticed.
    pub(crate) fn status(&self) -> JournalStatus {
        self.notice_silence();
        self.standing().status(self.clock.now())
    }

    /// Notes that the lease has ended.
    pub(crate) fn notice_silence(&self) {
        let until = self.serves_until.load(Ordering::Acquire);
        // Without end there is none.
        let lease_ends = until.saturating_sub(self.grace.as_nanos() as u64);
        if self.standing().unverified().is_none() && self.clock.now().as_nanos() >= lease_ends {
            self.doubt(Unverified::Silent);
        }
    }

    /// Whether nothing is missing.
    #[cfg(feature = "redis")]
    pub(crate) fn is_complete(&self) -> bool {
        self.read().is_complete()
    }

    /// Whether it is sure that everything was heard up to the record `seq` of `inc`, on the connection
    /// that there is.
    #[cfg(feature = "redis")]
    pub(crate) fn has_heard(&self, inc: u64, seq: u64) -> bool {
        if self.standing().unverified().is_some() {
            return false;
        }
        let at = self.position();
        at.inc == inc && at.seq >= seq
    }

    pub(crate) const fn grace(&self) -> Duration {
        self.grace
    }

    pub(crate) fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic inside of the lock cannot leave the mirror claiming more than it holds, so poison is
    /// ignored.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Mirror> {
        self.mirror.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Mirror> {
        self.mirror.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever tells. A recorder that panics ends the telling, and the next change is told all the same.
struct Turn<'a>(&'a Shard);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.standing().stop_telling();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock, Weak};

    use super::*;
    use crate::event::Recorder;

    /// Asks the journal how it is whenever it hears of anything, and doubts it when it hears that it is right.
    #[derive(Default)]
    struct Asks {
        shard: OnceLock<Weak<Shard>>,
        heard: Mutex<Vec<&'static str>>,
    }

    impl Recorder for Asks {
        fn record(&self, event: &Event<'_>) {
            let shard = self.shard.get().and_then(Weak::upgrade).unwrap();
            let is_verified = shard.status() == JournalStatus::Verified;
            let (word, told) = match *event {
                Event::JournalVerified => ("verified", true),
                Event::JournalUnverified { why } => (why, false),
                _ => ("other", is_verified),
            };
            assert_eq!(is_verified, told, "{word}");
            self.heard.lock().unwrap().push(word);
            if told {
                shard.doubt(Unverified::Gap);
                self.heard.lock().unwrap().push("back");
            }
        }
    }

    #[test]
    fn whoever_hears_of_a_doubt_may_ask_and_doubt_and_is_told_in_order() {
        let (done, seen) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let asks = Arc::new(Asks::default());
            let events = Events::to(vec![Arc::<Asks>::clone(&asks)]);
            let (clock, _hand) = Clock::manual();
            let shard = Shard::deaf(Mirror::new(7, 1_024, 16), clock, events, Duration::ZERO);
            let shard = Arc::new(shard);
            assert!(asks.shard.set(Arc::downgrade(&shard)).is_ok());
            shard.standing().subscribe();
            let ends = shard.clock.now().plus(Duration::from_secs(1));
            assert!(shard.vouch(0, ends));
            shard.doubt(Unverified::Gap);
            shard.doubt(Unverified::Disconnected);
            let heard = std::mem::take(&mut *asks.heard.lock().unwrap());
            let _ = done.send(heard);
        });
        let heard = seen.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(heard, ["verified", "back", "gap", "disconnected"]);
    }
}
