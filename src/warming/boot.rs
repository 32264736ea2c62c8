//! What a starting instance begins with: what is hot is fetched from Redis first, and then computed as far as it
//! is not there.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crate::store::StoreError;
use crate::warming::errand::Errand;
use crate::warming::queue::{Class, Job};
use crate::warming::recipe::Recipe;
use crate::warming::shared::{HotSet, Registered, Shared};
use crate::warming::store::Weighed;
use crate::warming::worker;

/// Starts fetching.
pub(crate) fn start(shared: &Arc<Shared>) {
    let Some(hot_set) = shared.hot_set.clone() else {
        return;
    };
    let shared = Arc::clone(shared);
    let spawner = shared.spawner.clone();
    spawner.spawn(async move {
        let restoring = tokio::time::timeout(PATIENCE, restore(&shared, &hot_set));
        tokio::select! {
            biased;
            () = shared.spawner.stopped() => return,
            // Caches that were not opened by now are others than those of before.
            _ = restoring => {}
        }
        shared.state().left_over = Vec::new();
    });
}

async fn restore(shared: &Arc<Shared>, hot_set: &HotSet) {
    let Ok(learned) = load(shared, hot_set).await else {
        return;
    };
    remember(shared, &learned);
    let mut waiting = learned;
    loop {
        // Listed before the look: a cache that is opened in between is heard of.
        let mut opened = pin!(shared.tiers.caches().news());
        opened.as_mut().enable();
        waiting = fetch(shared, waiting).await;
        if waiting.is_empty() {
            // Those that nobody can compute yet are kept for a while.
            return std::future::pending().await;
        }
        opened.await;
    }
}

fn remember(shared: &Shared, learned: &[Weighed]) {
    let now = shared.clock.now();
    let mut state = shared.state();
    for one in learned {
        let recipe = &one.recipe;
        let hash = shared.hash(recipe.cache(), recipe.tenant(), recipe.key());
        state.top.restore(hash, one.weight, now, || recipe.clone());
    }
}

/// What was hot. Waits until Redis is there, and until it is known what still holds.
async fn load(shared: &Arc<Shared>, hot_set: &HotSet) -> Result<Vec<Weighed>, StoreError> {
    let mut pause = AGAIN;
    loop {
        if !hot_set.pool.watch().until_up().await {
            return Ok(Vec::new());
        }
        let loaded = hot_set.store.load(shared.config.boot_keys_max).await;
        let journal = shared.tiers.journal();
        if loaded.is_ok() && journal.reverified(None, AGAIN).await {
            return loaded;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(AGAIN_MAX);
    }
}

/// Fetches what belongs to a cache that was opened, the hottest first. Returns the rest.
async fn fetch(shared: &Arc<Shared>, all: Vec<Weighed>) -> Vec<Weighed> {
    let opened = |one: &Weighed| shared.tiers.caches().fetch(one.recipe.cache()).is_some();
    let (known, waiting): (Vec<_>, Vec<_>) = all.into_iter().partition(opened);
    for batch in known.chunks(shared.config.boot_batch.max(1)) {
        while shared.state().pace.is_paused() {
            tokio::time::sleep(AGAIN).await;
        }
        let mut groups: Vec<Vec<&Weighed>> = Vec::new();
        for one in batch {
            let of = |one: &Weighed| {
                let (cache, tenant) = (one.recipe.cache(), one.recipe.tenant());
                (cache.to_owned(), tenant.map(str::to_owned))
            };
            match groups.iter_mut().find(|group| of(group[0]) == of(one)) {
                Some(group) => group.push(one),
                None => groups.push(vec![one]),
            }
        }
        for group in groups {
            fetch_group(shared, &group).await;
        }
    }
    waiting
}

/// Fetches what belongs to one cache and tenant.
async fn fetch_group(shared: &Arc<Shared>, group: &[&Weighed]) {
    let Some(first) = group.first() else {
        return;
    };
    let Some(fetch) = shared.tiers.caches().fetch(first.recipe.cache()) else {
        return;
    };
    let tenant = first.recipe.tenant().map(Arc::from);
    let texts = group.iter().map(|one| one.recipe.key().into()).collect();
    let found = fetch(tenant, texts).await;
    let mut state = shared.state();
    let mut jobs = Vec::new();
    for (one, found) in group.iter().zip(found) {
        // How long it takes is not known: those that are asked for most come first.
        let worth = Duration::from_millis(1).mul_f64(one.weight.clamp(0.0, 1e9));
        match state.registered.get(one.recipe.cache()) {
            _ if found => state.counts.restored += 1,
            Some(registered) => jobs.push(job(shared, one.recipe.clone(), (worth, registered))),
            None => state.left_over.push((one.recipe.clone(), worth)),
        }
    }
    drop(state);
    worker::offer(shared, jobs);
}

/// A job for what was hot before the start.
pub(crate) fn job(
    shared: &Shared,
    recipe: Recipe,
    (worth, registered): (Duration, &Registered),
) -> Job<Errand> {
    Job {
        key: Errand::Entry(recipe),
        class: Class::Boot,
        due: shared.clock.now(),
        worth,
        ttl: registered.ttl,
    }
}

/// For so long it is waited for caches to be opened, and for somebody who says how their values are computed.
const PATIENCE: Duration = Duration::from_secs(300);

/// After what time Redis is asked again, and whether memory is short: at first, and at most.
const AGAIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(10);
