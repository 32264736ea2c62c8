//! What a command can come back with instead of a reply.

use std::sync::Arc;

use crate::store::status::DownReason;

/// Why a command brought no reply. What matters to a caller is whether the server may have done it all
/// the same: [`may_have_run`](Self::may_have_run).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no connection. Nothing was sent, and nobody waited.
    #[error("redis is away: {0}")]
    Unavailable(DownReason),
    /// Too many commands are under way. Nothing was sent, and nobody waited.
    #[error("too many commands are under way")]
    Crowded,
    /// The command was sent and not answered in time. It may still run.
    #[error("no answer within the command timeout")]
    Timeout,
    /// The connection broke before the answer came. The command may have run.
    #[error("the connection broke before the answer")]
    Lost,
    /// The server said no. A command did nothing then; a script may have written before its error.
    #[error("redis refused: {code} {text}")]
    Refused {
        /// The error's first word: `OOM`, `WRONGTYPE`, `NOPERM`, ..
        code: Arc<str>,
        /// The rest of it.
        text: Arc<str>,
    },
    /// The reply is not of the type that was asked for. The command ran.
    #[error("expected {expected}, redis sent {found}")]
    Unreadable {
        /// What was asked for.
        expected: &'static str,
        /// What came.
        found: &'static str,
    },
    /// The command cannot be sent like this; the text says why.
    #[error("{0}")]
    Unfit(&'static str),
}

impl StoreError {
    /// Whether the server may have done, or may yet do, what was asked although no reply came: a ghost.
    /// A caller who repeats such a command must know that doing it twice does no harm.
    #[must_use]
    pub const fn may_have_run(&self) -> bool {
        matches!(self, Self::Timeout | Self::Lost | Self::Unreadable { .. })
    }

    /// Whether memory should answer instead: Redis is away, gave no answer, or cannot do such a thing at
    /// present, whoever asks (`READONLY`, `LOADING`, `OOM`, ..).
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Crowded | Self::Timeout | Self::Lost => true,
            Self::Refused { code, .. } => AT_PRESENT.contains(&&**code),
            Self::Unreadable { .. } | Self::Unfit(_) => false,
        }
    }

    /// Why there was no connection, if there was none.
    #[cfg(feature = "redis")]
    pub(crate) fn away(self) -> Option<DownReason> {
        match self {
            Self::Unavailable(reason) => Some(reason),
            _ => None,
        }
    }

    /// The first word of the server's refusal, such as `OOM`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }
}

/// Refusals that say nothing against the command, and pass.
const AT_PRESENT: [&str; 12] = [
    "READONLY",
    "MASTERDOWN",
    "LOADING",
    "BUSY",
    "NOAUTH",
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "MOVED",
    "ASK",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_answers_for_a_server_in_trouble_and_not_for_a_wrong_command() {
        let refused = |code: &str| StoreError::Refused {
            code: code.into(),
            text: "".into(),
        };
        for code in AT_PRESENT {
            assert!(refused(code).is_unavailable() && !refused(code).may_have_run());
        }
        for code in ["ERR", "WRONGTYPE", "NOPERM", "CROSSSLOT"] {
            assert!(!refused(code).is_unavailable());
        }
        assert!(StoreError::Timeout.is_unavailable() && StoreError::Timeout.may_have_run());
        assert!(!StoreError::Unfit("so").is_unavailable());
    }
}
