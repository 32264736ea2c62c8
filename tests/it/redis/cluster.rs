//! Three masters that share the slots, without replicas.

use super::raw::Answer;
use super::server::TestRedis;
use super::wait::until;

const NODES: u16 = 3;
const SLOTS: u16 = 16_384;

/// A cluster of three nodes. Dropping it kills them all.
///
/// Starting it takes two seconds, for so long a master waits before it believes that it is part of a
/// cluster; no setting shortens that.
pub struct TestCluster {
    nodes: Vec<TestRedis>,
    ids: Vec<String>,
}

impl TestCluster {
    /// Node 0 has the lowest third of the slots, node 2 the highest.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Nodes with these words added to their command lines.
    pub fn with(options: &[&str]) -> Self {
        let mut words = vec!["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        words.extend(options);
        let nodes: Vec<_> = (0..NODES).map(|_| TestRedis::with(&words)).collect();
        let mut ids = Vec::new();
        for (index, node) in (0..NODES).zip(&nodes) {
            let (mut raw, first) = (node.raw(), index * (SLOTS / NODES));
            let next = if index + 1 == NODES {
                SLOTS
            } else {
                first + SLOTS / NODES
            };
            let (first, last) = (first.to_string(), (next - 1).to_string());
            raw.must(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
            // Different from the start, so that they need not settle it by talking.
            raw.must(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
            for earlier in nodes.iter().take(ids.len()) {
                raw.must(&["CLUSTER", "MEET", "127.0.0.1", &earlier.port().to_string()]);
            }
            ids.push(raw.must(&["CLUSTER", "MYID"]).text());
        }
        let cluster = Self { nodes, ids };
        cluster.await_ok();
        cluster
    }

    /// Waits until every node says that the cluster is well and knows all the others; all must run.
    pub fn await_ok(&self) {
        for node in &self.nodes {
            let mut raw = node.raw();
            until("the cluster is well", || {
                let info = raw.must(&["CLUSTER", "INFO"]);
                let knows_all = info.line("cluster_known_nodes")? == NODES.to_string();
                (knows_all && info.line("cluster_state")? == "ok").then_some(())
            });
        }
    }

    /// `redis-cluster://127.0.0.1:PORT,127.0.0.1:PORT,127.0.0.1:PORT`
    pub fn url(&self) -> String {
        let place = |node: &TestRedis| format!("127.0.0.1:{}", node.port());
        let places: Vec<_> = self.nodes.iter().map(place).collect();
        format!("redis-cluster://{}", places.join(","))
    }

    pub fn nodes(&self) -> &[TestRedis] {
        &self.nodes
    }

    /// The slot of a key, as the server counts it.
    pub fn slot_of(&self, key: &str) -> u16 {
        let slot = self.nodes[0]
            .raw()
            .must(&["CLUSTER", "KEYSLOT", key])
            .integer();
        u16::try_from(slot).expect("a slot")
    }

    /// The number of the node that has this slot, according to the first node that answers.
    pub fn node_of_slot(&self, slot: u16) -> usize {
        let ranges = self.nodes.iter().find_map(|node| {
            let slots = node.try_raw().ok()?.try_command(&["CLUSTER", "SLOTS"]);
            slots.ok()
        });
        let ranges = ranges.expect("a node that answers");
        let range = ranges.array().iter().find(|range| {
            let range = range.array();
            (range[0].integer()..=range[1].integer()).contains(&i64::from(slot))
        });
        let node = range.expect("a node has it").array()[2].array();
        let port = node[1].integer();
        let at = self
            .nodes
            .iter()
            .position(|node| i64::from(node.port()) == port);
        at.expect("one of ours")
    }

    /// Moves a slot and its keys from one node to another, which every node then knows.
    pub fn move_slot(&self, slot: u16, from: usize, to: usize) {
        self.begin_move(slot, from, to);
        self.move_keys(slot, from, to);
        self.end_move(slot, from, to);
    }

    /// First part of a move: from here on `from` sends who asks for a key that it does not have to
    /// `to` (ASK), and answers for those that it still has. Keys of both kinds in one command: TRYAGAIN.
    pub fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        let importing = ["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.ids[from]];
        self.nodes[to].raw().must(&importing);
        let migrating = ["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.ids[to]];
        self.nodes[from].raw().must(&migrating);
    }

    /// Second part: all keys of the slot go over; every one of them is an ASK now.
    pub fn move_keys(&self, slot: u16, from: usize, to: usize) {
        let (slot, port) = (slot.to_string(), self.nodes[to].port().to_string());
        let mut raw = self.nodes[from].raw();
        loop {
            let keys = raw.must(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
            if keys.array().is_empty() {
                return;
            }
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            let keys: Vec<_> = keys.array().iter().map(Answer::text).collect();
            words.extend(keys.iter().map(String::as_str));
            raw.must(&words);
        }
    }

    /// Last part: `to` owns the slot, and who asks elsewhere is told so (MOVED). `to` learns it first,
    /// so that no node sends anyone to one that does not know yet.
    pub fn end_move(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        let others = (0..self.nodes.len()).filter(|&node| node != from && node != to);
        for node in [to, from].into_iter().chain(others) {
            let words = ["CLUSTER", "SETSLOT", &slot, "NODE", &self.ids[to]];
            self.nodes[node].raw().must(&words);
        }
    }
}
