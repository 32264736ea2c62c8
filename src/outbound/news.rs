//! What is to be told to the other instances, and whether they can be asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::Notify;

use crate::clock::Moment;
use crate::store::StatusWatch;

/// The remotes that something is to be said or asked about, and the bell for whoever does so.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Whether Redis is there; nothing at all while nothing is shared.
    status: OnceLock<StatusWatch>,
    /// Grows whenever news may have been missed: what was looked up before is looked up again.
    epoch: AtomicU64,
    /// Until when nobody is asked, in nanoseconds of the clock.
    alone_until: AtomicU64,
    /// Each remote at most once, which the remote sees to.
    names: Mutex<Vec<Arc<str>>>,
    bell: Notify,
}

impl News {
    /// The epoch, where other instances can be asked at present.
    pub(crate) fn epoch(&self, now: Moment) -> Option<u64> {
        let is_up = self.status.get()?.now().is_up();
        let alone = self.alone_until.load(Ordering::Relaxed) > now.as_nanos();
        (is_up && !alone).then(|| self.epoch.load(Ordering::Acquire))
    }

    /// From now on others are asked, as long as Redis is there. Returns whether they were not before.
    pub(crate) fn begin(&self, status: StatusWatch) -> bool {
        self.begin_epoch();
        self.status.set(status).is_ok()
    }

    /// Something may have been missed.
    pub(crate) fn begin_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Nobody is asked until then.
    pub(crate) fn go_alone(&self, until: Moment) {
        self.alone_until.store(until.as_nanos(), Ordering::Relaxed);
    }

    /// There is something about this remote.
    pub(crate) fn add(&self, name: &Arc<str>) {
        self.lock().push(Arc::clone(name));
        self.bell.notify_one();
    }

    /// Some of the remotes that there is something about. The bell rings again if there are more.
    pub(crate) fn take(&self, most: usize) -> Vec<Arc<str>> {
        let mut names = self.lock();
        let taken = names.len().min(most);
        let taken = names.drain(..taken).collect();
        if !names.is_empty() {
            self.bell.notify_one();
        }
        taken
    }

    /// Waits until there is something. Safe to drop.
    pub(crate) async fn bell(&self) {
        self.bell.notified().await;
    }

    /// A panic under the lock cannot leave the list half-changed.
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<str>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
