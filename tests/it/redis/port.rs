//! Ports that nobody listens on.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

const LOWEST: u16 = 11_000;
/// How many ports there are to choose from; the cluster's ports lie directly above them.
const SPAN: u16 = 10_000;

/// A port that was free a moment ago and that this process has not handed out lately.
///
/// Not the one that binding to port 0 gives: that comes from the range from which the system also
/// takes the near end of outgoing connections. While a server there is down, some client may sit on
/// its port, so that it cannot come back; a client that keeps knocking there may even be given that
/// very port and then be connected to itself. All ports here lie below the range (32768 and up on
/// Linux). The port 10,000 higher is free as well: a cluster's node talks to the others there.
pub(super) fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU32> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU32::new(somewhere()));
    let step = || next.fetch_add(1, Ordering::Relaxed) % u32::from(SPAN);
    (0..SPAN)
        .map(|_| LOWEST + u16::try_from(step()).expect("below SPAN"))
        .find(|&port| is_free(port) && is_free(port + SPAN))
        .expect("a free port")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Where to begin: elsewhere in each process, so that those that run together seldom meet.
fn somewhere() -> u32 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |age| age.subsec_micros()) ^ std::process::id()
}
