//! Which node of a cluster has a key: its slot, and the map from slots to nodes.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crc::{CRC_16_XMODEM, Crc};
use redis::Value;

/// How many slots a cluster has.
pub(crate) const SLOTS: u16 = 16_384;

static CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// The slot of a key. If it has a hash tag, which is what stands between its first `{` and the next `}`
/// unless that is nothing, only the tag counts.
pub(crate) fn slot_of(key: &[u8]) -> u16 {
    CRC.checksum(tag(key).unwrap_or(key)) % SLOTS
}

fn tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|byte| *byte == b'{')?;
    let rest = key.get(open + 1..)?;
    let close = rest.iter().position(|byte| *byte == b'}')?;
    rest.get(..close).filter(|tag| !tag.is_empty())
}

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeAddress {
    /// A name or an address, IPv6 without brackets.
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
}

/// No name is longer (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 255;

impl NodeAddress {
    /// `None` unless that can be an address.
    pub(crate) fn new(host: &str, port: u16) -> Option<Self> {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let sound = (1..=HOST_BYTES_MAX).contains(&host.len())
            && host.bytes().all(|byte| byte.is_ascii_graphic());
        let host = Arc::from(host);
        (sound && port != 0).then_some(Self { host, port })
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// What is no answer to `CLUSTER SLOTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CLUSTER SLOTS: {0}")]
pub(crate) struct Malformed(&'static str);

/// Who has which slot: 32 KiB, and one look per key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SlotMap {
    /// By slot, a place in `nodes` or [`NOBODY`].
    owners: Box<[u16]>,
    nodes: Vec<NodeAddress>,
    uncovered: usize,
}

const NOBODY: u16 = u16::MAX;

impl Default for SlotMap {
    /// Nobody has anything.
    fn default() -> Self {
        Draft::new().finish()
    }
}

impl SlotMap {
    /// Reads the answer to `CLUSTER SLOTS`. `asked` is the host of the node that gave it, which stands in
    /// for a host that the node does not know: by the protocol where it is null or empty.
    ///
    /// A node whose host is `?` should have a name and has none; it is asked at its address, which is
    /// told beside that.
    ///
    /// # Errors
    ///
    /// If any of it cannot be right. No slots at all is a right answer of a new cluster.
    pub(crate) fn parse(answer: &Value, asked: &str) -> Result<Self, Malformed> {
        let Value::Array(ranges) = answer else {
            return Err(Malformed("not a list"));
        };
        if ranges.len() > usize::from(SLOTS) {
            return Err(Malformed("more ranges than slots"));
        }
        let mut draft = Draft::new();
        for range in ranges {
            let Value::Array(range) = range else {
                return Err(Malformed("a range is not a list"));
            };
            let [first, last, primary, ..] = range.as_slice() else {
                return Err(Malformed("a range is too short"));
            };
            let (Some(first), Some(last)) = (slot(first), slot(last)) else {
                return Err(Malformed("a slot is out of range"));
            };
            if first > last {
                return Err(Malformed("a range ends before it begins"));
            }
            let node = node(primary, asked).ok_or(Malformed("a node has no address"))?;
            draft.give(first..=last, node);
        }
        Ok(draft.finish())
    }

    /// The place of a slot's node in [`nodes`](Self::nodes); `None` if nobody has the slot.
    pub(crate) fn owner(&self, slot: u16) -> Option<usize> {
        let owner = self.owners.get(usize::from(slot))?;
        (*owner != NOBODY).then_some(usize::from(*owner))
    }

    /// The primaries that have slots, each once, by their first slot. Their places hold for this map only.
    pub(crate) fn nodes(&self) -> &[NodeAddress] {
        &self.nodes
    }

    /// How many slots nobody has.
    pub(crate) const fn uncovered(&self) -> usize {
        self.uncovered
    }

    /// This map, but for one slot that has moved. A node that has no slot left is gone from it.
    #[must_use]
    pub(crate) fn with_moved(&self, slot: u16, node: NodeAddress) -> Self {
        let mut draft = Draft::new();
        draft.owners.clone_from(&self.owners);
        for node in &self.nodes {
            draft.place(node.clone());
        }
        draft.give(slot..=slot, node);
        draft.finish()
    }
}

impl fmt::Debug for SlotMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotMap")
            .field("nodes", &self.nodes)
            .field("uncovered", &self.uncovered)
            .finish_non_exhaustive()
    }
}

