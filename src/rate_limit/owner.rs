//! Whose bucket it is: as a hash for the table, as a text for everything that people and Redis read.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;

use crate::identity::masked;
use crate::rate_limit::compiled::{CompiledRule, Plan};
use crate::rate_limit::digest::{digest, write_hex};
use crate::rate_limit::escape::{unescaped, write_escaped};
use crate::rate_limit::scope::Scope;

/// The longest name that is written out in a text.
pub(crate) const WRITTEN_BYTES_MAX: usize = 64;

/// Whose bucket it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Owner<'a> {
    /// The client at this address, masked.
    Ip(IpAddr),
    /// All those whose address is not known.
    Unknown,
    Caller(&'a str),
    Tenant(&'a str),
    /// Whoever has this API key: a secret.
    Key(&'a str),
    /// Those behind this address, masked, whose clients describe themselves in one of 256 ways.
    Print(IpAddr, u8),
    Everybody,
    Named(Cow<'a, str>),
}

impl<'a> Owner<'a> {
    /// Whom a rule of this scope counts `key` against, where there is no request.
    pub(crate) fn of_key(scope: &Scope, key: &'a str, ipv6_prefix: u8) -> Self {
        match scope {
            Scope::Caller => Self::Caller(key),
            Scope::Tenant => Self::Tenant(key),
            Scope::ApiKey => Self::Key(key),
            Scope::Global => Self::Everybody,
            Scope::Custom(_) | Scope::Fingerprint => Self::Named(Cow::Borrowed(key)),
            Scope::Ip => match key.parse() {
                Ok(ip) => Self::Ip(masked(ip, ipv6_prefix)),
                Err(_) => Self::Named(Cow::Borrowed(key)),
            },
        }
    }

    /// The bucket of this owner with a rule, by the quota of its tier.
    ///
    /// A caller or a key has one bucket whatever its tier, so that a change of plans is no fresh start. A
    /// tenant or an address may have people of several plans behind it, who must not be charged for each
    /// other's quota, nor have it cut back by theirs: there each plan has its own.
    #[inline]
    pub(crate) fn key(&self, rule: &CompiledRule, plan: &Plan, mut hasher: impl Hasher) -> u64 {
        let kind: u64 = match self {
            Self::Ip(_) => 1,
            Self::Unknown => 2,
            Self::Caller(_) => 3,
            Self::Tenant(_) => 4,
            Self::Everybody => 5,
            Self::Named(_) => 6,
            Self::Key(_) => 7,
            Self::Print(_, class) => 8 | u64::from(*class) << 8,
        };
        // One word for rule, tier and kind: salts are 64 random bits each, and do not come that close.
        hasher.write_u64(self.plan_of(rule, plan).salt ^ kind);
        match self {
            Self::Ip(ip) | Self::Print(ip, _) => match ip {
                IpAddr::V4(ip) => hasher.write_u32(ip.to_bits()),
                IpAddr::V6(ip) => hasher.write_u128(ip.to_bits()),
            },
            Self::Unknown | Self::Everybody => {}
            Self::Caller(name) | Self::Tenant(name) | Self::Key(name) => {
                hasher.write(name.as_bytes());
            }
            Self::Named(name) => hasher.write(name.as_bytes()),
        }
        hasher.finish()
    }

    /// What Redis calls the bucket that [`key`](Self::key) is the hash of, beside its owner.
    #[inline]
    pub(crate) fn bucket<'r>(&self, rule: &'r CompiledRule, plan: &'r Plan) -> &'r Arc<str> {
        &self.plan_of(rule, plan).bucket
    }

    /// The quota whose buckets the owner has.
    #[inline]
    fn plan_of<'r>(&self, rule: &'r CompiledRule, plan: &'r Plan) -> &'r Plan {
        match self {
            Self::Caller(_) | Self::Key(_) => &rule.base,
            Self::Tenant(_)
            | Self::Ip(_)
            | Self::Unknown
            | Self::Print(..)
            | Self::Everybody
            | Self::Named(_) => plan,
        }
    }

    /// The owner in a text of at most 200 bytes, the same on every instance: `ip:203.0.113.7`,
    /// `ip:2001:db8::/64`, `caller:alice`, `tenant:acme`, `key:` and 32 digits, `print:203.0.113.7/2a`,
    /// `name:whatever`, `all`, `unknown`.
    ///
    /// Names are escaped. Those of more than 64 bytes are a `#` and their digest, keys are always their
    /// digest: no text tells a secret.
    pub(crate) fn text(&self, ipv6_prefix: u8) -> Arc<str> {
        let mut text = String::new();
        // Cannot fail: it is written into memory.
        let _ = self.write(&mut text, ipv6_prefix);
        text.into()
    }

    /// Writes the [`text`](Self::text) without allocating anything.
    pub(crate) fn write(&self, text: &mut impl Write, ipv6_prefix: u8) -> fmt::Result {
        match self {
            Self::Ip(ip) => write_ip(text, "ip:", *ip, ipv6_prefix),
            Self::Print(ip, class) => {
                write_ip(text, "print:", *ip, ipv6_prefix)?;
                write!(text, "/{class:02x}")
            }
            Self::Unknown => text.write_str(UNKNOWN),
            Self::Everybody => text.write_str("all"),
            Self::Caller(name) => write_name(text, "caller:", name),
            Self::Tenant(name) => write_name(text, "tenant:", name),
            Self::Named(name) => write_name(text, "name:", name),
            Self::Key(key) => {
                text.write_str("key:")?;
                write_hex(&digest(key), text)
            }
        }
    }
}

/// The text of those whose address is not known. Nobody is struck or banned by it: they are many.
pub(crate) const UNKNOWN: &str = "unknown";

/// The text of a client that can be banned, however `text` writes it: `caller:NAME`, `ip:ADDRESS`, an address
/// alone or with the prefix by which addresses are counted. Nothing if it is none, or a network of another size.
pub(crate) fn client_text(text: &str, ipv6_prefix: u8) -> Option<Arc<str>> {
    if let Some(name) = text.strip_prefix("caller:") {
        if name.starts_with('#') {
            return Some(text.into());
        }
        let name = unescaped(name).filter(|name| !name.is_empty())?;
        return Some(Owner::Caller(&name).text(ipv6_prefix));
    }
    let address = text.strip_prefix("ip:").unwrap_or(text);
    let (address, bits) = match address.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
        None => (address, None),
    };
    let ip = address.parse::<IpAddr>().ok()?.to_canonical();
    let counted = if ip.is_ipv4() { 32 } else { ipv6_prefix };
    if bits.is_some_and(|bits| bits != counted) {
        return None;
    }
    Some(Owner::Ip(masked(ip, ipv6_prefix)).text(ipv6_prefix))
}

fn write_ip(text: &mut impl Write, kind: &str, ip: IpAddr, ipv6_prefix: u8) -> fmt::Result {
    write!(text, "{kind}{ip}")?;
    if ip.is_ipv6() && ipv6_prefix < 128 {
        write!(text, "/{ipv6_prefix}")?;
    }
    Ok(())
}

fn write_name(text: &mut impl Write, kind: &str, name: &str) -> fmt::Result {
    text.write_str(kind)?;
    if name.len() <= WRITTEN_BYTES_MAX {
        write_escaped(name, text)
    } else {
        text.write_char('#')?;
        write_hex(&digest(name), text)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::hash::BuildHasher;
    use std::time::Duration;

    use foldhash::quality::RandomState;

    use super::*;
    use crate::rate_limit::mode::Mode;
    use crate::rate_limit::quota::Quota;
    use crate::rate_limit::rule::Rule;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn rule(name: &str) -> CompiledRule {
        let quota = Quota::requests(5).per(Duration::from_secs(60));
        let rule = Rule::new(name, quota).tier("premium", quota);
        CompiledRule::new(&rule, Mode::Exact).unwrap()
    }

    #[test]
    fn a_text_tells_the_owner_and_no_secret() {
        let long = "n".repeat(65);
        let hex = |name: &str| {
            let mut text = String::new();
            write_hex(&digest(name), &mut text).unwrap();
            text
        };
        for (owner, text) in [
            (Owner::Ip(ip("203.0.113.7")), "ip:203.0.113.7".to_owned()),
            (Owner::Ip(ip("2001:db8::")), "ip:2001:db8::/64".to_owned()),
            (
                Owner::Print(ip("203.0.113.7"), 10),
                "print:203.0.113.7/0a".to_owned(),
            ),
            (
                Owner::Print(ip("2001:db8::"), 255),
                "print:2001:db8::/64/ff".to_owned(),
            ),
            (Owner::Caller("alice"), "caller:alice".to_owned()),
            (
                Owner::Caller("a@b c:d/{e}"),
                "caller:a%40b%20c:d/%7Be%7D".to_owned(),
            ),
            (Owner::Caller(&long), format!("caller:#{}", hex(&long))),
            (
                Owner::Caller(&long[1..]),
                format!("caller:{}", "n".repeat(64)),
            ),
            // Who is called like a digest is not mistaken for one.
            (Owner::Caller("#00"), "caller:%2300".to_owned()),
            (Owner::Caller(""), "caller:".to_owned()),
            (Owner::Tenant("acme"), "tenant:acme".to_owned()),
            (Owner::Named("x".into()), "name:x".to_owned()),
            (Owner::Key("sk_live_1"), format!("key:{}", hex("sk_live_1"))),
            (Owner::Everybody, "all".to_owned()),
            (Owner::Unknown, "unknown".to_owned()),
        ] {
            assert_eq!(*owner.text(64), *text);
        }
        assert_eq!(&*Owner::Ip(ip("2001:db8::7")).text(128), "ip:2001:db8::7");
        let widest = "\u{1F600}".repeat(16);
        assert_eq!(Owner::Caller(&widest).text(64).len(), 7 + 3 * 64);
    }

    /// Every combination of owner, rule and tier is told apart from every other, and is always the same.
    #[test]
    fn no_two_owners_share_a_bucket() {
        let (v4, v6) = (ip("203.0.113.7"), ip("2001:db8::"));
        let owners = [
            Owner::Ip(v4),
            Owner::Ip(v6),
            Owner::Print(v4, 1),
            Owner::Print(v4, 2),
            Owner::Print(v6, 1),
            Owner::Unknown,
            Owner::Everybody,
            Owner::Caller("a"),
            Owner::Tenant("a"),
            Owner::Key("a"),
            Owner::Named("a".into()),
            Owner::Named("".into()),
            Owner::Caller("203.0.113.7"),
        ];
        let seed = RandomState::default();
        let rules = [rule("a"), rule("b"), rule("a@premium")];
        let mut seen = HashMap::new();
        for rule in &rules {
            for owner in &owners {
                for tier in [None, Some("premium")] {
                    let plan = rule.plan(tier);
                    let key = owner.key(rule, plan, seed.build_hasher());
                    let told = (owner.bucket(rule, plan).to_string(), owner.text(64));
                    let other = seen.insert(key, told.clone());
                    assert!(other.is_none_or(|other| other == told), "{told:?}");
                }
            }
        }
        // Callers and keys keep their bucket whatever their tier.
        assert_eq!(seen.len(), rules.len() * (2 * owners.len() - 3));
    }

    #[test]
    fn a_bucket_outlives_a_change_of_the_rules_around_it() {
        let seed = RandomState::default();
        let quota = Quota::requests(5).per(Duration::from_secs(60));
        let wider = Rule::new("a", quota.burst(9))
            .tier("admin", quota)
            .tier("premium", quota.burst(2));
        let (old, new) = (rule("a"), CompiledRule::new(&wider, Mode::Leased).unwrap());
        for owner in [Owner::Caller("x"), Owner::Ip(ip("203.0.113.7"))] {
            for tier in [None, Some("premium")] {
                assert_eq!(
                    owner.key(&old, old.plan(tier), seed.build_hasher()),
                    owner.key(&new, new.plan(tier), seed.build_hasher()),
                );
            }
        }
    }

    #[test]
    fn a_key_without_a_request_is_what_the_scope_counts_by() {
        for (scope, key, owner) in [
            (Scope::Caller, "a", Owner::Caller("a")),
            (Scope::Tenant, "a", Owner::Tenant("a")),
            (Scope::ApiKey, "a", Owner::Key("a")),
            (Scope::Global, "a", Owner::Everybody),
            (Scope::Fingerprint, "a", Owner::Named("a".into())),
            (Scope::custom(|_| None), "a", Owner::Named("a".into())),
            (Scope::Ip, "203.0.113.7", Owner::Ip(ip("203.0.113.7"))),
            (Scope::Ip, "2001:db8::7", Owner::Ip(ip("2001:db8::"))),
            (Scope::Ip, "::ffff:10.0.0.1", Owner::Ip(ip("10.0.0.1"))),
            (Scope::Ip, "a", Owner::Named("a".into())),
        ] {
            assert_eq!(Owner::of_key(&scope, key, 64), owner, "{scope:?} {key}");
        }
    }

    #[test]
    fn a_client_is_banned_however_its_name_is_written() {
        for (written, text) in [
            ("caller:alice", Some("caller:alice")),
            ("caller:a@b.c", Some("caller:a%40b.c")),
            ("caller:a%40b.c", Some("caller:a%40b.c")),
            ("ip:203.0.113.7", Some("ip:203.0.113.7")),
            ("203.0.113.7", Some("ip:203.0.113.7")),
            ("::ffff:203.0.113.7", Some("ip:203.0.113.7")),
            ("2001:db8::7", Some("ip:2001:db8::/64")),
            ("ip:2001:db8::/64", Some("ip:2001:db8::/64")),
            ("alice", None),
            ("caller:", None),
            ("tenant:acme", None),
            ("ip:", None),
            ("203.0.113.7/32", Some("ip:203.0.113.7")),
            ("203.0.113.0/24", None),
            ("2001:db8::/32", None),
            ("203.0.113.7/x", None),
        ] {
            assert_eq!(client_text(written, 64).as_deref(), text, "{written}");
        }
    }
}
