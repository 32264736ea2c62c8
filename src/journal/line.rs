//! The journal in Redis: what is kept there, and what is asked of it.
//!
//! A shard is three keys of one slot: a hash with the incarnation, the last number, the server's run id and
//! the leases of the instances; a stream of records with the explicit ids `1-<number>`; and the channel. Whatever a script finds amiss (nothing there, a foreign type, another version, the run id of
//! another server, a stream that is gone) begins a new incarnation, and everybody is told.

use std::time::Duration;

use bytes::Bytes;

use crate::clock::Clock;
use crate::journal::config::{Acknowledge, JournalConfig};
use crate::journal::marker::Marker;
use crate::journal::message::{RECORD, RECORD_TO_CONFIRM};
use crate::journal::record::Record;
use crate::journal::script::{APPEND, LEAVE, MEET};
use crate::store::{Batch, Call, Command, Pairs, RedisPool, Replies, Reply, StoreError};

/// Speaks for one instance about one shard. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) pool: RedisPool,
    pub(crate) clock: Clock,
    keys: [std::sync::Arc<str>; 3],
    /// What the others know this instance by.
    pub(crate) me: u64,
    pub(crate) shard: u16,
    records_max: usize,
    lease: Duration,
    acknowledge: Acknowledge,
    /// The version of what is stored: of the format, and of what names hash to.
    version: std::sync::Arc<str>,
}

/// What a server says of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Met {
    pub(crate) inc: u64,
    pub(crate) seq: u64,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) inc: u64,
    pub(crate) seq: u64,
    /// For how long leases may be out that this server has not heard of.
    pub(crate) unknown_leases: Duration,
    /// The instances that have a lease, and for how long.
    pub(crate) leases: Vec<(u64, Duration)>,
}

/// How many records are read at a time.
const READ_AT_ONCE: u16 = 1_000;

impl Line {
    pub(crate) fn new(
        pool: RedisPool,
        clock: Clock,
        config: &JournalConfig,
        shard: u16,
        me: u64,
    ) -> Self {
        let key = |part| pool.key(format_args!("{{cj:{shard}}}:{part}")).into();
        let keys = [key("m"), key("j"), key("c")];
        // Should a name ever hash to something else, instances that differ must not believe each other.
        let names = match Marker::tag("probe") {
            Marker::Name(hash) => hash,
            Marker::Pattern(_) | Marker::Everything => 0,
        };
        Self {
            pool,
            clock,
            keys,
            me,
            shard,
            records_max: config.records_max,
            lease: config.lease,
            acknowledge: config.acknowledge,
            version: format!("1:{names:016x}").into(),
        }
    }

    pub(crate) fn channel(&self) -> &str {
        &self.keys[2]
    }

    /// The channel on which an instance hears who has carried out what it appended.
    pub(crate) fn channel_of(&self, instance: u64) -> String {
        format!("{}:{instance:016x}", self.channel())
    }

    /// Whether the others' confirmations are asked for.
    pub(crate) const fn waits_for_others(&self) -> bool {
        matches!(self.acknowledge, Acknowledge::Everywhere)
    }

    pub(crate) const fn lease(&self) -> Duration {
        self.lease
    }

    fn call(&self, script: &'static crate::store::Script, run: &str) -> Call {
        let call = self
            .keys
            .iter()
            .fold(Call::new(script), |call, key| call.key(&**key));
        // Drawn anew each time: two incarnations are never the same.
        let new = crate::journal::chance::number().to_le_bytes();
        let millis = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        call.arg(run)
            .arg(new)
            .arg(self.me.to_le_bytes())
            .arg(millis)
            .arg(&*self.version)
    }

    /// Asks where the journal stands, and renews the lease. Where the server does not tell scripts its run
    /// id, `run` is taken for it; `None` if there is none either. With `anew` a new incarnation begins.
    pub(crate) async fn meet(&self, run: &str, anew: bool) -> Result<Option<Met>, StoreError> {
        let call = self.call(&MEET, run).arg(if anew { "1" } else { "0" });
        let (inc, seq, knows): (Bytes, u64, bool) = self.pool.call(&call).await?;
        if !knows {
            return Ok(None);
        }
        let inc = number(&inc)?;
        Ok(Some(Met { inc, seq }))
    }

