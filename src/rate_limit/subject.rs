//! Whom a request is counted against: found out at most once, and only as far as rules ask.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::hash::Hasher;
use std::net::IpAddr;

use crate::identity::{
    Caller, CallerResolver, RequestView, TIER_ANONYMOUS, TrustedProxies, masked, peer_ip,
};
use crate::rate_limit::compiled::CompiledRule;
use crate::rate_limit::scope::Scope;

/// How clients are told apart by their addresses.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) proxies: TrustedProxies,
    pub(crate) ipv6_prefix: u8,
}

/// Whose bucket it is.
#[derive(Debug, PartialEq)]
pub(crate) enum Owner<'a> {
    /// The client at this address, masked.
    Ip(IpAddr),
    /// All those whose address is not known.
    Unknown,
    Caller(&'a str),
    Tenant(&'a str),
    Everybody,
    Named(Cow<'a, str>),
}

/// A request, and what has been found out about who sent it.
pub(crate) struct Subject<'a> {
    request: RequestView<'a>,
    callers: &'a CallerResolver,
    origin: &'a Origin,
    caller: OnceCell<Option<Cow<'a, Caller>>>,
    peer: OnceCell<Option<IpAddr>>,
    ip: OnceCell<Option<IpAddr>>,
}

impl<'a> Subject<'a> {
    pub(crate) const fn of(
        request: RequestView<'a>,
        callers: &'a CallerResolver,
        origin: &'a Origin,
    ) -> Self {
        Self {
            request,
            callers,
            origin,
            caller: OnceCell::new(),
            peer: OnceCell::new(),
            ip: OnceCell::new(),
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
            Scope::Global => Some(Owner::Everybody),
            Scope::Custom(custom) => custom.name(&self.request).map(Owner::Named),
        };
        owner.unwrap_or_else(|| self.client_ip().map_or(Owner::Unknown, Owner::Ip))
    }

    /// Whether the peer's address was asked for and is not known.
    pub(crate) fn lacks_peer(&self) -> bool {
        self.peer.get() == Some(&None)
    }

    /// The peer's address if it was asked for and is known.
    pub(crate) fn asked_peer(&self) -> Option<IpAddr> {
        self.peer.get().copied().flatten()
    }

    fn caller(&self) -> Option<&Caller> {
        self.caller
            .get_or_init(|| self.callers.caller(&self.request))
            .as_deref()
    }

    fn client_ip(&self) -> Option<IpAddr> {
        *self.ip.get_or_init(|| {
            let peer = *self.peer.get_or_init(|| peer_ip(&self.request));
            let client = self.origin.proxies.client_ip(peer?, self.request.headers);
            Some(masked(client, self.origin.ipv6_prefix))
        })
    }
}

impl Owner<'_> {
    /// The bucket of this owner with a rule; `tier` is the number of the rule's quota for it.
    ///
    /// A caller or tenant has one bucket whatever its tier, so that a change of plans is no fresh
    /// start. An address may have people of several plans behind it, who must not be charged for
    /// each other's quota: there each has its own.
    pub(crate) fn key(&self, rule: &CompiledRule, tier: u32, mut hasher: impl Hasher) -> u64 {
        let (kind, tier) = match self {
            Self::Ip(_) => (1, tier),
            Self::Unknown => (2, tier),
            Self::Caller(_) => (3, 0),
            Self::Tenant(_) => (4, 0),
            Self::Everybody => (5, tier),
            Self::Named(_) => (6, tier),
        };
        hasher.write_u64(u64::from(rule.number) << 32 | u64::from(tier));
        hasher.write_u8(kind);
        match self {
            Self::Ip(IpAddr::V4(ip)) => hasher.write_u32(ip.to_bits()),
            Self::Ip(IpAddr::V6(ip)) => hasher.write_u128(ip.to_bits()),
            Self::Unknown | Self::Everybody => {}
            Self::Caller(name) | Self::Tenant(name) => hasher.write(name.as_bytes()),
            Self::Named(name) => hasher.write(name.as_bytes()),
        }
        hasher.finish()
    }
}
