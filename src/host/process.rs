//! What the process itself takes from the machine: CPU time and descriptors.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::auxv::Auxv;
use crate::host::kept_file::KeptFile;

/// Reads the figures of this process. The files stay open.
#[derive(Debug)]
pub(crate) struct ProcessProbe {
    stat: KeptFile,
    descriptors: PathBuf,
    limits: KeptFile,
    ticks_per_second: u64,
}

impl ProcessProbe {
    /// The probe of this process; `None` where `/proc` is not what it should be.
    pub(crate) fn open() -> Option<Self> {
        Self::open_at(Path::new("/proc"))
    }

    fn open_at(proc: &Path) -> Option<Self> {
        let auxv = Auxv::read(&proc.join("self/auxv"))?;
        Some(Self {
            stat: KeptFile::open(&proc.join("self/stat"))?,
            descriptors: proc.join("self/fd"),
            limits: KeptFile::open(&proc.join("self/limits"))?,
            ticks_per_second: auxv.ticks_per_second().filter(|ticks| *ticks > 0)?,
        })
    }

    /// The CPU time of all threads since the process began, in the kernel and outside of it. Exact to
    /// a tick, which is 10 ms nearly everywhere.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        let ticks = cpu_ticks(self.stat.read(&mut [0; 512])?)?;
        let millis = ticks.checked_mul(1000)? / self.ticks_per_second;
        Some(Duration::from_millis(millis))
    }

    /// How many descriptors are open, where the kernel keeps the number at hand: since Linux 6.2 it is
    /// the size of the folder that lists them.
    pub(crate) fn descriptors(&self) -> Option<u64> {
        let size = std::fs::metadata(&self.descriptors)
            .ok()
            .as_ref()
            .map(Metadata::len)?;
        (size > 0).then_some(size)
    }

    /// The same counted one by one: some 200 ns a descriptor.
    pub(crate) fn count_descriptors(&self) -> Option<u64> {
        let entries = std::fs::read_dir(&self.descriptors).ok()?;
        // The listing holds a descriptor itself.
        Some((entries.count() as u64).saturating_sub(1))
    }

    /// How many descriptors may be open; `None` also for "unlimited".
    pub(crate) fn descriptors_max(&self) -> Option<u64> {
        open_files_max(self.limits.read(&mut [0; 2048])?)
    }
}

/// User and system time in ticks, the 14th and 15th field. The second is the program's name in
/// brackets, which may hold blanks and brackets of its own, so they are counted from the last one on.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

/// The soft limit in `Max open files            1024                 524288               files`.
fn open_files_max(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let rest = "S 1 1 1 0 -1 4194560 1 2 3 4 120 34 0 0 20 0 1 0 5 6 7";
        for name in ["service", "a b", "a) S 1 (b", ""] {
            assert_eq!(
                cpu_ticks(&format!("7 ({name}) {rest}")),
                Some(154),
                "{name}"
            );
        }
        for odd in ["", "7 (a", "7 (a) S 1", "7 (a) S 1 1 1 0 -1 1 1 2 3 4 x y"] {
            assert_eq!(cpu_ticks(odd), None, "{odd}");
        }
    }

    #[test]
    fn the_soft_limit_is_read_and_unlimited_is_none() {
        let limits =
            "Limit   Soft Limit   Hard Limit   Units\nMax open files   1024   524288   files\n";
        assert_eq!(open_files_max(limits), Some(1024));
        assert_eq!(
            open_files_max("Max open files unlimited unlimited files"),
            None
        );
        assert_eq!(open_files_max("Max processes 5 5 processes"), None);
    }

    #[test]
    fn this_process_is_read_and_work_shows() {
        let probe = ProcessProbe::open().unwrap();
        let before = probe.cpu_time().unwrap();
        let mut sum = 0_u64;
        while probe.cpu_time().unwrap() < before + Duration::from_millis(30) {
            sum = std::hint::black_box((0..100_000_u64).fold(sum, u64::wrapping_add));
        }
        let open: Vec<_> = (0..20)
            .map(|_| std::fs::File::open("/proc/self/stat").unwrap())
            .collect();
        let counted = probe.count_descriptors().unwrap();
        assert!(counted >= 20, "{counted}");
        if let Some(told) = probe.descriptors() {
            // Other tests open and close files meanwhile.
            assert!(told.abs_diff(counted) < 64, "{told} and {counted}");
        }
        assert!(probe.descriptors_max().is_none_or(|max| max >= counted));
        drop(open);
    }

    #[test]
    fn a_machine_without_proc_has_no_probe() {
        assert!(ProcessProbe::open_at(Path::new("/nowhere")).is_none());
    }
}
