//! Writes invalidations down: in order, at once where Redis is there, and later where it is not.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::clock::Moment;
use crate::event::Event;
use crate::journal::appending::Appending;
use crate::journal::confirmations::Confirmations;
use crate::journal::line::{Appended, Line};
use crate::journal::marker::Marker;
use crate::journal::overseer::{Overseer, Sample};
use crate::journal::probe::Asked;
use crate::journal::record::Record;
use crate::journal::shard::Shard;
use crate::journal::stamp::{Pending, Receipt, Stamp};
use crate::store::{StatusWatch, StoreError};

/// Appends what this instance invalidates. One record after the other: a batch is under way at a time, and
/// what comes meanwhile is the next one.
#[derive(Debug)]
pub(crate) struct Scribe {
    pub(crate) line: Line,
    pub(crate) shard: Arc<Shard>,
    pub(crate) confirmations: Arc<Confirmations>,
    overseer: Arc<Overseer>,
    queue: Mutex<VecDeque<Queued>>,
    queue_max: usize,
    news: Notify,
    /// Held by whoever sends.
    sending: tokio::sync::Mutex<()>,
    /// Whether Redis was away when it was last needed, so that nobody need wait to be told.
    away: AtomicBool,
    /// The server's run id, where scripts are not told it.
    run: Mutex<Arc<str>>,
    patience: Duration,
}

#[derive(Debug)]
struct Queued {
    record: Arc<Record>,
    bytes: Vec<u8>,
    /// Who waits for it.
    told: Option<oneshot::Sender<Result<(Appended, Moment), Pending>>>,
}

/// How many records are sent in one round trip.
const AT_ONCE: usize = 64;

/// How long to wait after a server has refused a record.
const PAUSE: Duration = Duration::from_millis(50);

impl Scribe {
    pub(crate) fn new(
        line: Line,
        shard: Arc<Shard>,
        (confirmations, overseer): (Arc<Confirmations>, Arc<Overseer>),
        (queue_max, patience): (usize, Duration),
    ) -> Self {
        Self {
            line,
            shard,
            confirmations,
            overseer,
            queue: Mutex::default(),
            queue_max,
            news: Notify::new(),
            sending: tokio::sync::Mutex::default(),
            away: AtomicBool::new(false),
            run: Mutex::new("".into()),
            patience,
        }
    }

    /// Carries a record out here, and sees to its being recorded.
    pub(crate) fn append(self: &Arc<Self>, record: Record) -> Appending {
        let (told, hears) = oneshot::channel();
        let (bytes, record) = (record.to_bytes(), Arc::new(record));
        let is_full = {
            let mut queue = self.queue();
            // Under the queue's lock, so that what waits here is what waits in the mirror. Nobody locks the
            // two the other way round.
            self.shard.change(|mirror, now| mirror.queue(&record, now));
            let is_full = queue.len() >= self.queue_max;
            if is_full {
                self.join(&mut queue);
            }
            queue.push_back(Queued {
                record,
                bytes,
                told: Some(told),
            });
            if self.away.load(Ordering::Relaxed) {
                untold(&mut queue, Pending::Queued);
            }
            is_full
        };
        // When no lock is held: whoever hears of it may ask the journal how it is.
        if is_full {
            self.shard.events.emit(Event::Warning { text: JOINED });
        }
        self.news.notify_one();
        let scribe = Arc::clone(self);
        Appending::waiting(async move { scribe.acknowledged(hears).await })
    }

    /// Puts one record in the place of all that wait: more of them would take up memory without bound, and to
    /// leave one out would keep what is old.
    fn join(&self, queue: &mut VecDeque<Queued>) {
        untold(queue, Pending::Queued);
        queue.clear();
        let record = Arc::new(Record::of([Marker::Everything]));
        self.shard.change(|mirror, now| mirror.queue(&record, now));
        queue.push_back(Queued {
            bytes: record.to_bytes(),
            record,
            told: None,
        });
    }

    async fn acknowledged(
        &self,
        hears: oneshot::Receiver<Result<(Appended, Moment), Pending>>,
    ) -> Result<Receipt, Pending> {
        let mut reached = Pending::Unanswered;
        let waiting = async {
            let (appended, answered) = hears.await.unwrap_or(Err(Pending::Queued))?;
            reached = Pending::Unconfirmed;
            if self.line.waits_for_others() {
                let (me, clock) = (self.line.me, &self.line.clock);
                self.confirmations.all(me, &appended, answered, clock).await;
            }
            Ok(Receipt(Stamp::stored(appended.inc, appended.seq)))
        };
        let outcome = tokio::time::timeout(self.patience, waiting).await;
        let outcome = outcome.unwrap_or(Err(reached));
        if let Err(pending) = outcome {
            self.shard
                .events
                .emit(Event::InvalidationPending { why: why(pending) });
        }
        outcome
    }

    /// Sends whatever there is to send, for ever; ends when Redis is gone for good.
    pub(crate) async fn write(&self, mut status: StatusWatch) {
        loop {
            self.news.notified().await;
            while let Err(error) = self.flush().await {
                self.away.store(true, Ordering::Relaxed);
                untold(&mut self.queue(), Pending::Queued);
                // A server that is there and takes no writes at present would be asked without end.
                if !error.is_unavailable() || status.now().is_up() {
                    tokio::time::sleep(PAUSE).await;
                }
                if !status.until_up().await {
                    return;
                }
            }
        }
    }

