//! Telling Redis what is hot.

use std::sync::Arc;

use crate::warming::recipe::Recipe;
use crate::warming::shared::Shared;
use crate::warming::store::{HotSetStore, SAVE_MAX, Weighed};
use crate::warming::top::Gain;

/// Tells what has been gained since the last time, as far as Redis is there. Dropping it loses what it is about
/// to tell.
pub(crate) async fn save(shared: &Arc<Shared>, store: &HotSetStore) {
    for _ in 0..shared.config.keys_max.div_ceil(SAVE_MAX) {
        let now = shared.clock.now();
        let gains = shared.state().top.gains(SAVE_MAX, now);
        if gains.is_empty() {
            return;
        }
        // The keys of a sealed cache are nobody's business, and not written down.
        let told = |gain: &&Gain<Recipe>| !shared.tiers.caches().is_secret(gain.what.cache());
        let weighed: Vec<Weighed> = gains
            .iter()
            .filter(told)
            .map(|gain| Weighed {
                recipe: gain.what.clone(),
                weight: gain.weight,
            })
            .collect();
        if weighed.is_empty() {
            return;
        }
        let saved = store.save(&weighed).await;
        if saved.as_ref().is_err_and(|error| !error.may_have_run()) {
            // What Redis has not heard is told the next time.
            return;
        }
        let mut state = shared.state();
        for gain in gains {
            state.top.told(gain.key, gain.weight, now);
        }
        if saved.is_err() {
            return;
        }
    }
}
