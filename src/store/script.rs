//! What runs inside of Redis, in one atomic step.

use std::fmt;

/// A piece of Lua that a server runs as one step: as a function where it knows functions, as a script
/// elsewhere, from the same text.
///
/// ```
/// use tower_keep::store::Script;
///
/// /// Adds to a counter that ends with its window. Returns what it stands at, as digits.
/// static COUNT: Script = Script::new(
///     "count",
///     r"
///     local count = redis.call('INCRBY', keys[1], args[1])
///     if redis.call('PTTL', keys[1]) < 0 then
///         redis.call('PEXPIRE', keys[1], args[2])
///     end
///     return string.format('%.0f', count)
///     ",
/// );
///
/// static READ: Script = Script::reading("read", "return redis.call('GET', keys[1])");
/// # assert_eq!((COUNT.name(), READ.name()), ("count", "read"));
/// ```
///
/// # Rules for a body
///
/// - It sees `keys` and `args`, tables of strings that begin at 1, `redis`, and `publish(channel, payload)`,
///   which says `PUBLISH`, or `SPUBLISH` in a cluster, where the channel is named as a key is. It answers
///   by `return`, which is its last statement. Nothing else is given: neither `KEYS` nor `ARGV`.
/// - **Strings are bytes**, in keys, arguments and replies: any byte may occur, also `\0`. Whatever must
///   not be mistaken for a number is compared as a string.
/// - **No state of its own**: everything is `local`. Globals are refused by the server.
/// - **Time is the server's**, by `redis.call('TIME')`, never an argument: clients' clocks differ.
/// - **Numbers** are doubles. A number that is returned loses its fraction, and beyond 2^53 its last
///   digits; `tostring` writes large ones as `1e+15`. Return and store them as strings, written by
///   `string.format('%.0f', n)`. Integers beyond 2^53 are not computed with in Lua at all: leave them to
///   `INCRBY`, whose reply is already rounded, and `GET` what it has stored.
/// - **A table that is returned ends at its first `nil`**; use `false`, which arrives as nil.
/// - **Keys** are all named by the caller in `keys`, never composed inside, and share a `{hash tag}`: a
///   cluster runs a script on one node only.
/// - **All or nothing is its own care**: writes made before an error remain. Check first, then write.
/// - One made by [`reading`](Self::reading) does not write; a server refuses it the attempt, where it
///   knows functions.
/// - **Short**: while it runs the server serves nobody else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Script {
    name: &'static str,
    body: &'static str,
    writes: bool,
}

impl Script {
    /// A script that may write. The name is lowercase letters, digits and `_`, and begins with a letter;
    /// that is checked when a pool is built with it.
    #[must_use]
    pub const fn new(name: &'static str, body: &'static str) -> Self {
        let writes = true;
        Self { name, body, writes }
    }

    /// A script that only reads: it runs on a server that takes no writes at the time, too.
    #[must_use]
    pub const fn reading(name: &'static str, body: &'static str) -> Self {
        let writes = false;
        Self { name, body, writes }
    }

    /// What it is called.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) const fn body(&self) -> &'static str {
        self.body
    }

    pub(crate) const fn writes(&self) -> bool {
        self.writes
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("name", &self.name)
            .field("writes", &self.writes)
            .finish_non_exhaustive()
    }
}
