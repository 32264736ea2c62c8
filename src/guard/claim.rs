//! What a request may claim where not everybody can be served: how important it is, and whose it is.

use std::fmt;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use foldhash::fast::RandomState;
use http::HeaderName;
use ipnet::IpNet;

use crate::guard::criticality::Criticality;
use crate::identity::{CallerResolver, RequestView, TrustedProxies, masked, peer_ip};

/// How important something is, and on whose behalf it comes.
///
/// ```
/// # use tower_keep::guard::{Claim, Criticality};
/// let claim = Claim::new(Criticality::Sheddable).tenant("acme");
/// # let _ = claim;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    criticality: Criticality,
    tenant: u64,
}

impl Claim {
    /// Of this class, on nobody's behalf.
    #[must_use]
    pub const fn new(criticality: Criticality) -> Self {
        Self {
            criticality,
            tenant: 0,
        }
    }

    /// On behalf of `tenant`: in the queue, tenants take turns. Names are only told apart, not kept.
    #[must_use]
    pub fn tenant(self, tenant: &str) -> Self {
        self.on_behalf_of(keyed(Party::Name(tenant)))
    }

    const fn on_behalf_of(self, tenant: u64) -> Self {
        Self { tenant, ..self }
    }

    /// How important it is.
    #[must_use]
    pub const fn criticality(&self) -> Criticality {
        self.criticality
    }

    pub(crate) const fn tenant_key(&self) -> u64 {
        self.tenant
    }

    /// Whether it is served even when memory is critical.
    pub(crate) fn is_critical(&self) -> bool {
        self.criticality >= Criticality::Critical
    }
}

impl From<Criticality> for Claim {
    fn from(criticality: Criticality) -> Self {
        Self::new(criticality)
    }
}

