//! The journal's mirror: who judges entries, and who changes what they are judged by.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::event::Events;
use crate::journal::marker::{Marker, Subject};
use crate::journal::mirror::{Heard, Mirror};
use crate::journal::record::Record;
use crate::journal::shard::Shard;
use crate::journal::stamp::{Checked, Stamp, Verdict};
use crate::journal::standing::Unverified;
use crate::orders::{at_once, every_order};
use crate::sync::{AtomicBool, Ordering};

const INC: u64 = 7;

/// When it is now, and when the lease ends that somebody vouches for.
const NOW: Moment = Moment(1_000);
const LEASE_ENDS: Moment = Moment(2_000);

/// A mirror, an entry in memory, and whether somebody has said that he is done.
struct Stage {
    shard: Shard,
    born: Stamp,
    checked: Checked,
    subject: Subject,
    told: AtomicBool,
}

impl Stage {
    /// Nothing is missing, and the entry is as new as it can be.
    fn verified() -> Self {
        let stage = Self::doubted();
        assert!(stage.vouch(stage.doubts()));
        assert_eq!(stage.judge(), Verdict::Fresh);
        stage
    }

    /// The channel is subscribed, and what was said before that is not known yet.
    fn doubted() -> Self {
        let clock = Clock {
            now: NOW,
            ..Clock::default()
        };
        let mirror = Mirror::new(INC, 1_024, 16);
        let shard = Shard::deaf(mirror, clock, Events, Duration::ZERO);
        shard.standing().subscribe();
        let born = shard.position();
        Self {
            checked: Checked::at(born),
            subject: Subject::of("k", &[]),
            told: AtomicBool::new(false),
            shard,
            born,
        }
    }

    fn judge(&self) -> Verdict {
        self.shard
            .judge(self.born, &self.checked, &self.subject, NOW)
    }

    /// Judges, and says whether somebody had said before that he is done.
    fn judge_as_told(&self) -> (bool, Verdict) {
        let told = self.told.load(Ordering::Acquire);
        (told, self.judge())
    }

    fn tell(&self) {
        self.told.store(true, Ordering::Release);
    }

    fn doubts(&self) -> u64 {
        self.shard.standing().doubts()
    }

    fn vouch(&self, doubts: u64) -> bool {
        self.shard.vouch(doubts, LEASE_ENDS)
    }

    /// One round of the keeper, which finds nothing missing. Returns the doubts of which it knew, if it vouches.
    fn look_after(&self) -> Option<u64> {
        let doubts = self.doubts();
        self.vouch(doubts).then_some(doubts)
    }

    /// Something was invalidated here, and is carried out at once.
    fn queue(&self, key: &str) {
        self.shard
            .change(|mirror, now| mirror.queue(&naming(key), now));
    }
}

fn naming(key: &str) -> Record {
    Record::of([Marker::key(key)])
}

/// What a thread has seen that only changes something.
const NOTHING: (bool, Verdict) = (false, Verdict::Fresh);

/// Two change the mirror at once, and what is noted last of it has to be what was changed last. The entry was
/// not looked at for a while, so that it is in between.
pub(crate) fn what_was_heard_is_never_fresh_again() {
    every_order(|| {
        let stage = Stage::verified();
        stage.queue("something else");
        let stage = Arc::new(stage);
        let deeds: [fn(&Stage) -> (bool, Verdict); 3] = [
            |stage| {
                let heard = stage.shard.hear(INC, 1, &naming("k"));
                assert_eq!(heard, Heard::Entered);
                stage.tell();
                // Whoever has heard it himself is one of those who come after.
                (true, stage.judge())
            },
            |stage| {
                stage.queue("another");
                NOTHING
            },
            Stage::judge_as_told,
        ];
        for (told, verdict) in at_once(&stage, deeds) {
            assert!(!told || verdict == Verdict::Gone, "{verdict:?}");
        }
        assert_eq!(stage.judge(), Verdict::Gone);
    });
}

/// Something else has changed, so the entry is looked at and that it holds is remembered: until when?
pub(crate) fn an_entry_is_not_believed_beyond_what_was_looked_at() {
    every_order(|| {
        let stage = Stage::verified();
        stage.queue("another");
        let stage = Arc::new(stage);
        let deeds: [fn(&Stage) -> (bool, Verdict); 3] =
            [Stage::judge_as_told, Stage::judge_as_told, |stage| {
                stage.queue("k");
                stage.tell();
                NOTHING
            }];
        for (told, verdict) in at_once(&stage, deeds) {
            assert!(!told || verdict == Verdict::Gone, "{verdict:?}");
        }
        assert_eq!(stage.judge(), Verdict::Gone);
    });
}

/// The keeper has asked, the connection is lost, and then there is an answer from before.
pub(crate) fn a_doubt_is_not_undone_by_who_began_before_it() {
    every_order(|| {
        let stage = Stage::verified();
        let known = stage.doubts();
        let stage = Arc::new(stage);
        enum Did {
            Vouched(Option<u64>),
            Judged(bool, Verdict),
        }
        let deeds: [fn(&Stage) -> Did; 3] = [
            |stage| {
                stage.shard.doubt(Unverified::Disconnected);
                stage.tell();
                Did::Judged(false, Verdict::Fresh)
            },
            |stage| Did::Vouched(stage.look_after()),
            |stage| {
                let (told, verdict) = stage.judge_as_told();
                Did::Judged(told, verdict)
            },
        ];
        let [_, keeper, reader] = at_once(&stage, deeds);
        let Did::Vouched(vouched) = keeper else {
            panic!("that is what it did")
        };
        // One that knows of the doubt has asked after it.
        let undone = vouched.is_some_and(|doubts| doubts > known);
        let after = if undone {
            Verdict::Fresh
        } else {
            Verdict::Unverified
        };
        assert_eq!(stage.judge(), after);
        assert_eq!(stage.shard.is_verified(), undone);
        let Did::Judged(told, verdict) = reader else {
            panic!("that is what it did")
        };
        assert!(!told || undone || verdict == Verdict::Unverified);
    });
}

/// A record is missing: that it was noticed is what the mirror says, before anybody has doubted.
pub(crate) fn nobody_vouches_for_a_gap() {
    every_order(|| {
        let stage = Arc::new(Stage::verified());
        let deeds: [fn(&Stage) -> (bool, Verdict); 3] = [
            |stage| {
                let heard = stage.shard.hear(INC, 2, &naming("another"));
                assert_eq!(heard, Heard::Gap);
                stage.tell();
                (true, stage.judge())
            },
            |stage| {
                stage.look_after();
                NOTHING
            },
            Stage::judge_as_told,
        ];
        for (told, verdict) in at_once(&stage, deeds) {
            assert!(!told || verdict == Verdict::Unverified, "{verdict:?}");
        }
        assert_eq!(stage.judge(), Verdict::Unverified);
    });
}

/// Nothing but the lease tells a reader that the mirror is right again, so it has to be right by then.
pub(crate) fn whoever_is_vouched_for_has_what_was_missed() {
    every_order(|| {
        let stage = Arc::new(Stage::doubted());
        let deeds: [fn(&Stage) -> Verdict; 3] = [
            |stage| {
                let doubts = stage.doubts();
                stage
                    .shard
                    .change(|mirror, now| mirror.learn(INC, 1, &naming("k"), now));
                assert!(stage.vouch(doubts));
                stage.judge()
            },
            Stage::judge,
            Stage::judge,
        ];
        let [after, meanwhile, beside] = at_once(&stage, deeds);
        assert_eq!(after, Verdict::Gone);
        assert!(!meanwhile.holds() && !beside.holds());
    });
}
