//! One server, as its users see it: the connection there is, or the reason why there is none.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use deadpool::managed::Pool;
use tokio::sync::{Notify, watch};

use crate::store::classify::Failure;
use crate::store::command::Manner;
use crate::store::config::RedisConfig;
use crate::store::connect::{Access, Connector, Held, Way};
use crate::store::error::StoreError;
use crate::store::hub::Hub;
use crate::store::library::Library;
use crate::store::link::Link;
use crate::store::status::{DownKind, DownReason, RedisStatus};

/// The times and sizes that a node keeps to; see `RedisConfig`, where they come from.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) connections: usize,
    pub(crate) command_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) heartbeat: Duration,
    pub(crate) bulk_timeout: Duration,
}

impl Limits {
    pub(crate) fn of(config: &RedisConfig) -> Self {
        Self {
            connections: config.max_connections,
            command_timeout: config.command_timeout,
            connect_timeout: config.connect_timeout,
            heartbeat: config.heartbeat,
            bulk_timeout: config.bulk_timeout,
        }
    }

    /// How long a question may take.
    pub(crate) fn timeout(&self, manner: Manner) -> Duration {
        let most = if manner.bulk {
            self.bulk_timeout
        } else {
            self.command_timeout
        };
        manner.within.map_or(most, |limit| limit.min(most))
    }
}

/// Hears of every change of a node's state, on the thread that caused it.
#[derive(Clone)]
pub(crate) struct Told {
    /// Takes note of it, in the order of the changes: locks are held.
    pub(crate) note: Arc<dyn Fn(RedisStatus) + Send + Sync>,
    /// Passes on what was noted, when none is: whoever hears of it may run any code.
    pub(crate) tell: Arc<dyn Fn() + Send + Sync>,
}

/// Which channels are to be subscribed on a node, and by which word.
pub(crate) type Channels = Arc<dyn Fn(&Hub) -> Vec<Vec<u8>> + Send + Sync>;

/// What a node is made from.
#[derive(Clone)]
pub(crate) struct NodeParts {
    pub(crate) limits: Limits,
    /// A key to see by whether writes pass; `None` where it could belong to another node.
    pub(crate) probe: Option<String>,
    pub(crate) access: Access,
    pub(crate) library: Arc<Library>,
    /// `SUBSCRIBE`, or `SSUBSCRIBE` in a cluster.
    pub(crate) subscribe: &'static str,
    pub(crate) channels: Channels,
    pub(crate) told: Told,
}

/// More commands than these under way at once are refused, so that what piles up within one deadline
/// of an outage is bounded. Counted by the holders of the connection, which costs nothing beside holding it.
const MOST_UNDER_WAY: usize = 16_384;

/// A server and its connections. Its supervisor fills it; everyone else only looks.
#[derive(Clone)]
pub(crate) struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    parts: NodeParts,
    pool: Pool<Connector>,
    /// The command lane, while there is one.
    current: ArcSwapOption<Link>,
    /// Why there is none; kept when one comes, so that reading it never waits.
    reason: ArcSwap<DownReason>,
    /// Held while the state changes, so that changes are noted in their order.
    changing: Mutex<()>,
    /// Wakes the supervisor: a connection broke, or there is more to subscribe.
    nudge: Arc<Notify>,
    /// The last heartbeat's round trip in nanoseconds.
    round_trip: AtomicU64,
    retired: watch::Sender<bool>,
    /// Bulk questions that have a connection beside the lane, or wait for one.
    queued: AtomicUsize,
}

/// A connection on its way.
type Reserve<'a> = Pin<Box<dyn Future<Output = Result<Held, StoreError>> + Send + 'a>>;

