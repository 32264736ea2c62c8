//! The warm tier: entries in Redis, where all instances find them.
//!
//! Reads of one moment travel together, in one question for all of them that ends with where the journal
//! stands: so each is judged as strictly as if it had asked alone, and costs a fraction.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::journal::{Barrier, Journal, Stamp, Subject, Verdict};
use crate::store::{Batch, Call, Command, RedisPool, Reply, Script, StoreError};
use crate::task::Spawner;
use crate::tiers::lease::{Lease, Leases, lease_key};
use crate::tiers::script::{CLAIM, FILL, SCRIPTS};
use crate::tiers::terms::millis;

/// The way to the entries in Redis. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Warm {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: RedisPool,
    journal: Journal,
    spawner: Spawner,
    leases: Leases,
    /// How large the largest entry is that was seen here.
    largest: AtomicU64,
    /// Reads that wait for the next question, for each shard of the journal.
    waiting: Box<[Mutex<Vec<Asked>>]>,
}

/// Somebody who waits for an entry.
#[derive(Debug)]
struct Asked {
    key: Arc<str>,
    answer: oneshot::Sender<Result<Read, StoreError>>,
}

/// The turn of whoever was the first to wait: he asks for all. A task may be aborted before it has run; then those
/// who wait are let go, since whoever joined them later would wait for somebody who never asks.
#[derive(Debug)]
struct Turn {
    warm: Warm,
    shard: usize,
    over: bool,
}

/// What was found under a key, and how to judge it.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) bytes: Option<Bytes>,
    barrier: Arc<Barrier>,
}

impl Read {
    fn new(bytes: Option<Bytes>, barrier: &Arc<Barrier>) -> Self {
        Self {
            // An empty one is as good as none.
            bytes: bytes.filter(|bytes| !bytes.is_empty()),
            barrier: Arc::clone(barrier),
        }
    }

    /// What is to be said of an entry that was found.
    pub(crate) fn verdict(&self, born: Stamp, subject: &Subject) -> Verdict {
        self.barrier.judge(born, subject)
    }
}

/// Who computes an entry.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// Whoever asked.
    Granted(Lease),
    /// Somebody else, whose lease ends in so long at the latest if nothing is heard of it.
    Held(Duration),
    /// Nobody has to any more.
    Filled,
}

impl Warm {
    /// Entries in the Redis of `pool`, which knows the [scripts](Self::scripts). Leases last for `lease`.
    pub(crate) fn new(
        pool: RedisPool,
        journal: Journal,
        spawner: Spawner,
        lease: Duration,
    ) -> Self {
        let waiting = (0..journal.shards()).map(|_| Mutex::default());
        Self {
            shared: Arc::new(Shared {
                waiting: waiting.collect(),
                largest: AtomicU64::new(0),
                leases: Leases::new(pool.clone(), spawner.clone(), lease),
                pool,
                journal,
                spawner,
            }),
        }
    }

