//! What the cold stores of both databases share: the table's name, and the rows of one statement.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::ConfigError;
use crate::tiers::{ColdEntry, ColdError, is_storable};

/// The name of a table that can be written into a statement as it is.
///
/// Names cannot be bound as values can, so this is the one thing that statements are put together from:
/// small letters, digits and underscores, which mean the same quoted and unquoted in every database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName(Arc<str>);

impl TableName {
    /// A name of 1 to 48 small letters, digits and underscores that does not begin with a digit. (An index
    /// is named after the table, and PostgreSQL's names end at 63 bytes.)
    ///
    /// # Errors
    ///
    /// Any other name; it is named.
    pub fn new(name: &str) -> Result<Self, ConfigError> {
        let fits = |letter: u8| matches!(letter, b'a'..=b'z' | b'0'..=b'9' | b'_');
        let begins = name
            .bytes()
            .next()
            .is_some_and(|first| !first.is_ascii_digit());
        if begins && name.len() <= NAME_MAX && name.bytes().all(fits) {
            Ok(Self(name.into()))
        } else {
            let allowed = "must be 1 to 48 of a-z, 0-9 and _, and not begin with a digit";
            Err(ConfigError::one("cold.table", name, allowed))
        }
    }
}

const NAME_MAX: usize = 48;

/// `keep_cold`.
impl Default for TableName {
    fn default() -> Self {
        Self("keep_cold".into())
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(in crate::sqlx) fn failed(error: ::sqlx::Error) -> ColdError {
    ColdError::new(error)
}

/// The entries that are to be stored: each key once, its last entry, in the order of the keys' bytes.
///
/// One statement cannot change a row twice. And whoever locks several rows does so in this order, so that no
/// two of them wait for each other in a circle.
pub(in crate::sqlx) fn rows(entries: &[ColdEntry]) -> Vec<&ColdEntry> {
    let storable = entries.iter().filter(|entry| is_storable(&entry.key));
    let last: BTreeMap<&str, &ColdEntry> = storable.map(|entry| (&*entry.key, entry)).collect();
    last.into_values().collect()
}

/// The keys that can be in the table at all.
pub(in crate::sqlx) fn storable(keys: &[Arc<str>]) -> Vec<&str> {
    keys.iter()
        .map(|key| &**key)
        .filter(|key| is_storable(key))
        .collect()
}

/// Both databases count in signed numbers. What ends after 292 million years may as well end then.
pub(in crate::sqlx) fn signed(millis: u64) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX)
}

/// What was found, in the order in which it was asked for. A key may be asked for twice.
pub(in crate::sqlx) fn in_order(
    keys: &[Arc<str>],
    found: Vec<(String, Vec<u8>)>,
) -> Vec<Option<Bytes>> {
    let found: HashMap<String, Bytes> = found
        .into_iter()
        .map(|(key, bytes)| (key, Bytes::from(bytes)))
        .collect();
    keys.iter().map(|key| found.get(&**key).cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_by_an_identifier_and_nothing_else() {
        let longest = "x".repeat(48);
        for name in ["keep_cold", "_", "a1", "select", &longest] {
            assert_eq!(TableName::new(name).unwrap().to_string(), name);
        }
        let longer = "x".repeat(49);
        let bad = [
            "", "1a", "Keep", "a-b", "a.b", "a b", "a\"b", "a;b", "ä", "a\0", &longer,
        ];
        for name in bad {
            let error = TableName::new(name).unwrap_err();
            assert!(error.to_string().contains("cold.table"), "{error}");
        }
    }

    #[test]
    fn of_one_key_the_last_entry_is_stored_and_rows_are_in_the_order_of_keys() {
        let entry = |key: &str, bytes: &'static str| ColdEntry {
            key: key.into(),
            bytes: Bytes::from_static(bytes.as_bytes()),
            until_ms: 1,
        };
        let entries = [
            entry("b", "1"),
            entry("a\0", "2"),
            entry("a", "3"),
            entry("b", "4"),
        ];
        let rows: Vec<&[u8]> = rows(&entries)
            .into_iter()
            .map(|row| &row.bytes[..])
            .collect();
        assert_eq!(rows, [b"3", b"4"]);
    }
}
