//! What the guard tells about memory.

/// The process' memory at the last sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryReading {
    /// Bytes in use; 0 when there was no reading.
    pub used_bytes: u64,
    /// The budget in bytes; 0 when none could be made, which turns the watch off.
    pub budget_bytes: u64,
}
