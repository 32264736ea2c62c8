//! Walking past all that is in memory, now and then: what was used meanwhile, and what needs to be seen to.

use std::sync::Arc;
use std::time::Duration;

use crate::journal::Verdict;
use crate::tiers::engine::{HotSpace, Tiers};
use crate::tiers::held::Kept;
use crate::tiers::key::HotKey;

/// An entry in memory that was used since it came there.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The name of its cache.
    pub(crate) cache: Arc<str>,
    pub(crate) tenant: Option<Arc<str>>,
    /// Its key's text.
    pub(crate) key: Arc<str>,
    /// How often it was served since the last walk.
    pub(crate) uses: u32,
    /// What computing it took.
    pub(crate) cost: Duration,
    /// For how long it is still fresh.
    pub(crate) left: Duration,
    /// For how long it still stays here.
    pub(crate) stays: Duration,
    /// What the journal says of it.
    pub(crate) verdict: Verdict,
    kept: Kept,
}

impl Seen {
    /// Takes it on to have this entry computed anew. Says whether nobody had: it is tried once, not at every walk.
    pub(crate) fn take_on(&self) -> bool {
        self.kept.meta().take_on()
    }
}

impl Tiers {
    /// Walks past everything that typed caches have in memory, and shows what was ever used, a few at a time; in
    /// between others have their turn. What can never be served again is taken out on the way. No lock is held.
    pub(crate) async fn walk(&self, mut show: impl FnMut(Vec<Seen>) + Send) {
        let names = self.caches().names();
        for (tenant, space) in self.hot().all() {
            let tenant: Option<Arc<str>> = tenant.map(Arc::from);
            let mut slice = Vec::new();
            for (nth, (key, kept)) in space.iter().enumerate() {
                if let Some(cache) = names.get(&key.cache()) {
                    slice.extend(self.see(&space, (&key, kept), (cache, &tenant)));
                }
                if nth % SLICE == SLICE - 1 {
                    show(std::mem::take(&mut slice));
                    tokio::task::yield_now().await;
                }
            }
            show(slice);
        }
    }

    fn see(
        &self,
        space: &HotSpace,
        (key, kept): (&HotKey, Kept),
        (cache, tenant): (&Arc<str>, &Option<Arc<str>>),
    ) -> Option<Seen> {
        let (meta, now) = (kept.meta(), self.moment());
        let verdict = meta.verdict(self.journal(), now);
        if verdict == Verdict::Gone {
            let turn = space.turn(key, 0);
            if space.peek(key).is_some_and(|there| there.is(&kept)) {
                turn.remove(key);
            }
        }
        if meta.hits() == 0 {
            return None;
        }
        Some(Seen {
            cache: Arc::clone(cache),
            tenant: tenant.clone(),
            key: Arc::clone(key.text()),
            uses: meta.new_hits(),
            cost: meta.cost,
            left: meta.life.fresh_until.since(now),
            stays: meta.life.hot_until.since(now),
            verdict,
            kept,
        })
    }
}

/// So many entries are looked at in a row: some tens of microseconds.
const SLICE: usize = 256;
