//! Who is calling: the connection's peer, the address behind trusted proxies, the signed-in caller.

mod peer;
mod view;

pub use peer::{PeerAddr, peer_ip};
pub use view::RequestView;
