//! The line of those who wait: who is next, who has waited for too long, who has to give up a place.
//!
//! Knows neither locks nor slots. There is a queue for each [`Criticality`], and the most important one
//! that is not empty is served. Within it everybody's tenants take turns, so that one who sends a thousand
//! requests waits behind his own, not others behind him. A tenant's requests are served in the order of
//! their arrival, unless the queue has not been empty for an interval: then the newest is first, because it
//! is the one whose client is still there ("adaptive LIFO", Maurer, "Fail at Scale", 2015). Whoever has
//! waited for longer than [`Codel`] allows is turned away when the queue is looked at next.

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;
use std::time::Duration;

use crate::clock::Moment;
use crate::guard::codel::Codel;
use crate::guard::criticality::Criticality;

/// Who wants to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Newcomer {
    pub(crate) criticality: Criticality,
    /// Tenants take turns; 0 is nobody's in particular.
    pub(crate) tenant: u64,
    pub(crate) now: Moment,
}

/// A place in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    number: u64,
    criticality: Criticality,
    /// Which lane it is in.
    lane: u64,
}

impl Ticket {
    pub(crate) fn is_critical(self) -> bool {
        self.criticality >= Criticality::Critical
    }
}

/// How a line is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineRules {
    pub(crate) target: Duration,
    /// The target for the critical classes: those before whom others are turned away first.
    pub(crate) target_critical: Duration,
    pub(crate) interval: Duration,
}

/// Who was turned away in one go, so that they can be told once no lock is held.
#[derive(Debug, Default)]
pub(crate) struct TurnedAway {
    pub(crate) count: u64,
    pub(crate) wakers: Vec<Waker>,
}

/// Everybody who waits.
#[derive(Debug)]
pub(crate) struct Line {
    /// By [`Criticality::rank`].
    queues: [Queue; Criticality::COUNT],
    next_number: u64,
    /// Why those who were turned away were, until they have heard of it.
    verdicts: BTreeMap<u64, &'static str>,
}

#[derive(Debug)]
struct Queue {
    /// The first is the next to be served from. None is empty.
    lanes: VecDeque<Lane>,
    codel: Codel,
    interval: Duration,
    /// Since when it is not empty.
    since: Moment,
}

#[derive(Debug)]
struct Lane {
    tenant: u64,
    /// By number: the oldest is the first.
    waiters: BTreeMap<u64, Waiter>,
}

#[derive(Debug)]
struct Waiter {
    /// `None` until the waiter has asked for the first time.
    waker: Option<Waker>,
    since: Moment,
}

/// Who is in the line no more: to be served, or gone.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) waker: Option<Waker>,
    pub(crate) critical: bool,
}

impl LineRules {
    const fn target_of(&self, rank: usize) -> Duration {
        if rank <= Criticality::Critical.rank() {
            self.target_critical
        } else {
            self.target
        }
    }
}

impl Line {
    pub(crate) fn new(rules: LineRules) -> Self {
        Self {
            queues: std::array::from_fn(|rank| Queue {
                lanes: VecDeque::new(),
                codel: Codel::new(rules.target_of(rank), rules.interval),
                interval: rules.interval,
                since: Moment::default(),
            }),
            next_number: 0,
            verdicts: BTreeMap::new(),
        }
    }

    /// Puts somebody in line.
    pub(crate) fn join(&mut self, newcomer: Newcomer) -> Ticket {
        let number = self.next_number;
        self.next_number += 1;
        let queue = self.queue(newcomer.criticality);
        if queue.lanes.is_empty() {
            queue.since = newcomer.now;
        }
        let lane = queue.lane_for(newcomer.tenant);
        let since = newcomer.now;
        lane.waiters.insert(number, Waiter { waker: None, since });
        Ticket {
            number,
            criticality: newcomer.criticality,
            lane: lane.tenant,
        }
    }

