//! The client's address behind proxies we trust.
//!
//! The answer is the rightmost hop that is not one of our own proxies, because that one was written
//! by a proxy of ours; everything left of it is hearsay. From a peer that is not trusted the field
//! is not read at all, and a hop that is no address ends the walk at the last good one: never
//! further left.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

use crate::error::Faults;
use crate::identity::forwarded::{ProxyHeader, hops};
use crate::identity::network::parse_network;

/// Which proxies' word about the client's address is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedProxies {
    trust: Trust,
    header: ProxyHeader,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Trust {
    Nobody,
    /// Peers and hops within these networks.
    Nets(Box<[IpNet]>),
    /// The peer, and as many hops that peer and hops together make this number.
    Hops(u8),
}

/// The most proxies that may stand in a row.
const HOPS_MAX: u8 = 16;

impl TrustedProxies {
    /// The client is the peer of the connection; no field is read.
    #[must_use]
    pub const fn nobody() -> Self {
        Self {
            trust: Trust::Nobody,
            header: ProxyHeader::XForwardedFor,
        }
    }

    /// Proxies from a configuration: networks (`10.0.0.0/8`, or an address alone), or the number of
    /// proxies that every request has passed through.
    ///
    /// Prefer networks. A number is only safe where nobody can reach the service, or any but the
    /// outermost proxy, directly: whoever can, adds the missing hops himself.
    ///
    /// Faults are named `{room}.trusted_proxies` and `{room}.trusted_hops`: what is no network, a
    /// network so wide that everybody would be trusted, a number of 0 or above 16, or both given.
    #[must_use]
    pub fn from_config(
        room: &str,
        networks: &[String],
        hops: Option<u8>,
        header: ProxyHeader,
        faults: &mut Faults,
    ) -> Self {
        let mut nets = Vec::with_capacity(networks.len());
        for (at, text) in networks.iter().enumerate() {
            match parse_network(text) {
                Ok(net) => nets.push(net),
                Err(allowed) => faults.add(format!("{room}.trusted_proxies[{at}]"), text, allowed),
            }
        }
        if let Some(hops) = hops {
            let field = format!("{room}.trusted_hops");
            if networks.is_empty() {
                faults.within(field, hops, 1..=HOPS_MAX, "proxies");
            } else {
                faults.add(field, hops, "contradicts trusted_proxies: give one of them");
            }
        }
        let trust = match hops {
            Some(hops) => Trust::Hops(hops),
            None if nets.is_empty() => Trust::Nobody,
            None => Trust::Nets(nets.into()),
        };
        Self { trust, header }
    }

    /// Whether no proxy is trusted, so that the client is always the peer.
    #[must_use]
    pub const fn trusts_nobody(&self) -> bool {
        matches!(self.trust, Trust::Nobody)
    }

    /// The client's address, given the connection's peer and the request's fields.
    ///
    /// Costs nothing but a comparison per network if the peer is not trusted, else time in
    /// proportion to the part of the field that is read; never allocates.
    #[must_use]
    pub fn client_ip(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let mut passed = 0;
        if !self.trusts(client, passed) {
            return client;
        }
        for hop in hops(headers, self.header) {
            let Some(ip) = hop else { break };
            client = ip;
            passed += 1;
            if !self.trusts(client, passed) {
                break;
            }
        }
        client
    }

