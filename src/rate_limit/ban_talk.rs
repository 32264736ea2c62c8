//! What instances say to each other of bans.

use std::time::Duration;

/// The channel, below the keys' prefix.
pub(crate) const CHANNEL: &str = "rl:bans";

/// What was said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    Ban { who: &'a str, lasts: Duration },
    Pardon { who: &'a str },
}

/// What is said of a ban.
pub(crate) fn ban_message(who: &str, lasts: Duration) -> String {
    format!("ban {} {who}", lasts.as_millis())
}

/// What is said of its end.
pub(crate) fn pardon_message(who: &str) -> String {
    format!("pardon {who}")
}

/// Understands either; nothing else, which may come from another version.
pub(crate) fn understand(said: &[u8]) -> Option<Said<'_>> {
    let said = std::str::from_utf8(said).ok()?;
    if let Some(who) = said.strip_prefix("pardon ") {
        return Some(Said::Pardon { who });
    }
    let (millis, who) = said.strip_prefix("ban ")?.split_once(' ')?;
    let lasts = Duration::from_millis(millis.parse().ok()?);
    Some(Said::Ban { who, lasts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood_and_nothing_else() {
        let lasts = Duration::from_secs(90);
        for (who, said) in [
            ("caller:alice", ban_message("caller:alice", lasts)),
            ("ip:2001:db8::/64", ban_message("ip:2001:db8::/64", lasts)),
        ] {
            assert_eq!(understand(said.as_bytes()), Some(Said::Ban { who, lasts }));
        }
        let pardon = pardon_message("ip:203.0.113.7");
        let who = "ip:203.0.113.7";
        assert_eq!(understand(pardon.as_bytes()), Some(Said::Pardon { who }));
        for other in [
            &b""[..],
            b"ban",
            b"ban 5",
            b"ban x alice",
            b"BAN 5 alice",
            b"\xff",
        ] {
            assert_eq!(understand(other), None);
        }
    }
}
