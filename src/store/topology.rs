//! Which servers make up a cluster, and which of them serves which keys: kept up to date in the background.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use crate::store::address::Endpoint;
use crate::store::ask;
use crate::store::backoff::{Backoff, chance};
use crate::store::command::{Command, Manner};
use crate::store::connect::Way;
use crate::store::error::StoreError;
use crate::store::hub::Hub;
use crate::store::members::{Map, Member};
use crate::store::node::{Node, NodeParts, Told};
use crate::store::seeds::Seeds;
use crate::store::slots::{NodeAddress, SlotMap, slot_of};
use crate::store::status::{DownKind, DownReason, RedisStatus};
use crate::store::supervisor::supervise;
use crate::task::Spawner;

/// A cluster's servers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Topology {
    inner: Arc<Inner>,
}

struct Inner {
    seeds: Seeds,
    /// What every node is made from, but for its channels and for whom it tells.
    template: NodeParts,
    told: Told,
    spawner: Spawner,
    map: ArcSwap<Map>,
    /// Held while the map is replaced, so that no node is started twice or forgotten.
    adopting: Mutex<()>,
    noting: Mutex<()>,
    /// Wakes the refresher: somebody was sent elsewhere, or a node went down.
    stale: Notify,
    /// How often the map was read.
    rounds: watch::Sender<u64>,
    /// Whether all masters have been up at once. From then on one that has just joined is no reason to
    /// call the cluster down.
    begun: AtomicBool,
}

/// The map is read again this often while nothing seems amiss, and while something does.
const CALM: Duration = Duration::from_secs(15);
const AMISS: Duration = Duration::from_millis(100);
/// Many are sent elsewhere at once when a slot moves; one look at the map serves all.
const GATHER: Duration = Duration::from_millis(5);

impl Topology {
    /// Begins to look for the cluster behind `seeds`.
    pub(crate) fn start(seeds: Vec<Endpoint>, template: NodeParts, spawner: &Spawner) -> Self {
        let topology = Self {
            inner: Arc::new(Inner {
                seeds: Seeds::new(seeds, template.access.clone()),
                told: template.told.clone(),
                template,
                spawner: spawner.clone(),
                map: ArcSwap::default(),
                adopting: Mutex::new(()),
                noting: Mutex::new(()),
                stale: Notify::new(),
                rounds: watch::Sender::new(0),
                begun: AtomicBool::new(false),
            }),
        };
        let (refreshed, stopped) = (Ending(topology.clone()), spawner.clone());
        spawner.spawn(async move {
            tokio::select! {
                () = stopped.stopped() => {}
                () = refreshed.0.refresh() => {}
            }
        });
        topology
    }

    /// The master of the slot that `route` falls into; without one, any master that is up.
    pub(crate) fn master(&self, route: Option<&[u8]>) -> Result<Node, StoreError> {
        let map = self.inner.map.load();
        let member = match route {
            Some(key) => map.owner(slot_of(key)),
            None => map.any(),
        };
        match member {
            Some(member) => Ok(member.node.clone()),
            None => {
                self.inner.stale.notify_one();
                Err(StoreError::Unavailable(map.unserved()))
            }
        }
    }

    /// The master of a slot, if it has one.
    pub(crate) fn master_of(&self, slot: u16) -> Option<Node> {
        let map = self.inner.map.load();
        map.owner(slot).map(|member| member.node.clone())
    }

    fn at(&self, address: &NodeAddress) -> Option<Node> {
        let map = self.inner.map.load();
        map.at(address).map(|member| member.node.clone())
    }

    /// The server at this address, which a server of the cluster has named. `None` if it would be one too
    /// many.
    pub(crate) fn invite(&self, address: &NodeAddress) -> Option<Node> {
        if let Some(known) = self.at(address) {
            return Some(known);
        }
        self.replace(|old| match old.at(address) {
            Some(_) => None,
            None => old.with_guest(|| self.join(address)),
        });
        self.at(address)
    }

