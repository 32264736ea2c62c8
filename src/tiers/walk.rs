//! Walking past all that is in memory, now and then: what was used meanwhile, and what needs to be seen to.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::journal::Verdict;
use crate::tiers::engine::{HotSpace, Tiers};
use crate::tiers::held::{Kept, Reason};
use crate::tiers::key::HotKey;

/// An entry in memory that was used since it came there.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) name: Named,
    /// How often it was served since it was last looked at.
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

/// Which entry of which cache.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    /// The name of its cache.
    pub(crate) cache: Arc<str>,
    pub(crate) tenant: Option<Arc<str>>,
    /// Its key's text.
    pub(crate) key: Arc<str>,
}

/// An entry that can be looked at again, as long as it is in memory. It is not kept there by this.
pub(crate) struct Watched {
    name: Named,
    find: Box<dyn Fn() -> Option<Kept> + Send + Sync>,
}

impl Seen {
    /// Takes it on to have this entry computed anew. Says whether nobody had: it is tried once, not each time that
    /// somebody looks.
    pub(crate) fn take_on(&self, reason: Reason) -> bool {
        self.kept.meta().take_on(reason)
    }

    /// For who wants to look at it again.
    pub(crate) fn watch(&self) -> Watched {
        Watched {
            name: self.name.clone(),
            find: Box::new(self.kept.weakly()),
        }
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
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
                    let name = || Named {
                        cache: Arc::clone(cache),
                        tenant: tenant.clone(),
                        key: key.text().into(),
                    };
                    slice.extend(self.see(kept.clone(), name));
                }
                self.clear_away(&space, &key, &kept);
                if nth % SLICE == SLICE - 1 {
                    show(std::mem::take(&mut slice));
                    tokio::task::yield_now().await;
                }
            }
            show(slice);
        }
    }

    /// What the journal says of it now. `None` if it is not there any more.
    pub(crate) fn how_is(&self, watched: &Watched) -> Option<Verdict> {
        let kept = (watched.find)()?;
        Some(kept.meta().verdict(self.journal(), self.moment()))
    }

    /// Looks at an entry again. `None` if it is not there any more.
    pub(crate) fn look_again(&self, watched: &Watched) -> Option<Seen> {
        self.see((watched.find)()?, || watched.name.clone())
    }

    fn see(&self, kept: Kept, name: impl FnOnce() -> Named) -> Option<Seen> {
        let (meta, now) = (kept.meta(), self.moment());
        if meta.hits() == 0 {
            return None;
        }
        Some(Seen {
            name: name(),
            uses: meta.new_hits(),
            cost: meta.cost,
            left: meta.life.fresh_until.since(now),
            stays: meta.life.hot_until.since(now),
            verdict: meta.verdict(self.journal(), now),
            kept,
        })
    }

    /// Takes out what can never be served again.
    fn clear_away(&self, space: &HotSpace, key: &HotKey, kept: &Kept) {
        if kept.meta().verdict(self.journal(), self.moment()) != Verdict::Gone {
            return;
        }
        let turn = space.turn(key, 0);
        if space.peek(key).is_some_and(|there| there.is(kept)) {
            turn.remove(key);
        }
    }
}

/// So many entries are looked at in a row: some tens of microseconds.
const SLICE: usize = 256;
