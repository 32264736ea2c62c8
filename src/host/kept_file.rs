//! A small file of the kernel that is opened once and read again and again.
//!
//! Reading from the start of an open descriptor makes the kernel write the figures anew, for a
//! quarter of the price of opening the file each time.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// An open file of `/proc` or `/sys/fs/cgroup`.
#[derive(Debug)]
pub(crate) struct KeptFile(File);

impl KeptFile {
    /// Opens the file; `None` if that is not possible.
    pub(crate) fn open(path: &Path) -> Option<Self> {
        File::open(path).ok().map(Self)
    }

    /// The present text, as far as it fits into `buffer`.
    pub(crate) fn read<'b>(&self, buffer: &'b mut [u8]) -> Option<&'b str> {
        let count = self.0.read_at(buffer, 0).ok()?;
        std::str::from_utf8(buffer.get(..count)?).ok()
    }
}

/// The number after `name` at the start of a line, as in `MemTotal:  1900180 kB`.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some(name))
            .then(|| words.next()?.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "MemTotal:        1900180 kB\nMemAvailable:   430000 kB\ninactive_file 7\nodd\n";
        assert_eq!(field(text, "MemAvailable:"), Some(430_000));
        assert_eq!(field(text, "inactive_file"), Some(7));
        assert_eq!(field(text, "Mem"), None);
        assert_eq!(field(text, "odd"), None);
    }

    #[test]
    fn a_kept_file_tells_the_present_and_not_the_past() {
        let path = std::env::temp_dir().join(format!("tower-keep-kept-{}", std::process::id()));
        std::fs::write(&path, "1\n").unwrap();
        let file = KeptFile::open(&path).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(file.read(&mut buffer), Some("1\n"));
        std::fs::write(&path, "22\n").unwrap();
        assert_eq!(file.read(&mut buffer), Some("22\n"));
        std::fs::remove_file(&path).unwrap();
        assert!(KeptFile::open(&path).is_none());
    }
}
