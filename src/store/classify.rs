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
    pub(crate) const fn of(error: StoreError) -> Self {
        Self { error, trip: None }
    }

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
    let text = format!("{} {}", error.code(), error.details().unwrap_or_default());
    text.trim_end().to_owned()
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
        (ErrorKind::RESP3NotSupported, _) => DownKind::TooOld,
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

/// So much of a parser's complaint is enough.
const WORDS_MOST: usize = 120;

/// The error in words. redis-rs puts neither user nor password into them.
fn detail(error: &RedisError) -> String {
    let text = error.to_string();
    match (error.kind(), text.is_empty()) {
        (ErrorKind::RESP3NotSupported, _) => {
            "the server speaks no RESP3: Redis 6 or newer, or Valkey, is needed".to_owned()
        }
        (_, true) => "the connection failed".to_owned(),
        // Into a log's line go no line breaks, and nothing endless: a stranger may have written it.
        (ErrorKind::Parse, _) => {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let text: String = text.chars().take(WORDS_MOST).collect();
            format!("what comes back is not the Redis protocol: {text}")
        }
        (_, false) => text,
    }
}
