//! The control group that limits the process' memory, version 1 or 2.
//!
//! A limit may sit on any ancestor of the process' group, and the least of them is the one that kills.
//! Use is read in the same group, because its limit counts everything in it. Of that use the file
//! pages are taken off, touched lately or not: the kernel drops them before it kills anybody, and a
//! service that reads a large file again and again would otherwise seem short of memory for good.

use std::path::{Component, Path, PathBuf};

use crate::host::kept_file::{KeptFile, field};
use crate::host::psi::PressureFile;

/// The use within the group that has the least limit.
#[derive(Debug)]
pub(crate) struct CgroupMemory {
    limit_bytes: u64,
    usage: KeptFile,
    stat: Option<KeptFile>,
    group: PathBuf,
    version: &'static Version,
    pages: Option<Pages>,
}

/// The names of one version's files.
#[derive(Debug)]
struct Version {
    limit: &'static str,
    usage: &'static str,
    file_pages: [&'static str; 2],
}

const V1: Version = Version {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    file_pages: ["total_inactive_file", "total_active_file"],
};

const V2: Version = Version {
    limit: "memory.max",
    usage: "memory.current",
    file_pages: ["inactive_file", "active_file"],
};

impl CgroupMemory {
    /// The group with the least limit below `total_bytes`, the machine's memory. Version 1 says
    /// "no limit" with a number near 2⁶³, so a limit beyond the machine counts as none.
    ///
    /// `membership` is the text of `/proc/self/cgroup`, `mount` is `/sys/fs/cgroup`.
    pub(crate) fn find(membership: &str, mount: &Path, total_bytes: u64) -> Option<Self> {
        let (limit_bytes, group, version) = groups(membership, mount)
            .into_iter()
            .filter_map(|(group, version)| {
                let text = std::fs::read_to_string(group.join(version.limit)).ok()?;
                // `max` of version 2 does not parse, as it should not.
                let limit = text.trim().parse().ok()?;
                (limit > 0 && limit < total_bytes).then_some((limit, group, version))
            })
            .min_by_key(|(limit, ..)| *limit)?;
        Some(Self {
            limit_bytes,
            usage: KeptFile::open(&group.join(version.usage))?,
            stat: KeptFile::open(&group.join("memory.stat")),
            group,
            version,
            pages: None,
        })
    }

    pub(crate) const fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// How long the tasks of this group waited for memory; version 1 does not know.
    pub(crate) fn stalls(&self) -> Option<PressureFile> {
        PressureFile::open(&self.group.join("memory.pressure"))
    }

    /// The bytes in use without file pages.
    ///
    /// How many of those there are stands in a long file that the kernel adds up anew for each reader, at
    /// ten times the price of the total. So it is read only when the total has moved by a hundredth of
    /// the limit, and else at every tenth time.
    pub(crate) fn used_bytes(&mut self, buffer: &mut [u8]) -> Option<u64> {
        let usage: u64 = self.usage.read(buffer)?.trim().parse().ok()?;
        let near = |known: &Pages| {
            known.asked < PAGES_EVERY && usage.abs_diff(known.usage) <= self.limit_bytes / 100
        };
        let known = match self.pages.take().filter(near) {
            Some(known) => Pages {
                asked: known.asked + 1,
                ..known
            },
            None => Pages {
                bytes: self.file_pages(buffer),
                usage,
                asked: 1,
            },
        };
        let used = usage.saturating_sub(known.bytes);
        self.pages = Some(known);
        Some(used)
    }

