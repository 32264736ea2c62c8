//! Who speaks with Redis for a whole engine: one task, one batch at a time.
//!
//! What comes up while a batch is under way goes into the next one, so a busy engine costs Redis a round
//! trip and not a command for each request. No request calls Redis itself: it waits in its remote's line
//! until there is an answer, or until it is known that there will be none.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::clock::Moment;
use crate::event::Event;
use crate::outbound::desk::Desk;
use crate::outbound::quota::RemoteQuota;
use crate::outbound::remote::Remote;
use crate::outbound::remotes::Remotes;
use crate::outbound::server_time::ServerTime;
use crate::outbound::sync::{Answer, Letterhead, Report, message};
use crate::store::{Batch, Push, PushSink, RedisPool, RedisStatus, StatusWatch, StoreError};
use crate::task::Spawner;

impl RemoteQuota {
    /// Shares what is learned with the other instances through Redis, as long as it is there. The pool
    /// must know this room's [`SCRIPTS`](crate::outbound::SCRIPTS). An engine is shared once, before it is
    /// used; a pool without a Redis changes nothing.
    ///
    /// The task that does so ends with the spawner's owner, or once nobody holds the engine any more.
    #[must_use]
    pub fn share(self, pool: &RedisPool, spawner: &Spawner) -> Self {
        if pool.status() == RedisStatus::Disabled || !self.desk.news.begin(pool.watch()) {
            return self;
        }
        let instance = format!("{:016x}", RandomState::new().hash_one("instance"));
        let channel = pool.key("{outbound}:news");
        let ear = Ear {
            instance: instance.clone(),
            desk: Arc::downgrade(&self.desk),
            remotes: Arc::downgrade(&self.remotes),
        };
        pool.subscribe(&channel, Arc::new(ear));
        let mut ward = Ward {
            pool: pool.clone(),
            instance,
            channel,
            desk: Arc::clone(&self.desk),
            remotes: Arc::downgrade(&self.remotes),
            time: None,
            has_warned: false,
        };
        let stopped = spawner.clone();
        spawner.spawn(async move {
            tokio::select! {
                () = stopped.stopped() => {}
                () = ward.watch() => {}
            }
        });
        self
    }
}

/// The task's state.
#[derive(Debug)]
struct Ward {
    pool: RedisPool,
    instance: String,
    channel: String,
    desk: Arc<Desk>,
    remotes: Weak<Remotes>,
    /// The server's time, by its last answer.
    time: Option<ServerTime>,
    /// Whether it was told that Redis refuses what it is asked.
    has_warned: bool,
}

/// However it ends, whoever still has the engine is not kept waiting for nobody.
impl Drop for Ward {
    fn drop(&mut self) {
        self.desk.news.go_alone(NEVER);
        self.go_with(false);
    }
}

/// What is said of a remote, and when it was written.
struct Letter {
    remote: Arc<Remote>,
    report: Report,
    at: Moment,
}

impl Ward {
    async fn watch(&mut self) {
        let mut status = self.pool.watch();
        self.go_with(status.now().is_up());
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.step(&mut status, &mut ticks).await.is_some() {}
    }

    /// `None` once there is nobody left to speak for.
    async fn step(
        &mut self,
        status: &mut StatusWatch,
        ticks: &mut tokio::time::Interval,
    ) -> Option<()> {
        tokio::select! {
            changed = status.changed() => self.go_with(changed?.is_up()),
            _ = ticks.tick() => self.remotes.upgrade()?.all().iter().for_each(|remote| remote.tick()),
            () = self.desk.news.bell() => self.exchange().await,
        }
        Some(())
    }

    /// Redis is there, or it is not.
    fn go_with(&mut self, is_up: bool) {
        // Another server may be there next.
        self.time = None;
        let remotes = self.remotes.upgrade().map(|remotes| remotes.all());
        let remotes = remotes.iter().flatten();
        if is_up {
            self.desk.news.go_alone(Moment::default());
            remotes.for_each(|remote| remote.introduce());
        } else {
            remotes.for_each(|remote| remote.go_alone());
        }
    }

