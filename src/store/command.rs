//! What is asked of Redis.

use std::time::Duration;

use redis::Cmd;

use crate::store::fitness::{self, Harm};
use crate::store::script::Script;

/// How a question travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manner {
    /// Beside the command lane.
    pub(crate) bulk: bool,
    /// The caller's own deadline, if it is shorter than the pool's.
    pub(crate) within: Option<Duration>,
}

impl Manner {
    /// On the command lane, with the pool's deadline.
    const PLAIN: Self = Self {
        bulk: false,
        within: None,
    };

    /// The same for a question of so many bytes: a large one goes beside by itself.
    const fn of_size(self, bytes: usize, threshold: usize) -> Self {
        Self {
            bulk: self.bulk || bytes >= threshold,
            within: self.within,
        }
    }
}

/// One command: `Command::new("SET").key("a").arg("1").arg("PX").arg(60_000)`.
///
/// Arguments are binary-safe. Name the key with [`key`](Self::key): a cluster finds its way by it.
#[derive(Clone, Debug)]
#[must_use]
pub struct Command {
    cmd: Cmd,
    /// Which of the arguments is the first key.
    key: Option<usize>,
    args: usize,
    bytes: usize,
    manner: Manner,
    /// What it would do to others.
    harm: Option<Harm>,
}

impl Command {
    /// The command of this name: `GET`.
    ///
    /// Some cannot be sent, and fail as [`StoreError::Unfit`](crate::store::StoreError::Unfit): whatever
    /// would change the connection under everybody else (`MULTI`, `SELECT`, `AUTH`, `SUBSCRIBE`, ..; a
    /// [`Script`] is the transaction here), and what would hold it up (`BLPOP`, `WAIT`, `BLOCK`, ..) unless
    /// it is [`bulk`](Self::bulk), so that it has a connection to itself.
    pub fn new(name: &'static str) -> Self {
        let mut cmd = Cmd::new();
        cmd.arg(name);
        Self {
            cmd,
            key: None,
            args: 1,
            bytes: name.len(),
            manner: Manner::PLAIN,
            harm: fitness::of(name),
        }
    }

    /// Adds a key. The first one says where in a cluster the command goes.
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key.get_or_insert(self.args);
        self.arg(key.as_ref())
    }

    /// Adds an argument: text, bytes or an integer.
    pub fn arg(mut self, arg: impl Argument) -> Self {
        arg.with(&mut |bytes| {
            if self.args <= fitness::WORDS && self.harm.is_none() {
                self.harm = fitness::with(&self.cmd, bytes);
            }
            self.cmd.arg(bytes);
            self.bytes += bytes.len();
        });
        self.args += 1;
        self
    }

    /// Why it must not be sent, if it must not.
    pub(crate) const fn unfit(&self) -> Option<&'static str> {
        match self.harm {
            Some(harm) => harm.forbids(self.manner.bulk),
            None => None,
        }
    }

    /// Says that the reply will be large, so that it takes the reserve connection and small replies do
    /// not queue behind it. Large requests do so by themselves.
    pub fn bulk(mut self) -> Self {
        self.manner.bulk = true;
        self
    }

    /// Gives it a deadline of its own, if that is shorter than `redis.command_timeout` (a bulk one's:
    /// `redis.bulk_timeout`). Passing it says nothing against the connection.
    pub fn within(mut self, limit: Duration) -> Self {
        self.manner.within = Some(limit);
        self
    }

    pub(crate) const fn cmd(&self) -> &Cmd {
        &self.cmd
    }

    pub(crate) const fn manner(&self, threshold: usize) -> Manner {
        self.manner.of_size(self.bytes, threshold)
    }

    /// The first key, by which a cluster is asked.
    pub(crate) fn route(&self) -> Option<&[u8]> {
        match self.cmd.args_iter().nth(self.key?) {
            Some(redis::Arg::Simple(key)) => Some(key),
            _ => None,
        }
    }
}

/// One call of a [`Script`]. All its keys must share a `{hash tag}`.
#[derive(Clone, Debug)]
#[must_use]
pub struct Call {
    script: &'static Script,
    keys: Words,
    args: Words,
    manner: Manner,
}

impl Call {
    /// A call of `script`, which must be one of those that the pool was built with.
    pub const fn new(script: &'static Script) -> Self {
        Self {
            script,
            keys: Words::new(),
            args: Words::new(),
            manner: Manner::PLAIN,
        }
    }

    /// Adds a key: `keys[1]` of the script, and so on.
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.keys.push(key.as_ref());
        self
    }

    /// Adds an argument: `args[1]` of the script, and so on.
    pub fn arg(mut self, arg: impl Argument) -> Self {
        arg.with(&mut |bytes| self.args.push(bytes));
        self
    }

    /// Says that the reply will be large, as [`Command::bulk`].
    pub fn bulk(mut self) -> Self {
        self.manner.bulk = true;
        self
    }

    /// Gives it a deadline of its own, if that is shorter than `redis.command_timeout` (a bulk one's:
    /// `redis.bulk_timeout`). Passing it says nothing against the connection.
    pub fn within(mut self, limit: Duration) -> Self {
        self.manner.within = Some(limit);
        self
    }

    pub(crate) const fn script(&self) -> &'static Script {
        self.script
    }

    pub(crate) const fn keys(&self) -> &Words {
        &self.keys
    }

    pub(crate) const fn args(&self) -> &Words {
        &self.args
    }

    pub(crate) const fn manner(&self, threshold: usize) -> Manner {
        self.manner.of_size(self.bytes(), threshold)
    }

    const fn bytes(&self) -> usize {
        self.keys.bytes.len() + self.args.bytes.len()
    }
}

