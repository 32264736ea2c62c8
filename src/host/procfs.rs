//! The memory of a Linux process: its resident set, and the use within the control group that limits it.
//!
//! The resident set is read from `/proc/self/statm`, which the kernel keeps at hand: under half a
//! microsecond a reading. `smaps` would be more exact and takes a thousand times as long.

use std::path::Path;

use crate::host::auxv::Auxv;
use crate::host::cgroup::CgroupMemory;
use crate::host::kept_file::{KeptFile, field};
use crate::host::memory::{MemoryBounds, MemoryProbe};
use crate::host::psi::PressureFile;

/// Reads the files of `/proc` and `/sys/fs/cgroup`, which stay open.
#[derive(Debug)]
pub(crate) struct ProcProbe {
    statm: KeptFile,
    meminfo: KeptFile,
    page_bytes: u64,
    cgroup: Option<CgroupMemory>,
    alone: bool,
    /// The group's own where it has one, else the machine's.
    stalls: Option<PressureFile>,
    /// Fits `memory.stat` and `meminfo`, both some 2 KB.
    buffer: Box<[u8; 8192]>,
}

impl ProcProbe {
    /// The same, but what else is in the control group does not count as used: for a budget of the
    /// process' own.
    pub(crate) fn of_process_alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// The probe of this process; `None` where `/proc` is not what it should be.
    pub(crate) fn open() -> Option<Self> {
        Self::open_at(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
    }

    fn open_at(proc: &Path, cgroup_mount: &Path) -> Option<Self> {
        let mut probe = Self {
            statm: KeptFile::open(&proc.join("self/statm"))?,
            meminfo: KeptFile::open(&proc.join("meminfo"))?,
            page_bytes: Auxv::read(&proc.join("self/auxv"))?.page_bytes()?,
            cgroup: None,
            alone: false,
            stalls: None,
            buffer: Box::new([0; 8192]),
        };
        let total_bytes = probe.bounds()?.total_bytes;
        if let Ok(membership) = std::fs::read_to_string(proc.join("self/cgroup")) {
            probe.cgroup = CgroupMemory::find(&membership, cgroup_mount, total_bytes);
        }
        let group = probe.cgroup.as_ref().and_then(CgroupMemory::stalls);
        probe.stalls = group.or_else(|| PressureFile::open(&proc.join("pressure/memory")));
        Some(probe)
    }
}

impl MemoryProbe for ProcProbe {
    fn used_bytes(&mut self) -> Option<u64> {
        let statm = self.statm.read(&mut *self.buffer)?;
        // The second number is the resident set in pages, the third what of it are pages of files and shared: the
        // kernel drops a file's pages before it kills anybody, and a large file that is mapped is no shortage.
        let mut fields = statm.split_ascii_whitespace().skip(1);
        let mut pages = || fields.next()?.parse::<u64>().ok();
        let (all, shared) = (pages()?, pages()?);
        let resident = all.saturating_sub(shared).checked_mul(self.page_bytes)?;
        let in_group = self
            .cgroup
            .as_mut()
            .filter(|_| !self.alone)
            .and_then(|cgroup| cgroup.used_bytes(&mut *self.buffer));
        Some(resident.max(in_group.unwrap_or(0)))
    }

    fn stalled_percent(&mut self) -> Option<f32> {
        let stalls = self.stalls.as_ref()?;
        stalls.stalled_percent(&mut *self.buffer)
    }

    fn bounds(&mut self) -> Option<MemoryBounds> {
        let meminfo = self.meminfo.read(&mut *self.buffer)?;
        Some(MemoryBounds {
            limit_bytes: self.cgroup.as_ref().map(CgroupMemory::limit_bytes),
            total_bytes: field(meminfo, "MemTotal:")?.checked_mul(1024)?,
            available_bytes: field(meminfo, "MemAvailable:")?.checked_mul(1024)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_agrees_with_the_status_file_and_sees_growth() {
        let mut probe = ProcProbe::open().unwrap();
        // Compare the resident set alone, which is what the status file speaks of.
        probe.cgroup = None;
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let said = field(&status, "RssAnon:").unwrap() * 1024;
        let before = probe.used_bytes().unwrap();
        assert!(
            before.abs_diff(said) < 16 << 20,
            "other tests allocate at the same time, but {before} is far from {said}"
        );
        let block = vec![1_u8; 128 << 20];
        let after = probe.used_bytes().unwrap();
        assert!(after > before + (64 << 20), "{before} then {after}");
        drop(block);
    }

    #[test]
    fn the_bounds_are_those_of_the_machine() {
        let bounds = ProcProbe::open().unwrap().bounds().unwrap();
        assert!(bounds.total_bytes > 64 << 20);
        assert!(bounds.available_bytes <= bounds.total_bytes);
        assert!(
            bounds
                .limit_bytes
                .is_none_or(|limit| limit < bounds.total_bytes)
        );
    }

    #[test]
    fn a_machine_without_proc_has_no_probe() {
        assert!(ProcProbe::open_at(Path::new("/nowhere"), Path::new("/nowhere")).is_none());
    }
}
