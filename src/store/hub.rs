//! Brings what a connection's server says unasked to those who registered for it.
//!
//! The [`Hub`] knows who registered, and on which connection each of them was told that it is
//! subscribed: exactly those are told when that connection is lost.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use redis::{PushInfo, PushKind, Value};

use crate::store::push::{Push, PushSink};

/// What a push means for the connection that it came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Heard {
    /// Nothing.
    Fine,
    /// It is over.
    Disconnected,
    /// The server ended a subscription by itself. redis-rs counts that as the answer to a command, after
    /// which every caller would get the answer of the one before: give the connection up at once.
    Unsolicited,
}

/// Brings pushes to the sinks. Cheap to clone.
///
/// Connections are told apart by numbers, which are never used again. While a sink is called the lock of
/// its connection is held, for that is what keeps a message from arriving after `Lost`; the lock of the
/// registrations is not. [`lost`](Self::lost) is safe to call from anywhere, also from within a sink.
#[derive(Clone, Default)]
pub(crate) struct Hub {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    registry: Mutex<Registry>,
    version: AtomicU64,
    links: ArcSwap<HashMap<u64, Arc<Link>>>,
}

/// By channel or prefix. A list of sinks only ever grows, so how many were told says which.
type Sinks = BTreeMap<Vec<u8>, Vec<Arc<dyn PushSink>>>;

#[derive(Default)]
struct Registry {
    channels: Sinks,
    prefixes: Sinks,
}

/// A connection: `None` once it is lost.
struct Link(Mutex<Option<Told>>);

/// Who was told `Subscribed` on one connection.
#[derive(Default)]
struct Told {
    channels: Sinks,
    prefixes: Sinks,
    /// The prefixes that the server was asked to watch.
    tracked: Vec<Vec<u8>>,
}

impl Hub {
    /// Registers a sink for a channel. It hears nothing until a connection's supervisor has seen the new
    /// [`version`](Self::version) and subscribed.
    pub(crate) fn subscribe(&self, channel: &[u8], sink: Arc<dyn PushSink>) {
        self.register(|registry| {
            registry
                .channels
                .entry(channel.to_vec())
                .or_default()
                .push(sink)
        });
    }

    /// Registers a sink for the keys that begin with `prefix`, as [`subscribe`](Self::subscribe) does.
    pub(crate) fn track(&self, prefix: &[u8], sink: Arc<dyn PushSink>) {
        self.register(|registry| {
            registry
                .prefixes
                .entry(prefix.to_vec())
                .or_default()
                .push(sink)
        });
    }

    /// Has supervisors look again at what there is to subscribe: in a cluster that changes with the map.
    pub(crate) fn touch(&self) {
        self.shared.version.fetch_add(1, Ordering::Release);
    }

    fn register(&self, add: impl FnOnce(&mut Registry)) {
        let mut registry = self.registry();
        add(&mut registry);
        // After the change: who reads a version finds at least what it stands for.
        self.shared.version.fetch_add(1, Ordering::Release);
    }

    /// All channels that sinks are registered for. Confirmations of `SUBSCRIBE` may be asked for again:
    /// who was told is not told twice.
    pub(crate) fn channels(&self) -> Vec<Vec<u8>> {
        self.registry().channels.keys().cloned().collect()
    }

    /// What to ask `CLIENT TRACKING ON BCAST` for on this connection: the prefixes that sinks are
    /// registered for, without those that another one covers (the server refuses prefixes that
    /// overlap), and without those that are tracked there already (it refuses these as well).
    ///
    /// A prefix that covers one already tracked cannot be added; the server says so, and a new connection
    /// is the way out. `CLIENT TRACKING OFF` is none: it drops what is about to be said.
    pub(crate) fn untracked(&self, link: u64) -> Vec<Vec<u8>> {
        let tracked = self.link(link).and_then(|link| {
            let told = link.lock();
            told.as_ref().map(|told| told.tracked.clone())
        });
        let tracked = tracked.unwrap_or_default();
        let mut wanted: Vec<Vec<u8>> = Vec::new();
        // In order, whatever a prefix covers follows it directly.
        for prefix in self.registry().prefixes.keys() {
            let covered = wanted.last().is_some_and(|last| prefix.starts_with(last));
            if !covered && !is_covered(prefix, &tracked) {
                wanted.push(prefix.clone());
            }
        }
        wanted
    }

