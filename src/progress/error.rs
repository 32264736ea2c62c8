//! What can go wrong for a publisher.

use std::sync::Arc;

/// Why a stream was not opened, or an update was not published as it stood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProgressError {
    /// Streams are switched off.
    #[error("progress streams are switched off (progress.enabled = false)")]
    Disabled,
    /// The service shuts down.
    #[error("the progress hub is closed: the service shuts down")]
    Closed,
    /// The name of a stream is empty or too long.
    #[error("a stream's name has 1 to {max} bytes, this one has {bytes}")]
    BadName {
        /// Bytes of the name that was given.
        bytes: usize,
        /// The most a name may have.
        max: usize,
    },
    /// Another publisher is at work under this name.
    #[error("the progress stream {id:?} is still being published")]
    Taken {
        /// The name.
        id: Arc<str>,
    },
    /// All places are taken by streams that have not ended, or that are being watched.
    #[error("all {max} progress streams are in use (progress.streams_max)")]
    TooManyStreams {
        /// How many there may be.
        max: usize,
    },
    /// The update's JSON is too large.
    #[error("the update has {bytes} bytes, more than {max} (progress.event_bytes_max)")]
    TooLarge {
        /// Bytes of its JSON.
        bytes: usize,
        /// The most it may have.
        max: usize,
    },
}