    fn file_pages(&self, buffer: &mut [u8]) -> u64 {
        let stat = self.stat.as_ref().and_then(|stat| stat.read(buffer));
        let names = self.version.file_pages.iter();
        names.filter_map(|name| field(stat?, name)).sum()
    }
}

/// The file pages as they were when they were last read.
#[derive(Debug)]
struct Pages {
    bytes: u64,
    /// The total at that time.
    usage: u64,
    /// How often they were asked for since.
    asked: u32,
}

const PAGES_EVERY: u32 = 10;

/// The process' memory groups with all their ancestors.
fn groups(membership: &str, mount: &Path) -> Vec<(PathBuf, &'static Version)> {
    let mut groups = Vec::new();
    for line in membership.lines() {
        // Each line is `number:controllers:path`; version 2 is number 0 without controllers.
        let mut parts = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) =
            (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (mount, version) = if number == "0" && controllers.is_empty() {
            (mount.to_owned(), &V2)
        } else if controllers.split(',').any(|name| name == "memory") {
            (mount.join("memory"), &V1)
        } else {
            continue;
        };
        // In a container the path may be the host's and lead nowhere here: then only the mount's
        // root is left, which is the container's own group.
        let path = Path::new(path.trim_start_matches('/'));
        groups.extend(
            path.ancestors()
                .filter(|ancestor| {
                    !ancestor
                        .components()
                        .any(|part| part == Component::ParentDir)
                })
                .map(|ancestor| (mount.join(ancestor), version)),
        );
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const GIB: u64 = 1 << 30;

    /// A made-up `/sys/fs/cgroup` that is gone with the test.
    struct Mount(PathBuf);

    impl Mount {
        fn with(name: &str, files: &[(&str, &str)]) -> Self {
            let root =
                std::env::temp_dir().join(format!("tower-keep-{name}-{}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Mount {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn version_2_finds_the_least_limit_among_the_ancestors() {
        let mount = Mount::with(
            "v2",
            &[
                ("a/memory.max", "536870912\n"),
                ("a/memory.current", "400000000\n"),
                ("a/memory.stat", "anon 1\ninactive_file 150000000\n"),
                ("a/b/memory.max", "max\n"),
                ("a/b/memory.current", "1\n"),
            ],
        );
        let mut found = CgroupMemory::find("0::/a/b\n", &mount.0, GIB).unwrap();
        assert_eq!(found.limit_bytes(), 512 << 20);
        assert_eq!(found.used_bytes(&mut [0; 4096]), Some(250_000_000));
    }

    #[test]
    fn version_1_takes_a_limit_beyond_the_machine_for_none() {
        let mount = Mount::with(
            "v1",
            &[
                ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/memory.usage_in_bytes", "5\n"),
            ],
        );
        let membership = "4:memory:/\n1:cpu:/\n";
        assert!(CgroupMemory::find(membership, &mount.0, GIB).is_none());
    }

    #[test]
    fn a_host_path_in_a_container_falls_back_to_the_mount() {
        let mount = Mount::with(
            "v1-container",
            &[
                ("memory/memory.limit_in_bytes", "268435456\n"),
                ("memory/memory.usage_in_bytes", "100\n"),
            ],
        );
        let membership = "9:cpu,memory:/docker/0123\n";
        let mut found = CgroupMemory::find(membership, &mount.0, GIB).unwrap();
        assert_eq!(found.limit_bytes(), 256 << 20);
        assert_eq!(found.used_bytes(&mut [0; 64]), Some(100), "without a stat");
    }

    #[test]
    fn file_pages_are_read_again_when_the_total_moves_and_at_every_tenth_time() {
        let mount = Mount::with(
            "pages",
            &[
                ("memory.max", "100000\n"),
                ("memory.current", "50000\n"),
                ("memory.stat", "inactive_file 10000\n"),
            ],
        );
        let mut found = CgroupMemory::find("0::/\n", &mount.0, GIB).unwrap();
        let mut used = |current: &str, pages: u32| {
            fs::write(mount.0.join("memory.current"), current).unwrap();
            let stat = format!("inactive_file {pages}\n");
            fs::write(mount.0.join("memory.stat"), stat).unwrap();
            found.used_bytes(&mut [0; 64]).unwrap()
        };
        assert_eq!(used("50000", 10_000), 40_000);
        assert_eq!(used("51000", 20_000), 41_000, "near enough");
        assert_eq!(used("51001", 20_000), 31_001);
        for _ in 0..9 {
            assert_eq!(used("51001", 30_000), 31_001);
        }
        assert_eq!(used("51001", 30_000), 21_001);
    }

    #[test]
    fn nonsense_is_no_limit() {
        let mount = Mount::with("odd", &[("memory.max", "many\n")]);
        for membership in ["", "::", "0::/", "x\n0::/../..\n"] {
            assert!(CgroupMemory::find(membership, &mount.0, GIB).is_none());
        }
    }
}
