//! What can be set about the journal.

use serde::{Deserialize, Serialize};

use crate::error::Faults;

/// Bounds of the journal's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JournalConfig {
    /// How many different keys, paths and tags are remembered as invalidated: 1,024 to 16,777,216.
    /// One takes about 24 bytes. When they are more, the older half is forgotten and entries stored
    /// before it become misses.
    pub markers_max: usize,
    /// How many different patterns are remembered: 16 to 65,536. Each is compared with the keys of
    /// entries that are older than it, once per entry and invalidation.
    pub patterns_max: usize,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            markers_max: 65_536,
            patterns_max: 1_024,
        }
    }
}

impl JournalConfig {
    /// Notes everything that is out of range.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        faults.within(
            format!("{room}.markers_max"),
            self.markers_max,
            1_024..=16_777_216,
            "markers",
        );
        faults.within(
            format!("{room}.patterns_max"),
            self.patterns_max,
            16..=65_536,
            "patterns",
        );
    }
}
