//! The address at the other end of the connection.

use std::net::{IpAddr, SocketAddr};

use crate::identity::view::RequestView;

/// The peer of a connection, for services without axum: put it into the request's extensions where
/// the connection is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddr(pub SocketAddr);

/// The peer's IP, from [`PeerAddr`] or, with the `axum` feature, from `ConnectInfo<SocketAddr>`.
///
/// IPv4 addresses that arrive on a dual-stack socket are given as IPv4.
#[must_use]
pub fn peer_ip(request: &RequestView<'_>) -> Option<IpAddr> {
    if let Some(PeerAddr(peer)) = request.extensions.get() {
        return Some(peer.ip().to_canonical());
    }
    #[cfg(feature = "axum")]
    if let Some(axum::extract::ConnectInfo(peer)) = request
        .extensions
        .get::<axum::extract::ConnectInfo<SocketAddr>>()
    {
        return Some(peer.ip().to_canonical());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_the_ipv4_address_it_maps() {
        let mut request = http::Request::new(());
        let peer: SocketAddr = "[::ffff:10.1.2.3]:80".parse().unwrap();
        request.extensions_mut().insert(PeerAddr(peer));
        let ip = peer_ip(&RequestView::of(&request)).unwrap();
        assert_eq!(ip, "10.1.2.3".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn without_a_peer_there_is_none() {
        assert_eq!(peer_ip(&RequestView::of(&http::Request::new(()))), None);
    }
}
