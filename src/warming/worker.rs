//! Who does what waits: one worker that begins jobs at the pace that the origin bears, each in a task of its own.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::event::Event;
use crate::tiers::{Renewal, Renewed};
use crate::warming::errand::{Done, Errand};
use crate::warming::pace::{Ending, Turn};
use crate::warming::queue::{Class, Job};
use crate::warming::recipe::Recipe;
use crate::warming::shared::Shared;
use crate::warming::stats::Outcome;

/// Has jobs wait, and sees to it that somebody does them. What is under way is not begun a second time. Returns
/// how many of them wait.
pub(crate) fn offer(shared: &Arc<Shared>, jobs: Vec<Job<Errand>>) -> usize {
    if !shared.config.enabled || jobs.is_empty() {
        return 0;
    }
    let mut state = shared.state();
    let mut waiting = 0;
    for job in jobs {
        if !state.running.contains(&job.key) && state.queue.offer(job) {
            waiting += 1;
        }
    }
    drop(state);
    start(shared);
    shared.wake.notify_one();
    waiting
}

/// Starts the worker, if there is none.
pub(crate) fn start(shared: &Arc<Shared>) {
    if !shared.config.enabled || std::mem::replace(&mut shared.state().works, true) {
        return;
    }
    let shared = Arc::clone(shared);
    let spawner = shared.spawner.clone();
    spawner.spawn_until_stopped(async move { work(&shared).await });
}

async fn work(shared: &Arc<Shared>) {
    loop {
        let woken = shared.wake.notified();
        match begin_due(shared) {
            Some(wait) => {
                // Whichever comes first.
                let _ = tokio::time::timeout(wait, woken).await;
            }
            None => woken.await,
        }
    }
}

/// Begins what may begin. Returns after what time there may be more, if that is known.
fn begin_due(shared: &Arc<Shared>) -> Option<Duration> {
    let (now, wall) = (shared.clock.now(), shared.wall());
    let mut guard = shared.state();
    let state = &mut *guard;
    for name in state.agenda.due(wall) {
        let errand = Errand::Scheduled(name);
        if !state.running.contains(&errand) {
            state.queue.offer(asked_for(errand, now));
        }
    }
    let mut begun = Vec::new();
    let wait = loop {
        let Some(due) = state.queue.next_due() else {
            break None;
        };
        if due > now {
            break Some(due.since(now));
        }
        match state.pace.begin(now) {
            Turn::Go => match state.queue.take(now) {
                Some(job) => {
                    state.running.insert(job.key.clone());
                    begun.push(job);
                }
                // Those that were due had come too late.
                None => state.pace.end(now, Ending::Dropped, now),
            },
            Turn::Wait(free) => break Some(free.since(now)),
            Turn::Full | Turn::Paused => break None,
        }
    };
    let wait = wait.into_iter().chain(state.agenda.wait()).min();
    drop(guard);
    for job in begun {
        begin(shared, job, now);
    }
    wait
}

/// A job that somebody asks for, and that never comes too late.
pub(crate) const fn asked_for(errand: Errand, now: Moment) -> Job<Errand> {
    Job {
        key: errand,
        class: Class::Scheduled,
        due: now,
        worth: Duration::ZERO,
        ttl: Duration::MAX,
    }
}

fn begin(shared: &Arc<Shared>, job: Job<Errand>, now: Moment) {
    let mut running = Running {
        shared: Arc::clone(shared),
        job,
        computing: (now, now),
        outcome: Outcome::Dropped,
    };
    // Where no task starts any more it is dropped, which ends it as well.
    shared.spawner.spawn(async move {
        let shared = Arc::clone(&running.shared);
        let work = tokio::time::timeout(JOB_MAX, carry_out(&shared, &running.job));
        tokio::select! {
            biased;
            () = shared.spawner.stopped() => {}
            done = work => running.note(done.unwrap_or((Outcome::Failed, None))),
        }
    });
}

/// A job that is under way. Dropping it ends it.
struct Running {
    shared: Arc<Shared>,
    job: Job<Errand>,
    /// When what the origin did for it began and ended.
    computing: (Moment, Moment),
    outcome: Outcome,
}

impl Running {
    fn note(&mut self, (outcome, computing): Report) {
        self.outcome = outcome;
        let (began, _) = self.computing;
        self.computing = computing.unwrap_or((began, self.shared.clock.now()));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let ending = match self.outcome {
            Outcome::Failed => Ending::Failed,
            // How long other work takes is not compared with what values take.
            Outcome::Computed if matches!(self.job.key, Errand::Entry(_)) => Ending::Done,
            _ => Ending::Dropped,
        };
        let (began, ended) = self.computing;
        let mut state = self.shared.state();
        state.running.remove(&self.job.key);
        state.pace.end(began, ending, ended);
        state.counts.count(self.job.class, self.outcome);
        drop(state);
        self.shared.events.emit(Event::Warmed {
            class: self.job.class.as_str(),
            outcome: self.outcome.as_str(),
        });
        self.shared.wake.notify_one();
    }
}

/// What became of a job, and when the origin was at work for it.
type Report = (Outcome, Option<(Moment, Moment)>);

async fn carry_out(shared: &Arc<Shared>, job: &Job<Errand>) -> Report {
    let work = match &job.key {
        Errand::Entry(recipe) => return see_to(shared, recipe, job.class).await,
        Errand::Scheduled(name) => shared.state().agenda.work(name).map(|work| work(())),
        Errand::User { warmer, user } => {
            let work = shared.state().users.get(warmer).cloned();
            work.map(|work| work(Arc::clone(user)))
        }
    };
    let outcome = match work {
        None => Outcome::Dropped,
        Some(work) => of(work.await),
    };
    (outcome, None)
}

const fn of(done: Done) -> Outcome {
    if done {
        Outcome::Computed
    } else {
        Outcome::Failed
    }
}

/// Sees to it that a value is in memory.
async fn see_to(shared: &Arc<Shared>, recipe: &Recipe, class: Class) -> Report {
    let registered = shared.state().registered.get(recipe.cache()).cloned();
    let Some(registered) = registered else {
        return (fetch(shared, recipe).await, None);
    };
    // What was near its end and is there with most of its life before it, somebody else has computed.
    let lead = match class {
        Class::NearExpiry => registered.ttl / 4,
        Class::Invalidated | Class::Boot | Class::Scheduled => Duration::ZERO,
    };
    let Renewal { renewed, computing } = registered.computes.renew(recipe, lead).await;
    let outcome = match renewed {
        Renewed::Computed => Outcome::Computed,
        Renewed::Found => Outcome::Found,
        Renewed::Joined => Outcome::Joined,
        Renewed::Failed => Outcome::Failed,
    };
    (outcome, computing)
}

/// Fetches what nobody here can compute.
async fn fetch(shared: &Arc<Shared>, recipe: &Recipe) -> Outcome {
    let Some(fetch) = shared.tiers.caches().fetch(recipe.cache()) else {
        return Outcome::Dropped;
    };
    let tenant = recipe.tenant().map(Arc::from);
    let found = fetch(tenant, vec![recipe.key().into()]).await;
    if found.contains(&true) {
        Outcome::Found
    } else {
        Outcome::Dropped
    }
}

/// A job that takes longer is given up: two that never end would keep all others waiting for ever.
const JOB_MAX: Duration = Duration::from_secs(300);