    async fn exchange(&mut self) {
        // Looked at before anything is asked: what is missed from here on begins another one.
        let now = self.desk.clock.now();
        let epoch = self.desk.news.epoch(now);
        let letters = self.letters();
        if letters.is_empty() {
            return;
        }
        let Some(epoch) = epoch else {
            return letters.iter().for_each(|letter| letter.remote.go_alone());
        };
        let calls = letters.iter().map(|letter| {
            let remote = &**letter.remote.name();
            letter.report.call(Letterhead {
                key: &self.pool.key(format_args!("{{outbound}}:at:{remote}")),
                channel: &self.channel,
                instance: &self.instance,
                remote,
            })
        });
        let batch = calls.fold(Batch::new(), Batch::call);
        let could_only_ask = self.time.is_none();
        let mut replies = self.pool.run_all(&batch).await;
        let answered = self.desk.clock.now();
        for letter in &letters {
            let words = match &mut replies {
                Ok(replies) => replies.read::<Vec<String>>(),
                Err(error) => Err(error.clone()),
            };
            match words.map(|words| Answer::read(&words)) {
                Ok(Some(answer)) => {
                    let time = ServerTime {
                        shown: answer.now,
                        asked: now,
                        answered,
                    };
                    self.time = Some(time);
                    let said = (&letter.report, letter.at);
                    letter.remote.settle(said, (&answer, time), epoch);
                    if could_only_ask {
                        letter.remote.introduce();
                    }
                }
                Ok(None) => self.fail(letter, None),
                Err(error) => self.fail(letter, Some(&error)),
            }
        }
    }

    fn letters(&self) -> Vec<Letter> {
        let Some(remotes) = self.remotes.upgrade() else {
            return Vec::new();
        };
        let names = self.desk.news.take(BATCH_MAX).into_iter();
        let known = names.filter_map(|name| remotes.find(&name));
        known
            .map(|remote| {
                let (report, at) = remote.report(self.time);
                Letter { remote, report, at }
            })
            .collect()
    }

    /// Nobody is asked for a while: a Redis that answers nothing, or nonsense, would hold up every
    /// request for as long as it takes to notice.
    fn fail(&mut self, letter: &Letter, error: Option<&StoreError>) {
        let now = self.desk.clock.now();
        self.desk.news.go_alone(now.plus(ALONE));
        letter.remote.go_alone();
        let passes = error.is_some_and(StoreError::is_unavailable);
        if !passes && !std::mem::replace(&mut self.has_warned, true) {
            let why = error.map_or(
                "its answer is not the script's".to_owned(),
                ToString::to_string,
            );
            let text = &format!("remote quotas are not shared between instances: {why}");
            self.desk.events.emit(Event::Warning { text });
        }
    }
}

/// Hears what other instances say.
#[derive(Debug)]
struct Ear {
    instance: String,
    desk: Weak<Desk>,
    remotes: Weak<Remotes>,
}

impl PushSink for Ear {
    fn push(&self, push: Push<'_>) {
        match push {
            // Whatever was said before was missed.
            Push::Subscribed { .. } => {
                if let Some(desk) = self.desk.upgrade() {
                    desk.news.begin_epoch();
                }
            }
            Push::Message { payload, .. } => {
                let message = message(payload).filter(|(from, ..)| *from != self.instance);
                if let (Some((_, block, remote)), Some(remotes)) = (message, self.remotes.upgrade())
                    && let Some(remote) = remotes.find(remote)
                {
                    remote.hear_say(block);
                }
            }
            _ => {}
        }
    }
}

/// How often what is held is said again, and what is not used is given back.
const TICK: Duration = Duration::from_secs(1);

/// How long Redis is left alone after it has not answered.
const ALONE: Duration = Duration::from_secs(1);

/// How many remotes are spoken of in one round trip.
const BATCH_MAX: usize = 128;

const NEVER: Moment = Moment::from_nanos(u64::MAX);
