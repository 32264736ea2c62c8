//! What an error of the server or of the connection means: for the caller, and for the connection.

use std::error::Error;
use std::io;
use std::sync::Arc;

use redis::{ErrorKind, RedisError, ServerError, Value};

use crate::store::error::StoreError;
use crate::store::resolver::is_unresolved;
use crate::store::status::{DownKind, DownReason};

/// Why a command failed, and whether the connection is of no use any more.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: StoreError,
    pub(crate) trip: Option<DownReason>,
}

impl Failure {
    pub(crate) fn lost(kind: DownKind, words: &'static str) -> Self {
        let trip = Some(DownReason::new(kind, words));
        Self {
            error: StoreError::Lost,
            trip,
        }
    }
}

/// The value, or why it is none.
pub(crate) fn value(value: Value) -> Result<Value, Failure> {
    match value {
        Value::ServerError(error) => Err(refusal(&error)),
        // redis-rs takes some pushes for replies. One that nobody asked for has taken the place of an
        // answer, and every later one would go to the wrong caller.
        Value::Push { .. } => Err(Failure::lost(
            DownKind::Protocol,
            "a push message came in place of a reply",
        )),
        value => Ok(value),
    }
}

/// The server said no. Most of it concerns this one command; some of it says that the server as a whole
/// cannot serve us now.
pub(crate) fn refusal(error: &ServerError) -> Failure {
    let kind = match error.code() {
        "READONLY" | "MASTERDOWN" => Some(DownKind::ReadOnly),
        "LOADING" => Some(DownKind::Loading),
        "BUSY" => Some(DownKind::Busy),
        "NOAUTH" | "WRONGPASS" => Some(DownKind::Authentication),
        _ => None,
    };
    Failure {
        error: refused(error),
        trip: kind.map(|kind| DownReason::new(kind, words(error))),
    }
}

fn refused(error: &ServerError) -> StoreError {
    StoreError::Refused {
        code: Arc::from(error.code()),
        text: Arc::from(error.details().unwrap_or_default()),
    }
}

fn words(error: &ServerError) -> String {
    detail(&RedisError::from(error.clone()))
}

/// The connection failed under a command.
pub(crate) fn broken(error: &RedisError) -> Failure {
    Failure {
        error: StoreError::Lost,
        trip: Some(unreachable(error)),
    }
}

/// Why a connection could not be made, or was lost.
pub(crate) fn unreachable(error: &RedisError) -> DownReason {
    let detail = detail(error);
    let text = detail.to_ascii_lowercase();
    let code = error.code().unwrap_or_default();
    let kind = match (error.kind(), io_kind(error)) {
        _ if text.contains("max number of clients") => DownKind::MaxClients,
        _ if is_too_old(error) => DownKind::TooOld,
        (ErrorKind::AuthenticationFailed, _) => DownKind::Authentication,
        _ if matches!(code, "NOAUTH" | "WRONGPASS" | "NOPERM") => DownKind::Authentication,
        _ if code == "LOADING" => DownKind::Loading,
        _ if code == "BUSY" => DownKind::Busy,
        _ if matches!(code, "READONLY" | "MASTERDOWN") => DownKind::ReadOnly,
        (ErrorKind::Parse, _) => DownKind::Protocol,
        _ if is_unresolved(error) => DownKind::Unresolved,
        (_, Some(kind)) => of_io(kind, &text),
        (ErrorKind::Io, None) => DownKind::Disconnected,
        _ => DownKind::Protocol,
    };
    DownReason::new(kind, detail)
}

fn of_io(kind: io::ErrorKind, text: &str) -> DownKind {
    // rustls speaks through `io::Error` of the kind InvalidData; a plain port that is asked for TLS
    // answers with bytes that are no handshake.
    let tls = [
        "tls",
        "certificate",
        "handshake",
        "corrupt message",
        "unknown issuer",
        "unknownissuer",
    ];
    match kind {
        _ if tls.iter().any(|word| text.contains(word)) => DownKind::Tls,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => DownKind::NoProgress,
        io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset => DownKind::Disconnected,
        io::ErrorKind::InvalidData => DownKind::Protocol,
        _ => DownKind::Unreachable,
    }
}

fn io_kind(error: &RedisError) -> Option<io::ErrorKind> {
    let source = error.source()?;
    // redis-rs keeps it in an `Arc`, which is an error of its own type.
    let shared = source.downcast_ref::<Arc<dyn Error + Send + Sync>>();
    let io = match shared {
        Some(shared) => shared.downcast_ref::<io::Error>(),
        None => source.downcast_ref::<io::Error>(),
    };
    io.map(io::Error::kind)
}

