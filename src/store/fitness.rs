//! Which commands must not be sent over a connection that everybody shares.

use redis::Cmd;

/// What a command would do to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// It would change the connection under them.
    Changes,
    /// It would hold them up, unless it has a connection to itself.
    Blocks,
}

impl Harm {
    /// Why a command must not be sent, if it must not.
    pub(crate) const fn forbids(self, bulk: bool) -> Option<&'static str> {
        match self {
            Self::Changes => Some("the command would change the connection that everybody shares"),
            Self::Blocks if bulk => None,
            Self::Blocks => {
                Some("the command would hold up the connection that everybody shares: say bulk()")
            }
        }
    }
}

/// How many of a command's first words may decide.
pub(crate) const WORDS: usize = 8;

/// What a command of this name would do.
pub(crate) fn of(name: &str) -> Option<Harm> {
    // Commands are written in capitals; who does not pays for the copy.
    if name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return of(&name.to_ascii_uppercase());
    }
    match name {
        "MULTI" | "EXEC" | "DISCARD" | "WATCH" | "UNWATCH" | "SELECT" | "AUTH" | "HELLO"
        | "RESET" | "QUIT" | "MONITOR" | "SYNC" | "PSYNC" | "ASKING" | "READONLY" | "READWRITE"
        | "SUBSCRIBE" | "UNSUBSCRIBE" | "PSUBSCRIBE" | "PUNSUBSCRIBE" | "SSUBSCRIBE"
        | "SUNSUBSCRIBE" => Some(Harm::Changes),
        "BLPOP" | "BRPOP" | "BLMOVE" | "BLMPOP" | "BRPOPLPUSH" | "BZPOPMIN" | "BZPOPMAX"
        | "BZMPOP" | "WAIT" | "WAITAOF" => Some(Harm::Blocks),
        _ => None,
    }
}

/// What a command would do once `next` is added to it.
pub(crate) fn with(so_far: &Cmd, next: &[u8]) -> Option<Harm> {
    let mut words = so_far.args_iter();
    let Some(redis::Arg::Simple(name)) = words.next() else {
        return None;
    };
    let is = |word: &[u8], known: &str| word.eq_ignore_ascii_case(known.as_bytes());
    if is(name, "CLIENT") && words.next().is_none() {
        let changing = [
            "REPLY", "TRACKING", "CACHING", "SETNAME", "NO-EVICT", "NO-TOUCH", "PAUSE",
        ];
        return changing
            .iter()
            .any(|word| is(next, word))
            .then_some(Harm::Changes);
    }
    let reads_streams = is(name, "XREAD") || is(name, "XREADGROUP");
    (reads_streams && is(next, "BLOCK")).then_some(Harm::Blocks)
}

#[cfg(test)]
mod tests {
    use crate::store::command::Command;

    #[test]
    fn what_concerns_only_its_caller_may_be_sent() {
        for command in [
            Command::new("GET").key("MULTI"),
            Command::new("CLIENT").arg("ID"),
            Command::new("SET").key("CLIENT").arg("REPLY"),
            Command::new("XREAD")
                .arg("COUNT")
                .arg(2_u8)
                .arg("STREAMS")
                .key("BLOCKS")
                .arg(0_u8),
        ] {
            assert_eq!(command.unfit(), None, "{command:?}");
        }
    }

    #[test]
    fn what_everybody_would_feel_may_not() {
        for command in [
            Command::new("MULTI"),
            Command::new("multi"),
            Command::new("SELECT").arg(1_u8),
            Command::new("CLIENT").arg("reply").arg("OFF"),
            Command::new("BLPOP").key("k").arg(0_u8),
            Command::new("XREAD")
                .arg("COUNT")
                .arg(2_u8)
                .arg("BLOCK")
                .arg(0_u8)
                .arg("STREAMS"),
            Command::new("XREADGROUP")
                .arg("GROUP")
                .arg("g")
                .arg("c")
                .arg("block")
                .arg(0_u8),
        ] {
            assert!(command.unfit().is_some(), "{command:?}");
        }
    }

    #[test]
    fn who_blocks_beside_the_others_may() {
        let pop = Command::new("BLPOP").key("k").arg(0_u8);
        assert!(pop.unfit().is_some() && pop.bulk().unfit().is_none());
        assert!(Command::new("MULTI").bulk().unfit().is_some());
    }
}
