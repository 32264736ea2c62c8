//! One host, one address: what of an IP stands for its owner.
//!
//! A household or a rented machine gets a whole IPv6 /64 and may use any of its 2^64 addresses, so
//! that counting by full address counts nothing. IPv4 has no such plenty and stays whole.

use std::net::{IpAddr, Ipv6Addr};

/// `ip` with all bits of an IPv6 address behind the first `ipv6_prefix` cleared; IPv4 and
/// IPv4-mapped addresses are given whole, as IPv4.
///
/// A prefix above 128 is read as 128.
#[must_use]
#[inline]
pub const fn masked(ip: IpAddr, ipv6_prefix: u8) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(address) => {
            let kept = match ipv6_prefix {
                0 => 0,
                1..=127 => u128::MAX << (128 - ipv6_prefix),
                128.. => u128::MAX,
            };
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & kept))
        }
        whole @ IpAddr::V4(_) => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_is_cut_to_its_prefix_and_ipv4_stays_whole() {
        for (ip, prefix, kept) in [
            ("2001:db8:1:2:3:4:5:6", 64, "2001:db8:1:2::"),
            ("2001:db8:1:2ff:3:4:5:6", 56, "2001:db8:1:200::"),
            ("2001:db8:1:2:3:4:5:6", 128, "2001:db8:1:2:3:4:5:6"),
            ("2001:db8:1:2:3:4:5:6", 255, "2001:db8:1:2:3:4:5:6"),
            ("2001:db8:1:2:3:4:5:6", 0, "::"),
            ("203.0.113.7", 64, "203.0.113.7"),
            ("::ffff:203.0.113.7", 64, "203.0.113.7"),
        ] {
            let kept: IpAddr = kept.parse().unwrap();
            assert_eq!(masked(ip.parse().unwrap(), prefix), kept, "{ip}/{prefix}");
        }
    }
}