    /// Sends all that waits by the time that it is this one's turn. What comes meanwhile is for the next: else,
    /// where something always comes, whoever waits for this would never get on.
    ///
    /// # Errors
    ///
    /// The store's. What was not confirmed still waits then; whoever hears of it twice carries it out twice,
    /// which does no harm.
    ///
    /// # Cancellation
    ///
    /// As with an error.
    pub(crate) async fn flush(&self) -> Result<(), StoreError> {
        let _sending = self.sending.lock().await;
        let mut taken = Taken {
            scribe: self,
            queue: {
                let mut queue = self.queue();
                if queue.is_empty() {
                    self.away.store(false, Ordering::Relaxed);
                    return Ok(());
                }
                self.shard.change(|mirror, _| mirror.send());
                std::mem::take(&mut *queue)
            },
        };
        self.send(&mut taken.queue).await?;
        let queue = self.queue();
        self.away.store(false, Ordering::Relaxed);
        self.shard.change(|mirror, _| mirror.sent(queue.is_empty()));
        Ok(())
    }

    /// Sends what is left when the stack ends, until nothing waits or Redis takes no more.
    pub(crate) async fn finish(&self) {
        // Even if nothing waits: another may just have been interrupted who had taken it.
        while self.flush().await.is_ok() && self.waiting() > 0 {}
    }

    /// Sends records in order, and takes those that are recorded out of `taken`.
    async fn send(&self, taken: &mut VecDeque<Queued>) -> Result<(), StoreError> {
        while !taken.is_empty() {
            let batch = taken
                .iter()
                .take(AT_ONCE)
                .map(|queued| queued.bytes.clone());
            let batch: Vec<Vec<u8>> = batch.collect();
            let answers = match self.line.append(&self.run_id(), &batch).await {
                Ok(answers) => answers,
                Err(error) => {
                    untold(taken, left(&error, &[]));
                    return Err(error);
                }
            };
            let answered = self.line.clock.now();
            let mut answers = answers.into_iter();
            while let Some(answer) = answers.next() {
                let appended = match answer {
                    Ok(appended) => appended,
                    Err(error) => {
                        untold(taken, left(&error, answers.as_slice()));
                        return Err(error);
                    }
                };
                if let Some(Queued { record, told, .. }) = taken.pop_front() {
                    let at = (appended.inc, appended.seq);
                    self.shard
                        .change(|mirror, now| mirror.recorded(at, &record, now));
                    self.shard.events.emit(Event::Invalidated {
                        seq: appended.seq,
                        markers: record.markers().len(),
                    });
                    self.overseer.offer(answered, || Sample {
                        shard: usize::from(self.line.shard),
                        asked: Asked {
                            inc: appended.inc,
                            seq: appended.seq,
                            record,
                        },
                        appended: Some((appended.clone(), answered)),
                    });
                    // Whoever does not wait any more need not be told.
                    let _ = told.map(|told| told.send(Ok((appended, answered))));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn run_id(&self) -> Arc<str> {
        Arc::clone(&self.run.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_run_id(&self, run: &str) {
        *self.run.lock().unwrap_or_else(PoisonError::into_inner) = run.into();
    }

    /// How many records wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue().len()
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Queued>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is being sent. What was not recorded when this is dropped is the first to be sent the next time.
struct Taken<'a> {
    scribe: &'a Scribe,
    queue: VecDeque<Queued>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        let mut queue = self.scribe.queue();
        while let Some(left) = self.queue.pop_back() {
            queue.push_front(left);
        }
    }
}

const JOINED: &str = "more invalidations wait for Redis than journal.queue_max allows, so everything will be \
     invalidated when it is back";

/// Tells everybody who waits that it takes longer.
fn untold(queue: &mut VecDeque<Queued>, why: Pending) {
    for told in queue.iter_mut().filter_map(|queued| queued.told.take()) {
        let _ = told.send(Err(why));
    }
}

/// What is to be said of a record that came back with this error, and of those `behind` it, which will be sent
/// again: that they wait, unless one of them may be recorded already.
fn left(error: &StoreError, behind: &[Result<Appended, StoreError>]) -> Pending {
    let ran = |answer: &Result<_, StoreError>| match answer {
        Ok(_) => true,
        Err(error) => error.may_have_run(),
    };
    if error.may_have_run() || behind.iter().any(ran) {
        Pending::Unanswered
    } else {
        Pending::Queued
    }
}

const fn why(pending: Pending) -> &'static str {
    match pending {
        Pending::Queued => "queued",
        Pending::Unanswered => "unanswered",
        Pending::Unconfirmed => "unconfirmed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_answered_in_part_waits_unless_some_of_it_may_be_recorded() {
        let full = || StoreError::Refused {
            code: "OOM".into(),
            text: "".into(),
        };
        let appended = Appended {
            inc: 1,
            seq: 1,
            unknown_leases: Duration::ZERO,
            leases: Vec::new(),
        };
        for (error, behind, pending) in [
            (full(), vec![], Pending::Queued),
            (full(), vec![Err(full())], Pending::Queued),
            (full(), vec![Err(full()), Ok(appended)], Pending::Unanswered),
            (full(), vec![Err(StoreError::Lost)], Pending::Unanswered),
            (StoreError::Timeout, vec![], Pending::Unanswered),
        ] {
            assert_eq!(left(&error, &behind), pending, "{error} {behind:?}");
        }
    }
}
