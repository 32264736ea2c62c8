//! A cluster's node that says: not here, but there.

use crate::store::slots::{NodeAddress, SLOTS};

/// Where a command should have gone. The node that said so has not run it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Redirect {
    /// The slot has moved: ask there from now on.
    Moved {
        slot: u16,
        /// `None` if the node that answered does not know either: ask for the whole map.
        node: Option<NodeAddress>,
    },
    /// The slot is on its way: ask there this once, after `ASKING`.
    Ask {
        slot: u16,
        /// `None` if the node that answered does not know either: try again later.
        node: Option<NodeAddress>,
    },
}

impl Redirect {
    /// Reads `MOVED 1234 host:port` and `ASK 1234 host:port`; `None` if it is neither, or makes no sense.
    /// No host stands for the one that was `asked`; a host `?`, for a name that is not known.
    pub(crate) fn parse(code: &str, details: &str, asked: &str) -> Option<Self> {
        let moved = match code {
            "MOVED" => true,
            "ASK" => false,
            _ => return None,
        };
        let mut words = details.split_ascii_whitespace();
        let slot = words.next()?.parse().ok().filter(|slot| *slot < SLOTS)?;
        // The last colon: an IPv6 address is written without brackets.
        let (host, port) = words.next()?.rsplit_once(':')?;
        let port = port.parse().ok()?;
        let node = match host {
            "?" => None,
            "" => Some(NodeAddress::new(asked, port)?),
            host => Some(NodeAddress::new(host, port)?),
        };
        Some(match moved {
            true => Self::Moved { slot, node },
            false => Self::Ask { slot, node },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redis::Value;

    use super::*;

    fn parse(line: &str) -> Option<Redirect> {
        match redis::parse_redis_value(format!("-{line}\r\n").as_bytes()) {
            Ok(Value::ServerError(error)) => {
                Redirect::parse(error.code(), error.details().unwrap_or_default(), "asked")
            }
            _ => None,
        }
    }

    #[test]
    fn a_redirect_names_slot_and_node() {
        for (address, host) in [
            ("10.0.0.2:6381", "10.0.0.2"),
            (":6381", "asked"),
            ("node-2.example:6381", "node-2.example"),
            ("2001:db8::2:6381", "2001:db8::2"),
            ("[2001:db8::2]:6381", "2001:db8::2"),
        ] {
            let node = NodeAddress::new(host, 6381);
            assert!(node.is_some());
            let moved = Redirect::Moved {
                slot: 3999,
                node: node.clone(),
            };
            assert_eq!(parse(&format!("MOVED 3999 {address}")), Some(moved));
            let ask = Redirect::Ask { slot: 3999, node };
            assert_eq!(parse(&format!("ASK 3999 {address}")), Some(ask));
        }
    }

    #[test]
    fn a_node_without_a_name_is_not_guessed_at() {
        let moved = Redirect::Moved {
            slot: 12_182,
            node: None,
        };
        assert_eq!(parse("MOVED 12182 ?:7402"), Some(moved));
    }

    #[test]
    fn what_makes_no_sense_is_no_redirect() {
        for line in [
            "MOVED",
            "MOVED 1",
            "MOVED 16384 a:1",
            "MOVED -1 a:1",
            "MOVED 70000 a:1",
            "MOVED x a:1",
            "MOVED 1 a",
            "MOVED 1 a:",
            "MOVED 1 a:0",
            "MOVED 1 a:65536",
            "MOVED 1 ?:x",
            "MOVED 1 []:1",
            "CLUSTERDOWN 1 a:1",
            "ERR MOVED 1 a:1",
            "moved 1 a:1",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn nonsense_is_refused_without_a_panic(
            code in prop_oneof![Just("MOVED"), Just("ASK")],
            details in prop_oneof!["\\PC{0,20}", "[0-9]{0,6} ?[\\[\\]:?a.0-9]{0,12}"],
        ) {
            match parse(&format!("{code} {details}")) {
                Some(Redirect::Moved { slot, node }) | Some(Redirect::Ask { slot, node }) => {
                    prop_assert!(slot < SLOTS);
                    prop_assert!(node.is_none_or(|node| !node.host.is_empty() && node.port > 0));
                }
                None => {}
            }
        }
    }
}