    /// The run id, as the server tells it to clients.
    pub(crate) async fn run_id(&self) -> Result<Option<String>, StoreError> {
        // Any node of a cluster would answer without a key; this is the one that is meant.
        if self.pool.is_cluster() {
            return Ok(None);
        }
        let text: String = match self.pool.run(&Command::new("INFO").arg("server")).await {
            Err(error) if error.code().is_some() => return Ok(None),
            answer => answer?,
        };
        let line = text.lines().find_map(|line| line.strip_prefix("run_id:"));
        Ok(line
            .map(|id| id.trim().to_owned())
            .filter(|id| !id.is_empty()))
    }

    /// Gives the lease back.
    pub(crate) async fn leave(&self) -> Result<(), StoreError> {
        let call = Call::new(&LEAVE)
            .key(&*self.keys[0])
            .arg(self.me.to_le_bytes());
        self.pool.call(&call).await
    }

    /// Appends records in order, in one round trip.
    pub(crate) async fn append(
        &self,
        run: &str,
        records: &[Vec<u8>],
    ) -> Result<Vec<Result<Appended, StoreError>>, StoreError> {
        let kind = if self.waits_for_others() {
            RECORD_TO_CONFIRM
        } else {
            RECORD
        };
        let call = |record: &Vec<u8>| {
            let call = self.call(&APPEND, run).arg(record).arg(self.records_max);
            call.arg([kind])
        };
        let batch = records.iter().map(call).fold(Batch::new(), Batch::call);
        let mut replies = self.pool.run_all(&batch).await?;
        Ok(records.iter().map(|_| appended(&mut replies)).collect())
    }

    /// Reads the records behind `last`, some at a time, and where the journal stands.
    pub(crate) async fn since(&self, last: u64) -> Result<(Met, Vec<(u64, Bytes)>), StoreError> {
        let from = format!("1-{}", last.saturating_add(1));
        let read = Command::new("XRANGE")
            .key(&*self.keys[1])
            .arg(from)
            .arg("+");
        let batch = Batch::new()
            .command(read.arg("COUNT").arg(READ_AT_ONCE))
            .command(self.standing());
        let mut replies = self.pool.run_all(&batch).await?;
        let records: Vec<(String, Vec<Bytes>)> = replies.read()?;
        let met = Self::met(&mut replies)?.ok_or(ODD)?;
        let records = records.into_iter().map(|(id, fields)| {
            let seq = id.strip_prefix("1-").and_then(|seq| seq.parse().ok());
            Some((seq?, fields.into_iter().nth(1)?))
        });
        Ok((met, records.collect::<Option<_>>().ok_or(ODD)?))
    }

    /// Asks where the journal stands: the last command of a batch whose values are to be judged.
    pub(crate) fn standing(&self) -> Command {
        Command::new("HMGET")
            .key(&*self.keys[0])
            .arg("inc")
            .arg("seq")
    }

    /// What [`standing`](Self::standing) brought; `None` if there is no journal.
    pub(crate) fn met(replies: &mut Replies) -> Result<Option<Met>, StoreError> {
        let (inc, seq): (Option<Bytes>, Option<u64>) = replies.read()?;
        match (inc, seq) {
            (Some(inc), Some(seq)) => Ok(Some(Met {
                inc: number(&inc)?,
                seq,
            })),
            _ => Ok(None),
        }
    }

    /// Says something on a channel. Returns how many connections heard it.
    pub(crate) async fn say(&self, channel: &str, message: Vec<u8>) -> Result<u64, StoreError> {
        self.pool.publish(channel, message).await
    }
}

/// A record as it is stored. What cannot be read may have named anything.
pub(crate) fn understood(bytes: &[u8]) -> Option<Record> {
    // The first of an incarnation says nothing.
    if bytes.is_empty() {
        return Some(Record::default());
    }
    Record::from_bytes(bytes)
}

fn appended(replies: &mut Replies) -> Result<Appended, StoreError> {
    let (inc, seq, unknown, leases): (Bytes, u64, u64, Reply) = replies.read()?;
    let leases = leases
        .read::<Pairs<Bytes, u64>>()?
        .0
        .into_iter()
        .map(|(instance, left)| Ok((number(&instance)?, Duration::from_millis(left))));
    Ok(Appended {
        inc: number(&inc)?,
        seq,
        unknown_leases: Duration::from_millis(unknown),
        leases: leases.collect::<Result<_, StoreError>>()?,
    })
}

fn number(bytes: &Bytes) -> Result<u64, StoreError> {
    let bytes = <[u8; 8]>::try_from(&bytes[..]).map_err(|_| ODD)?;
    Ok(u64::from_le_bytes(bytes))
}

const ODD: StoreError = StoreError::Unreadable {
    expected: "the journal",
    found: "something else",
};
