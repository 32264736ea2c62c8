//! Figures that others hold, such as the bytes in the cache: read when they are asked for.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// A figure that is read from its owner.
#[derive(Clone)]
pub(crate) struct Gauge {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) read: Arc<dyn Fn() -> f64 + Send + Sync>,
}

/// All gauges, by name.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    gauges: ArcSwap<Vec<Gauge>>,
}

impl Gauges {
    /// Adds `gauge` in the place of one of the same name.
    pub(crate) fn put(&self, gauge: &Gauge) {
        self.gauges.rcu(|gauges| {
            let others = gauges.iter().filter(|other| other.name != gauge.name);
            let mut next: Vec<_> = others.chain([gauge]).cloned().collect();
            next.sort_by_key(|gauge| gauge.name);
            next
        });
    }

    /// Forgets them all, and with them what they read from.
    pub(crate) fn clear(&self) {
        self.gauges.store(Arc::default());
    }

    /// What the gauge `name` shows now, if there is one.
    pub(crate) fn read(&self, name: &str) -> Option<f64> {
        let gauges = self.all();
        let gauge = gauges.iter().find(|gauge| gauge.name == name)?;
        Some((gauge.read)())
    }

    /// All of them. No lock is held while their owners are asked.
    pub(crate) fn all(&self) -> Arc<Vec<Gauge>> {
        self.gauges.load_full()
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gauge").field(&self.name).finish()
    }
}