    /// Grows with each registration. Read it before the lists, and subscribe again when it has grown.
    pub(crate) fn version(&self) -> u64 {
        self.shared.version.load(Ordering::Acquire)
    }

    /// From now on the pushes of this connection are delivered, until [`lost`](Self::lost).
    pub(crate) fn begin(&self, link: u64) {
        self.shared.links.rcu(|links| {
            let mut links = HashMap::clone(links);
            let begun = || Arc::new(Link(Mutex::new(Some(Told::default()))));
            links.entry(link).or_insert_with(begun);
            links
        });
    }

    /// The server has agreed to track `prefixes`, the ones from [`untracked`](Self::untracked). Call it
    /// with none as well: a sink may have come for a prefix that is tracked already.
    ///
    /// Invalidations that come before this call are dropped, as no sink has been promised any.
    pub(crate) fn tracking(&self, link: u64, prefixes: &[Vec<u8>]) {
        self.on(link, |told| {
            told.tracked.extend_from_slice(prefixes);
            let registered = self.registry().prefixes.clone();
            for (prefix, sinks) in &registered {
                if is_covered(prefix, &told.tracked) {
                    promise(&mut told.prefixes, prefix, sinks);
                }
            }
        });
    }

    /// Brings a push to the sinks that it concerns. Called by the task that reads the connection, for
    /// every push in turn; never by a sink.
    ///
    /// Unless it is [`Heard::Fine`], the connection has ended here already, as by [`lost`](Self::lost).
    /// Pushes of a connection that is lost, or has not begun, reach nobody.
    pub(crate) fn deliver(&self, link: u64, info: &PushInfo) -> Heard {
        match (&info.kind, info.data.as_slice()) {
            (PushKind::Disconnection, _) => {
                self.lost(link);
                return Heard::Disconnected;
            }
            // We end no subscription and have none to patterns.
            (
                PushKind::Unsubscribe
                | PushKind::PUnsubscribe
                | PushKind::SUnsubscribe
                | PushKind::PSubscribe,
                _,
            ) => {
                self.lost(link);
                return Heard::Unsolicited;
            }
            (PushKind::Subscribe | PushKind::SSubscribe, [channel, ..]) => {
                if let Some(channel) = bytes(channel) {
                    self.confirmed(link, channel);
                }
            }
            (PushKind::Message | PushKind::SMessage, [channel, payload, ..]) => {
                if let (Some(channel), Some(payload)) = (bytes(channel), bytes(payload)) {
                    self.message(link, channel, payload);
                }
            }
            (PushKind::Invalidate, keys) => self.invalidated(link, keys),
            _ => {}
        }
        Heard::Fine
    }

    /// This connection is over: whoever was subscribed on it hears [`Push::Lost`]. When this returns they
    /// have heard it, whoever called first; only from within a sink it happens after that sink returns.
    ///
    /// Do not hold a lock that a sink might want.
    pub(crate) fn lost(&self, link: u64) {
        let Some(ending) = self.link(link) else {
            return;
        };
        if put_off(self, link) {
            return;
        }
        calling(|| {
            let mut told = ending.lock();
            let Some(Told {
                channels, prefixes, ..
            }) = told.take()
            else {
                return;
            };
            for (channel, sinks) in channels.iter().chain(&prefixes) {
                sinks
                    .iter()
                    .for_each(|sink| tell(sink, Push::Lost { channel }));
            }
        });
        // Last, so that a second caller waits above until the first has told everybody.
        self.shared.links.rcu(|links| {
            let mut links = HashMap::clone(links);
            links.remove(&link);
            links
        });
    }

