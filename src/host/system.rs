//! Which of the readings this operating system can give, and what stands in for the rest.

use std::time::Duration;

use crate::host::memory::{MemoryProbe, NoProbe};
#[cfg(target_os = "linux")]
use crate::host::process::ProcessProbe;

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

/// What gives free memory of the allocator back to the machine, where this build knows a way.
pub(crate) fn memory_trim() -> Option<fn()> {
    #[cfg(all(feature = "glibc-trim", target_os = "linux", target_env = "gnu"))]
    return Some(|| {
        crate::host::trim::trim();
    });
    #[cfg(not(all(feature = "glibc-trim", target_os = "linux", target_env = "gnu")))]
    None
}

/// The figures of this process; each is `None` where it cannot be read.
#[derive(Debug)]
pub(crate) struct ProcessFigures {
    #[cfg(target_os = "linux")]
    probe: Option<ProcessProbe>,
}

#[cfg(target_os = "linux")]
impl ProcessFigures {
    pub(crate) fn open() -> Self {
        Self {
            probe: ProcessProbe::open(),
        }
    }

    /// The CPU time of all threads since the process began.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        self.probe.as_ref()?.cpu_time()
    }

    /// How many descriptors are open, if that is known without counting them.
    pub(crate) fn descriptors(&self) -> Option<u64> {
        self.probe.as_ref()?.descriptors()
    }

    /// How many descriptors are open, counted: not to be asked more than once a minute.
    pub(crate) fn count_descriptors(&self) -> Option<u64> {
        self.probe.as_ref()?.count_descriptors()
    }

    /// How many descriptors may be open, if there is a limit.
    pub(crate) fn descriptors_max(&self) -> Option<u64> {
        self.probe.as_ref()?.descriptors_max()
    }
}

#[cfg(not(target_os = "linux"))]
#[expect(
    clippy::unused_self,
    reason = "the same calls as where something is known"
)]
impl ProcessFigures {
    pub(crate) fn open() -> Self {
        Self {}
    }

    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        None
    }

    pub(crate) fn descriptors(&self) -> Option<u64> {
        None
    }

    pub(crate) fn count_descriptors(&self) -> Option<u64> {
        None
    }

    pub(crate) fn descriptors_max(&self) -> Option<u64> {
        None
    }
}
