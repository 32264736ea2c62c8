//! What instances say to each other of bans.

use std::time::Duration;

/// The channel, below the keys' prefix.
pub(crate) const CHANNEL: &str = "rl:bans";

/// What was said, and by whom: an instance hears its own words as well, and late. A pardon of its own must not
/// end the ban that it has spoken since.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Heard<'a> {
    pub(crate) speaker: u64,
    pub(crate) said: Said<'a>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    Ban { who: &'a str, lasts: Duration },
    Pardon { who: &'a str },
}

/// What is said of a ban.
pub(crate) fn ban_message(speaker: u64, who: &str, lasts: Duration) -> String {
    format!("{speaker:016x} ban {} {who}", lasts.as_millis())
}

/// What is said of its end.
pub(crate) fn pardon_message(speaker: u64, who: &str) -> String {
    format!("{speaker:016x} pardon {who}")
}

/// Understands either; nothing else, which may come from another version.
pub(crate) fn understand(heard: &[u8]) -> Option<Heard<'_>> {
    let (speaker, said) = std::str::from_utf8(heard).ok()?.split_once(' ')?;
    let speaker = u64::from_str_radix(speaker, 16).ok()?;
    let said = match said.strip_prefix("pardon ") {
        Some(who) => Said::Pardon { who },
        None => {
            let (millis, who) = said.strip_prefix("ban ")?.split_once(' ')?;
            let lasts = Duration::from_millis(millis.parse().ok()?);
            Said::Ban { who, lasts }
        }
    };
    Some(Heard { speaker, said })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood_and_nothing_else() {
        let (speaker, lasts) = (0xab, Duration::from_secs(90));
        for who in ["caller:alice", "ip:2001:db8::/64"] {
            let ban = ban_message(speaker, who, lasts);
            let said = Said::Ban { who, lasts };
            assert_eq!(understand(ban.as_bytes()), Some(Heard { speaker, said }));
            let pardon = pardon_message(speaker, who);
            let said = Said::Pardon { who };
            assert_eq!(understand(pardon.as_bytes()), Some(Heard { speaker, said }));
        }
        for other in [
            &b""[..],
            b"ab ban",
            b"ab ban 5",
            b"ab ban x alice",
            b"ab BAN 5 alice",
            b"ban 5 alice",
            b"x pardon alice",
            b"\xff",
        ] {
            assert_eq!(understand(other), None);
        }
    }
}
