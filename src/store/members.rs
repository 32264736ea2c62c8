//! The servers of a cluster at one moment: who serves which slots, and who is about to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::store::node::Node;
use crate::store::slots::{NodeAddress, SlotMap};
use crate::store::status::{DownKind, DownReason};

/// Slots and their masters. A new one takes the place of the old one when anything changes.
#[derive(Default)]
pub(crate) struct Map {
    slots: SlotMap,
    /// The masters, in the slots' order of nodes.
    nodes: Vec<Member>,
    /// Servers that commands were sent on to and that serve no slot yet: a master that joins is named by
    /// `ASK` before it is on any map.
    guests: Vec<Member>,
}

#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) address: NodeAddress,
    pub(crate) node: Node,
    /// Whether a command was sent on to it of late.
    called: Arc<AtomicBool>,
}

/// No cluster takes in so many at once, and a server that made addresses up would not cost us more.
const GUESTS_MAX: usize = 16;

impl Member {
    pub(crate) fn new(address: NodeAddress, node: Node) -> Self {
        let called = Arc::new(AtomicBool::new(true));
        Self {
            address,
            node,
            called,
        }
    }
}

impl Map {
    pub(crate) const fn slots(&self) -> &SlotMap {
        &self.slots
    }

    pub(crate) fn masters(&self) -> &[Member] {
        &self.nodes
    }

    /// Masters and guests.
    pub(crate) fn everybody(&self) -> impl Iterator<Item = &Member> {
        self.nodes.iter().chain(&self.guests)
    }

    /// The master of a slot.
    pub(crate) fn owner(&self, slot: u16) -> Option<&Member> {
        self.slots.owner(slot).and_then(|at| self.nodes.get(at))
    }

    /// A master that is up, or else any.
    pub(crate) fn any(&self) -> Option<&Member> {
        let up = self.nodes.iter().find(|member| member.node.link().is_ok());
        up.or(self.nodes.first())
    }

    /// Who is at this address.
    pub(crate) fn at(&self, address: &NodeAddress) -> Option<&Member> {
        let found = self.everybody().find(|member| member.address == *address)?;
        found.called.store(true, Ordering::Relaxed);
        Some(found)
    }

    /// The map of these slots: with the same nodes where they stay, and those that `join` makes. `None` if
    /// it makes none.
    pub(crate) fn successor(
        &self,
        slots: SlotMap,
        mut join: impl FnMut(&NodeAddress) -> Option<Member>,
    ) -> Option<Self> {
        let nodes = slots.nodes().iter().map(|address| {
            let known = self.everybody().find(|member| member.address == *address);
            known.cloned().or_else(|| join(address))
        });
        let nodes = nodes.collect::<Option<Vec<_>>>()?;
        let mut guests = self.guests.clone();
        guests.retain(|guest| !nodes.iter().any(|node| node.address == guest.address));
        Some(Self {
            slots,
            nodes,
            guests,
        })
    }

    /// This map with the guest that `join` makes, who is asked only if there is room for one more.
    pub(crate) fn with_guest(&self, join: impl FnOnce() -> Option<Member>) -> Option<Self> {
        if self.guests.len() >= GUESTS_MAX {
            return None;
        }
        let mut guests = self.guests.clone();
        guests.push(join()?);
        Some(self.with_guests(guests))
    }

    /// This map without the guests that were not called since this was asked last; `None` if all were.
    pub(crate) fn without_idle_guests(&self) -> Option<Self> {
        let mut guests = self.guests.clone();
        guests.retain(|guest| guest.called.swap(false, Ordering::Relaxed));
        (guests.len() < self.guests.len()).then(|| self.with_guests(guests))
    }

    fn with_guests(&self, guests: Vec<Member>) -> Self {
        Self {
            slots: self.slots.clone(),
            nodes: self.nodes.clone(),
            guests,
        }
    }

    /// Lets go of everybody who is not in `next` any more.
    pub(crate) fn dismiss_for(&self, next: &Self) {
        let stays = |gone: &Member| next.everybody().any(|member| member.node.is(&gone.node));
        let gone = self.everybody().filter(|member| !stays(member));
        gone.for_each(|member| member.node.retire());
    }

    /// Which slots nobody serves.
    pub(crate) fn unserved(&self) -> DownReason {
        let uncovered = self.slots.uncovered();
        let words = format!("{uncovered} of 16384 slots have no master");
        DownReason::new(DownKind::Cluster, words)
    }

    /// Whether every slot is served by a master that is up. Once the cluster has `begun`, a master that
    /// has just joined is waited for by those who need it, and is no trouble.
    pub(crate) fn whole(&self, begun: bool) -> Result<(), DownReason> {
        if self.slots.uncovered() > 0 {
            return Err(self.unserved());
        }
        let reasons = self.nodes.iter().filter_map(|member| {
            let reason = member.node.link().err()?.away()?;
            Some((&member.address, reason))
        });
        let amiss = reasons.filter(|(_, reason)| !(begun && reason.kind() == DownKind::Starting));
        // One that was shut down says that all are about to be.
        let worst = amiss.min_by_key(|(_, reason)| reason.kind() != DownKind::Stopped);
        match worst {
            None => Ok(()),
            Some((_, reason)) if reason.kind() == DownKind::Stopped => Err(reason),
            Some((address, reason)) => {
                let words = format!("master {address} of {}: {reason}", self.nodes.len());
                let kind = match reason.kind() {
                    DownKind::Starting => DownKind::Starting,
                    _ => DownKind::Cluster,
                };
                Err(DownReason::new(kind, words))
            }
        }
    }
}
