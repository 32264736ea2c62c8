//! Telling Redis what is hot.

use std::sync::Arc;

use crate::warming::shared::Shared;
use crate::warming::store::{HotSetStore, SAVE_MAX, Weighed};

/// Tells what has been gained since the last time, as far as Redis is there. Dropping it loses what it is about
/// to tell.
pub(crate) async fn save(shared: &Arc<Shared>, store: &HotSetStore) {
    for _ in 0..shared.config.keys_max.div_ceil(SAVE_MAX) {
        let now = shared.clock.now();
        let gains = shared.state().top.gains(SAVE_MAX, now);
        if gains.is_empty() {
            return;
        }
        let weighed: Vec<Weighed> = gains
            .iter()
            .map(|gain| Weighed {
                recipe: gain.what.clone(),
                weight: gain.weight,
            })
            .collect();
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
