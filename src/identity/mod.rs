//! Who is calling: the connection's peer, the address behind trusted proxies, the signed-in caller.

mod api_key;
mod authority;
mod caller;
mod forwarded;
mod mask;
mod network;
mod peer;
mod proxies;
mod view;

pub use api_key::{ApiKey, ApiKeyResolver};
pub(crate) use authority::authority;
pub use caller::{
    Caller, CallerResolver, TIER_ADMIN, TIER_ANONYMOUS, TIER_BASIC, TIER_ENTERPRISE, TIER_FREE,
    TIER_PREMIUM, TIER_PRO,
};
pub use forwarded::ProxyHeader;
pub use mask::masked;
pub(crate) use network::parse_network;
pub use peer::{PeerAddr, peer_ip};
pub use proxies::TrustedProxies;
pub use view::{RequestView, ResponseView};
