//! tower-keep's journal in memory, before a map that knows nothing of it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tower_keep::error::ConfigError;
use tower_keep::event::Events;
use tower_keep::journal::{Checked, Journal, JournalConfig, Marker, Stamp, Subject};

use super::cached::{Cached, Database, Outcome, Reading, Served, Target, Tier, name_of};

pub(super) struct InMemory {
    journal: Journal,
    subjects: Vec<Subject>,
    stored: Mutex<HashMap<u32, Entry>>,
}

struct Entry {
    version: u32,
    born: Stamp,
    checked: Checked,
}

impl InMemory {
    pub(super) fn new(database: &Database) -> Result<Self, ConfigError> {
        let keys = 0..database.registers.keys();
        Ok(Self {
            journal: Journal::new(&JournalConfig::default(), Events::none())?,
            subjects: keys.map(|key| Subject::of(name_of(key), &[])).collect(),
            stored: Mutex::default(),
        })
    }

    fn stored(&self, key: u32) -> Option<u32> {
        let stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = stored.get(&key)?;
        let subject = &self.subjects[key as usize];
        let holds = self.journal.holds(entry.born, &entry.checked, subject);
        holds.then_some(entry.version)
    }
}

impl Cached for InMemory {
    async fn read(&self, key: u32, _: Reading, database: &Database) -> Option<Served> {
        if let Some(version) = self.stored(key) {
            let from = Tier::Hot;
            return Some(Served { version, from });
        }
        let born = self.journal.position();
        let version = database.look(key).await?;
        let entry = Entry {
            version,
            born,
            checked: Checked::at(born),
        };
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        stored.insert(key, entry);
        let from = Tier::Database;
        Some(Served { version, from })
    }

    async fn invalidate(&self, targets: &[Target]) -> Outcome {
        let marker = |target: &Target| match target {
            Target::Key(key) => Some(Marker::key(&name_of(*key))),
            Target::Tag(_) | Target::Group(_) => None,
        };
        let markers: Vec<Marker> = targets.iter().filter_map(marker).collect();
        match self.journal.append(markers).await {
            Ok(_) => Outcome::Acknowledged,
            Err(_) => Outcome::Pending,
        }
    }
}
