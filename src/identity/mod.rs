//! Who is calling: the connection's peer, the address behind trusted proxies, the signed-in caller.

mod caller;
mod forwarded;
mod mask;
mod peer;
mod proxies;
mod view;

pub use caller::{Caller, CallerResolver, TIER_ANONYMOUS, TIER_BASIC};
pub use forwarded::ProxyHeader;
pub use mask::masked;
pub use peer::{PeerAddr, peer_ip};
pub use proxies::TrustedProxies;
pub use view::RequestView;
