//! Locks that all instances share: they live in Redis and go by its clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::lock::error::LockError;
use crate::lock::leaving::Leaving;
use crate::lock::name::Name;
use crate::lock::owner::Owner;
use crate::lock::pauses::Pauses;
use crate::lock::script::{CLAIM, EXTEND, RELEASE, gone_key, lock_key, token_key};
use crate::store::{Call, RedisPool, StoreError};
use crate::task::Spawner;

/// The way to the locks in Redis. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pool: RedisPool,
    spawner: Spawner,
    clock: Clock,
    /// How many locks are being let go of in the background.
    leaving: Arc<AtomicUsize>,
}

/// For how long the last token of a key is remembered after it was given out. It only matters where the
/// server's clock was put back meanwhile, and nobody puts one back by a week.
const TOKEN_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// For how long it is remembered that an owner gave up. Of a server that was stopped, however long, both
/// questions are answered in the same moment; only a network holds one back, and seldom for so long.
const GONE_KEPT: Duration = Duration::from_secs(60);

/// How many locks may be let go of in the background at once, each a task of its own. More than that happen
/// only while Redis is away, and those are over when they expire.
const LEAVING_MAX: usize = 1_024;

impl Shared {
    /// Locks in the Redis of a pool that knows the scripts. What nobody waits for is spawned.
    pub(crate) fn new(pool: RedisPool, spawner: Spawner, clock: Clock) -> Self {
        Self {
            pool,
            spawner,
            clock,
            leaving: Arc::default(),
        }
    }

    /// Takes a lock that is free, or is the owner's already. Returns its token, or for how long it is held.
    ///
    /// # Errors
    ///
    /// Those of the store.
    ///
    /// # Cancellation
    ///
    /// As if the answer was lost.
    pub(crate) async fn claim(
        &self,
        name: &Name,
        owner: &Owner,
        ttl: Duration,
    ) -> Result<Result<u64, Duration>, StoreError> {
        let (key, owner) = (name.as_str(), owner.as_str());
        let call = Call::new(&CLAIM)
            .key(lock_key(&self.pool, key))
            .key(token_key(&self.pool, key))
            .key(gone_key(&self.pool, key, owner))
            .arg(owner)
            .arg(millis(ttl))
            .arg(millis(TOKEN_KEPT));
        let (granted, number): (u64, u64) = self.pool.call(&call).await?;
        Ok(match granted {
            1 => Ok(number),
            _ => Err(Duration::from_millis(number)),
        })
    }

    /// Puts the end of a lock off. Returns whether it is still the owner's.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(crate) async fn extend(
        &self,
        name: &Name,
        (owner, token): (&Owner, u64),
        ttl: Duration,
    ) -> Result<bool, LockError> {
        let call = Call::new(&EXTEND)
            .key(lock_key(&self.pool, name.as_str()))
            .arg(owner.as_str())
            .arg(token)
            .arg(millis(ttl));
        let held: u64 = self.pool.call(&call).await?;
        Ok(held == 1)
    }

    /// Frees a lock, if it is the owner's. Returns whether it was, with this token. Where it is doubtful
    /// whether a question of the owner's is still under way, that one will be answered no.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(crate) async fn release(
        &self,
        leaving: &Leaving,
        token: Option<u64>,
    ) -> Result<bool, StoreError> {
        let (key, owner) = (leaving.name.as_str(), leaving.owner.as_str());
        let remembered = if leaving.doubtful {
            millis(GONE_KEPT)
        } else {
            0
        };
        let call = Call::new(&RELEASE)
            .key(lock_key(&self.pool, key))
            .key(gone_key(&self.pool, key, owner))
            .arg(owner)
            .arg(token.map(|token| token.to_string()).unwrap_or_default())
            .arg(remembered);
        let held: u64 = self.pool.call(&call).await?;
        Ok(held == 1)
    }

    /// Frees a lock without anybody waiting for it, and tries again while Redis is away and the lock would
    /// not be over by itself.
    pub(crate) fn let_go(&self, leaving: &Leaving) {
        let Some(place) = self.place() else { return };
        let (shared, leaving) = (self.clone(), leaving.clone());
        self.spawner.spawn(async move {
            let _place = place;
            shared.leave(&leaving).await;
        });
    }

    async fn leave(&self, leaving: &Leaving) {
        let mut pauses = Pauses::new();
        loop {
            let freed = self.release(leaving, None).await;
            let again = freed.is_err_and(|error| error.is_unavailable());
            if !again || self.clock.now() >= leaving.until {
                return;
            }
            tokio::select! {
                () = self.spawner.stopped() => return,
                () = tokio::time::sleep(pauses.next(None)) => {}
            }
        }
    }

    fn place(&self) -> Option<Place> {
        let one_more = |leaving: usize| (leaving < LEAVING_MAX).then_some(leaving + 1);
        let order = (Ordering::Relaxed, Ordering::Relaxed);
        let taken = self.leaving.fetch_update(order.0, order.1, one_more);
        taken.ok().map(|_| Place(Arc::clone(&self.leaving)))
    }
}

