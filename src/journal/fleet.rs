//! The journal of several instances, which meet in Redis.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use crate::clock::Clock;
use crate::error::ConfigError;
use crate::event::Events;
use crate::journal::barrier::Barrier;
use crate::journal::chance;
use crate::journal::config::JournalConfig;
use crate::journal::confirmations::{Confirmations, Owed};
use crate::journal::keeper::Keeper;
use crate::journal::line;
use crate::journal::log::{Journal, Line, Part, checked};
use crate::journal::mirror::Mirror;
use crate::journal::overseer::Overseer;
use crate::journal::scribe::Scribe;
use crate::journal::script::{APPEND, LEAVE, MEET};
use crate::journal::shard::Shard;
use crate::journal::sink::{Ear, Sink};
use crate::journal::witness::{QUESTIONS_WAITING, Witness};
use crate::store::{Batch, RedisPool, RedisStatus, Replies, Script, StoreError};
use crate::task::Spawner;

/// What a journal of several instances stands on.
#[derive(Clone, Debug)]
pub struct JournalParts {
    /// Measures leases.
    pub clock: Clock,
    /// Hears of invalidations, and of doubts.
    pub events: Events,
    /// Where the instances meet. It must know [`Journal::scripts`].
    pub redis: RedisPool,
    /// Runs what follows the journal, and ends it.
    pub spawner: Spawner,
}

impl Journal {
    /// The scripts that the pool has to be built with.
    #[must_use]
    pub const fn scripts() -> &'static [&'static Script] {
        static ALL: [&Script; 3] = [&MEET, &APPEND, &LEAVE];
        &ALL
    }

    /// The journal that all instances of a service share through Redis. Begins to follow it in the
    /// background; until it does, nothing is verified. Without a Redis it is of this process alone.
    ///
    /// # Errors
    ///
    /// Names every bound that is out of range.
    pub fn shared(config: &JournalConfig, parts: JournalParts) -> Result<Self, ConfigError> {
        if parts.redis.status() == RedisStatus::Disabled {
            return Self::with_clock(config, parts.clock, parts.events);
        }
        checked(config)?;
        let me = chance::number();
        let overseer = Arc::<Overseer>::default();
        let each = (0..config.shards).map(|shard| part(config, &parts, (shard, me), &overseer));
        let each = each.collect();
        Ok(Self::of(each, (parts.clock, parts.events), overseer))
    }

    /// Reads values that were stored with their stamps, and where the journal stands, in one round trip.
    /// What the [`Barrier`] finds fresh is: every invalidation that was acknowledged before the call is
    /// taken into account, whatever was lost on the way. `tenant` is the owner of all that is read.
    ///
    /// Where the mirror turns out to be behind, it is brought up to date first, for which this waits as
    /// long again as for a command. Dropping it does no harm.
    ///
    /// # Errors
    ///
    /// Those of [`RedisPool::run_all`]; also where no Redis is configured.
    pub async fn read(
        &self,
        batch: Batch,
        tenant: Option<&str>,
    ) -> Result<(Replies, Barrier), StoreError> {
        self.read_of(batch, self.shard_of(tenant)).await
    }

    /// The same for owners of one shard.
    pub(crate) async fn read_of(
        &self,
        batch: Batch,
        shard: usize,
    ) -> Result<(Replies, Barrier), StoreError> {
        let part = &self.shared.parts[shard];
        let Some(line) = &part.line else {
            return RedisPool::disabled().run_all(&batch).await.map(|replies| {
                (
                    replies,
                    Barrier {
                        shard: Arc::clone(&part.shard),
                        known: None,
                    },
                )
            });
        };
        let journal = &line.scribe.line;
        let mut replies = journal
            .pool
            .run_all(&batch.command(journal.standing()))
            .await?;
        let standing = replies
            .0
            .next_back()
            .into_iter()
            .collect::<Vec<_>>()
            .into_iter();
        let known = line::Line::met(&mut Replies(standing)).ok().flatten();
        let known = known.map(|met| (met.inc, met.seq));
        let shard = Arc::clone(&part.shard);
        let heard = |shard: &Shard| known.is_some_and(|(inc, seq)| shard.has_heard(inc, seq));
        if !heard(&shard) {
            line.looked_after(BEHIND_MAX, || heard(&shard)).await;
        }
        Ok((replies, Barrier { shard, known }))
    }
}

/// How long a reader waits for a mirror that is behind.
const BEHIND_MAX: Duration = Duration::from_millis(50);

/// What is left to send at the end gets this long: connections outlive the stack by 50 ms, and the lease is to be
/// given back in that time as well.
const FINISH: Duration = Duration::from_millis(40);

/// A shard, and the tasks that follow it.
fn part(
    config: &JournalConfig,
    parts: &JournalParts,
    (shard, me): (u16, u64),
    overseer: &Arc<Overseer>,
) -> Part {
    let (clock, events) = (parts.clock.clone(), parts.events.clone());
    let line = line::Line::new(parts.redis.clone(), clock.clone(), config, shard, me);
    let mirror = Mirror::new(0, config.markers_max, config.patterns_max);
    let shard = Arc::new(Shard::deaf(mirror, clock, events, config.max_unverified));
    let confirmations = Arc::new(Confirmations::default());
    let owed = Arc::new(Owed::default());
    let (wake, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let bounds = (config.queue_max, config.acknowledge_within);
    let scribe = Scribe::new(
        line.clone(),
        Arc::clone(&shard),
        (Arc::clone(&confirmations), Arc::clone(overseer)),
        bounds,
    );
    let scribe = Arc::new(scribe);
    let (to_witness, questions) = mpsc::channel(QUESTIONS_WAITING);
    let mut witness = Witness {
        line: line.clone(),
        shard: Arc::clone(&shard),
        overseer: Arc::clone(overseer),
        shards: usize::from(config.shards),
        questions,
    };
    let sink = Sink {
        me,
        shard: Arc::clone(&shard),
        owed: Arc::clone(&owed),
        wake: Arc::clone(&wake),
        questions: to_witness,
    };
    // The ear first: what is appended is confirmed to whoever can hear it.
    let ear = Ear {
        confirmations,
        overseer: Arc::clone(overseer),
    };
    parts.redis.subscribe(line.channel_of(me), Arc::new(ear));
    parts.redis.subscribe(line.channel(), Arc::new(sink));
    let mut keeper = Keeper {
        line: line.clone(),
        shard: Arc::clone(&shard),
        scribe: Arc::clone(&scribe),
        owed: Arc::clone(&owed),
        wake: Arc::clone(&wake),
        done: Arc::clone(&done),
        heartbeat: config.heartbeat,
        session: 0,
    };
    let (stopped, status) = (parts.spawner.clone(), parts.redis.watch());
    parts.spawner.spawn(async move {
        tokio::select! {
            () = stopped.stopped() => {}
            () = keeper.keep(status) => {}
        }
        let _ = tokio::time::timeout(FINISH, keeper.scribe.finish()).await;
        keeper.leave().await;
    });
    let (status, writer) = (parts.redis.watch(), Arc::clone(&scribe));
    let spawner = &parts.spawner;
    spawner.spawn_until_stopped(async move { writer.write(status).await });
    let heard = Arc::clone(&shard);
    spawner.spawn_until_stopped(async move { owed.pay(&line, &heard).await });
    spawner.spawn_until_stopped(async move { witness.answer().await });
    Part {
        shard,
        line: Some(Line { scribe, wake, done }),
    }
}