    /// Makes room for somebody where there is none: the least important one gives up a place, of these
    /// one of the tenant who has the most. `false` if nobody has to: then the newcomer has no place.
    pub(crate) fn make_room(&mut self, newcomer: Newcomer, away: &mut TurnedAway) -> bool {
        let least = self.queues.iter().enumerate().rev();
        let Some(rank) = least
            .filter(|(_, queue)| !queue.lanes.is_empty())
            .map(|(rank, _)| rank)
            .next()
        else {
            return false;
        };
        let own = newcomer.criticality.rank();
        if rank < own {
            return false;
        }
        let Some(queue) = self.queues.get_mut(rank) else {
            return false;
        };
        let newest_first = queue.newest_first(newcomer.now);
        let Some(at) = queue.longest() else {
            return false;
        };
        let rival = queue.lanes.get(at);
        let (longest, its) = rival.map_or((0, 0), |lane| (lane.tenant, lane.waiters.len()));
        let mine = queue.length_of(newcomer.tenant);
        // Among equals the order of arrival counts, unless the newest is to be served first anyway.
        if rank == own && !newest_first && (longest == newcomer.tenant || mine + 1 >= its) {
            return false;
        }
        // Whoever would be served last has the least chance.
        let Some((number, waiter)) = queue.take_from(at, !newest_first) else {
            return false;
        };
        queue.drop_if_empty(at);
        self.turn_away(number, waiter, "displaced", away);
        true
    }

    /// The one to be served next; of the critical alone, where `only_critical`.
    pub(crate) fn next(&mut self, now: Moment, only_critical: bool) -> Option<Chosen> {
        let ranks = match only_critical {
            true => Criticality::Critical.rank() + 1,
            false => Criticality::COUNT,
        };
        for (rank, queue) in self.queues.iter_mut().enumerate().take(ranks) {
            let newest_first = queue.newest_first(now);
            if let Some((_, waiter)) = queue.take_from(0, newest_first) {
                queue.take_turns();
                return Some(Chosen {
                    waker: waiter.waker,
                    critical: rank <= Criticality::Critical.rank(),
                });
            }
        }
        None
    }

    /// Whether the one to be served next is critical, if nobody is turned away before.
    pub(crate) fn next_is_critical(&self) -> bool {
        let critical = self.queues.iter().take(Criticality::Critical.rank() + 1);
        critical.into_iter().any(|queue| !queue.lanes.is_empty())
    }

    /// Turns away those who have waited for longer than they may, but for as many of a queue as could all be
    /// served at once: a slot must not be idle because everybody was late.
    pub(crate) fn shed(&mut self, keep: usize, now: Moment, away: &mut TurnedAway) {
        for rank in 0..self.queues.len() {
            self.shed_of(rank, keep, now, away);
        }
    }

    fn shed_of(&mut self, rank: usize, keep: usize, now: Moment, away: &mut TurnedAway) {
        let Some(queue) = self.queues.get_mut(rank) else {
            return;
        };
        let Some(oldest) = queue.oldest() else {
            return;
        };
        let Some(longest_wait) = queue.codel.observe(now.since(oldest), now) else {
            return;
        };
        let mut late = Vec::new();
        let mut at = 0;
        let mut spare = queue.len().saturating_sub(keep);
        while at < queue.lanes.len() {
            while spare > 0
                && let Some(waiter) = queue.take_late(at, longest_wait, now)
            {
                late.push(waiter);
                spare -= 1;
            }
            if queue.lanes.get(at).is_some_and(|l| l.waiters.is_empty()) {
                queue.lanes.remove(at);
            } else {
                at += 1;
            }
        }
        if queue.lanes.is_empty() {
            queue.codel.emptied();
        }
        for (number, waiter) in late {
            self.turn_away(number, waiter, "shed", away);
        }
    }

    /// Why the holder of `ticket` was turned away; says so once.
    pub(crate) fn verdict(&mut self, ticket: Ticket) -> Option<&'static str> {
        self.verdicts.remove(&ticket.number)
    }

    /// Where to leave the waker of `ticket`; `None` if it is not in the line any more.
    pub(crate) fn waker_of(&mut self, ticket: Ticket) -> Option<&mut Option<Waker>> {
        let lane = self
            .queue(ticket.criticality)
            .lanes
            .iter_mut()
            .find(|lane| lane.tenant == ticket.lane)?;
        let waiter = lane.waiters.get_mut(&ticket.number)?;
        Some(&mut waiter.waker)
    }

    /// Takes somebody out who does not want to wait any more; `None` if the ticket is not in the line.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> Option<Chosen> {
        let queue = self.queue(ticket.criticality);
        let mut lanes = queue.lanes.iter();
        let at = lanes.position(|lane| lane.tenant == ticket.lane)?;
        let gone = queue.lanes.get_mut(at)?.waiters.remove(&ticket.number)?;
        queue.drop_if_empty(at);
        Some(Chosen {
            waker: gone.waker,
            critical: ticket.is_critical(),
        })
    }

    /// The wakers of all, who will leave new ones when they ask again.
    pub(crate) fn take_wakers(&mut self) -> Vec<Waker> {
        let lanes = self.queues.iter_mut().flat_map(|queue| &mut queue.lanes);
        lanes
            .flat_map(|lane| lane.waiters.values_mut())
            .filter_map(|waiter| waiter.waker.take())
            .collect()
    }

    fn turn_away(&mut self, number: u64, waiter: Waiter, why: &'static str, away: &mut TurnedAway) {
        self.verdicts.insert(number, why);
        away.count += 1;
        away.wakers.extend(waiter.waker);
    }

    const fn queue(&mut self, criticality: Criticality) -> &mut Queue {
        let [first, second, third, fourth] = &mut self.queues;
        match criticality {
            Criticality::CriticalPlus => first,
            Criticality::Critical => second,
            Criticality::SheddablePlus => third,
            Criticality::Sheddable => fourth,
        }
    }
}

