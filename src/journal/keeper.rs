//! Keeps a mirror right: asks where the journal stands, reads what was missed, and vouches for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::event::Event;
use crate::journal::confirmations::Owed;
use crate::journal::line::{Line, Met};
use crate::journal::scribe::Scribe;
use crate::journal::shard::Shard;
use crate::journal::sink::read;
use crate::journal::standing::Unverified;
use crate::store::{StatusWatch, StoreError};

/// Does that for one shard.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) line: Line,
    pub(crate) shard: Arc<Shard>,
    pub(crate) scribe: Arc<Scribe>,
    pub(crate) owed: Arc<Owed>,
    /// Asks the keeper to look at once.
    pub(crate) wake: Arc<Notify>,
    /// Tells those who wait that the mirror was looked after.
    pub(crate) done: Arc<Notify>,
    pub(crate) heartbeat: Duration,
    /// The session whose run id is known, where scripts are not told it.
    pub(crate) session: u64,
}

/// How long to wait after an attempt that failed, although Redis is there.
const PAUSE: Duration = Duration::from_millis(20);

impl Keeper {
    /// Looks after the mirror until Redis is gone for good.
    pub(crate) async fn keep(&mut self, mut status: StatusWatch) {
        while status.until_up().await {
            let pause = match self.catch_up().await {
                Ok(true) => self.heartbeat,
                // Without a subscription there is nothing to do until there is one, which wakes us.
                Ok(false) if !self.shard.standing().is_subscribed() => self.heartbeat,
                Ok(false) => continue,
                Err(error) => {
                    tracing::debug!(target: "tower_keep", %error, "the journal was not reached");
                    PAUSE
                }
            };
            self.shard.notice_silence();
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One round. Returns whether the mirror is vouched for.
    async fn catch_up(&mut self) -> Result<bool, StoreError> {
        let (doubts, session) = {
            let standing = self.shard.standing();
            if !standing.is_subscribed() {
                return Ok(false);
            }
            (standing.doubts(), standing.sessions())
        };
        // Before the question: the lease is counted from no later than the server does.
        let asked = self.line.clock.now();
        let met = self.meet(session).await?;
        self.follow(&met);
        while self.shard.position().seq < met.seq {
            let (now, records) = self.line.since(self.shard.position().seq).await?;
            if now.inc != met.inc {
                return Ok(false);
            }
            // Read before the mirror is locked: what cannot be is told, and whoever hears of it may ask the journal.
            let records = records.into_iter();
            let records = records.map(|(seq, record)| (seq, read(&self.shard, &record)));
            let records: Vec<_> = records.collect();
            self.shard.change(|mirror, heard| {
                for (seq, record) in &records {
                    mirror.learn(met.inc, *seq, record, heard);
                }
                if records.is_empty() {
                    // Gone without a trace; it may have named anything.
                    mirror.skip_to(met.inc, now.seq);
                }
            });
        }
        // What was invalidated here while nobody heard of it comes first.
        self.scribe.flush().await?;
        let vouched = self.shard.vouch(doubts, asked.plus(self.line.lease()));
        self.owed.look_again();
        self.done.notify_waiters();
        Ok(vouched)
    }

    fn follow(&self, met: &Met) {
        let before = self.shard.position().inc;
        if before == met.inc && !self.shard.read().is_lost() {
            return;
        }
        self.shard.change(|mirror, _| mirror.follow(met.inc));
        if before != met.inc && before != 0 {
            self.shard.events.emit(Event::JournalReplaced);
        }
    }

    async fn meet(&mut self, session: u64) -> Result<Met, StoreError> {
        let run = self.scribe.run_id();
        // A run id that we were told by the server of another connection may not be this one's.
        let run = if run.is_empty() || session == self.session {
            &*run
        } else {
            ""
        };
        if let Some(met) = self.line.meet(run, false).await? {
            return Ok(met);
        }
        let told = self.line.run_id().await?;
        let (run, anew) = match &told {
            Some(run) => (&**run, false),
            // Nobody tells: each connection could lead to another server, so each begins anew.
            None => (UNKNOWN, true),
        };
        let met = self.line.meet(run, anew).await?;
        self.scribe.set_run_id(run);
        self.session = session;
        met.ok_or(StoreError::Lost)
    }

    /// Ends: nothing is vouched for any more, and nobody needs to wait for this instance.
    pub(crate) async fn leave(&self) {
        self.shard.doubt(Unverified::Stopped);
        let _ = self.line.leave().await;
    }
}

/// Stands for the run id of a server that tells nobody.
const UNKNOWN: &str = "-";