/// One of those that are let go of in the background.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;
    use crate::lock::script::SCRIPTS;
    use crate::rate_limit::test_redis::{TestRedis, until};
    use crate::store::{RedisConfig, StoreParts};
    use crate::task::Tasks;

    const MINUTE: Duration = Duration::from_secs(60);

    async fn open(server: &TestRedis) -> (Shared, Tasks) {
        let tasks = Tasks::new().unwrap();
        let parts = StoreParts {
            scripts: SCRIPTS.to_vec(),
            ..StoreParts::new(tasks.spawner())
        };
        let config = RedisConfig {
            url: Some(server.url()),
            command_timeout: Duration::from_secs(5),
            ..RedisConfig::default()
        };
        let pool = RedisPool::new(&config, &parts).unwrap();
        assert!(pool.watch().until_up().await);
        let shared = Shared::new(pool, tasks.spawner(), Clock::system());
        (shared, tasks)
    }

    fn leaving(name: &Name, owner: &Owner, doubtful: bool) -> Leaving {
        Leaving {
            name: name.clone(),
            owner: owner.clone(),
            doubtful,
            until: Moment::default(),
        }
    }

    #[tokio::test]
    async fn a_question_that_comes_after_its_owner_gave_up_is_answered_no() {
        let server = TestRedis::start();
        let (shared, _tasks) = open(&server).await;
        let (name, owner) = (Name::new("a").unwrap(), Owner::random());
        let gone = leaving(&name, &owner, true);
        assert_eq!(shared.release(&gone, None).await, Ok(false));
        let late = shared.claim(&name, &owner, MINUTE).await.unwrap();
        assert_eq!(late, Err(Duration::ZERO));
        let mut raw = server.raw();
        let key = gone_key(&shared.pool, "a", owner.as_str());
        let left = raw.must(&["TTL", &key]).integer();
        assert!((1..=60).contains(&left), "remembered for {left} s");
        // Others are not concerned, and one that never was in doubt leaves nothing behind.
        let other = Owner::random();
        let token = shared.claim(&name, &other, MINUTE).await.unwrap().unwrap();
        let parting = leaving(&name, &other, false);
        assert_eq!(shared.release(&parting, Some(token)).await, Ok(true));
        let keys = raw.must(&["KEYS", "keep:lock:*"]);
        assert_eq!(keys.array().len(), 2, "one owner that gave up, one token");
    }

    #[tokio::test]
    async fn only_the_owner_releases_and_only_with_its_token_it_was_held_to_the_end() {
        let server = TestRedis::start();
        let (shared, _tasks) = open(&server).await;
        let (name, owner, other) = (Name::new("a").unwrap(), Owner::random(), Owner::random());
        let token = shared.claim(&name, &owner, MINUTE).await.unwrap().unwrap();
        let again = shared.claim(&name, &owner, MINUTE).await.unwrap();
        assert_eq!(again, Ok(token), "asked twice, granted once");
        for token in [Some(token), None] {
            let freed = shared.release(&leaving(&name, &other, true), token).await;
            assert_eq!(freed, Ok(false));
        }
        assert_eq!(
            shared.extend(&name, (&other, token), MINUTE).await,
            Ok(false)
        );
        // The same owner's by an earlier question: in between somebody else may have held it.
        assert_eq!(
            shared.extend(&name, (&owner, token - 1), MINUTE).await,
            Ok(false)
        );
        assert_eq!(
            shared.extend(&name, (&owner, token), MINUTE).await,
            Ok(true)
        );
        let freed = shared
            .release(&leaving(&name, &owner, false), Some(token - 1))
            .await;
        assert_eq!(
            freed,
            Ok(false),
            "it is let go of, and was not held to the end"
        );
        let next = Owner::random();
        shared.claim(&name, &next, MINUTE).await.unwrap().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_let_go_of_during_an_outage_is_freed_after_it_if_it_is_not_over() {
        let server = TestRedis::start();
        let (shared, tasks) = open(&server).await;
        let (kept, over) = (Name::new("kept").unwrap(), Name::new("over").unwrap());
        let owner = Owner::random();
        for name in [&kept, &over] {
            shared.claim(name, &owner, MINUTE).await.unwrap().unwrap();
        }
        // With no connection, each try fails at once.
        server.kill();
        let mut status = shared.pool.watch();
        while shared.pool.status().is_up() {
            status.changed().await;
        }
        let busy = tasks.spawner().running();
        shared.let_go(&leaving(&over, &owner, false));
        shared.let_go(&Leaving {
            until: shared.clock.now().plus(MINUTE),
            ..leaving(&kept, &owner, true)
        });
        until("one is given up", || {
            (tasks.spawner().running() == busy + 1).then_some(())
        });
        assert_eq!(shared.leaving.load(Ordering::Relaxed), 1);
        server.restart();
        let gone = gone_key(&shared.pool, "kept", owner.as_str());
        let mut raw = server.raw();
        until("the other one's word arrives", || {
            (raw.must(&["EXISTS", &gone]).integer() == 1).then_some(())
        });
        until("its task ends", || {
            (shared.leaving.load(Ordering::Relaxed) == 0).then_some(())
        });
    }

    #[tokio::test]
    async fn no_more_than_so_many_are_let_go_of_at_once() {
        let server = TestRedis::start();
        let (shared, tasks) = open(&server).await;
        let busy = tasks.spawner().running();
        let (name, owner) = (Name::new("a").unwrap(), Owner::random());
        // None of the tasks runs before this one waits.
        for _ in 0..2 * LEAVING_MAX {
            shared.let_go(&leaving(&name, &owner, false));
        }
        assert_eq!(tasks.spawner().running(), busy + LEAVING_MAX);
        while tasks.spawner().running() > busy {
            tokio::task::yield_now().await;
        }
        assert_eq!(shared.leaving.load(Ordering::Relaxed), 0);
    }
}