impl Queue {
    /// The lane of a tenant. Beyond [`LANES_MAX`] tenants share the lanes that there are, or inventing
    /// tenants would be a way to the front.
    fn lane_for(&mut self, tenant: u64) -> &mut Lane {
        let at = self.lane_of(tenant).unwrap_or_else(|| {
            let waiters = BTreeMap::new();
            self.lanes.push_back(Lane { tenant, waiters });
            self.lanes.len() - 1
        });
        &mut self.lanes[at]
    }

    /// Where a tenant waits, or would; `None` for a lane of its own. Where lanes are shared it is the one that is
    /// nearest by name, so that nobody spreads over several.
    fn lane_of(&self, tenant: u64) -> Option<usize> {
        let lanes = || self.lanes.iter().enumerate();
        let nearest = || lanes().min_by_key(|(_, lane)| lane.tenant ^ tenant);
        lanes()
            .find(|(_, lane)| lane.tenant == tenant)
            .or_else(|| nearest().filter(|_| self.lanes.len() >= LANES_MAX))
            .map(|(at, _)| at)
    }

    fn length_of(&self, tenant: u64) -> usize {
        let lane = self.lane_of(tenant).and_then(|at| self.lanes.get(at));
        lane.map_or(0, |lane| lane.waiters.len())
    }

    fn len(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiters.len()).sum()
    }

    fn longest(&self) -> Option<usize> {
        let lanes = self.lanes.iter().enumerate();
        lanes
            .max_by_key(|(_, lane)| lane.waiters.len())
            .map(|(at, _)| at)
    }

    /// Since when the oldest one waits.
    fn oldest(&self) -> Option<Moment> {
        let firsts = self
            .lanes
            .iter()
            .filter_map(|lane| lane.waiters.values().next());
        firsts.map(|waiter| waiter.since).min()
    }

    fn newest_first(&self, now: Moment) -> bool {
        !self.lanes.is_empty() && now.since(self.since) >= self.interval
    }

    fn take_from(&mut self, at: usize, newest: bool) -> Option<(u64, Waiter)> {
        let waiters = &mut self.lanes.get_mut(at)?.waiters;
        match newest {
            true => waiters.pop_last(),
            false => waiters.pop_first(),
        }
    }

    /// The oldest of a lane if it has waited for longer than allowed.
    fn take_late(&mut self, at: usize, allowed: Duration, now: Moment) -> Option<(u64, Waiter)> {
        let first = self.lanes.get_mut(at)?.waiters.first_entry()?;
        let late = now.since(first.get().since) > allowed;
        late.then(|| first.remove_entry())
    }

    /// The lane that was just served goes behind the others, or away.
    fn take_turns(&mut self) {
        if let Some(lane) = self.lanes.pop_front()
            && !lane.waiters.is_empty()
        {
            self.lanes.push_back(lane);
        }
        if self.lanes.is_empty() {
            self.codel.emptied();
        }
    }

    /// Lets go of a lane that nobody is left in.
    fn drop_if_empty(&mut self, at: usize) {
        if self.lanes.get(at).is_some_and(|l| l.waiters.is_empty()) {
            self.lanes.remove(at);
        }
        if self.lanes.is_empty() {
            self.codel.emptied();
        }
    }
}