/// Redis 5 and older do not know `HELLO`; each version says so in other quotes.
fn is_too_old(error: &RedisError) -> bool {
    let text = error.detail().unwrap_or_default();
    let unknown = text.contains("unknown command") && text.to_ascii_uppercase().contains("HELLO");
    error.kind() == ErrorKind::RESP3NotSupported || unknown
}

/// So much of what a server or a stranger says is enough.
const WORDS_MOST: usize = 160;

/// The error in words, on one line, without what was sent: a server that does not know `HELLO` repeats
/// its arguments, the password among them.
pub(crate) fn detail(error: &RedisError) -> String {
    if is_too_old(error) {
        return "the server speaks no RESP3: Redis 6 or newer, or Valkey, is needed".to_owned();
    }
    let said = error.detail().unwrap_or_default();
    let text = match (error.kind(), error.code()) {
        (ErrorKind::Parse, _) => format!("what comes back is not the Redis protocol: {error}"),
        (_, Some(code)) => format!("{code} {said}"),
        _ => error.to_string(),
    };
    let text = text.split(", with args").next().unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.is_empty() {
        true => "the connection failed".to_owned(),
        false => text.chars().take(WORDS_MOST).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> ServerError {
        match redis::parse_redis_value(format!("-{line}\r\n").as_bytes()) {
            Ok(Value::ServerError(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_refusal_ends_the_connection_only_where_it_concerns_everybody() {
        for (line, kind) in [
            (
                "READONLY You can't write against a read only replica.",
                DownKind::ReadOnly,
            ),
            ("MASTERDOWN Link with MASTER is down", DownKind::ReadOnly),
            (
                "LOADING Redis is loading the dataset in memory",
                DownKind::Loading,
            ),
            ("BUSY Redis is busy running a script.", DownKind::Busy),
            ("NOAUTH Authentication required.", DownKind::Authentication),
            (
                "WRONGPASS invalid username-password pair",
                DownKind::Authentication,
            ),
        ] {
            let failure = refusal(&said(line));
            assert_eq!(
                failure.trip.map(|reason| reason.kind()),
                Some(kind),
                "{line}"
            );
            assert!(!failure.error.may_have_run());
        }
        for line in [
            "ERR syntax error",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "NOPERM this user has no permissions to run the 'get' command",
            "MOVED 1 127.0.0.1:7000",
            "NOSCRIPT No matching script.",
        ] {
            assert_eq!(refusal(&said(line)).trip, None, "{line}");
        }
    }

    #[test]
    fn why_no_connection_came_about_is_told_apart() {
        let io = |kind, text: &'static str| RedisError::from(io::Error::new(kind, text));
        for (error, kind) in [
            (
                io(io::ErrorKind::ConnectionRefused, "refused"),
                DownKind::Unreachable,
            ),
            (
                io(io::ErrorKind::HostUnreachable, "no route"),
                DownKind::Unreachable,
            ),
            (io(io::ErrorKind::TimedOut, "late"), DownKind::NoProgress),
            (
                io(io::ErrorKind::UnexpectedEof, "eof"),
                DownKind::Disconnected,
            ),
            (
                io(io::ErrorKind::ConnectionReset, "reset"),
                DownKind::Disconnected,
            ),
            (
                io(
                    io::ErrorKind::InvalidData,
                    "invalid peer certificate: UnknownIssuer",
                ),
                DownKind::Tls,
            ),
            (
                RedisError::from((ErrorKind::AuthenticationFailed, "no")),
                DownKind::Authentication,
            ),
            (
                RedisError::from((ErrorKind::RESP3NotSupported, "no")),
                DownKind::TooOld,
            ),
            (
                RedisError::from((ErrorKind::Parse, "no")),
                DownKind::Protocol,
            ),
        ] {
            assert_eq!(unreachable(&error).kind(), kind, "{error}");
        }
    }

    #[test]
    fn what_was_sent_is_not_repeated() {
        let line = "ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'u' 'secret'";
        let words = unreachable(&RedisError::from(said(line)));
        assert!(!words.to_string().contains("secret"), "{words}");
        let line = "ERR unknown command 'PING', with args beginning with: 'secret'";
        let words = unreachable(&RedisError::from(said(line)));
        assert!(!words.to_string().contains("secret"), "{words}");
    }
}
