//! Looking, about once a second, at what was used meanwhile: it is learned, and what is in use and was
//! invalidated, or will end soon, waits to be computed. A hit does nothing for it.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::journal::Verdict;
use crate::tiers::Seen;
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
    spawner.spawn(async move {
        tokio::select! {
            () = shared.spawner.stopped() => {}
            () = sweep_on(&shared) => {}
        }
    });
}

async fn sweep_on(shared: &Arc<Shared>) {
    let mut rest = PERIOD;
    let mut last = shared.clock.now();
    #[cfg(feature = "redis")]
    let mut saved = last;
    loop {
        tokio::time::sleep(rest).await;
        let began = shared.clock.now();
        sweep(shared, began.since(last)).await;
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

/// Looks at everything. The last time was `gap` ago.
async fn sweep(shared: &Arc<Shared>, gap: Duration) {
    let look = |slice: Vec<Seen>| {
        let now = shared.clock.now();
        let mut state = shared.state();
        let jobs = slice.iter().filter_map(|seen| {
            let hash = shared.hash(&seen.cache, seen.tenant.as_deref(), &seen.key);
            state.note(seen, hash, (now, gap))
        });
        let jobs: Vec<Job<Errand>> = jobs.collect();
        drop(state);
        worker::offer(shared, jobs);
    };
    shared.tiers.walk(look).await;
}

impl State {
    /// Learns of an entry, and says what is to be done about it.
    fn note(
        &mut self,
        seen: &Seen,
        hash: u64,
        (now, gap): (Moment, Duration),
    ) -> Option<Job<Errand>> {
        let recipe = self.recipe(seen, hash)?;
        if seen.uses > 0 {
            let uses = f64::from(seen.uses);
            self.top.learn(hash, uses, now, || recipe.clone());
        }
        let registered = self.registered.get(&*seen.cache)?;
        let in_use = seen.uses > 0 || self.top.at_least(hash, now) >= IN_USE;
        if !in_use {
            return None;
        }
        let ahead = gap.saturating_mul(2) + seen.cost.saturating_mul(4);
        let lead = ahead.min(registered.ttl / 4);
        let class = match seen.verdict {
            Verdict::Gone | Verdict::Expired => Class::Invalidated,
            Verdict::Fresh if seen.left.min(seen.stays) <= lead => Class::NearExpiry,
            Verdict::Fresh | Verdict::Unverified => return None,
        };
        // What is gone was taken out of memory by this, and is not seen again.
        if seen.verdict != Verdict::Gone && !seen.take_on() {
            return None;
        }
        Some(Job {
            key: Errand::Entry(recipe),
            class,
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
        let (cache, key) = (Arc::clone(&seen.cache), Arc::clone(&seen.key));
        Recipe::new(cache, seen.tenant.as_deref(), key).ok()
    }
}

/// How often everything is looked at: so long may it take until what was invalidated is computed anew.
const PERIOD: Duration = Duration::from_secs(1);

/// After each sweep there is a rest of so many times as long, so that no more than a fiftieth of the time is
/// spent on it, however much there is.
const REST: u32 = 50;

const REST_MAX: Duration = Duration::from_secs(60);

/// What was not used since the last sweep is in use if it was used twice in the last half-life, or as often as
/// that comes to.
const IN_USE: f64 = 2.0;