    fn confirmed(&self, link: u64, channel: &[u8]) {
        self.on(link, |told| {
            let registered = self.registry().channels.get(channel).cloned();
            if let Some(sinks) = registered {
                promise(&mut told.channels, channel, &sinks);
            }
        });
    }

    fn message(&self, link: u64, channel: &[u8], payload: &[u8]) {
        self.on(link, |told| {
            for sink in told.channels.get(channel).into_iter().flatten() {
                tell(sink, Push::Message { channel, payload });
            }
        });
    }

    fn invalidated(&self, link: u64, data: &[Value]) {
        // What cannot be read may have been any key.
        let keys: Option<Vec<&[u8]>> = match data {
            [Value::Array(keys) | Value::Set(keys), ..] => keys.iter().map(bytes).collect(),
            _ => None,
        };
        self.on(link, |told| {
            let mut own = Vec::new();
            for (prefix, sinks) in &told.prefixes {
                let of_this = keys.iter().flatten().copied();
                own.clear();
                own.extend(of_this.filter(|key| key.starts_with(prefix)));
                if keys.is_none() || !own.is_empty() {
                    let keys = keys.is_some().then_some(own.as_slice());
                    sinks
                        .iter()
                        .for_each(|sink| tell(sink, Push::Invalidated { keys }));
                }
            }
        });
    }

    /// Does something on a connection that is not lost, and keeps it from being lost meanwhile.
    fn on(&self, link: u64, act: impl FnOnce(&mut Told)) {
        let Some(link) = self.link(link) else {
            return;
        };
        calling(|| {
            if let Some(told) = link.lock().as_mut() {
                act(told);
            }
        });
    }

    fn link(&self, link: u64) -> Option<Arc<Link>> {
        self.shared.links.load().get(&link).cloned()
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        let registry = &self.shared.registry;
        registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, Option<Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let links = self.shared.links.load();
        f.debug_struct("Hub")
            .field("version", &self.version())
            .field("links", &links.len())
            .finish_non_exhaustive()
    }
}

/// Connections that are to end once the sinks that are being called have returned.
type Ended = Vec<(Hub, u64)>;

thread_local! {
    /// `Some` while this thread calls sinks.
    static ENDED: RefCell<Option<Ended>> = const { RefCell::new(None) };
}

/// Calls sinks, holding a lock, and ends afterwards what they have ended: a sink that waited for a second
/// lock, or for the one that is held, could wait for ever.
fn calling(call: impl FnOnce()) {
    let entered = ENDED.try_with(|ended| ended.replace(Some(Ended::new())));
    let _leaving = Leaving(entered.unwrap_or_default());
    call();
}

/// Leaves [`calling`], with what was put off before it.
struct Leaving(Option<Ended>);

impl Drop for Leaving {
    fn drop(&mut self) {
        let before = self.0.take();
        let ended = ENDED.try_with(|ended| ended.replace(before));
        for (hub, link) in ended.ok().flatten().unwrap_or_default() {
            hub.lost(link);
        }
    }
}

/// Whether this thread is calling sinks, so that the end has to wait.
fn put_off(hub: &Hub, link: u64) -> bool {
    let noted = ENDED.try_with(|ended| match ended.borrow_mut().as_mut() {
        Some(ended) => {
            ended.push((hub.clone(), link));
            true
        }
        None => false,
    });
    noted.unwrap_or(false)
}

/// Tells `Subscribed` to those who were not told on this connection.
fn promise(told: &mut Sinks, channel: &[u8], registered: &[Arc<dyn PushSink>]) {
    let told = told.entry(channel.to_vec()).or_default();
    for sink in registered.iter().skip(told.len()) {
        told.push(Arc::clone(sink));
        tell(sink, Push::Subscribed { channel });
    }
}

fn tell(sink: &Arc<dyn PushSink>, push: Push<'_>) {
    if catch_unwind(AssertUnwindSafe(|| sink.push(push))).is_err() {
        tracing::error!(target: "tower_keep", "a push sink panicked");
    }
}

