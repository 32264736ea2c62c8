//! Why an entry cannot be read, or cannot be written.

/// Why an entry cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unwritable {
    /// More than 64 tags, or one longer than 1024 bytes.
    Tags,
    /// Key, tags and body are longer than 4 GiB together.
    Length,
    /// It would be stale for good before it ceases to be fresh.
    Times,
    /// It could not be sealed: the system has no random numbers.
    Seal,
}

/// Why bytes are not the entry that was asked for. Each is a miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Nothing that this crate has written.
    Foreign,
    /// The beginning of an entry.
    Truncated,
    /// It was changed since it was written.
    Corrupt,
    /// A later version of this crate has written it.
    Newer,
    /// The entry of another key.
    OtherKey,
    /// It is sealed, and there are no keys, or none of its id, or it does not open: it is another key's,
    /// or was forged.
    Sealed,
    /// It is not sealed where all are: left from before, or slipped in by somebody without keys.
    Unsealed,
    /// The body is longer than is read.
    TooLarge,
}

impl Unreadable {
    /// One word, for events.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Truncated => "truncated",
            Self::Corrupt => "corrupt",
            Self::Newer => "newer",
            Self::OtherKey => "other_key",
            Self::Sealed => "sealed",
            Self::Unsealed => "unsealed",
            Self::TooLarge => "too_large",
        }
    }
}
