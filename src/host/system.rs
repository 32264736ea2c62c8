//! Which of the readings this operating system can give.

use crate::host::memory::{MemoryProbe, NoProbe};

/// The machine's own. A budget that was set is the process' `alone`, whatever else is in its group.
#[cfg(target_os = "linux")]
pub(crate) fn memory_probe(alone: bool) -> Box<dyn MemoryProbe> {
    match crate::host::procfs::ProcProbe::open() {
        Some(probe) if alone => Box::new(probe.of_process_alone()),
        Some(probe) => Box::new(probe),
        None => Box::new(NoProbe),
    }
}

/// Nothing is known of the memory here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn memory_probe(_alone: bool) -> Box<dyn MemoryProbe> {
    Box::new(NoProbe)
}
