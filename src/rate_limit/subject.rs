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

#[derive(Clone, Copy, PartialEq)]
struct Address {
    peer: IpAddr,
    /// The client's, whole.
    whole: IpAddr,
    /// The client's, masked.
    client: IpAddr,
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

    /// Whether the peer's address was asked for and is not known.
    pub(crate) fn lacks_peer(&self) -> bool {
        matches!(self.address.get(), Some(None))
    }

    /// The peer's address if it was asked for and is known.
    pub(crate) fn asked_peer(&self) -> Option<IpAddr> {
        let asked = self.address.get().copied().flatten();
        asked.map(|address| address.peer)
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
        *self.address.get_or_init(|| {
            let peer = peer_ip(&self.request)?;
            let whole = self.origin.proxies.client_ip(peer, self.request.headers);
            Some(Address {
                peer,
                whole,
                client: masked(whole, self.origin.ipv6_prefix),
            })
        })
    }

    fn print(&self, client: IpAddr) -> u8 {
        *self
            .print
            .get_or_init(|| fingerprint(client, self.request.headers))
    }
}
