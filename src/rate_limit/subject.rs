//! Whom a request is counted against: found out at most once, and only as far as rules ask.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;

use crate::identity::{
    ApiKeyResolver, Caller, CallerResolver, RequestView, TIER_ANONYMOUS, TrustedProxies, masked,
    peer_ip,
};
use crate::rate_limit::fingerprint::fingerprint;
use crate::rate_limit::owner::Owner;
use crate::rate_limit::scope::Scope;

/// How clients are told apart by their addresses.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) proxies: TrustedProxies,
    pub(crate) ipv6_prefix: u8,
}

/// Whom the application asks who a request comes from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resolvers {
    pub(crate) callers: CallerResolver,
    pub(crate) api_keys: ApiKeyResolver,
}

/// Where a request comes from.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Address {
    pub(crate) peer: IpAddr,
    /// The client's, whole.
    whole: IpAddr,
    /// The client's, masked.
    pub(crate) client: IpAddr,
}

impl Origin {
    /// Where a request comes from; `None` if nobody has told its peer.
    #[inline]
    pub(crate) fn address(&self, request: &RequestView<'_>) -> Option<Address> {
        let peer = peer_ip(request)?;
        let whole = self.proxies.client_ip(peer, request.headers);
        Some(Address {
            peer,
            whole,
            client: masked(whole, self.ipv6_prefix),
        })
    }
}

/// A request, and what has been found out about who sent it.
pub(crate) struct Subject<'a> {
    request: RequestView<'a>,
    resolvers: &'a Resolvers,
    origin: &'a Origin,
    caller: OnceCell<Option<Cow<'a, Caller>>>,
    api_key: OnceCell<Option<Cow<'a, str>>>,
    address: OnceCell<Option<Address>>,
    print: OnceCell<u8>,
}

impl<'a> Subject<'a> {
    pub(crate) const fn of(
        request: RequestView<'a>,
        resolvers: &'a Resolvers,
        origin: &'a Origin,
    ) -> Self {
        Self {
            request,
            resolvers,
            origin,
            caller: OnceCell::new(),
            api_key: OnceCell::new(),
            address: OnceCell::new(),
            print: OnceCell::new(),
        }
    }

    /// The tier of whoever has signed in, else `anonymous`.
    pub(crate) fn tier(&self) -> &str {
        self.caller().map_or(TIER_ANONYMOUS, |caller| &caller.tier)
    }