impl Node {
    /// A node that is down until its supervisor runs.
    ///
    /// # Errors
    ///
    /// The pool's words, which say what about its settings cannot be.
    pub(crate) fn new(way: Way, parts: NodeParts) -> Result<Self, String> {
        let nudge = Arc::new(Notify::new());
        let connector = Connector {
            way,
            access: parts.access.clone(),
            over: Arc::clone(&nudge),
        };
        let pool = Pool::builder(connector).max_size(parts.limits.connections);
        let pool = pool.runtime(deadpool::Runtime::Tokio1).build();
        let starting = DownReason::new(DownKind::Starting, "connecting");
        Ok(Self {
            inner: Arc::new(Inner {
                parts,
                pool: pool.map_err(|error| error.to_string())?,
                current: ArcSwapOption::empty(),
                reason: ArcSwap::from_pointee(starting),
                changing: Mutex::new(()),
                nudge,
                round_trip: AtomicU64::new(0),
                retired: watch::Sender::new(false),
                queued: AtomicUsize::new(0),
            }),
        })
    }

    pub(crate) fn parts(&self) -> &NodeParts {
        &self.inner.parts
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.parts.limits
    }

    /// The command lane, or at once why there is none. Whoever holds it counts as a command under way.
    pub(crate) fn link(&self) -> Result<Arc<Link>, StoreError> {
        match self.inner.current.load_full() {
            Some(link) if Arc::strong_count(&link) <= MOST_UNDER_WAY => Ok(link),
            Some(_) => Err(StoreError::Crowded),
            None => Err(StoreError::Unavailable(DownReason::clone(
                &self.inner.reason.load(),
            ))),
        }
    }

    /// What a failure leaves to its caller; where it shows that the connection is of no use, the
    /// connection is given up before anybody else tries it.
    pub(crate) fn settle(&self, link: &Link, failure: Failure) -> StoreError {
        if let Some(reason) = failure.trip {
            self.give_up(link, reason);
        }
        if let Some(code @ ("OOM" | "MISCONF" | "NOREPLICAS")) = failure.error.code() {
            link.set_refuses_writes(Some(code.to_owned()));
        }
        failure.error
    }

    /// Ends a connection for all its users. Later calls for the same one change nothing.
    pub(crate) fn give_up(&self, link: &Link, reason: DownReason) {
        link.pulse.end(reason);
        self.withdraw(link);
        // Outside of the lock: sinks are the rooms' code.
        self.parts().access.hub.lost(link.id);
        // Connections that idle beside it lead to the same server.
        self.inner.pool.retain(|_, _| false);
    }

    fn withdraw(&self, link: &Link) {
        self.change(|| {
            let current = self.inner.current.load();
            if current
                .as_ref()
                .is_some_and(|current| current.id == link.id)
            {
                self.inner.current.store(None);
                self.down(link.pulse.reason());
            }
        });
    }

    /// Makes a connection the command lane.
    pub(crate) fn publish(&self, link: &Arc<Link>) {
        self.change(|| {
            self.inner.current.store(Some(Arc::clone(link)));
            (self.inner.parts.told.note)(RedisStatus::Up);
        });
    }

    /// Notes why an attempt to connect has failed.
    pub(crate) fn note(&self, reason: DownReason) {
        self.change(|| {
            if self.inner.current.load().is_none() {
                self.down(reason);
            }
        });
    }

    fn down(&self, reason: DownReason) {
        self.inner.reason.store(Arc::new(reason.clone()));
        (self.inner.parts.told.note)(RedisStatus::Down { reason });
    }

    fn change(&self, change: impl FnOnce()) {
        let changing = &self.inner.changing;
        let changing = changing.lock().unwrap_or_else(PoisonError::into_inner);
        change();
        drop(changing);
        (self.inner.parts.told.tell)();
    }