    /// Whether `ip`, which stands `passed` hops behind the peer, is a proxy of ours.
    fn trusts(&self, ip: IpAddr, passed: u32) -> bool {
        match &self.trust {
            Trust::Nobody => false,
            Trust::Nets(nets) => nets.iter().any(|net| net.contains(&ip)),
            Trust::Hops(hops) => passed < u32::from(*hops),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;

    fn trusting(networks: &[&str], hops: Option<u8>) -> TrustedProxies {
        let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
        let mut faults = Faults::new();
        let header = ProxyHeader::XForwardedFor;
        let proxies = TrustedProxies::from_config("limits", &networks, hops, header, &mut faults);
        faults.into_result().unwrap();
        proxies
    }

    fn client(proxies: &TrustedProxies, peer: &str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
        }
        proxies
            .client_ip(peer.parse().unwrap(), &headers)
            .to_string()
    }

    /// Forms that other limiters read as the spoofed address or as the proxy's.
    #[test]
    fn the_client_behind_a_trusted_peer_is_found_in_six_common_forms() {
        let proxies = trusting(&["10.0.0.0/8"], None);
        let one_hop = trusting(&[], Some(1));
        for (lines, truth) in [
            (&["203.0.113.7"][..], "203.0.113.7"),
            (&["1.2.3.4, 203.0.113.7"], "203.0.113.7"),
            (&["203.0.113.7:51234"], "203.0.113.7"),
            (&["1.2.3.4, 203.0.113.7:51234"], "203.0.113.7"),
            (&["1.2.3.4", "203.0.113.7"], "203.0.113.7"),
            (&["1.2.3.4, [2001:db8::7]:443"], "2001:db8::7"),
        ] {
            assert_eq!(client(&proxies, "10.0.0.1", lines), truth, "{lines:?}");
            assert_eq!(client(&one_hop, "10.0.0.1", lines), truth, "{lines:?}");
            // The same fields from somebody we do not know mean nothing.
            assert_eq!(client(&proxies, "198.51.100.9", lines), "198.51.100.9");
            let nobody = TrustedProxies::nobody();
            assert_eq!(client(&nobody, "10.0.0.1", lines), "10.0.0.1");
        }
    }

    #[test]
    fn the_walk_passes_our_own_proxies_and_stops_at_the_first_stranger() {
        let proxies = trusting(&["10.0.0.0/8", "fd00::/8", "192.0.2.1"], None);
        for (lines, truth) in [
            (
                &["1.2.3.4, 203.0.113.7, 10.0.0.3, [fd00::1]:80"][..],
                "203.0.113.7",
            ),
            (&["203.0.113.7, 192.0.2.1"], "203.0.113.7"),
            (&["10.0.0.9, 10.0.0.3"], "10.0.0.9"),
            (&[], "10.0.0.1"),
            (&[""], "10.0.0.1"),
            // Garbage ends the walk where it stands.
            (&["203.0.113.7, junk"], "10.0.0.1"),
            (&["203.0.113.7, unknown, 10.0.0.3"], "10.0.0.3"),
        ] {
            assert_eq!(client(&proxies, "10.0.0.1", lines), truth, "{lines:?}");
        }
        assert_eq!(
            client(&proxies, "::ffff:10.0.0.1", &["203.0.113.7"]),
            "203.0.113.7"
        );
    }

    #[test]
    fn a_number_of_hops_counts_the_peer_as_the_first() {
        let two = trusting(&[], Some(2));
        for (lines, truth) in [
            (&["1.2.3.4, 203.0.113.7, 198.51.100.1"][..], "203.0.113.7"),
            (&["203.0.113.7, 198.51.100.1"], "203.0.113.7"),
            (&["203.0.113.7"], "203.0.113.7"),
            (&["203.0.113.7, junk"], "10.0.0.1"),
        ] {
            assert_eq!(client(&two, "10.0.0.1", lines), truth, "{lines:?}");
        }
    }

    #[test]
    fn networks_that_cannot_be_meant_are_faults() {
        let networks = [
            "0.0.0.0/0",
            "::/0",
            "0.0.0.0/1",
            "::ffff:10.0.0.0/104",
            "proxy",
            "10.0.0.0/33",
        ];
        let networks = networks.map(str::to_owned);
        let mut faults = Faults::new();
        let header = ProxyHeader::XForwardedFor;
        let _ = TrustedProxies::from_config("limits", &networks, Some(1), header, &mut faults);
        let _ = TrustedProxies::from_config("limits", &[], Some(0), header, &mut faults);
        let error = faults.into_result().unwrap_err();
        assert_eq!(error.faults().len(), networks.len() + 2, "{error}");
        assert_eq!(error.faults()[0].field, "limits.trusted_proxies[0]");
        assert_eq!(error.faults()[0].value, "0.0.0.0/0");
    }

    /// One element of a field: what is written, and the address that this is.
    type Element = (String, Option<IpAddr>);

    /// Proxies of ours, strangers, and what is no address, in all the ways in which they are written.
    fn element(header: ProxyHeader) -> impl Strategy<Value = Element> {
        let ours = prop_oneof![
            any::<[u8; 3]>().prop_map(|[a, b, c]| IpAddr::from([10, a, b, c])),
            any::<u16>().prop_map(|last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last])),
        ];
        let strangers = prop_oneof![
            any::<[u8; 3]>().prop_map(|[a, b, c]| IpAddr::from([203, a, b, c])),
            any::<u16>().prop_map(|last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last])),
        ];
        let node = (prop_oneof![3 => ours, 1 => strangers], any::<Option<u16>>());
        let address = (node, any::<bool>()).prop_map(move |((ip, port), more)| {
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            let node = match (ip, header) {
                (IpAddr::V6(_), _) => format!("[{ip}]{port}"),
                (IpAddr::V4(_), _) => format!("{ip}{port}"),
            };
            let text = match (header, more) {
                (ProxyHeader::XForwardedFor, _) => node,
                (ProxyHeader::Forwarded, false) => format!("for=\"{node}\""),
                (ProxyHeader::Forwarded, true) => {
                    format!("host=\"a, for=1.1.1.1;\\\"\" ; For=\"{node}\";proto=http")
                }
            };
            (text, Some(ip))
        });
        let junk = "[a-z\"\\\\ ,;]{0,6}[g-z]".prop_map(move |junk| match header {
            ProxyHeader::XForwardedFor => (junk, None),
            ProxyHeader::Forwarded => (format!("for={junk}"), None),
        });
        prop_oneof![9 => address, 1 => junk]
    }

    fn either() -> impl Strategy<Value = ProxyHeader> {
        prop_oneof![
            Just(ProxyHeader::XForwardedFor),
            Just(ProxyHeader::Forwarded)
        ]
    }

    /// Lines of elements.
    fn lines() -> impl Strategy<Value = (ProxyHeader, Vec<Vec<Element>>)> {
        either().prop_flat_map(|header| {
            let line = proptest::collection::vec(element(header), 0..5);
            (Just(header), proptest::collection::vec(line, 0..4))
        })
    }

    fn believing(trust: &TrustedProxies, header: ProxyHeader) -> TrustedProxies {
        TrustedProxies {
            header,
            ..trust.clone()
        }
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            4 => (0x20_u8..=0xff).prop_filter("a field's byte", |byte| *byte != 0x7f),
            1 => Just(b'\t'),
            5 => proptest::sample::select(&b"\"\\,;:=[]for10."[..]),
        ];
        proptest::collection::vec(byte, 0..60)
    }

    proptest! {
        #[test]
        fn nothing_an_untrusted_peer_sends_changes_who_it_is(
            lines in proptest::collection::vec(bytes(), 0..4),
            addresses in proptest::collection::vec(any::<[u8; 4]>(), 0..4),
            peer in any::<[u8; 4]>(),
        ) {
            let peer = IpAddr::from(peer);
            prop_assume!(!peer.to_string().starts_with("10."));
            let mut headers = HeaderMap::new();
            let addresses = addresses.iter().map(|a| IpAddr::from(*a).to_string().into_bytes());
            for line in lines.into_iter().chain(addresses) {
                headers.append("x-forwarded-for", HeaderValue::from_bytes(&line).unwrap());
                let line = [b"for=", &*line].concat();
                headers.append("forwarded", HeaderValue::from_bytes(&line).unwrap());
            }
            let proxies = trusting(&["10.0.0.0/8"], None);
            for header in [ProxyHeader::XForwardedFor, ProxyHeader::Forwarded] {
                prop_assert_eq!(believing(&proxies, header).client_ip(peer, &headers), peer);
            }
        }

        /// The answer is the nearest that is none of ours, or the last good one before what is no address:
        /// by whatever lines it came, however it was written, and whatever stands left of it.
        #[test]
        fn the_client_is_the_nearest_stranger_and_never_anybody_behind(
            (header, lines) in lines(),
            hops in 1_u8..6,
        ) {
            let mut headers = HeaderMap::new();
            for line in &lines {
                let texts: Vec<_> = line.iter().map(|(text, _)| text.as_str()).collect();
                headers.append(header.name(), HeaderValue::from_str(&texts.join(" ,")).unwrap());
            }
            let peer = IpAddr::from([10, 0, 0, 1]);
            let ours = |ip: &IpAddr| match ip {
                IpAddr::V4(ip) => ip.octets()[0] == 10,
                IpAddr::V6(ip) => ip.segments()[0] == 0xfd00,
            };
            let (mut nearest, mut counted) = (peer, peer);
            let passed = lines.iter().flatten().rev().map_while(|(_, ip)| *ip);
            for (number, ip) in passed.enumerate() {
                if ours(&nearest) {
                    nearest = ip;
                }
                if number < usize::from(hops) {
                    counted = ip;
                }
            }
            let by_nets = believing(&trusting(&["10.0.0.0/8", "fd00::/16"], None), header);
            prop_assert_eq!(by_nets.client_ip(peer, &headers), nearest, "{:?}", headers);
            let by_hops = believing(&trusting(&[], Some(hops)), header);
            prop_assert_eq!(by_hops.client_ip(peer, &headers), counted, "{:?}", headers);
        }

        #[test]
        fn no_bytes_hide_whom_our_own_proxy_has_seen(
            hostile in proptest::collection::vec(bytes(), 0..4),
            header in either(),
            own_line in any::<bool>(),
        ) {
            let mut lines = hostile;
            let added = match header {
                ProxyHeader::XForwardedFor => &b"203.0.113.7:51234"[..],
                ProxyHeader::Forwarded => b"for=\"203.0.113.7:51234\";proto=https",
            };
            match lines.last_mut().filter(|_| !own_line) {
                Some(last) => last.extend([b", ", added].concat()),
                None => lines.push(added.to_vec()),
            }
            let mut headers = HeaderMap::new();
            for line in &lines {
                headers.append(header.name(), HeaderValue::from_bytes(line).unwrap());
            }
            let truth = IpAddr::from([203, 0, 113, 7]);
            for proxies in [trusting(&["10.0.0.0/8"], None), trusting(&[], Some(1))] {
                let proxies = believing(&proxies, header);
                prop_assert_eq!(proxies.client_ip(IpAddr::from([10, 0, 0, 1]), &headers), truth);
            }
            // The walk ends somewhere, whatever it meets.
            let _ = believing(&trusting(&[], Some(16)), header).client_ip(truth, &headers);
        }
    }

    /// One that looked back over the line for every quote or element would take many seconds for this.
    #[test]
    fn a_long_field_takes_time_in_proportion_to_its_length() {
        let clock = Clock::system();
        let begin = clock.now();
        for unit in [
            "\"",
            "\\",
            "\\\"",
            "\"\\",
            ",",
            ";",
            "=",
            "for=",
            "a;",
            "for=\"",
            "for=\",",
            ", \"",
            "10.0.0.1,",
            "for=10.0.0.1,",
            "for=\"10.0.0.1\";by=x,",
            "10.0.0.1:",
            "[",
            "x",
        ] {
            let line = HeaderValue::from_str(&unit.repeat((64 << 10) / unit.len())).unwrap();
            for header in [ProxyHeader::XForwardedFor, ProxyHeader::Forwarded] {
                let mut headers = HeaderMap::new();
                headers.append(header.name(), line.clone());
                headers.append(header.name(), line.clone());
                for proxies in [trusting(&["10.0.0.0/8"], None), trusting(&[], Some(16))] {
                    let proxies = believing(&proxies, header);
                    let _ = proxies.client_ip(IpAddr::from([10, 0, 0, 1]), &headers);
                }
            }
        }
        let took = clock.now().since(begin);
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}