/// How many tenants are told apart in one queue.
const LANES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use Criticality::{Critical, CriticalPlus, Sheddable, SheddablePlus};

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A line with a target of 20 ms and an interval of 100, in which the names of those who are served are
    /// written down.
    struct Scene {
        line: Line,
        names: BTreeMap<u64, &'static str>,
        tickets: BTreeMap<&'static str, Ticket>,
        away: TurnedAway,
        at: u64,
        keep: usize,
    }

    impl Scene {
        fn new() -> Self {
            let rules = LineRules {
                target: ms(20),
                target_critical: ms(125),
                interval: ms(100),
            };
            Self {
                line: Line::new(rules),
                names: BTreeMap::new(),
                tickets: BTreeMap::new(),
                away: TurnedAway::default(),
                at: 1_000,
                keep: 0,
            }
        }

        fn someone(&self, criticality: Criticality, tenant: u64) -> Newcomer {
            let now = self.now();
            Newcomer {
                criticality,
                tenant,
                now,
            }
        }

        fn now(&self) -> Moment {
            Moment::default().plus(ms(self.at))
        }

        fn joins(&mut self, name: &'static str, criticality: Criticality, tenant: u64) {
            let ticket = self.line.join(self.someone(criticality, tenant));
            self.names.insert(ticket.number, name);
            self.tickets.insert(name, ticket);
        }

        /// Who is not there any more after somebody was served, besides those who were turned away.
        fn served(&mut self) -> Option<&'static str> {
            let now = self.now();
            self.line.next(now, false)?;
            self.line.shed(self.keep, now, &mut self.away);
            let gone: Vec<_> = self.tickets.keys().copied().collect();
            let gone = gone.into_iter().find(|name| {
                let ticket = self.tickets[name];
                self.line.waker_of(ticket).is_none()
                    && !self.line.verdicts.contains_key(&ticket.number)
            })?;
            self.tickets.remove(gone);
            Some(gone)
        }

        fn all_served(&mut self) -> Vec<&'static str> {
            std::iter::from_fn(|| self.served()).collect()
        }

        fn why(&mut self, name: &str) -> Option<&'static str> {
            self.line.verdict(self.tickets[name])
        }
    }

    #[test]
    fn the_oldest_is_first_and_the_more_important_before_all() {
        let mut scene = Scene::new();
        scene.joins("a", SheddablePlus, 1);
        scene.joins("b", Sheddable, 1);
        scene.joins("c", SheddablePlus, 1);
        scene.joins("d", CriticalPlus, 1);
        scene.joins("e", Critical, 1);
        assert_eq!(scene.all_served(), ["d", "e", "a", "c", "b"]);
    }

    #[test]
    fn tenants_take_turns() {
        let mut scene = Scene::new();
        for name in ["a1", "a2", "a3", "a4"] {
            scene.joins(name, SheddablePlus, 1);
        }
        scene.joins("b1", SheddablePlus, 2);
        scene.joins("c1", SheddablePlus, 3);
        scene.joins("b2", SheddablePlus, 2);
        assert_eq!(
            scene.all_served(),
            ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]
        );
    }

    #[test]
    fn once_it_has_stood_for_an_interval_the_newest_is_first() {
        let mut scene = Scene::new();
        scene.joins("a", SheddablePlus, 1);
        scene.at += 99;
        scene.joins("b", SheddablePlus, 1);
        scene.joins("c", SheddablePlus, 1);
        assert_eq!(scene.served(), Some("a"));
        scene.at += 1;
        scene.joins("d", SheddablePlus, 1);
        assert_eq!(scene.all_served(), ["d", "c", "b"]);
        scene.joins("e", SheddablePlus, 1);
        scene.joins("f", SheddablePlus, 1);
        assert_eq!(scene.all_served(), ["e", "f"], "it was empty since");
    }

    #[test]
    fn whoever_waits_too_long_in_a_queue_that_stands_is_turned_away() {
        let mut scene = Scene::new();
        for (wait, names) in [(0, ["a", "b"]), (30, ["c", "d"]), (75, ["e", "f"])] {
            scene.at = 1_000 + wait;
            for name in names {
                scene.joins(name, SheddablePlus, 1);
            }
        }
        scene.at = 1_030;
        assert_eq!(scene.served(), Some("a"), "30 ms, and an interval begins");
        scene.at = 1_105;
        scene.joins("g", SheddablePlus, 2);
        scene.at = 1_131;
        // The interval is over, and its least wait was 30 ms: b to e have waited for more than 40.
        assert_eq!(scene.served(), Some("f"), "newest first by now");
        assert_eq!(scene.away.count, 4);
        assert_eq!(scene.served(), Some("g"));
        assert_eq!(scene.why("b"), Some("shed"));
        assert_eq!(scene.why("b"), None, "said once");
        assert_eq!(scene.served(), None);
    }

    #[test]
    fn as_many_are_kept_as_could_all_be_served_at_once() {
        let mut scene = Scene::new();
        for name in ["a", "b", "c", "d"] {
            scene.joins(name, SheddablePlus, 1);
        }
        for _ in 0..2 {
            scene.at += 150;
            let now = scene.now();
            scene.line.shed(3, now, &mut scene.away);
        }
        assert_eq!(scene.away.count, 1);
        assert_eq!(scene.why("a"), Some("shed"), "the oldest");
    }

    #[test]
    fn an_important_queue_that_flows_loses_nobody_to_one_that_stands() {
        let mut scene = Scene::new();
        scene.keep = 1;
        scene.joins("old", Sheddable, 1);
        for _ in 0..10 {
            scene.at += 30;
            scene.joins("vital", Critical, 1);
            assert_eq!(scene.served(), Some("vital"));
        }
        assert_eq!(scene.served(), Some("old"), "a slot is free for it at last");
        assert_eq!(scene.away.count, 0);
    }

    #[test]
    fn the_critical_are_given_more_time_before_they_are_turned_away() {
        let mut scene = Scene::new();
        for name in ["a", "b", "c", "d"] {
            scene.joins(name, Critical, 1);
        }
        scene.at += 124;
        assert_eq!(scene.served(), Some("d"), "newest first by now");
        scene.at += 110;
        assert_eq!(scene.served(), Some("c"), "the least wait was 124 ms");
        scene.at += 101;
        assert_eq!(scene.served(), Some("b"));
        assert_eq!(scene.why("a"), Some("shed"));
    }

    #[test]
    fn where_no_room_is_left_the_least_important_gives_up_a_place() {
        let mut scene = Scene::new();
        scene.joins("a", Sheddable, 1);
        scene.joins("b", Sheddable, 1);
        scene.joins("c", Critical, 1);
        let vital = scene.someone(CriticalPlus, 1);
        assert!(scene.line.make_room(vital, &mut scene.away));
        assert_eq!(scene.why("b"), Some("displaced"), "last to be served");
        assert!(scene.line.make_room(vital, &mut scene.away));
        assert_eq!(scene.why("a"), Some("displaced"));
        assert!(scene.line.make_room(vital, &mut scene.away));
        assert_eq!(scene.why("c"), Some("displaced"));
        assert!(!scene.line.make_room(vital, &mut scene.away));
        scene.joins("d", Critical, 1);
        let plain = scene.someone(Sheddable, 1);
        assert!(!scene.line.make_room(plain, &mut scene.away));
    }

    #[test]
    fn among_equals_only_a_tenant_with_more_gives_up_a_place() {
        let mut scene = Scene::new();
        for name in ["a1", "a2", "a3"] {
            scene.joins(name, SheddablePlus, 1);
        }
        scene.joins("b1", SheddablePlus, 2);
        let (own, other) = (
            scene.someone(SheddablePlus, 1),
            scene.someone(SheddablePlus, 2),
        );
        assert!(!scene.line.make_room(own, &mut scene.away));
        assert!(scene.line.make_room(other, &mut scene.away));
        assert_eq!(scene.why("a3"), Some("displaced"));
        scene.joins("b2", SheddablePlus, 2);
        assert!(!scene.line.make_room(other, &mut scene.away), "two and two");
        // Once the newest is served first, the oldest gives way to it.
        scene.at += 200;
        let newer = scene.someone(SheddablePlus, 1);
        assert!(scene.line.make_room(newer, &mut scene.away));
        assert!(scene.why("b1").or(scene.why("a1")).is_some());
    }

    #[test]
    fn invented_tenants_share_lanes() {
        let mut scene = Scene::new();
        for tenant in 1..=200 {
            scene.joins("x", SheddablePlus, tenant);
        }
        assert_eq!(scene.line.queues[2].lanes.len(), LANES_MAX);
    }

    #[test]
    fn who_leaves_is_not_served() {
        let mut scene = Scene::new();
        for name in ["a", "b", "c"] {
            scene.joins(name, SheddablePlus, 1);
        }
        let ticket = scene.tickets["b"];
        assert!(scene.line.leave(ticket).is_some());
        assert!(scene.line.leave(ticket).is_none());
        scene.tickets.remove("b");
        assert_eq!(scene.all_served(), ["a", "c"]);
    }
}
