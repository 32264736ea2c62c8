//! Whose bucket it is: as a hash for the table, as a text for everything that people and Redis read.

use std::borrow::Cow;
use std::fmt::Write;
use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;

use crate::identity::masked;
use crate::rate_limit::compiled::{CompiledRule, Plan};
use crate::rate_limit::digest::{digest, write_hex};
use crate::rate_limit::escape::escaped;
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
    /// A caller, a tenant or a key has one bucket whatever its tier, so that a change of plans is no
    /// fresh start. An address may have people of several plans behind it, who must not be charged for
    /// each other's quota: there each has its own.
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
    pub(crate) fn bucket<'r>(&self, rule: &'r CompiledRule, plan: &'r Plan) -> &'r Arc<str> {
        &self.plan_of(rule, plan).bucket
    }

    /// The quota whose buckets the owner has.
    fn plan_of<'r>(&self, rule: &'r CompiledRule, plan: &'r Plan) -> &'r Plan {
        match self {
            Self::Caller(_) | Self::Tenant(_) | Self::Key(_) => &rule.base,
            Self::Ip(_) | Self::Unknown | Self::Print(..) | Self::Everybody | Self::Named(_) => {
                plan
            }
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
        match self {
            Self::Ip(ip) => write_ip(&mut text, "ip:", *ip, ipv6_prefix),
            Self::Print(ip, class) => {
                write_ip(&mut text, "print:", *ip, ipv6_prefix);
                // Cannot fail: it is written into memory.
                let _ = write!(text, "/{class:02x}");
            }
            Self::Unknown => text.push_str("unknown"),
            Self::Everybody => text.push_str("all"),
            Self::Caller(name) => write_name(&mut text, "caller:", name),
            Self::Tenant(name) => write_name(&mut text, "tenant:", name),
            Self::Named(name) => write_name(&mut text, "name:", name),
            Self::Key(key) => {
                text.push_str("key:");
                write_hex(&digest(key), &mut text);
            }
        }
        text.into()
    }
}

fn write_ip(text: &mut String, kind: &str, ip: IpAddr, ipv6_prefix: u8) {
    // Cannot fail: it is written into memory.
    let _ = write!(text, "{kind}{ip}");
    if ip.is_ipv6() && ipv6_prefix < 128 {
        let _ = write!(text, "/{ipv6_prefix}");
    }
}

fn write_name(text: &mut String, kind: &str, name: &str) {
    text.push_str(kind);
    if name.len() <= WRITTEN_BYTES_MAX {
        text.push_str(&escaped(name));
    } else {
        text.push('#');
        write_hex(&digest(name), text);
    }
}
