//! Those who are never limited, and those who are never let in.

use std::net::IpAddr;

use foldhash::{HashSet, HashSetExt};
use ipnet::IpNet;

use crate::error::Faults;
use crate::identity::{TIER_ADMIN, parse_network};
use crate::rate_limit::digest::{Digest, digest, parse_hex};
use crate::rate_limit::escape::unescaped;
use crate::rate_limit::owner::WRITTEN_BYTES_MAX;
use crate::rate_limit::subject::Subject;

/// What the lists say of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    /// Nothing: the rules decide.
    Neither,
    /// It passes and is counted by none.
    Allowed,
    /// It does not pass, whatever the rules would say.
    Denied,
}

/// Both lists, ready to be looked at.
#[derive(Debug)]
pub(crate) struct Lists {
    allow: List,
    deny: List,
    admin_bypass: bool,
    /// Whether anybody could be on them at all.
    empty: bool,
}

/// The members of one list, by what it takes to know them.
#[derive(Debug)]
struct List {
    nets: Vec<IpNet>,
    callers: Names,
    tenants: Names,
    keys: HashSet<Digest>,
}

#[derive(Debug)]
struct Names {
    written: HashSet<Box<str>>,
    /// Those too long to be written out, which is how a text tells them.
    digests: HashSet<Digest>,
}

/// One member, as settings write it.
#[derive(Debug, PartialEq)]
enum Entry {
    Net(IpNet),
    Caller(Name),
    Tenant(Name),
    Key(Digest),
}

#[derive(Debug, PartialEq)]
enum Name {
    Written(Box<str>),
    Long(Digest),
}

impl Lists {
    /// The lists of a configuration. Notes entries that are none, and those of `allow` that never would
    /// have an effect.
    pub(crate) fn from_config(
        room: &str,
        allow: &[String],
        deny: &[String],
        admin_bypass: bool,
        faults: &mut Faults,
    ) -> Self {
        let allowed = parse_all(&format!("{room}.allow"), allow, faults);
        let denied = parse_all(&format!("{room}.deny"), deny, faults);
        for (at, entry) in &allowed {
            let wins = |(_, other): &&(usize, Entry)| covers(other, entry);
            if let Some((other, _)) = denied.iter().find(wins) {
                let why = format!("is denied by {room}.deny[{other}] as well, which wins");
                let shown = allow.get(*at).map_or("", String::as_str);
                faults.add(format!("{room}.allow[{at}]"), shown, why);
            }
        }
        Self {
            empty: allowed.is_empty() && denied.is_empty() && !admin_bypass,
            allow: List::of(allowed),
            deny: List::of(denied),
            admin_bypass,
        }
    }

    /// What they say of a request. Asks for nothing that no entry needs.
    pub(crate) fn judge(&self, subject: &Subject<'_>) -> Listed {
        if self.empty {
            Listed::Neither
        } else if self.deny.holds(subject) {
            Listed::Denied
        } else if self.allow.holds(subject) || (self.admin_bypass && subject.tier() == TIER_ADMIN) {
            Listed::Allowed
        } else {
            Listed::Neither
        }
    }
}

impl List {
    fn of(entries: Vec<(usize, Entry)>) -> Self {
        let mut list = Self {
            nets: Vec::new(),
            callers: Names::new(),
            tenants: Names::new(),
            keys: HashSet::new(),
        };
        for (_, entry) in entries {
            match entry {
                Entry::Net(net) => list.nets.push(net),
                Entry::Caller(name) => list.callers.insert(name),
                Entry::Tenant(name) => list.tenants.insert(name),
                Entry::Key(key) => {
                    list.keys.insert(key);
                }
            }
        }
        list
    }

    fn holds(&self, subject: &Subject<'_>) -> bool {
        let address = |ip: IpAddr| self.nets.iter().any(|net| net.contains(&ip));
        (!self.nets.is_empty() && subject.client_ip().is_some_and(address))
            || (!self.callers.is_empty()
                && subject.caller().is_some_and(|by| self.callers.hold(&by.id)))
            || (!self.tenants.is_empty()
                && subject
                    .caller()
                    .and_then(|caller| caller.tenant.as_deref())
                    .is_some_and(|tenant| self.tenants.hold(tenant)))
            || (!self.keys.is_empty()
                && subject
                    .api_key()
                    .is_some_and(|key| self.keys.contains(&digest(key))))
    }
}

impl Names {
    fn new() -> Self {
        Self {
            written: HashSet::new(),
            digests: HashSet::new(),
        }
    }

    fn insert(&mut self, name: Name) {
        match name {
            Name::Written(name) => self.written.insert(name),
            Name::Long(digest) => self.digests.insert(digest),
        };
    }

    fn is_empty(&self) -> bool {
        self.written.is_empty() && self.digests.is_empty()
    }

    fn hold(&self, name: &str) -> bool {
        self.written.contains(name)
            || (name.len() > WRITTEN_BYTES_MAX
                && !self.digests.is_empty()
                && self.digests.contains(&digest(name)))
    }
}

/// The entries that are any, each with its place.
fn parse_all(field: &str, texts: &[String], faults: &mut Faults) -> Vec<(usize, Entry)> {
    let mut entries = Vec::with_capacity(texts.len());
    for (at, text) in texts.iter().enumerate() {
        match parse(text) {
            Ok(entry) => entries.push((at, entry)),
            Err(allowed) => {
                // Somebody may have written the key itself.
                let shown = if text.starts_with("key:") {
                    "key:(hidden)"
                } else {
                    text
                };
                faults.add(format!("{field}[{at}]"), shown, allowed);
            }
        }
    }
    entries
}

fn parse(text: &str) -> Result<Entry, &'static str> {
    if let Some(name) = text.strip_prefix("caller:") {
        parse_name(name).map(Entry::Caller)
    } else if let Some(name) = text.strip_prefix("tenant:") {
        parse_name(name).map(Entry::Tenant)
    } else if let Some(key) = text.strip_prefix("key:") {
        let wrong = "must be the first 32 hexadecimal digits of the key's SHA-256, which is how keys \
                     are told: never the key itself";
        parse_hex(key).map(Entry::Key).ok_or(wrong)
    } else {
        let wrong = "must be an address, a network like 10.0.0.0/8, or caller:NAME, tenant:NAME, \
                     key:DIGEST";
        match parse_network(text) {
            Ok(net) => Ok(Entry::Net(net)),
            // Whoever wrote slashes and digits wants to know what is wrong with those.
            Err(allowed) if text.parse::<IpNet>().is_ok() => Err(allowed),
            Err(_) => Err(wrong),
        }
    }
}

/// A name as it is, or as a text tells it: escaped, or by its digest.
fn parse_name(text: &str) -> Result<Name, &'static str> {
    if let Some(hex) = text.strip_prefix('#') {
        let wrong = "must have 32 hexadecimal digits behind the #; a # of the name itself is %23";
        return parse_hex(hex).map(Name::Long).ok_or(wrong);
    }
    match unescaped(text) {
        Some(name) if name.is_empty() => Err("must have a name behind the colon"),
        Some(name) if name.len() > WRITTEN_BYTES_MAX => Ok(Name::Long(digest(&name))),
        Some(name) => Ok(Name::Written(name.into())),
        None => Err("must be text where it is not escaped; a % of the name itself is %25"),
    }
}

/// Whether everybody who is meant by `inner` is meant by `outer` too.
fn covers(outer: &Entry, inner: &Entry) -> bool {
    match (outer, inner) {
        (Entry::Net(outer), Entry::Net(inner)) => outer.contains(inner),
        (outer, inner) => outer == inner,
    }
}