/// Byte strings, one behind the other in one place: a call has a dozen of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Words {
    const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            ends: Vec::new(),
        }
    }

    fn push(&mut self, word: &[u8]) {
        self.bytes.extend_from_slice(word);
        self.ends.push(self.bytes.len());
    }

    pub(crate) const fn len(&self) -> usize {
        self.ends.len()
    }

    /// How many bytes they have together.
    pub(crate) const fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        let words = begins.zip(&self.ends);
        words.map(|(begin, end)| self.bytes.get(begin..*end).unwrap_or_default())
    }
}

/// Several commands in one round trip. They are answered one by one: one that fails does not hold up the
/// others, and other callers' commands may run between them.
/// Its deadline is its own: those of its commands do not count.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Batch {
    steps: Vec<Step>,
    manner: Manner,
}

/// One step of a [`Batch`].
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Command(Command),
    Call(Call),
}

impl Step {
    pub(crate) fn route(&self) -> Option<&[u8]> {
        match self {
            Self::Command(command) => command.route(),
            Self::Call(call) => call.keys().iter().next(),
        }
    }

    fn unfit(&self) -> Option<&'static str> {
        match self {
            Self::Command(command) => command.unfit(),
            Self::Call(_) => None,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Command(command) => command.bytes,
            Self::Call(call) => call.bytes(),
        }
    }
}

impl Batch {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a command.
    pub fn command(mut self, command: Command) -> Self {
        self.manner.bulk |= command.manner.bulk;
        self.steps.push(Step::Command(command));
        self
    }

    /// Adds a script's call.
    pub fn call(mut self, call: Call) -> Self {
        self.manner.bulk |= call.manner.bulk;
        self.steps.push(Step::Call(call));
        self
    }

    /// Says that the replies will be large, as [`Command::bulk`].
    pub fn bulk(mut self) -> Self {
        self.manner.bulk = true;
        self
    }

    /// Gives it a deadline of its own, if that is shorter than `redis.command_timeout` (a bulk one's:
    /// `redis.bulk_timeout`). Passing it says nothing against the connection.
    pub fn within(mut self, limit: Duration) -> Self {
        self.manner.within = Some(limit);
        self
    }

    /// How many replies there will be.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Why it must not be sent, if one of its commands must not.
    pub(crate) fn unfit(&self) -> Option<&'static str> {
        self.steps.iter().find_map(Step::unfit)
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub(crate) fn manner(&self, threshold: usize) -> Manner {
        let bytes: usize = self.steps.iter().map(Step::bytes).sum();
        self.manner.of_size(bytes, threshold)
    }
}

/// Can be an argument: text, bytes and integers.
pub trait Argument {
    /// Shows its bytes, once.
    fn with(&self, see: &mut dyn FnMut(&[u8]));
}

macro_rules! as_bytes {
    ($($type:ty),+) => {$(
        impl Argument for $type {
            fn with(&self, see: &mut dyn FnMut(&[u8])) {
                see(self.as_ref());
            }
        }
    )+};
}

as_bytes!(str, String, [u8], Vec<u8>, bytes::Bytes);

impl<const N: usize> Argument for [u8; N] {
    fn with(&self, see: &mut dyn FnMut(&[u8])) {
        see(self);
    }
}

impl<T: Argument + ?Sized> Argument for &T {
    fn with(&self, see: &mut dyn FnMut(&[u8])) {
        (**self).with(see);
    }
}

macro_rules! as_digits {
    ($($type:ty),+) => {$(
        impl Argument for $type {
            fn with(&self, see: &mut dyn FnMut(&[u8])) {
                see(itoa::Buffer::new().format(*self).as_bytes());
            }
        }
    )+};
}

as_digits!(u8, u16, u32, u64, usize, i32, i64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_sent_as_they_are() {
        let command = Command::new("SET")
            .key(b"k\0\r\n")
            .arg(-7_i64)
            .arg([0xff_u8, b'"'])
            .arg("PX")
            .arg(60_000_u64);
        let packed = command.cmd().get_packed_command();
        let expected = b"*6\r\n$3\r\nSET\r\n$4\r\nk\0\r\n\r\n$2\r\n-7\r\n$2\r\n\xff\"\r\n\
              $2\r\nPX\r\n$5\r\n60000\r\n";
        assert_eq!(packed, expected);
    }

    #[test]
    fn a_calls_words_come_back_as_they_went_in() {
        static ANY: Script = Script::new("any", "return 1");
        let call = Call::new(&ANY).key("a").key("").arg(12_u8).arg(b"\0");
        assert_eq!(call.keys().iter().collect::<Vec<_>>(), [&b"a"[..], b""]);
        assert_eq!(call.args().iter().collect::<Vec<_>>(), [&b"12"[..], b"\0"]);
        assert!(call.manner(4).bulk && !call.manner(5).bulk);
    }

    #[test]
    fn the_first_key_shows_the_way() {
        let command = Command::new("ZADD").arg("x").key("first").key("second");
        assert_eq!(command.route(), Some(&b"first"[..]));
        assert_eq!(Command::new("PING").route(), None);
    }

    #[test]
    fn large_requests_are_bulk_by_themselves() {
        let small = Command::new("SET").key("k").arg(vec![0_u8; 10]);
        assert!(!small.manner(100).bulk && small.manner(14).bulk);
        assert!(Command::new("GET").key("k").bulk().manner(usize::MAX).bulk);
        let batch = Batch::new().command(small.clone()).command(small);
        assert!(batch.manner(28).bulk && !batch.manner(29).bulk);
    }
}
