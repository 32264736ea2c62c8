//! What is true, where every process can look it up: a file with the database and what was acknowledged.
//!
//! A key has three registers of eight bytes: its version in the database, the highest version whose
//! invalidation was acknowledged, and when that was. A key is written by one process, and there by one task
//! at a time, so versions only grow. Whoever reads the second register and is then served less than it says
//! was served what had been invalidated before it asked.
//!
//! The file is read and written in place: the system's page cache is the memory that the processes share.
//! Nothing promises that eight bytes are written at once, so a register holds a number of 32 bits and its
//! complement; whoever meets half of one reads again.

use std::fs::File;
use std::io::Result;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The registers of so many keys.
#[derive(Debug)]
pub struct Registers {
    file: File,
    keys: u32,
    /// When the file was made, in ms since 1970: moments are counted from then.
    began: u64,
}

/// What was acknowledged of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    pub version: u32,
    /// In ms since the registers were made, by the clock that all processes of a machine share.
    pub at: u32,
}

/// Which register of a key.
#[derive(Clone, Copy)]
enum Which {
    Database = 0,
    Acknowledged = 1,
    At = 2,
}

const REGISTER: u64 = 8;
const OF_A_KEY: u64 = 3 * REGISTER;
/// The number of keys, and when the file was made.
const HEAD: u64 = 2 * REGISTER;

impl Registers {
    /// A new file in which every version is 0.
    pub fn create(path: &Path, keys: u32) -> Result<()> {
        let file = File::create(path)?;
        let mut bytes = u64::from(keys).to_le_bytes().to_vec();
        bytes.extend(since_1970().to_le_bytes());
        for _ in 0..3 * keys {
            bytes.extend(encode(0));
        }
        file.write_all_at(&bytes, 0)
    }

    /// The registers that were made at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let mut head = [[0; 8]; 2];
        file.read_exact_at(head.as_flattened_mut(), 0)?;
        let [keys, began] = head.map(u64::from_le_bytes);
        Ok(Self {
            file,
            keys: u32::try_from(keys).unwrap_or(u32::MAX),
            began,
        })
    }

    pub fn keys(&self) -> u32 {
        self.keys
    }

    /// Now, as [`Acknowledged::at`] counts.
    pub fn now(&self) -> u32 {
        u32::try_from(since_1970().saturating_sub(self.began)).unwrap_or(u32::MAX)
    }

    /// The version in the database.
    pub fn database(&self, key: u32) -> Result<u32> {
        self.read(key, Which::Database)
    }

    /// Writes the next version into the database and returns it. Only whoever owns the key may.
    pub fn change(&self, key: u32) -> Result<u32> {
        let next = self.database(key)? + 1;
        self.write(key, Which::Database, next)?;
        Ok(next)
    }

    /// What was acknowledged by now.
    pub fn acknowledged(&self, key: u32) -> Result<Acknowledged> {
        // The version first: its moment is written before it, so what follows is at least as young.
        let version = self.read(key, Which::Acknowledged)?;
        let at = self.read(key, Which::At)?;
        Ok(Acknowledged { version, at })
    }

    /// Notes that whatever is older than `version` is never to be served again. Only whoever owns the key may.
    pub fn acknowledge(&self, key: u32, version: u32) -> Result<()> {
        if self.read(key, Which::Acknowledged)? < version {
            self.write(key, Which::At, self.now())?;
            self.write(key, Which::Acknowledged, version)?;
        }
        Ok(())
    }

    fn read(&self, key: u32, which: Which) -> Result<u32> {
        loop {
            let mut bytes = [0; 8];
            self.file.read_exact_at(&mut bytes, place(key, which))?;
            if let Some(number) = decode(bytes) {
                return Ok(number);
            }
        }
    }

    fn write(&self, key: u32, which: Which, number: u32) -> Result<()> {
        self.file.write_all_at(&encode(number), place(key, which))
    }
}

fn place(key: u32, which: Which) -> u64 {
    HEAD + u64::from(key) * OF_A_KEY + which as u64 * REGISTER
}

fn encode(number: u32) -> [u8; 8] {
    ((u64::from(!number) << 32) | u64::from(number)).to_le_bytes()
}

fn decode(bytes: [u8; 8]) -> Option<u32> {
    let both = u64::from_le_bytes(bytes);
    let (number, complement) = (both as u32, (both >> 32) as u32);
    (number == !complement).then_some(number)
}

fn since_1970() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_handle_writes_another_reads() {
        let path = std::env::temp_dir().join(format!("keep-registers-{}", std::process::id()));
        Registers::create(&path, 3).unwrap();
        let (here, there) = (
            Registers::open(&path).unwrap(),
            Registers::open(&path).unwrap(),
        );
        std::fs::remove_file(&path).unwrap();
        assert_eq!(here.keys(), 3);
        assert_eq!(here.change(2).unwrap(), 1);
        assert_eq!(here.change(2).unwrap(), 2);
        assert_eq!(there.database(2).unwrap(), 2);
        assert_eq!(there.database(1).unwrap(), 0);
        here.acknowledge(2, 2).unwrap();
        here.acknowledge(2, 1).unwrap();
        assert_eq!(there.acknowledged(2).unwrap().version, 2);
        assert_eq!(there.acknowledged(0).unwrap().version, 0);
    }

    #[test]
    fn half_of_a_register_is_noticed() {
        let (mut torn, new) = (encode(0x00ff), encode(0x0100));
        assert_eq!(decode(torn), Some(0x00ff));
        torn[..3].copy_from_slice(&new[..3]);
        assert_eq!(decode(torn), None);
    }
}