    pub(crate) const fn scripts() -> &'static [&'static Script] {
        &SCRIPTS
    }

    /// Whether Redis is there.
    pub(crate) fn is_up(&self) -> bool {
        self.shared.pool.status().is_up()
    }

    /// What is stored under `key`, which belongs to `tenant`. Dropping it does no harm.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(crate) async fn read(
        &self,
        key: Arc<str>,
        tenant: Option<&str>,
    ) -> Result<Read, StoreError> {
        let shard = self.shared.journal.shard_of(tenant);
        let (answer, answered) = oneshot::channel();
        if self.join(shard, Asked { key, answer }) {
            let turn = Turn {
                warm: self.clone(),
                shard,
                over: false,
            };
            if self.shared.spawner.is_open() {
                self.shared.spawner.spawn(async move {
                    // Whoever runs in this moment joins.
                    tokio::task::yield_now().await;
                    turn.ask().await;
                });
            } else {
                turn.ask().await;
            }
        }
        answered
            .await
            .unwrap_or(Err(StoreError::Unfit("the stack was shut down")))
    }

    /// Says whether this is the first one to wait.
    fn join(&self, shard: usize, asked: Asked) -> bool {
        let mut waiting = self.waiting(shard);
        waiting.push(asked);
        waiting.len() == 1
    }

    fn waiting(&self, shard: usize) -> MutexGuard<'_, Vec<Asked>> {
        // A list is whole between two calls, so poison is ignored.
        let waiting = &self.shared.waiting[shard];
        waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, shard: usize, mut all: Vec<Asked>) {
        while !all.is_empty() {
            let rest = all.split_off(all.len().min(TOGETHER_MAX));
            let keys: Vec<Arc<str>> = all.iter().map(|asked| Arc::clone(&asked.key)).collect();
            match self.read_of(&keys, shard).await {
                Ok(found) => {
                    for (asked, read) in all.into_iter().zip(found) {
                        // Whoever has left needs no answer.
                        let _ = asked.answer.send(Ok(read));
                    }
                }
                Err(error) => {
                    for asked in all {
                        let _ = asked.answer.send(Err(error.clone()));
                    }
                }
            }
            all = rest;
        }
    }

    /// What is stored under each of `keys`, which belong to one tenant, in their order.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(crate) async fn read_many(
        &self,
        keys: &[Arc<str>],
        tenant: Option<&str>,
    ) -> Result<Vec<Read>, StoreError> {
        let shard = self.shared.journal.shard_of(tenant);
        let mut found = Vec::with_capacity(keys.len());
        for some in keys.chunks(TOGETHER_MAX) {
            let many = some.len() > FEW && !self.shared.pool.is_cluster();
            found.extend(match many && !self.are_small() {
                true => {
                    self.read_together(some, shard, Command::new("MGET").bulk())
                        .await?
                }
                false => self.read_of(some, shard).await?,
            });
        }
        Ok(found)
    }

    async fn read_of(&self, keys: &[Arc<str>], shard: usize) -> Result<Vec<Read>, StoreError> {
        let alone = keys.len() == 1 || self.shared.pool.is_cluster();
        if !alone && self.are_small() {
            return self.read_together(keys, shard, Command::new("MGET")).await;
        }
        // So much and no more, lest a large entry hold up everybody's small replies.
        let read = |key: &Arc<str>| {
            let beginning = Command::new("GETRANGE").key(&**key);
            beginning.arg(0_u64).arg(LANE_BYTES_MAX - 1)
        };
        let mut found = self
            .question(keys, shard, |batch, key| batch.command(read(key)))
            .await?;
        let is_large = |read: &Read| {
            let bytes = read.bytes.as_ref();
            bytes.is_some_and(|bytes| bytes.len() as u64 >= LANE_BYTES_MAX)
        };
        for at in 0..found.len() {
            if is_large(&found[at]) {
                self.saw(usize::MAX);
                let key = std::slice::from_ref(&keys[at]);
                let get = |key: &Arc<str>| Command::new("GET").key(&**key).bulk();
                let whole = self.question(key, shard, |batch, key| batch.command(get(key)));
                found[at] = whole.await?.pop().unwrap_or_else(|| found[at].clone());
            }
        }
        Ok(found)
    }

    /// Whether nobody here has seen an entry that would hold up others' replies.
    fn are_small(&self) -> bool {
        self.shared.largest.load(Ordering::Relaxed) < LANE_BYTES_MAX
    }

    fn saw(&self, bytes: usize) {
        if bytes as u64 > self.shared.largest.load(Ordering::Relaxed) {
            self.shared
                .largest
                .fetch_max(bytes as u64, Ordering::Relaxed);
        }
    }

    /// Reads many with one command.
    async fn read_together(
        &self,
        keys: &[Arc<str>],
        shard: usize,
        all: Command,
    ) -> Result<Vec<Read>, StoreError> {
        let all = keys.iter().fold(all, |all, key| all.key(&**key));
        let batch = Batch::new().command(all);
        let (mut replies, barrier) = self.shared.journal.read_of(batch, shard).await?;
        let barrier = Arc::new(barrier);
        let all: Vec<Reply> = replies.read()?;
        let read = |reply: Reply| {
            let read = Read::new(reply.read().unwrap_or(None), &barrier);
            self.saw(read.bytes.as_ref().map_or(0, Bytes::len));
            read
        };
        Ok(all.into_iter().map(read).collect())
    }

    /// Asks about each of `keys`, and where the journal stands.
    async fn question(
        &self,
        keys: &[Arc<str>],
        shard: usize,
        ask: impl Fn(Batch, &Arc<str>) -> Batch,
    ) -> Result<Vec<Read>, StoreError> {
        let batch = keys.iter().fold(Batch::new(), ask);
        let (mut replies, barrier) = self.shared.journal.read_of(batch, shard).await?;
        let barrier = Arc::new(barrier);
        let each = keys.iter().map(|_| {
            // What is no string is not ours.
            Read::new(replies.read().unwrap_or(None), &barrier)
        });
        Ok(each.collect())
    }

    /// Asks who computes what is not there, or is of no use: `beginning` is that of it, and if it `is_unreadable`
    /// it goes.
    ///
    /// # Errors
    ///
    /// Those of the store.
    ///
    /// # Cancellation
    ///
    /// The lease may be granted to nobody then, and whoever asks next gets it.
    pub(crate) async fn claim(
        &self,
        key: &Arc<str>,
        holder: &Arc<str>,
        (unfit, is_unreadable): (&[u8], bool),
    ) -> Result<Claimed, StoreError> {
        let leases = &self.shared.leases;
        let holder = leases.holder(key, holder);
        let call = Call::new(&CLAIM)
            .key(&**key)
            .key(lease_key(key))
            .arg(&*holder)
            .arg(millis(leases.last()))
            .arg(unfit)
            .arg(u8::from(is_unreadable));
        let mut ghost = leases.ghost(key, &holder);
        let said: Result<(u64, Bytes), StoreError> = self.shared.pool.call(&call).await;
        ghost.is_known =
            said.as_ref().is_ok() || said.as_ref().is_err_and(|error| !error.may_have_run());
        let (outcome, said) = said?;
        Ok(match outcome {
            1 => Claimed::Granted(leases.granted(key, holder)),
            2 => Claimed::Filled,
            _ => {
                let millis = std::str::from_utf8(&said)
                    .ok()
                    .and_then(|said| said.parse().ok());
                Claimed::Held(Duration::from_millis(millis.unwrap_or(0)))
            }
        })
    }

    /// Writes an entry for `lasts`, also in place of one of another journal if the present one has `confirmed` its
    /// stamp. Returns whether nothing younger was there. Dropping it does not call it back.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(crate) async fn fill(
        &self,
        key: &Arc<str>,
        lease: Option<Lease>,
        (entry, lasts, confirmed): (&[u8], Duration, bool),
    ) -> Result<bool, StoreError> {
        self.saw(entry.len());
        let holder = lease.as_ref().map_or("", |lease| &lease.holder);
        let call = Call::new(&FILL)
            .key(&**key)
            .key(lease_key(key))
            .arg(holder)
            .arg(entry)
            .arg(millis(lasts).max(1))
            .arg(u8::from(confirmed));
        let written: Result<u64, StoreError> = self.shared.pool.call(&call).await;
        if let Some(mut lease) = lease {
            // Where it failed the lease may still be there, and dropping it gives it back.
            lease.given_back = written.is_ok();
        }
        Ok(written? == 1)
    }
}

impl Turn {
    async fn ask(mut self) {
        let all = self.begin();
        self.warm.ask(self.shard, all).await;
    }

    fn begin(&mut self) -> Vec<Asked> {
        self.over = true;
        std::mem::take(&mut *self.warm.waiting(self.shard))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.over {
            // Whoever waits hears that nobody asks.
            drop(self.begin());
        }
    }
}

/// How many entries are read with one question. More of them would keep the replies of others waiting.
const TOGETHER_MAX: usize = 128;

/// More than these are worth a command of their own, and perhaps a connection.
const FEW: usize = 8;

/// Larger entries are read on the connection for what is large, once it is known that they are.
const LANE_BYTES_MAX: u64 = 32 << 10;