/// A map in the making, where nodes may have lost their slots again.
struct Draft {
    owners: Box<[u16]>,
    nodes: Vec<NodeAddress>,
    places: HashMap<NodeAddress, u16>,
}

impl Draft {
    fn new() -> Self {
        Self {
            owners: vec![NOBODY; usize::from(SLOTS)].into_boxed_slice(),
            nodes: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// Never [`NOBODY`]: there are at most as many nodes as slots, and one more that takes a slot over.
    fn place(&mut self, node: NodeAddress) -> u16 {
        let next = u16::try_from(self.nodes.len()).unwrap_or(NOBODY);
        *self.places.entry(node).or_insert_with_key(|node| {
            self.nodes.push(node.clone());
            next
        })
    }

    fn give(&mut self, slots: RangeInclusive<u16>, node: NodeAddress) {
        let place = self.place(node);
        let slots = usize::from(*slots.start())..=usize::from(*slots.end());
        if let Some(owners) = self.owners.get_mut(slots) {
            owners.fill(place);
        }
    }

    fn finish(mut self) -> SlotMap {
        let mut uncovered = 0;
        let mut kept: Vec<NodeAddress> = Vec::new();
        let mut places = vec![NOBODY; self.nodes.len()];
        for owner in &mut self.owners {
            let old = usize::from(*owner);
            let (Some(node), Some(place)) = (self.nodes.get(old), places.get_mut(old)) else {
                uncovered += 1;
                continue;
            };
            if *place == NOBODY {
                *place = u16::try_from(kept.len()).unwrap_or(NOBODY);
                kept.push(node.clone());
            }
            *owner = *place;
        }
        SlotMap {
            owners: self.owners,
            nodes: kept,
            uncovered,
        }
    }
}

fn slot(value: &Value) -> Option<u16> {
    match value {
        Value::Int(slot) => u16::try_from(*slot).ok().filter(|slot| *slot < SLOTS),
        _ => None,
    }
}

/// `[host, port, id, metadata]`, the last two being newer than the rest.
fn node(value: &Value, asked: &str) -> Option<NodeAddress> {
    let Value::Array(parts) = value else {
        return None;
    };
    let [host, Value::Int(port), more @ ..] = parts.as_slice() else {
        return None;
    };
    let host = match host {
        Value::Nil => asked,
        host => match text(host)? {
            "?" => more.get(1).and_then(told_beside).unwrap_or(asked),
            host if is_no_host(host) => asked,
            host => host,
        },
    };
    NodeAddress::new(host, u16::try_from(*port).ok()?)
}

/// Nothing, or "any address", which is where one listens and not where one is found.
fn is_no_host(host: &str) -> bool {
    host.is_empty() || host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified())
}

/// A host from a node's metadata: a map, or in RESP2 a list of names and values by turns.
fn told_beside(metadata: &Value) -> Option<&str> {
    let entry = |name: &Value, value| match text(name) {
        Some("hostname") => Some((0, text(value)?)),
        Some("ip") => Some((1, text(value)?)),
        _ => None,
    };
    let entries: Vec<(u8, &str)> = match metadata {
        Value::Map(pairs) => pairs
            .iter()
            .filter_map(|(name, value)| entry(name, value))
            .collect(),
        Value::Array(items) => {
            let pairs = items.chunks_exact(2);
            pairs
                .filter_map(|pair| entry(pair.first()?, pair.last()?))
                .collect()
        }
        _ => return None,
    };
    let known = entries
        .into_iter()
        .filter(|(_, host)| *host != "?" && !is_no_host(host));
    known.min_by_key(|(rank, _)| *rank).map(|(_, host)| host)
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn word(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn list(items: impl IntoIterator<Item = Value>) -> Value {
        Value::Array(items.into_iter().collect())
    }

    fn range(first: i64, last: i64, node: Value) -> Value {
        list([Value::Int(first), Value::Int(last), node])
    }

    fn at(host: &str, port: i64) -> Value {
        list([word(host), Value::Int(port), word("id")])
    }

    fn address(host: &str, port: u16) -> NodeAddress {
        NodeAddress::new(host, port).unwrap()
    }

    #[track_caller]
    fn parse(ranges: impl IntoIterator<Item = Value>) -> SlotMap {
        SlotMap::parse(&list(ranges), "asked").unwrap()
    }

    /// What a real server says to `CLUSTER KEYSLOT`.
    #[test]
    fn keys_have_the_slots_that_the_server_gives_them() {
        for (key, slot) in [
            ("123456789", 0x31C3),
            ("", 0),
            ("{user1000}.following", 3443),
            ("{user1000}.followers", 3443),
            ("user1000", 3443),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
            ("{bar", 4015),
            ("foo{bar}{zap}", 5061),
            ("bar", 5061),
            ("a}b{", 6027),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot % SLOTS, "{key}");
        }
    }

    #[test]
    fn slots_lead_to_their_primaries() {
        let replica = at("c", 3);
        let first = list([Value::Int(0), Value::Int(99), at("a", 1), replica]);
        let map = parse([
            first,
            range(100, 16_000, at("b", 2)),
            range(16_383, 16_383, at("a", 1)),
        ]);
        assert_eq!(map.nodes(), [address("a", 1), address("b", 2)]);
        assert_eq!(map.uncovered(), 382);
        for (slot, owner) in [
            (0, Some(0)),
            (99, Some(0)),
            (100, Some(1)),
            (16_000, Some(1)),
            (16_001, None),
            (16_383, Some(0)),
            (16_384, None),
            (u16::MAX, None),
        ] {
            assert_eq!(map.owner(slot), owner, "{slot}");
        }
    }

    #[test]
    fn a_new_cluster_has_no_slots() {
        let map = parse([]);
        assert_eq!((map.nodes().len(), map.uncovered()), (0, 16_384));
        assert_eq!(map.owner(0), None);
    }

    #[test]
    fn hosts_that_are_not_told_are_the_one_that_was_asked() {
        let ip = || list([word("ip"), word("10.0.0.7")]);
        let both = Value::Map(vec![
            (word("ip"), word("10.0.0.7")),
            (word("hostname"), word("seven.example")),
        ]);
        let unset = list([word("hostname"), word(""), word("ip"), word("10.0.0.7")]);
        let told = |host: Value, beside| list([host, Value::Int(7000), word("id"), beside]);
        for (node, host) in [
            (at("", 7000), "asked"),
            (at("?", 7000), "asked"),
            (at("0.0.0.0", 7000), "asked"),
            (at("::", 7000), "asked"),
            (list([Value::Nil, Value::Int(7000)]), "asked"),
            // Where the server does not say how it is reached, its own address is often of no use.
            (told(Value::Nil, ip()), "asked"),
            (told(word("?"), ip()), "10.0.0.7"),
            (told(word("?"), both), "seven.example"),
            (told(word("?"), unset), "10.0.0.7"),
            (told(word("?"), list([])), "asked"),
            (told(word("10.1.1.1"), ip()), "10.1.1.1"),
            (at("2001:db8::1", 7000), "2001:db8::1"),
            (at("[2001:db8::1]", 7000), "2001:db8::1"),
            (at("node-1.example", 7000), "node-1.example"),
        ] {
            let map = parse([range(0, 1, node.clone())]);
            assert_eq!(map.nodes(), [address(host, 7000)], "{node:?}");
        }
    }

    #[test]
    fn addresses_are_written_as_they_are_dialled() {
        assert_eq!(
            address("2001:db8::1", 6379).to_string(),
            "[2001:db8::1]:6379"
        );
        assert_eq!(address("a.example", 6379).to_string(), "a.example:6379");
    }

    #[test]
    fn a_slot_that_has_moved_is_elsewhere_and_the_others_stay() {
        let map = parse([range(0, 0, at("a", 1)), range(1, 9, at("b", 2))]);
        let moved = map.with_moved(5, address("c", 3));
        let host = |map: &SlotMap, slot| map.owner(slot).map(|owner| map.nodes()[owner].port);
        assert_eq!(host(&moved, 4), Some(2));
        assert_eq!(host(&moved, 5), Some(3));
        assert_eq!(host(&moved, 6), Some(2));
        assert_eq!(moved.uncovered(), map.uncovered());
        let new = moved.with_moved(12_000, address("c", 3));
        assert_eq!((host(&new, 12_000), new.nodes().len()), (Some(3), 3));
        assert_eq!(new.uncovered(), map.uncovered() - 1);
        let without_a = new.with_moved(0, address("b", 2));
        assert_eq!(without_a.nodes(), [address("b", 2), address("c", 3)]);
        assert_eq!(map.with_moved(16_384, address("c", 3)), map);
    }

    #[test]
    fn what_cannot_be_right_is_refused() {
        let node = || at("a", 1);
        let many = list((0..=16_384).map(|_| range(0, 0, node())));
        assert!(SlotMap::parse(&many, "asked").is_err());
        for answer in [
            Value::Nil,
            Value::Okay,
            word("x"),
            list([Value::Nil]),
            list([list([])]),
            list([list([Value::Int(0), Value::Int(1)])]),
            list([range(-1, 1, node())]),
            list([range(0, 16_384, node())]),
            list([range(65_536, 65_537, node())]),
            list([range(2, 1, node())]),
            list([range(0, 1, Value::Nil)]),
            list([range(0, 1, list([word("a")]))]),
            list([range(0, 1, at("a", 0))]),
            list([range(0, 1, at("a", -1))]),
            list([range(0, 1, at("a", 65_536))]),
            list([range(0, 1, at("a b", 1))]),
            list([range(0, 1, at("a\r\n", 1))]),
            list([range(0, 1, at(&"a".repeat(256), 1))]),
            list([range(
                0,
                1,
                list([Value::BulkString(vec![0xff]), Value::Int(1)]),
            )]),
            list([range(0, 1, list([Value::Int(1), Value::Int(1)]))]),
        ] {
            assert!(SlotMap::parse(&answer, "asked").is_err(), "{answer:?}");
        }
        assert!(SlotMap::parse(&list([range(0, 1, at("", 1))]), "").is_err());
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            (-2..20_000_i64).prop_map(Value::Int),
            any::<i64>().prop_map(Value::Int),
            vec(any::<u8>(), 0..6).prop_map(Value::BulkString),
            prop_oneof![Just("?"), Just("ip"), Just("hostname"), Just("")].prop_map(word),
            Just(at("a", 1)),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                4 => vec(inner.clone(), 0..5).prop_map(Value::Array),
                1 => vec((inner.clone(), inner), 0..3).prop_map(Value::Map),
            ]
        })
    }

    /// The definition, bit by bit.
    fn crc16(bytes: &[u8]) -> u16 {
        bytes.iter().fold(0, |crc, byte| {
            (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
                (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
            })
        })
    }

    proptest! {
        #[test]
        fn only_the_tag_counts(
            before in vec(any::<u8>().prop_filter("open", |byte| *byte != b'{'), 0..8),
            tag in vec(any::<u8>().prop_filter("close", |byte| *byte != b'}'), 1..8),
            after in vec(any::<u8>(), 0..8),
        ) {
            let key = [&before[..], b"{", &tag, b"}", &after].concat();
            prop_assert_eq!(slot_of(&key), crc16(&tag) % SLOTS);
            prop_assert_eq!(slot_of(&before), crc16(&before) % SLOTS);
        }

        #[test]
        fn any_key_has_a_slot(key in vec(any::<u8>(), 0..64)) {
            prop_assert!(slot_of(&key) < SLOTS);
        }

        #[test]
        fn nonsense_is_refused_without_a_panic(
            answer in any_value(),
            nodes in vec((-3..40_i64, -3..40_i64, any_value()), 0..4),
        ) {
            let _ = SlotMap::parse(&answer, "asked");
            let ranges = nodes.into_iter().map(|(first, last, node)| range(first, last, node));
            if let Ok(map) = SlotMap::parse(&list(ranges), "asked") {
                for slot in 0..SLOTS {
                    prop_assert!(map.owner(slot).is_none_or(|owner| owner < map.nodes().len()));
                }
            }
        }

        /// Against the plainest map there is.
        #[test]
        fn ranges_and_moves_leave_every_slot_where_it_belongs(
            ranges in vec((0..SLOTS, 0..300_u16, 1..6_u16), 0..12),
            moves in vec((0..SLOTS, 1..9_u16), 0..12),
        ) {
            let mut model = vec![None; usize::from(SLOTS)];
            let mut answer = Vec::new();
            for (first, more, port) in ranges {
                let last = (first + more).min(SLOTS - 1);
                model[usize::from(first)..=usize::from(last)].fill(Some(port));
                answer.push(range(first.into(), last.into(), at("h", port.into())));
            }
            let mut map = parse(answer);
            for (slot, port) in moves {
                model[usize::from(slot)] = Some(port);
                map = map.with_moved(slot, address("h", port));
            }
            for (slot, port) in (0..SLOTS).zip(&model) {
                let owner = map.owner(slot).map(|owner| map.nodes()[owner].port);
                prop_assert_eq!(owner, *port);
            }
            prop_assert_eq!(map.uncovered(), model.iter().filter(|port| port.is_none()).count());
            let mut ports: Vec<_> = model.into_iter().flatten().collect();
            ports.sort_unstable();
            ports.dedup();
            prop_assert_eq!(map.nodes().len(), ports.len());
        }
    }
}
