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

    /// Whether they never say anything.
    pub(crate) const fn are_empty(&self) -> bool {
        self.empty
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use http::Request;

    use super::*;
    use crate::identity::{ApiKey, Caller, PeerAddr, RequestView, TrustedProxies};
    use crate::rate_limit::owner::Owner;
    use crate::rate_limit::subject::{Origin, Resolvers};

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    fn lists(allow: &[&str], deny: &[&str]) -> Lists {
        let mut faults = Faults::new();
        let lists = Lists::from_config("r", &owned(allow), &owned(deny), false, &mut faults);
        faults.into_result().unwrap();
        lists
    }

    fn faults(allow: &[&str], deny: &[&str]) -> Vec<(String, String)> {
        let mut faults = Faults::new();
        let _ = Lists::from_config("r", &owned(allow), &owned(deny), false, &mut faults);
        let error = faults.into_result().err();
        let found = error.iter().flat_map(|error| error.faults());
        found
            .map(|fault| (fault.field.clone(), fault.value.clone()))
            .collect()
    }

    fn judge(lists: &Lists, request: &Request<()>) -> Listed {
        let resolvers = Resolvers::default();
        let origin = Origin {
            proxies: TrustedProxies::nobody(),
            ipv6_prefix: 64,
        };
        lists.judge(&Subject::of(RequestView::of(request), &resolvers, &origin))
    }

    fn from(peer: &str) -> Request<()> {
        let mut request = Request::new(());
        let peer = SocketAddr::new(peer.parse().unwrap(), 1234);
        request.extensions_mut().insert(PeerAddr(peer));
        request
    }

    fn by<T: Clone + Send + Sync + 'static>(whom: T) -> Request<()> {
        let mut request = from("203.0.113.7");
        request.extensions_mut().insert(whom);
        request
    }

    #[test]
    fn an_entry_names_those_it_means_and_nobody_else() {
        let long = "n".repeat(70);
        let told = |owner: Owner<'_>| owner.text(64).to_string();
        let (long_told, key) = (told(Owner::Caller(&long)), told(Owner::Key("k-1")));
        for (entry, meant, others) in [
            (
                "203.0.113.0/24",
                from("203.0.113.7"),
                [from("203.0.112.7"), Request::new(())],
            ),
            (
                "203.0.113.7",
                from("::ffff:203.0.113.7"),
                [from("203.0.113.8"), from("2001:db8::7")],
            ),
            // Buckets go by the /64, but an address may be meant alone.
            (
                "2001:db8::7",
                from("2001:db8::7"),
                [from("2001:db8::8"), from("203.0.113.7")],
            ),
            (
                "caller:alice@a.test",
                by(Caller::new("alice@a.test")),
                [by(Caller::new("alice")), from("203.0.113.7")],
            ),
            (
                "caller:alice%40a.test",
                by(Caller::new("alice@a.test")),
                [by(Caller::new("alice%40a.test")), from("203.0.113.7")],
            ),
            (
                &long_told,
                by(Caller::new(&*long)),
                [by(Caller::new(&long[1..])), from("203.0.113.7")],
            ),
            (
                &format!("caller:{long}"),
                by(Caller::new(&*long)),
                [by(Caller::new(&long[1..])), from("203.0.113.7")],
            ),
            (
                "tenant:acme",
                by(Caller::new("a").tenant("acme")),
                [by(Caller::new("acme")), by(Caller::new("a").tenant("b"))],
            ),
            (
                &key,
                by(ApiKey::new("k-1")),
                [by(ApiKey::new("k-2")), from("203.0.113.7")],
            ),
        ] {
            let (allow, deny) = (lists(&[entry], &[]), lists(&[], &[entry]));
            assert_eq!(judge(&allow, &meant), Listed::Allowed, "{entry}");
            assert_eq!(judge(&deny, &meant), Listed::Denied, "{entry}");
            for other in others {
                assert_eq!(judge(&allow, &other), Listed::Neither, "{entry}");
                assert_eq!(judge(&deny, &other), Listed::Neither, "{entry}");
            }
        }
    }

    #[test]
    fn deny_wins_over_allow_and_over_the_bypass() {
        let lists = lists(&["caller:a", "203.0.113.7"], &["tenant:acme"]);
        assert_eq!(judge(&lists, &by(Caller::new("a"))), Listed::Allowed);
        let denied = by(Caller::new("a").tenant("acme"));
        assert_eq!(judge(&lists, &denied), Listed::Denied);
        let deny = owned(&["caller:b"]);
        let bypass = Lists::from_config("r", &[], &deny, true, &mut Faults::new());
        let admin = |id: &str| by(Caller::new(id).tier("admin"));
        assert_eq!(judge(&bypass, &admin("a")), Listed::Allowed);
        assert_eq!(judge(&bypass, &admin("b")), Listed::Denied);
        assert_eq!(judge(&bypass, &by(Caller::new("a"))), Listed::Neither);
        assert_eq!(judge(&bypass, &from("203.0.113.7")), Listed::Neither);
    }

    #[test]
    fn empty_lists_ask_for_nothing() {
        let lists = lists(&[], &[]);
        let resolvers = Resolvers {
            callers: crate::identity::CallerResolver::new(|_| panic!("asked")),
            ..Resolvers::default()
        };
        let origin = Origin {
            proxies: TrustedProxies::nobody(),
            ipv6_prefix: 64,
        };
        let request = Request::new(());
        let subject = Subject::of(RequestView::of(&request), &resolvers, &origin);
        assert_eq!(lists.judge(&subject), Listed::Neither);
        assert!(subject.asked_address().is_none());
    }

    #[test]
    fn what_means_nobody_or_everybody_is_a_fault_and_no_key_is_shown() {
        for entry in [
            "",
            "0.0.0.0/0",
            "::/0",
            "10.0.0.0/7",
            "10.0.0.0/33",
            "::ffff:10.0.0.1",
            "alice",
            "caller:",
            "tenant:",
            "user:alice",
            "caller:#12",
            "caller:%ff",
        ] {
            let found = |list: &str| vec![(format!("r.{list}[0]"), entry.to_owned())];
            assert_eq!(faults(&[entry], &[]), found("allow"));
            assert_eq!(faults(&[], &[entry]), found("deny"));
        }
        let hidden = ("r.deny[0]".to_owned(), "key:(hidden)".to_owned());
        assert_eq!(faults(&[], &["key:sk_live_1"]), [hidden]);
    }

    #[test]
    fn who_is_on_both_lists_is_a_fault() {
        let key = &*Owner::Key("k").text(64);
        for (allow, deny) in [
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.0/8"),
            ("10.1.0.0/16", "10.0.0.0/8"),
            ("caller:a%40b", "caller:a@b"),
            ("tenant:a", "tenant:a"),
            (key, key),
        ] {
            let found = faults(&["203.0.113.7", allow], &["203.0.113.8", deny]);
            assert_eq!(found, [("r.allow[1]".to_owned(), allow.to_owned())]);
        }
        // A denied part of what is allowed has an effect, and so have different kinds.
        for (allow, deny) in [("10.0.0.0/8", "10.0.0.1"), ("caller:a", "tenant:a")] {
            assert_eq!(faults(&[allow], &[deny]), []);
        }
    }
}