    /// Whom a rule of this scope counts the request against.
    pub(crate) fn owner(&self, scope: &Scope) -> Owner<'_> {
        let owner = match scope {
            Scope::Ip => None,
            Scope::Caller => self.caller().map(|caller| Owner::Caller(&caller.id)),
            Scope::Tenant => self.caller().map(|caller| match &caller.tenant {
                Some(tenant) => Owner::Tenant(tenant),
                None => Owner::Caller(&caller.id),
            }),
            Scope::ApiKey => self.api_key().map(Owner::Key),
            Scope::Fingerprint => self
                .address()
                .map(|address| Owner::Print(address.client, self.print(address.client))),
            Scope::Global => Some(Owner::Everybody),
            Scope::Custom(custom) => custom.name(&self.request).map(Owner::Named),
        };
        owner.unwrap_or_else(|| match self.address() {
            Some(address) => Owner::Ip(address.client),
            None => Owner::Unknown,
        })
    }

    /// Where the request comes from as far as it is known, if that was asked for.
    pub(crate) fn asked_address(&self) -> Option<&Option<Address>> {
        self.address.get()
    }

    /// The client's address, whole.
    pub(crate) fn client_ip(&self) -> Option<IpAddr> {
        self.address().map(|address| address.whole)
    }

    /// Whoever has signed in.
    pub(crate) fn caller(&self) -> Option<&Caller> {
        self.caller
            .get_or_init(|| self.resolvers.callers.caller(&self.request))
            .as_deref()
    }

    /// The key that the request was let in with.
    pub(crate) fn api_key(&self) -> Option<&str> {
        self.api_key
            .get_or_init(|| self.resolvers.api_keys.api_key(&self.request))
            .as_deref()
    }

    /// Where the request comes from.
    fn address(&self) -> Option<Address> {
        *(self.address).get_or_init(|| self.origin.address(&self.request))
    }

    fn print(&self, client: IpAddr) -> u8 {
        *self
            .print
            .get_or_init(|| fingerprint(client, self.request.headers))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use http::Request;

    use super::*;
    use crate::error::Faults;
    use crate::identity::{ApiKey, PeerAddr, ProxyHeader};

    fn from(peer: &str) -> Request<()> {
        let mut request = Request::new(());
        let peer = SocketAddr::new(peer.parse().unwrap(), 1234);
        request.extensions_mut().insert(PeerAddr(peer));
        request
    }

    fn origin() -> Origin {
        let networks = ["10.0.0.0/8".to_owned()];
        let header = ProxyHeader::XForwardedFor;
        let proxies = TrustedProxies::from_config("r", &networks, None, header, &mut Faults::new());
        Origin {
            proxies,
            ipv6_prefix: 64,
        }
    }

    /// What the owner of a request is called, by scope.
    fn owner(request: &Request<()>, scope: &Scope) -> String {
        let (origin, resolvers) = (origin(), Resolvers::default());
        let subject = Subject::of(RequestView::of(request), &resolvers, &origin);
        subject.owner(scope).text(64).to_string()
    }

    #[test]
    fn every_scope_finds_its_owner_or_the_address() {
        let mut request = from("10.0.0.1");
        let headers = request.headers_mut();
        headers.insert("x-forwarded-for", "1.1.1.1, 2001:db8::7".parse().unwrap());
        headers.insert("x-api-key", "made up".parse().unwrap());
        let custom = Scope::custom(|request| {
            let name = request.headers.get("x-device")?;
            name.to_str().ok().map(Cow::Borrowed)
        });
        let scopes = [
            Scope::Ip,
            Scope::Caller,
            Scope::Tenant,
            Scope::ApiKey,
            custom,
        ];
        for scope in &scopes {
            assert_eq!(owner(&request, scope), "ip:2001:db8::/64", "{scope:?}");
        }
        assert_eq!(owner(&request, &Scope::Global), "all");
        let print = owner(&request, &Scope::Fingerprint);
        assert!(print.starts_with("print:2001:db8::/64/"), "{print}");

        let extensions = request.extensions_mut();
        extensions.insert(Caller::new("alice"));
        extensions.insert(ApiKey::new("k-1"));
        request
            .headers_mut()
            .insert("x-device", "d-1".parse().unwrap());
        let named = scopes.each_ref().map(|scope| owner(&request, scope));
        assert_eq!(
            named[..3],
            ["ip:2001:db8::/64", "caller:alice", "caller:alice"]
        );
        assert!(named[3].starts_with("key:"), "{}", named[3]);
        assert_eq!(named[4], "name:d-1");
        request
            .extensions_mut()
            .insert(Caller::new("alice").tenant("acme"));
        assert_eq!(owner(&request, &Scope::Tenant), "tenant:acme");
    }

    #[test]
    fn without_an_address_all_are_unknown_whatever_they_say_of_themselves() {
        let mut request = Request::new(());
        let agent = "Firefox/140".parse().unwrap();
        request.headers_mut().insert("user-agent", agent);
        for scope in [Scope::Ip, Scope::Fingerprint, Scope::ApiKey, Scope::Caller] {
            assert_eq!(owner(&request, &scope), "unknown", "{scope:?}");
        }
    }

    #[test]
    fn whoever_is_asked_is_asked_once_and_only_if_need_be() {
        let asked = [(); 2].map(|()| Arc::new(AtomicU32::new(0)));
        let [callers, keys] = asked.each_ref().map(Arc::clone);
        let resolvers = Resolvers {
            callers: CallerResolver::new(move |_| {
                callers.fetch_add(1, Ordering::SeqCst);
                Some(Caller::new("alice").tier("pro"))
            }),
            api_keys: ApiKeyResolver::new(move |_| {
                keys.fetch_add(1, Ordering::SeqCst);
                None
            }),
        };
        let times = || asked.each_ref().map(|asked| asked.load(Ordering::SeqCst));
        let (origin, request) = (origin(), from("203.0.113.7"));
        let subject = Subject::of(RequestView::of(&request), &resolvers, &origin);
        assert_eq!(subject.owner(&Scope::Global), Owner::Everybody);
        assert!(subject.asked_address().is_none());
        let _ = subject.owner(&Scope::Ip);
        assert_eq!(times(), [0, 0]);
        let known = subject.asked_address().unwrap().unwrap();
        assert_eq!(Some(known.peer), subject.client_ip());
        for _ in 0..2 {
            let _ = (subject.owner(&Scope::Caller), subject.tier());
            let _ = (subject.owner(&Scope::Tenant), subject.caller());
        }
        assert_eq!(times(), [1, 0]);
        for _ in 0..2 {
            assert_eq!(subject.owner(&Scope::ApiKey), subject.owner(&Scope::Ip));
        }
        assert_eq!(times(), [1, 1]);
        assert_eq!(subject.tier(), "pro");
    }
}