type Judge = dyn Fn(&RequestView<'_>) -> Option<Criticality> + Send + Sync;

/// Reads the claims of requests. Asked only where not everybody can be served.
///
/// The class of a request is what its field says, where its client is a trusted peer; else what the closure
/// says; else what the rule of its route says; else [`Criticality::SheddablePlus`]. It comes on behalf of its
/// caller's tenant, or of its caller, or of its client's address.
#[derive(Clone, Default)]
pub struct Claims {
    field: Option<HeaderName>,
    trusted: Vec<IpNet>,
    judge: Option<Arc<Judge>>,
    callers: CallerResolver,
    proxies: Option<TrustedProxies>,
}

impl Claims {
    /// Nothing is known of requests but their routes and their peers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says how important a request is. Runs on its thread and must not block; `None` leaves it to its route.
    #[must_use]
    pub fn judge(
        mut self,
        judge: impl Fn(&RequestView<'_>) -> Option<Criticality> + Send + Sync + 'static,
    ) -> Self {
        self.judge = Some(Arc::new(judge));
        self
    }

    /// Says who is calling, and for which tenant.
    #[must_use]
    pub fn callers(mut self, callers: CallerResolver) -> Self {
        self.callers = callers;
        self
    }

    /// Whom to believe about the client's address; without it, the peer is the client.
    #[must_use]
    pub fn proxies(mut self, proxies: TrustedProxies) -> Self {
        self.proxies = Some(proxies);
        self
    }

    /// Believes the field `field` of those who come from one of these networks, whichever proxies are between.
    #[must_use]
    pub(crate) fn trusting(mut self, field: Option<HeaderName>, networks: Vec<IpNet>) -> Self {
        (self.field, self.trusted) = (field, networks);
        self
    }

    /// The same trust as `other` has.
    #[must_use]
    pub(crate) fn trusting_as(self, other: &Self) -> Self {
        self.trusting(other.field.clone(), other.trusted.clone())
    }

    /// The claim of a request whose route's rule says `of_route`.
    pub(crate) fn of(&self, request: &RequestView<'_>, of_route: Option<Criticality>) -> Claim {
        let said = || self.judge.as_ref().and_then(|judge| judge(request));
        let criticality = self.said(request).or_else(said).or(of_route);
        Claim::new(criticality.unwrap_or_default()).on_behalf_of(self.party(request))
    }

    /// What the request says of itself, if it may: of two values, either could be somebody else's.
    fn said(&self, request: &RequestView<'_>) -> Option<Criticality> {
        let mut said = request.headers.get_all(self.field.as_ref()?).iter();
        let (Some(said), None) = (said.next(), said.next()) else {
            return None;
        };
        let client = self.client(request)?;
        let trusted = self.trusted.iter().any(|network| network.contains(&client));
        trusted.then(|| Criticality::named(said.to_str().ok()?))?
    }

    /// Where it comes from, as far as that is known. A proxy speaks for those behind it and not for itself.
    fn client(&self, request: &RequestView<'_>) -> Option<IpAddr> {
        let peer = peer_ip(request)?;
        let proxies = self.proxies.as_ref();
        Some(proxies.map_or(peer, |proxies| proxies.client_ip(peer, request.headers)))
    }

    fn party(&self, request: &RequestView<'_>) -> u64 {
        if let Some(caller) = self.callers.caller(request) {
            let name = caller.tenant.as_deref().unwrap_or(&caller.id);
            return keyed(Party::Name(name));
        }
        // A client with IPv6 has a whole network to choose its addresses from.
        let party = |client| keyed(Party::Address(masked(client, 64)));
        self.client(request).map_or(0, party)
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims")
            .field("field", &self.field)
            .field("trusted", &self.trusted)
            .field("judged", &self.judge.is_some())
            .finish_non_exhaustive()
    }
}

#[derive(Hash)]
enum Party<'a> {
    Name(&'a str),
    Address(IpAddr),
}

/// A number for somebody, never 0, which is nobody's. Keyed by chance, so that nobody can choose a name that
/// shares another's lane.
fn keyed(party: Party<'_>) -> u64 {
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);
    HASHER.hash_one(party).max(1)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use http::Request;

    use super::*;
    use crate::error::Faults;
    use crate::identity::{Caller, PeerAddr, ProxyHeader};

    fn request(peer: &str, class: Option<&str>) -> Request<()> {
        let mut request = Request::new(());
        let peer: IpAddr = peer.parse().unwrap();
        request
            .extensions_mut()
            .insert(PeerAddr(SocketAddr::new(peer, 1)));
        if let Some(class) = class {
            let field = request.headers_mut();
            field.insert("x-criticality", class.parse().unwrap());
        }
        request
    }

    fn claims() -> Claims {
        let field = HeaderName::from_static("x-criticality");
        Claims::new().trusting(Some(field), vec!["10.0.0.0/8".parse().unwrap()])
    }

    #[test]
    fn only_trusted_peers_may_say_how_important_they_are() {
        for (peer, said, class) in [
            ("10.1.2.3", Some("critical-plus"), Criticality::CriticalPlus),
            ("10.1.2.3", Some("nonsense"), Criticality::SheddablePlus),
            ("10.1.2.3", None, Criticality::SheddablePlus),
            ("203.0.113.7", Some("critical"), Criticality::SheddablePlus),
        ] {
            let request = request(peer, said);
            let claim = claims().of(&RequestView::of(&request), None);
            assert_eq!(claim.criticality(), class, "{peer} {said:?}");
        }
    }

    #[test]
    fn a_trusted_proxy_does_not_make_strangers_trusted() {
        let networks = ["10.9.0.0/16".to_owned()];
        let header = ProxyHeader::XForwardedFor;
        let proxies =
            TrustedProxies::from_config("limits", &networks, None, header, &mut Faults::new());
        let claims = claims().proxies(proxies);
        for (peer, forwarded, class) in [
            ("10.9.0.1", Some("203.0.113.7"), Criticality::SheddablePlus),
            ("10.9.0.1", Some("10.1.2.3"), Criticality::Critical),
            ("10.9.0.1", None, Criticality::Critical),
            ("10.1.2.3", Some("203.0.113.7"), Criticality::Critical),
            ("203.0.113.7", Some("10.1.2.3"), Criticality::SheddablePlus),
        ] {
            let mut request = request(peer, Some("critical"));
            if let Some(client) = forwarded {
                let field = request.headers_mut();
                field.insert("x-forwarded-for", client.parse().unwrap());
            }
            let claim = claims.of(&RequestView::of(&request), None);
            assert_eq!(claim.criticality(), class, "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn a_field_with_two_values_says_nothing() {
        let mut request = request("10.1.2.3", Some("sheddable"));
        let field = request.headers_mut();
        field.append("x-criticality", "critical-plus".parse().unwrap());
        let claim = claims().of(&RequestView::of(&request), None);
        assert_eq!(claim.criticality(), Criticality::SheddablePlus);
    }

    #[test]
    fn the_field_comes_before_the_closure_and_that_before_the_route() {
        let claims = claims().judge(|view| {
            view.headers
                .contains_key("x-job")
                .then_some(Criticality::Sheddable)
        });
        let route = Some(Criticality::CriticalPlus);
        let mut request = request("10.0.0.1", Some("critical"));
        request.headers_mut().insert("x-job", "1".parse().unwrap());
        let class =
            |request: &Request<()>| claims.of(&RequestView::of(request), route).criticality();
        assert_eq!(class(&request), Criticality::Critical);
        request.headers_mut().remove("x-criticality");
        assert_eq!(class(&request), Criticality::Sheddable);
        request.headers_mut().remove("x-job");
        assert_eq!(class(&request), Criticality::CriticalPlus);
    }

    #[test]
    fn a_tenant_comes_before_its_callers_and_a_caller_before_its_address() {
        let claims = Claims::new();
        let key = |request: &Request<()>| claims.of(&RequestView::of(request), None).tenant_key();
        let (mut here, mut there) = (request("10.0.0.1", None), request("10.0.0.2", None));
        assert_ne!(key(&here), key(&there));
        assert_eq!(key(&here), key(&request("10.0.0.1", None)));
        here.extensions_mut()
            .insert(Caller::new("ada").tenant("acme"));
        there
            .extensions_mut()
            .insert(Caller::new("eve").tenant("acme"));
        assert_eq!(key(&here), key(&there));
        assert_eq!(key(&here), Claim::default().tenant("acme").tenant_key());
        there.extensions_mut().insert(Caller::new("eve"));
        assert_ne!(key(&here), key(&there));
        assert_eq!(key(&Request::new(())), 0);
    }
}