fn is_covered(prefix: &[u8], by: &[Vec<u8>]) -> bool {
    by.iter().any(|wider| prefix.starts_with(wider))
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.as_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    /// Writes down what it hears.
    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl PushSink for Notes {
        fn push(&self, push: Push<'_>) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let note = match push {
                Push::Subscribed { channel } => format!("+{}", text(channel)),
                Push::Message { channel, payload } => {
                    format!("{}:{}", text(channel), text(payload))
                }
                Push::Invalidated { keys: None } => "*".to_owned(),
                Push::Invalidated { keys: Some(keys) } => text(&keys.join(&b' ')),
                Push::Lost { channel } => format!("-{}", text(channel)),
            };
            self.0.lock().unwrap().push(note);
        }
    }

    impl Notes {
        fn new() -> Arc<Self> {
            Arc::default()
        }

        fn take(&self) -> Vec<String> {
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn info(kind: PushKind, data: Vec<Value>) -> PushInfo {
        PushInfo { kind, data }
    }

    fn subscribe(channel: &str) -> PushInfo {
        info(PushKind::Subscribe, vec![text(channel), Value::Int(1)])
    }

    fn message(channel: &str, payload: &str) -> PushInfo {
        info(PushKind::Message, vec![text(channel), text(payload)])
    }

    fn invalidate(keys: &[&str]) -> PushInfo {
        let keys = keys.iter().map(|key| text(key)).collect();
        info(PushKind::Invalidate, vec![Value::Array(keys)])
    }

    fn disconnect() -> PushInfo {
        info(PushKind::Disconnection, Vec::new())
    }

    /// A hub with one sink on one channel, subscribed on connection 1.
    fn subscribed() -> (Hub, Arc<Notes>) {
        let (hub, notes) = (Hub::default(), Notes::new());
        hub.subscribe(b"c", Arc::clone(&notes) as _);
        hub.begin(1);
        fine(&hub, 1, &subscribe("c"));
        assert_eq!(notes.take(), ["+c"]);
        (hub, notes)
    }

    #[track_caller]
    fn fine(hub: &Hub, link: u64, info: &PushInfo) {
        assert_eq!(hub.deliver(link, info), Heard::Fine);
    }

    #[test]
    fn a_sink_hears_in_order_from_the_confirmation_to_the_loss() {
        let (hub, notes) = (Hub::default(), Notes::new());
        hub.subscribe(b"c", Arc::clone(&notes) as _);
        fine(&hub, 1, &subscribe("c"));
        fine(&hub, 1, &message("c", "before the beginning"));
        hub.begin(1);
        fine(&hub, 1, &message("c", "before the confirmation"));
        fine(&hub, 1, &subscribe("c"));
        fine(&hub, 1, &message("c", "a"));
        fine(&hub, 1, &message("other", "b"));
        fine(&hub, 1, &message("c", "c"));
        assert_eq!(hub.deliver(1, &disconnect()), Heard::Disconnected);
        fine(&hub, 1, &message("c", "late"));
        fine(&hub, 1, &subscribe("c"));
        assert_eq!(notes.take(), ["+c", "c:a", "c:c", "-c"]);
    }

    #[test]
    fn loss_is_told_once_however_often_it_is_noticed() {
        let (hub, notes) = subscribed();
        hub.lost(1);
        hub.lost(1);
        assert_eq!(hub.deliver(1, &disconnect()), Heard::Disconnected);
        hub.lost(7);
        assert_eq!(notes.take(), ["-c"]);
        assert_eq!(hub.shared.links.load().len(), 0);
    }

    #[test]
    fn who_was_not_subscribed_loses_nothing() {
        let (hub, notes) = (Hub::default(), Notes::new());
        hub.subscribe(b"c", Arc::clone(&notes) as _);
        hub.begin(1);
        hub.lost(1);
        assert_eq!(notes.take(), [""; 0]);
    }

    #[test]
    fn sharded_pushes_are_like_the_others() {
        let (hub, notes) = (Hub::default(), Notes::new());
        hub.subscribe(b"c", Arc::clone(&notes) as _);
        hub.begin(1);
        let data = vec![text("c"), Value::Int(1)];
        fine(&hub, 1, &info(PushKind::SSubscribe, data));
        let data = vec![text("c"), text("a")];
        fine(&hub, 1, &info(PushKind::SMessage, data));
        assert_eq!(notes.take(), ["+c", "c:a"]);
    }

    #[test]
    fn an_end_that_nobody_asked_for_poisons_the_connection() {
        let kinds = [
            PushKind::Unsubscribe,
            PushKind::PUnsubscribe,
            PushKind::SUnsubscribe,
            PushKind::PSubscribe,
        ];
        for kind in kinds {
            let (hub, notes) = subscribed();
            let data = vec![text("c"), Value::Int(0)];
            assert_eq!(hub.deliver(1, &info(kind, data)), Heard::Unsolicited);
            fine(&hub, 1, &message("c", "late"));
            assert_eq!(notes.take(), ["-c"]);
        }
    }

    #[test]
    fn the_end_of_a_connection_nobody_began_is_still_the_end() {
        let hub = Hub::default();
        let unsubscribe = info(PushKind::Unsubscribe, vec![Value::Nil]);
        assert_eq!(hub.deliver(9, &disconnect()), Heard::Disconnected);
        assert_eq!(hub.deliver(9, &unsubscribe), Heard::Unsolicited);
    }

    #[test]
    fn two_connections_share_the_channels_and_are_lost_apart() {
        let (hub, notes) = subscribed();
        let other = Notes::new();
        hub.subscribe(b"d", Arc::clone(&other) as _);
        hub.begin(2);
        fine(&hub, 2, &subscribe("d"));
        fine(&hub, 2, &message("d", "1"));
        fine(&hub, 1, &message("d", "not subscribed on this one"));
        hub.lost(1);
        fine(&hub, 2, &message("d", "2"));
        assert_eq!(notes.take(), ["-c"]);
        assert_eq!(other.take(), ["+d", "d:1", "d:2"]);
        hub.lost(2);
        assert_eq!(other.take(), ["-d"]);
    }

    #[test]
    fn a_connection_that_takes_over_is_heard_beside_the_old_one() {
        let (hub, notes) = subscribed();
        hub.begin(2);
        fine(&hub, 2, &subscribe("c"));
        hub.lost(1);
        fine(&hub, 1, &message("c", "old"));
        fine(&hub, 2, &message("c", "new"));
        assert_eq!(notes.take(), ["+c", "-c", "c:new"]);
    }

    #[test]
    fn who_comes_later_is_told_by_the_next_confirmation_and_nobody_twice() {
        let (hub, first) = subscribed();
        let before = hub.version();
        let second = Notes::new();
        hub.subscribe(b"c", Arc::clone(&second) as _);
        assert!(hub.version() > before);
        fine(&hub, 1, &message("c", "1"));
        fine(&hub, 1, &subscribe("c"));
        fine(&hub, 1, &message("c", "2"));
        hub.lost(1);
        assert_eq!(first.take(), ["c:1", "c:2", "-c"]);
        assert_eq!(second.take(), ["+c", "c:2", "-c"]);
    }

    #[test]
    fn channels_are_listed_once_each() {
        let hub = Hub::default();
        for channel in ["b", "a", "b"] {
            hub.subscribe(channel.as_bytes(), Notes::new());
        }
        assert_eq!(hub.channels(), [b"a", b"b"]);
        assert_eq!(hub.version(), 3);
    }

    #[test]
    fn a_tracking_sink_hears_of_its_own_keys_only() {
        let (hub, wide, narrow) = (Hub::default(), Notes::new(), Notes::new());
        hub.track(b"a:", Arc::clone(&wide) as _);
        hub.track(b"a:b:", Arc::clone(&narrow) as _);
        hub.begin(1);
        fine(&hub, 1, &invalidate(&["a:early"]));
        let prefixes = hub.untracked(1);
        assert_eq!(prefixes, [b"a:"]);
        hub.tracking(1, &prefixes);
        fine(&hub, 1, &invalidate(&["a:x", "a:b:y", "a:b:z"]));
        fine(&hub, 1, &invalidate(&["a:x"]));
        fine(&hub, 1, &info(PushKind::Invalidate, vec![Value::Nil]));
        hub.lost(1);
        hub.tracking(1, &prefixes);
        assert_eq!(wide.take(), ["+a:", "a:x a:b:y a:b:z", "a:x", "*", "-a:"]);
        assert_eq!(narrow.take(), ["+a:b:", "a:b:y a:b:z", "*", "-a:b:"]);
    }

    #[test]
    fn an_invalidation_that_cannot_be_read_is_one_of_every_key() {
        let (hub, notes) = (Hub::default(), Notes::new());
        hub.track(b"", Arc::clone(&notes) as _);
        hub.begin(1);
        hub.tracking(1, &hub.untracked(1));
        let odd = Value::Array(vec![text("a"), Value::Int(1)]);
        for data in [vec![], vec![Value::Int(1)], vec![odd]] {
            fine(&hub, 1, &info(PushKind::Invalidate, data));
        }
        assert_eq!(notes.take(), ["+", "*", "*", "*"]);
    }

    #[test]
    fn prefixes_that_came_later_are_asked_for_without_those_that_are_tracked() {
        let (hub, first, late, inner) = (Hub::default(), Notes::new(), Notes::new(), Notes::new());
        hub.track(b"a:", Arc::clone(&first) as _);
        hub.begin(1);
        hub.tracking(1, &hub.untracked(1));
        hub.track(b"b:", Arc::clone(&late) as _);
        hub.track(b"a:b:", Arc::clone(&inner) as _);
        // Registered after the question went out: nothing was promised to it.
        hub.tracking(1, &[]);
        assert_eq!(late.take(), [""; 0]);
        assert_eq!(inner.take(), ["+a:b:"]);
        assert_eq!(hub.untracked(1), [b"b:"]);
        hub.tracking(1, &hub.untracked(1));
        assert_eq!(hub.untracked(1), [b""; 0]);
        assert_eq!(hub.untracked(2), [b"a:", b"b:"]);
        assert_eq!(first.take(), ["+a:"]);
        assert_eq!(late.take(), ["+b:"]);
    }

    #[test]
    fn nonsense_reaches_nobody() {
        let (hub, notes) = subscribed();
        let data = [vec![], vec![Value::Nil], vec![text("c"), Value::Nil]];
        for data in data {
            for kind in [
                PushKind::Message,
                PushKind::PMessage,
                PushKind::Other("x".into()),
            ] {
                fine(&hub, 1, &info(kind, data.clone()));
            }
        }
        fine(&hub, 1, &info(PushKind::Subscribe, vec![Value::Int(1)]));
        fine(&hub, 1, &subscribe("unknown"));
        assert_eq!(notes.take(), [""; 0]);
    }

    struct Panics;

    impl PushSink for Panics {
        fn push(&self, _: Push<'_>) {
            panic!("a sink's panic, which belongs to this test");
        }
    }

    #[test]
    fn a_sink_that_panics_ends_neither_the_connection_nor_the_others() {
        let (hub, notes) = (Hub::default(), Notes::new());
        hub.subscribe(b"c", Arc::new(Panics));
        hub.subscribe(b"c", Arc::clone(&notes) as _);
        hub.begin(1);
        fine(&hub, 1, &subscribe("c"));
        fine(&hub, 1, &message("c", "a"));
        hub.lost(1);
        assert_eq!(notes.take(), ["+c", "c:a", "-c"]);
    }

    /// Ends a connection as soon as it hears a message, and registers somebody.
    struct CallsBack {
        hub: Hub,
        ends: u64,
        notes: Arc<Notes>,
    }

    impl PushSink for CallsBack {
        fn push(&self, push: Push<'_>) {
            self.notes.push(push);
            if let Push::Message { .. } = push {
                self.hub.subscribe(b"new", Notes::new());
                self.hub.lost(self.ends);
                self.notes.0.lock().unwrap().push("returned".to_owned());
            }
        }
    }

    #[test]
    fn a_sink_that_calls_back_waits_for_nobody() {
        for ends in [1, 2] {
            let (hub, notes) = (Hub::default(), Notes::new());
            let sink = CallsBack {
                hub: hub.clone(),
                ends,
                notes: Arc::clone(&notes),
            };
            hub.subscribe(b"c", Arc::new(sink));
            for link in [1, 2] {
                hub.begin(link);
                fine(&hub, link, &subscribe("c"));
            }
            fine(&hub, 1, &message("c", "a"));
            assert_eq!(notes.take(), ["+c", "+c", "c:a", "returned", "-c"]);
            assert_eq!(hub.channels().len(), 2);
            let left = 3 - ends;
            assert_eq!(hub.shared.links.load().keys().collect::<Vec<_>>(), [&left]);
        }
    }

    /// Holds a channel's sink to the contract, while at most one connection at a time has it.
    #[derive(Default)]
    struct Judge(Mutex<Verdict>);

    #[derive(Default)]
    struct Verdict {
        up: bool,
        /// The newest connection and message that were heard.
        last: (u64, u64),
        /// The newest connection that was heard of before the last loss.
        dead: u64,
        told: u64,
        faults: Vec<String>,
    }

    impl PushSink for Judge {
        fn push(&self, push: Push<'_>) {
            // Two calls at once would be a fault here, as there is one connection at a time.
            let Ok(mut verdict) = self.0.try_lock() else {
                return self
                    .0
                    .lock()
                    .unwrap()
                    .faults
                    .push("two at a time".to_owned());
            };
            verdict.told += 1;
            let fault = match push {
                Push::Subscribed { .. } => std::mem::replace(&mut verdict.up, true),
                Push::Lost { .. } => {
                    verdict.dead = verdict.last.0;
                    !std::mem::replace(&mut verdict.up, false)
                }
                Push::Message { payload, .. } => {
                    let payload = std::str::from_utf8(payload).unwrap();
                    let (link, number) = payload.split_once(' ').unwrap();
                    let now = (link.parse().unwrap(), number.parse().unwrap());
                    let before = std::mem::replace(&mut verdict.last, now);
                    !verdict.up || now <= before || now.0 <= verdict.dead
                }
                Push::Invalidated { .. } => true,
            };
            if fault {
                verdict.faults.push(format!("{push:?}"));
            }
        }
    }

    #[test]
    fn the_contract_holds_while_connections_are_read_and_replaced_at_random() {
        const LIVES: u64 = 300;
        let hub = Hub::default();
        let ids = AtomicU64::new(1);
        let judges: Vec<_> = (0..3).map(|_| Arc::new(Judge::default())).collect();
        thread::scope(|scope| {
            for (channel, judge) in judges.iter().enumerate() {
                let (hub, ids) = (&hub, &ids);
                let channel = format!("c{channel}");
                hub.subscribe(channel.as_bytes(), Arc::clone(judge) as _);
                scope.spawn(move || {
                    for life in 0..LIVES {
                        let link = ids.fetch_add(1, Ordering::Relaxed);
                        one_life(hub, link, &channel, judge, life);
                    }
                });
            }
        });
        assert_eq!(hub.shared.links.load().len(), 0);
        for judge in &judges {
            let verdict = judge.0.lock().unwrap();
            assert_eq!(verdict.faults, [""; 0]);
            assert!(!verdict.up);
            assert!(verdict.told >= 2 * LIVES, "only {} heard", verdict.told);
        }
    }

    /// A connection whose reader never stops by itself, and whose supervisor and a second caller end it
    /// at some moment; sometimes the reader notices first.
    fn one_life(hub: &Hub, link: u64, channel: &str, judge: &Judge, life: u64) {
        let (confirmed, stop) = (AtomicBool::new(false), AtomicBool::new(false));
        hub.begin(link);
        thread::scope(|scope| {
            scope.spawn(|| {
                fine(hub, link, &subscribe(channel));
                confirmed.store(true, Ordering::Release);
                let mut number = 0;
                while !stop.load(Ordering::Acquire) {
                    number += 1;
                    let payload = format!("{link} {number}");
                    fine(hub, link, &message(channel, &payload));
                    if life.is_multiple_of(3) && number == 1 + life % 17 {
                        let _ = hub.deliver(link, &disconnect());
                    }
                }
            });
            while life.is_multiple_of(2) && !confirmed.load(Ordering::Acquire) {
                thread::yield_now();
            }
            for _ in 0..(life % 7) * 100 {
                std::hint::spin_loop();
            }
            scope.spawn(|| hub.lost(link));
            hub.lost(link);
            // Told by now, whoever of the three was first and whatever the reader is about.
            let up = judge.0.lock().unwrap().up;
            stop.store(true, Ordering::Release);
            assert!(!up, "connection {link} is lost, and its sink does not know");
        });
    }

    fn any_info() -> impl Strategy<Value = PushInfo> {
        let word = prop_oneof!["[ab]:[xy]", Just("a:".to_owned()), Just("c".to_owned())];
        prop_oneof![
            word.clone().prop_map(|word| subscribe(&word)),
            word.clone().prop_map(|word| message(&word, "x")),
            proptest::collection::vec(word, 0..4).prop_map(|words| {
                invalidate(&words.iter().map(String::as_str).collect::<Vec<_>>())
            }),
            Just(info(PushKind::Invalidate, vec![Value::Nil])),
            Just(disconnect()),
            Just(info(PushKind::Unsubscribe, vec![Value::Nil])),
        ]
    }

    #[derive(Clone, Debug)]
    enum Act {
        Begin(u64),
        Lost(u64),
        Deliver(u64, PushInfo),
        Subscribe(String),
        Track(String),
        Tracking(u64),
    }

    fn any_act() -> impl Strategy<Value = Act> {
        let link = 0..3_u64;
        prop_oneof![
            2 => link.clone().prop_map(Act::Begin),
            1 => link.clone().prop_map(Act::Lost),
            8 => (link.clone(), any_info()).prop_map(|(link, info)| Act::Deliver(link, info)),
            1 => "[ac]".prop_map(Act::Subscribe),
            1 => "[ab]:".prop_map(Act::Track),
            2 => link.prop_map(Act::Tracking),
        ]
    }

    proptest! {
        /// Whatever happens in whatever order, promises and losses come out even for every sink, and
        /// nothing is heard that was not promised.
        #[test]
        fn promises_and_losses_come_out_even(acts in proptest::collection::vec(any_act(), 0..60)) {
            let hub = Hub::default();
            let mut all: Vec<Arc<Notes>> = Vec::new();
            for act in acts {
                match act {
                    Act::Begin(link) => hub.begin(link),
                    Act::Lost(link) => hub.lost(link),
                    Act::Deliver(link, info) => drop(hub.deliver(link, &info)),
                    Act::Tracking(link) => hub.tracking(link, &hub.untracked(link)),
                    Act::Subscribe(channel) => {
                        all.push(Notes::new());
                        hub.subscribe(channel.as_bytes(), Arc::clone(&all[all.len() - 1]) as _);
                    }
                    Act::Track(prefix) => {
                        all.push(Notes::new());
                        hub.track(prefix.as_bytes(), Arc::clone(&all[all.len() - 1]) as _);
                    }
                }
            }
            (0..3).for_each(|link| hub.lost(link));
            for notes in all {
                let mut up = 0;
                for note in notes.take() {
                    match note.as_bytes()[0] {
                        b'+' => up += 1,
                        b'-' => up -= 1,
                        _ => prop_assert!(up > 0, "{note} without a promise"),
                    }
                    prop_assert!((0..=3).contains(&up));
                }
                prop_assert_eq!(up, 0);
            }
        }
    }
}
