//! Looking, about once a second, at what was used meanwhile: it is learned, and what is in use and was
//! invalidated, or will end soon, waits to be computed. A hit does nothing for it.
//!
//! A second is long where something is asked for a hundred times in it. So what is hot is glanced at in between:
//! whether it still holds, which is a comparison each as long as nothing was invalidated.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::journal::Verdict;
use crate::tiers::{Reason, Seen, Watched};
use crate::warming::errand::Errand;
use crate::warming::queue::{Class, Job};
use crate::warming::recipe::Recipe;
use crate::warming::shared::{Shared, State};
use crate::warming::worker;

/// Starts sweeping, unless somebody does.
pub(crate) fn start(shared: &Arc<Shared>) {
    if !shared.config.enabled || std::mem::replace(&mut shared.state().sweeps, true) {
        return;
    }
    let shared = Arc::clone(shared);
    let spawner = shared.spawner.clone();
    spawner.spawn_until_stopped(async move { sweep_on(&shared).await });
}

async fn sweep_on(shared: &Arc<Shared>) {
    let mut rest = PERIOD;
    let mut last = shared.clock.now();
    let mut watched = Vec::new();
    #[cfg(feature = "redis")]
    let mut saved = last;
    loop {
        rest_and_glance(shared, rest, &mut watched).await;
        let began = shared.clock.now();
        watched = sweep(shared, began.since(last)).await;
        last = began;
        #[cfg(feature = "redis")]
        if let Some(hot_set) = &shared.hot_set
            && began.since(saved) >= shared.config.save_every
        {
            saved = began;
            crate::warming::saving::save(shared, &hot_set.store).await;
        }
        let took = shared.clock.now().since(began);
        rest = PERIOD.max(took.saturating_mul(REST)).min(REST_MAX);
    }
}

/// Rests, with an eye on what is hot.
async fn rest_and_glance(shared: &Arc<Shared>, rest: Duration, watched: &mut Vec<Watched>) {
    if watched.is_empty() {
        return tokio::time::sleep(rest).await;
    }
    let mut left = rest;
    while left > Duration::ZERO {
        tokio::time::sleep(GLANCE.min(left)).await;
        left = left.saturating_sub(GLANCE);
        let mut invalidated = Vec::new();
        watched.retain(|one| match shared.tiers.how_is(one) {
            Some(Verdict::Fresh | Verdict::Unverified) => true,
            Some(Verdict::Gone | Verdict::Expired) => {
                invalidated.extend(shared.tiers.look_again(one));
                false
            }
            None => false,
        });
        if !invalidated.is_empty() {
            look(shared, &invalidated, PERIOD);
        }
    }
}

/// Looks at everything. The last time was `gap` ago. Returns what is hot.
async fn sweep(shared: &Arc<Shared>, gap: Duration) -> Vec<Watched> {
    let mut watched = Vec::new();
    let show = |slice: Vec<Seen>| {
        let hot = look(shared, &slice, gap);
        let room = shared.config.keys_max.saturating_sub(watched.len());
        watched.extend(hot.into_iter().take(room));
    };
    shared.tiers.walk(show).await;
    watched
}

/// Learns of entries, and has those wait that are to be computed. Returns those that are in use.
fn look(shared: &Arc<Shared>, slice: &[Seen], gap: Duration) -> Vec<Watched> {
    let now = shared.clock.now();
    let (mut jobs, mut hot) = (Vec::new(), Vec::new());
    let mut state = shared.state();
    for seen in slice {
        let name = &seen.name;
        let hash = shared.hash(&name.cache, name.tenant.as_deref(), &name.key);
        match state.note(seen, hash, (now, gap)) {
            Note::Idle => {}
            Note::Hot => hot.push(seen.watch()),
            Note::ToDo(job) => jobs.push(job),
        }
    }
    drop(state);
    worker::offer(shared, jobs);
    hot
}

/// What is to be said of an entry.
enum Note {
    /// It is hardly used, or nobody can compute it.
    Idle,
    /// It is in use, and needs nothing.
    Hot,
    /// It is in use, and is to be computed.
    ToDo(Job<Errand>),
}

impl State {
    /// Learns of an entry, and says what is to be done about it.
    fn note(&mut self, seen: &Seen, hash: u64, (now, gap): (Moment, Duration)) -> Note {
        let Some(recipe) = self.recipe(seen, hash) else {
            return Note::Idle;
        };
        if seen.uses > 0 {
            let uses = f64::from(seen.uses);
            self.top.learn(hash, uses, now, || recipe.clone());
        }
        let Some(registered) = self.registered.get(&*seen.name.cache) else {
            return Note::Idle;
        };
        if seen.uses == 0 && self.top.at_least(hash, now) < IN_USE {
            return Note::Idle;
        }
        let ahead = gap.saturating_mul(2) + seen.cost.saturating_mul(4);
        let lead = ahead.min(registered.ttl / 4);
        let reason = match seen.verdict {
            Verdict::Gone | Verdict::Expired => Reason::Invalidated,
            Verdict::Fresh if seen.left.min(seen.stays) <= lead => Reason::Ending,
            Verdict::Fresh | Verdict::Unverified => return Note::Hot,
        };
        if !seen.take_on(reason) {
            return Note::Hot;
        }
        Note::ToDo(Job {
            key: Errand::Entry(recipe),
            class: match reason {
                Reason::Invalidated => Class::Invalidated,
                Reason::Ending => Class::NearExpiry,
            },
            due: now,
            worth: seen.cost.saturating_mul(seen.uses.max(1)),
            ttl: registered.ttl,
        })
    }

    /// How an entry is made again. `None` for one whose key is too long to be remembered.
    fn recipe(&self, seen: &Seen, hash: u64) -> Option<Recipe> {
        if let Some(known) = self.top.what(hash) {
            return Some(known.clone());
        }
        let name = &seen.name;
        let (cache, key) = (Arc::clone(&name.cache), Arc::clone(&name.key));
        Recipe::new(cache, name.tenant.as_deref(), key).ok()
    }
}

/// How often everything is looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// How often what is hot is glanced at: so long may it take until what was invalidated is computed anew.
const GLANCE: Duration = Duration::from_millis(50);

/// After each sweep there is a rest of so many times as long, so that no more than a fiftieth of the time is
/// spent on it, however much there is.
const REST: u32 = 50;

const REST_MAX: Duration = Duration::from_secs(60);

/// What was not used since the last sweep is in use if it was used twice in the last half-life, or as often as
/// that comes to.
const IN_USE: f64 = 2.0;
