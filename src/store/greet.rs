//! The first words on a new connection: whether this server can serve us.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, RedisResult, Value};

use crate::store::classify::{self, unreachable};
use crate::store::reply::{Pairs, Reply};
use crate::store::status::{DownKind, DownReason};

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// `redis` or `valkey`.
    pub(crate) server: String,
    pub(crate) version: String,
}

/// What a server says of itself, and why it takes no writes at present (`OOM`, `MISCONF`,
/// `NOREPLICAS`), if it takes none; it can be read from all the same.
pub(crate) type Greeted = (Greeting, Option<String>);

/// How long the probe's key lives, should nobody write it again.
const PROBE_TTL_MS: u32 = 60_000;

/// Asks a server what it is and tries it out, in one round trip; `key` is written to see whether writes
/// pass, and is `None` where it could belong to another node.
///
/// `PING` alone would not do: a replica answers it, and so does a server whose writes are paused.
pub(crate) async fn greet(
    lane: &mut MultiplexedConnection,
    key: Option<&str>,
) -> Result<Greeted, DownReason> {
    let mut words = redis::pipe();
    // With the version, which Redis 6.0 insists on.
    words.cmd("HELLO").arg(3);
    words.cmd("PING");
    if let Some(key) = key {
        words.add_command(probe(key));
    }
    let count = words.len();
    let answers = lane.send_packed_commands(&words, 0, count).await;
    let mut answers = answers.map_err(|error| unreachable(&error))?.into_iter();
    let greeting = introduced(answers.next())?;
    alive(answers.next())?;
    let refuses_writes = match key {
        Some(_) => writable(answers.next())?,
        None => None,
    };
    Ok((greeting, refuses_writes))
}

/// Writes `key`.
pub(crate) fn probe(key: &str) -> Cmd {
    let mut set = redis::cmd("SET");
    set.arg(key).arg(1).arg("PX").arg(PROBE_TTL_MS);
    set
}

fn introduced(answer: Option<Value>) -> Result<Greeting, DownReason> {
    let said = match answer {
        Some(Value::ServerError(error)) => {
            let refused = classify::refusal(&error).trip;
            let too_old = || DownReason::new(DownKind::TooOld, "the server does not know HELLO");
            return Err(refused.unwrap_or_else(too_old));
        }
        answer => Reply(answer.unwrap_or_default()).read::<Pairs<String, Reply>>(),
    };
    let said = said.map_err(|_| DownReason::new(DownKind::Protocol, "HELLO brought no map"))?;
    let mut greeting = Greeting::default();
    for (name, value) in said.0 {
        // `modules` is a list, and nothing that we need.
        let Ok(value) = value.read::<String>() else {
            continue;
        };
        match name.as_str() {
            "server" => greeting.server = value,
            "version" => greeting.version = value,
            "role" if value != "master" => {
                return Err(DownReason::new(
                    DownKind::ReadOnly,
                    format!("the server is a {value}, not a primary"),
                ));
            }
            _ => {}
        }
    }
    Ok(greeting)
}

fn alive(answer: Option<Value>) -> Result<(), DownReason> {
    match answer {
        Some(Value::ServerError(error)) => Err(unreachable(&RedisError::from(error))),
        Some(_) => Ok(()),
        None => Err(DownReason::new(DownKind::Protocol, "PING brought nothing")),
    }
}

/// Whether the probe was written, or why not although the server may be read from.
fn writable(answer: Option<Value>) -> Result<Option<String>, DownReason> {
    let Some(Value::ServerError(error)) = answer else {
        return Ok(None);
    };
    match classify::refusal(&error).trip {
        Some(reason) => Err(reason),
        // A user who may not write this key may well write those that are needed.
        None if error.code() == "NOPERM" => Ok(None),
        None => Ok(Some(error.code().to_owned())),
    }
}

/// One `PING`, which is to be answered within `limit`: a server that takes longer for nothing cannot
/// answer a command in time.
pub(crate) async fn quick(
    lane: &mut MultiplexedConnection,
    limit: Duration,
) -> Result<(), DownReason> {
    let ping = redis::cmd("PING");
    let answer: Option<RedisResult<Value>> =
        crate::store::deadline::within(limit, lane.send_packed_command(&ping)).await;
    match answer {
        Some(answer) => alive(Some(answer.map_err(|error| unreachable(&error))?)),
        None => {
            let limit = limit.as_millis();
            let words = format!("PING takes longer than redis.command_timeout ({limit} ms)");
            Err(DownReason::new(DownKind::Slow, words))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn hello(role: &str) -> Value {
        Value::Map(vec![
            (text("server"), text("redis")),
            (text("version"), text("7.0.15")),
            (text("proto"), Value::Int(3)),
            (text("role"), text(role)),
            (text("modules"), Value::Array(Vec::new())),
        ])
    }

    #[test]
    fn a_primary_is_welcome_and_a_replica_is_not() {
        let greeting = introduced(Some(hello("master"))).unwrap();
        assert_eq!(greeting.version, "7.0.15");
        let reason = introduced(Some(hello("replica"))).unwrap_err();
        assert_eq!(reason.kind(), DownKind::ReadOnly);
        assert!(reason.to_string().contains("replica"));
    }

    #[test]
    fn nonsense_is_a_reason_and_no_panic() {
        for answer in [None, Some(Value::Nil), Some(Value::Int(3)), Some(text("x"))] {
            assert_eq!(introduced(answer).unwrap_err().kind(), DownKind::Protocol);
        }
        assert_eq!(alive(None).unwrap_err().kind(), DownKind::Protocol);
    }
}