    /// A place in the queue for the connections beside the lane, until it is dropped. Those who wait there
    /// hold large requests, so there are few places.
    pub(crate) fn queue_beside(&self) -> Result<Place<'_>, StoreError> {
        let place = Place(&self.inner.queued);
        let before = place.0.fetch_add(1, Ordering::Relaxed);
        if before < MOST_QUEUED {
            Ok(place)
        } else {
            Err(StoreError::Crowded)
        }
    }

    /// A connection beside the command lane, unless the cap leaves none.
    ///
    /// Its type is told to nobody: all that connecting consists of would be part of every caller's future,
    /// and a compiler that asks whether such a future is `Send` gives up before it has seen it all.
    pub(crate) fn reserve(&self) -> Reserve<'_> {
        Box::pin(async {
            let held = self.inner.pool.get().await;
            held.map_err(|error| match error {
                deadpool::managed::PoolError::Backend(reason) => StoreError::Unavailable(reason),
                _ => StoreError::Crowded,
            })
        })
    }

    /// A connection that may become the command lane.
    pub(crate) async fn open(&self) -> Result<Held, DownReason> {
        self.inner.pool.get().await.map_err(|error| match error {
            deadpool::managed::PoolError::Backend(reason) => reason,
            error => DownReason::new(DownKind::NoProgress, error.to_string()),
        })
    }

    /// Closes connections beside the lane that nobody has used for `idle`.
    pub(crate) fn close_idle(&self, idle: Duration) {
        self.inner
            .pool
            .retain(|_, metrics| metrics.last_used() < idle);
    }

    /// Where it leads to.
    pub(crate) fn way(&self) -> &Way {
        &self.inner.pool.manager().way
    }

    /// Where the way leads now, for a node whose address may change.
    pub(crate) async fn moved_to(&self) -> Option<String> {
        match self.way() {
            Way::Fixed(_) => None,
            way @ Way::Sentinels(_) => way.endpoint().await.ok().map(|to| to.to_string()),
        }
    }

    pub(crate) fn has_sentinels(&self) -> bool {
        matches!(self.way(), Way::Sentinels(_))
    }

    pub(crate) async fn nudged(&self) {
        self.inner.nudge.notified().await;
    }

    /// Asks the supervisor to look whether there is more to do.
    pub(crate) fn nudge(&self) {
        self.inner.nudge.notify_one();
    }

    /// Open connections, and those being opened.
    pub(crate) fn connections(&self) -> usize {
        self.inner.pool.status().size
    }

    /// Commands under way on the lane.
    pub(crate) fn under_way(&self) -> u64 {
        let current = self.inner.current.load_full();
        // Those who hold it besides: this function, the node, and its supervisor.
        current.map_or(0, |link| Arc::strong_count(&link).saturating_sub(3) as u64)
    }

    pub(crate) fn set_round_trip(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.inner.round_trip.store(nanos, Ordering::Relaxed);
    }

    /// How long the last heartbeat took.
    pub(crate) fn round_trip(&self) -> Duration {
        Duration::from_nanos(self.inner.round_trip.load(Ordering::Relaxed))
    }

    /// Whether both are the same node.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// The host that a fixed way leads to; in a cluster every node has one.
    pub(crate) fn host(&self) -> String {
        match self.way() {
            Way::Fixed(endpoint) => endpoint.host().to_owned(),
            Way::Sentinels(_) => String::new(),
        }
    }

    /// Lets go of a server that is no master of the cluster any more.
    pub(crate) fn retire(&self) {
        self.inner.retired.send_replace(true);
    }

    /// Waits until the node is let go of.
    pub(crate) async fn retired(&self) {
        let mut retired = self.inner.retired.subscribe();
        // The sender lives as long as the node, so there is no error.
        let _ = retired.wait_for(|retired| *retired).await;
    }

    /// Ends everything; nothing connects any more.
    pub(crate) fn stop(&self) {
        let reason = || match *self.inner.retired.borrow() {
            true => DownReason::new(DownKind::Cluster, "no master of the cluster any more"),
            false => DownReason::new(DownKind::Stopped, "the stack was shut down"),
        };
        // Not through `link`, which says no while too many hold it.
        if let Some(link) = self.inner.current.load_full() {
            self.give_up(&link, reason());
        }
        self.note(reason());
        self.inner.pool.close();
    }
}

/// More bulk questions than these at once are refused.
const MOST_QUEUED: usize = 256;

/// A place in the queue for the connections beside the lane.
pub(crate) struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("current", &self.inner.current.load())
            .field("reason", &self.inner.reason.load())
            .finish_non_exhaustive()
    }
}