    /// Every server that there are connections to.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        let map = self.inner.map.load();
        map.everybody().map(|member| member.node.clone()).collect()
    }

    /// A slot was said to have moved. Until the whole map is read again, this is what it looks like; for a
    /// server that is not known it says nothing.
    pub(crate) fn moved(&self, slot: u16, to: &NodeAddress) {
        let told = |map: &Map| {
            let known = map.at(to).is_some();
            let news = map.owner(slot).is_none_or(|member| member.address != *to);
            (known && news).then(|| map.slots().with_moved(slot, to.clone()))
        };
        self.adopt(told);
        self.inner.stale.notify_one();
    }

    /// Whether the cluster has been there as a whole, so that a master that is not there yet has joined.
    pub(crate) fn has_begun(&self) -> bool {
        self.inner.begun.load(Ordering::Relaxed)
    }

    /// Has the map read again soon.
    pub(crate) fn refresh_soon(&self) {
        self.inner.stale.notify_one();
    }

    /// Has the map read again, and waits until it was.
    pub(crate) async fn refreshed(&self) {
        let mut rounds = self.inner.rounds.subscribe();
        let seen = *rounds.borrow_and_update();
        self.inner.stale.notify_one();
        // An error means that the refresher is gone; there is nothing to wait for then.
        let _ = rounds.wait_for(|round| *round > seen).await;
    }

    async fn refresh(&self) {
        let mut backoff = Backoff::new();
        loop {
            let news = match self.slots().await {
                Ok(slots) => self.adopt(|old| (*old.slots() != slots).then_some(slots)),
                Err(reason) => {
                    if self.inner.map.load().masters().is_empty() {
                        self.inner.say(reason);
                    }
                    false
                }
            };
            self.inner.rounds.send_modify(|round| *round += 1);
            let whole = self.inner.whole().is_ok();
            // Where looking brought nothing new, it will not at once: however many commands ask for it.
            if news || whole {
                backoff = Backoff::new();
                tokio::time::sleep(GATHER).await;
            } else {
                tokio::time::sleep(backoff.pause(chance())).await;
            }
            tokio::select! {
                () = self.inner.stale.notified() => {}
                () = tokio::time::sleep(if whole { CALM } else { AMISS }) => if whole {
                    self.replace(Map::without_idle_guests);
                },
            }
        }
    }

    /// Asks the masters that are up, then the seeds.
    async fn slots(&self) -> Result<SlotMap, DownReason> {
        let question = Command::new("CLUSTER").arg("SLOTS");
        let map = self.inner.map.load_full();
        for member in map.masters() {
            if let Ok(answer) = ask::run(&member.node, &question, Manner::default()).await
                && let Ok(slots) = SlotMap::parse(&answer, &member.address.host)
            {
                return Ok(slots);
            }
        }
        self.inner.seeds.slots().await
    }

    /// Goes by other slots, if there is news: keeps the nodes that stay, starts those that join, and lets go
    /// of the others. Returns whether there was news.
    fn adopt(&self, news: impl FnOnce(&Map) -> Option<SlotMap>) -> bool {
        let adopted = self.replace(|old| {
            let slots = news(old)?;
            // Without its pool a node cannot be; the settings were checked, so it can.
            old.successor(slots, |address| self.join(address))
        });
        // Channels live where their slot is, so every node looks for new ones.
        let hub = &self.inner.template.access.hub;
        if adopted && !hub.channels().is_empty() {
            hub.touch();
            self.nodes().iter().for_each(Node::nudge);
        }
        adopted
    }

    /// Makes a new map of the old one, and lets go of whoever is not on it. Returns whether there is one.
    fn replace(&self, change: impl FnOnce(&Map) -> Option<Map>) -> bool {
        let adopting = &self.inner.adopting;
        let adopting = adopting.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.inner.map.load_full();
        let Some(map) = change(&old).map(Arc::new) else {
            return false;
        };
        self.inner.map.store(Arc::clone(&map));
        old.dismiss_for(&map);
        self.inner.look();
        drop(adopting);
        (self.inner.told.tell)();
        true
    }

    fn join(&self, address: &NodeAddress) -> Option<Member> {
        let template = &self.inner.template;
        let tls = self.inner.seeds.are_tls();
        let endpoint = Endpoint::Tcp {
            host: address.host.as_ref().to_owned(),
            port: address.port,
            tls,
        };
        let (here, listener) = (Arc::downgrade(&self.inner), Arc::downgrade(&self.inner));
        let owned = address.clone();
        let parts = NodeParts {
            channels: Arc::new(move |hub: &Hub| channels_at(&here, &owned, hub)),
            told: Told {
                note: Arc::new(move |status: RedisStatus| {
                    if let Some(inner) = listener.upgrade() {
                        if !status.is_up() {
                            inner.stale.notify_one();
                        }
                        inner.look();
                    }
                }),
                tell: Arc::clone(&template.told.tell),
            },
            ..template.clone()
        };
        let node = Node::new(Way::Fixed(endpoint), parts).ok()?;
        supervise(node.clone(), &self.inner.spawner);
        Some(Member::new(address.clone(), node))
    }
}

/// Before there is any node, nobody else says that it is over.
struct Ending(Topology);

impl Drop for Ending {
    fn drop(&mut self) {
        let reason = DownReason::new(DownKind::Stopped, "the stack was shut down");
        self.0.inner.say(reason);
    }
}

/// The channels whose slot a node serves.
fn channels_at(inner: &Weak<Inner>, address: &NodeAddress, hub: &Hub) -> Vec<Vec<u8>> {
    let Some(inner) = inner.upgrade() else {
        return Vec::new();
    };
    let map = inner.map.load();
    let mut channels = hub.channels();
    channels.retain(|channel| {
        let owner = map.owner(slot_of(channel));
        owner.is_some_and(|member| member.address == *address)
    });
    channels
}

impl Inner {
    /// Whether every slot is served by a master that is up.
    fn whole(&self) -> Result<(), DownReason> {
        let begun = self.begun.load(Ordering::Relaxed);
        self.map.load().whole(begun)
    }

    /// Takes note of how it looks as a whole.
    fn look(&self) {
        // Looking and noting are one: else an old look could be noted last.
        let _noting = self.noting.lock().unwrap_or_else(PoisonError::into_inner);
        (self.told.note)(match self.whole() {
            Ok(()) => {
                self.begun.store(true, Ordering::Relaxed);
                RedisStatus::Up
            }
            Err(reason) => RedisStatus::Down { reason },
        });
    }

    /// Tells that it is down, whatever the map says.
    fn say(&self, reason: DownReason) {
        (self.told.note)(RedisStatus::Down { reason });
        (self.told.tell)();
    }
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topology")
            .field("seeds", &self.inner.seeds)
            .finish_non_exhaustive()
    }
}
