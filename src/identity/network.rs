//! Networks as settings write them.

use std::net::IpAddr;

use ipnet::IpNet;

/// Parses a network (`10.0.0.0/8`, `fd00::/8`) or an address alone, or says what would have been right.
/// Networks so wide that they hold nearly everybody are refused.
pub(crate) fn parse_network(text: &str) -> Result<IpNet, &'static str> {
    let net = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "must be a network like 10.0.0.0/8 or fd00::/8, or an address")?;
    // The widest that anybody owns: 10.0.0.0/8 and fc00::/7.
    let widest = if net.addr().is_ipv4() { 8 } else { 7 };
    if net.prefix_len() < widest {
        return Err("is nearly everybody: must be no wider than /8 (IPv4) or /7 (IPv6)");
    }
    // Addresses are compared in their canonical form, which such a network never contains.
    if net.addr().is_ipv6() && net.addr().to_canonical().is_ipv4() {
        return Err("must be written as the IPv4 network that it maps");
    }
    Ok(net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_or_an_address_is_read_and_the_whole_internet_refused() {
        for (text, net) in [
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("203.0.113.7", Some("203.0.113.7/32")),
            ("2001:db8::7", Some("2001:db8::7/128")),
            ("fc00::/7", Some("fc00::/7")),
            ("0.0.0.0/0", None),
            ("::/0", None),
            ("0.0.0.0/7", None),
            ("2000::/3", None),
            ("::ffff:10.0.0.0/104", None),
            ("::ffff:10.0.0.1", None),
            ("10.0.0.0/33", None),
            ("10.0.0", None),
            (" 10.0.0.0/8", None),
            ("", None),
        ] {
            let read = parse_network(text).ok().map(|net| net.to_string());
            assert_eq!(read.as_deref(), net, "{text}");
        }
    }
}
