//! What the server says unasked, and who hears it.
//!
//! A [`PushSink`] registers once, for a channel or for the keys that begin with a prefix, and hears of
//! it for as long as the pool lives, across all connections that come and go.

/// What a [`PushSink`] hears. More may be added: pass over what you do not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Push<'a> {
    /// The server has confirmed: whatever is said from now on is heard.
    #[non_exhaustive]
    Subscribed {
        /// The channel, or the prefix, that the sink was registered with.
        channel: &'a [u8],
    },
    /// Somebody has published a message.
    #[non_exhaustive]
    Message {
        /// The channel.
        channel: &'a [u8],
        /// The message as it was sent.
        payload: &'a [u8],
    },
    /// Keys were written, deleted or evicted.
    #[non_exhaustive]
    Invalidated {
        /// Those that begin with the sink's prefix; `None` stands for every key there is (`FLUSHALL`).
        keys: Option<&'a [&'a [u8]]>,
    },
    /// The connection that was [`Subscribed`](Self::Subscribed) is gone. What is said until the next
    /// `Subscribed` is missed.
    #[non_exhaustive]
    Lost {
        /// The channel, or the prefix, that the sink was registered with.
        channel: &'a [u8],
    },
}

/// Hears what the server says unasked.
///
/// # Contract
///
/// - **In read order.** [`push`](Self::push) is called by the task that reads the connection. A message
///   is heard before any reply that the server sent after it on the same connection is handed out, so a
///   reader who looks at what the sink has noted, after its own reply came, knows of everything up to that
///   reply. Two kinds of replies come on other connections and may overtake a message: bulk ones, and in a
///   cluster those for keys outside of the channel's slot.
/// - **Quick.** Until it returns nothing is read from the connection, and the hub's lock on that
///   connection is held. It must neither block nor wait: not for a lock that anybody holds while
///   calling the pool, not for a reply.
/// - **No calling back.** It must not subscribe, issue commands or shut the pool down. (Registering
///   would not block, but what it registers begins after the sink has returned.) It should not own the
///   pool either, or neither of them is ever dropped.
/// - **Panics** are caught and logged. The connection and the other sinks go on as if it had returned.
/// - **Lost.** For each connection and channel a sink hears `Subscribed`, then what comes, then `Lost`
///   exactly once, also when the connection is replaced by hand, and nothing of that connection after
///   it. What is said between `Lost` and the next `Subscribed` is missed. Whatever was read from the
///   server before `Subscribed` may have changed unheard.
/// - **Several connections.** A cluster has one for each node, and while one connection takes over from
///   another both may be subscribed: then `push` is called by two tasks at a time, the new `Subscribed`
///   may come before the old `Lost`, and a message may come twice. A channel lives on one of them, and is
///   heard as long as more `Subscribed` than `Lost` have come for it. Prefixes are watched on all of them:
///   any `Lost` means that changes on that node are missed.
/// - **When to read what was missed.** `Subscribed` comes shortly before commands are sent on the new
///   connection: wake a task from the sink, let it wait for
///   [`until_up`](crate::store::StatusWatch::until_up), and read then.
pub trait PushSink: Send + Sync + 'static {
    /// Hears one push.
    fn push(&self, push: Push<'_>);
}
