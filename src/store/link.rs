//! The connection that commands take: shared by all of them, and gone for good once it is dropped.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use deadpool::managed::Object;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, Value};

use crate::store::classify::{self, Failure};
use crate::store::connect::{Held, Wire};
use crate::store::greet::Greeting;
use crate::store::hub::Hub;
use crate::store::library::Dialect;
use crate::store::pulse::Pulse;

/// A connection in use. Its place in the pool is free again once the last command on it has ended.
pub(crate) struct Link {
    /// `None` only while it is dropped.
    held: Option<Held>,
    lane: MultiplexedConnection,
    hub: Hub,
    pub(crate) id: u64,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) greeting: Greeting,
    /// Why the server takes no writes at present (`OOM`, ..). It can be read from all the same.
    refuses_writes: ArcSwapOption<String>,
    pub(crate) dialect: Dialect,
    /// Up to which registration the hub's channels are subscribed.
    pub(crate) subscribed: AtomicU64,
    /// How often the scripts were loaded again.
    pub(crate) loads: AtomicU64,
    /// Held while they are, so that many who miss them load them once.
    pub(crate) loading: tokio::sync::Mutex<()>,
}

impl Link {
    /// Takes a connection out of the pool for as long as it lives.
    pub(crate) fn new(held: Held, hub: Hub) -> Self {
        let Wire {
            lane, id, pulse, ..
        } = &*held;
        hub.begin(*id);
        Self {
            lane: lane.clone(),
            id: *id,
            pulse: Arc::clone(pulse),
            held: Some(held),
            hub,
            greeting: Greeting::default(),
            refuses_writes: ArcSwapOption::empty(),
            dialect: Dialect::Functions,
            subscribed: AtomicU64::new(0),
            loads: AtomicU64::new(0),
            loading: tokio::sync::Mutex::new(()),
        }
    }

    /// A handle of its own, for words outside of any deadline.
    pub(crate) fn lane(&self) -> MultiplexedConnection {
        self.lane.clone()
    }

    /// Why the server takes no writes, if it takes none.
    pub(crate) fn refuses_writes(&self) -> Option<Arc<String>> {
        self.refuses_writes.load_full()
    }

    pub(crate) fn set_refuses_writes(&self, why: Option<String>) {
        self.refuses_writes.store(why.map(Arc::new));
    }

    pub(crate) fn wire(&self) -> Option<&Wire> {
        self.held.as_deref()
    }

    /// One command and its answer.
    pub(crate) async fn one(&self, cmd: &Cmd, limit: Duration) -> Result<Value, Failure> {
        classify::value(self.raw(cmd, limit).await?)
    }

    /// One command and its answer, which may be the server's refusal.
    pub(crate) async fn raw(&self, cmd: &Cmd, limit: Duration) -> Result<Value, Failure> {
        let mut lane = self.lane.clone();
        // Pinned here: each function that it is handed through by value would hold it twice.
        let work = pin!(lane.send_packed_command(cmd));
        self.pulse.turn(limit, work).await
    }

    /// Several commands and as many answers, among which may be the server's refusals.
    pub(crate) async fn many(
        &self,
        commands: &Pipeline,
        limit: Duration,
    ) -> Result<Vec<Value>, Failure> {
        let mut lane = self.lane.clone();
        let count = commands.len();
        let work = pin!(lane.send_packed_commands(commands, 0, count));
        self.pulse.turn(limit, work).await
    }

    /// Subscribes to one channel. The answer is the confirmation, a push that the hub has seen by now.
    pub(crate) async fn subscribe(&self, cmd: &Cmd, limit: Duration) -> Result<(), Failure> {
        match self.raw(cmd, limit).await? {
            Value::ServerError(error) => Err(classify::refusal(&error)),
            _ => Ok(()),
        }
    }

    pub(crate) fn set_subscribed(&self, version: u64) {
        self.subscribed.store(version, Ordering::Relaxed);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.hub.lost(self.id);
        // Taken out of the pool instead of going back into it: nobody wants a connection that was given
        // up, and its socket closes with the last handle.
        if let Some(held) = self.held.take() {
            drop(Object::take(held));
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("id", &self.id)
            .field("greeting", &self.greeting)
            .finish_non_exhaustive()
    }
}
