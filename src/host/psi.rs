//! Pressure stall information: how long tasks of the machine waited for memory lately.
//!
//! A process may be well inside of its budget while the machine swaps, because others share it. The
//! kernel says so in `/proc/pressure/memory`, and for a control group of version 2 in the group's own
//! `memory.pressure`, as the share of the last ten seconds in which at least one task stood still.

use std::path::Path;

use crate::host::kept_file::KeptFile;

/// A file of pressure stall information.
#[derive(Debug)]
pub(crate) struct PressureFile(KeptFile);

impl PressureFile {
    /// Opens the file; `None` where the kernel has none, or has it switched off.
    pub(crate) fn open(path: &Path) -> Option<Self> {
        let file = Self(KeptFile::open(path)?);
        // A kernel that was built with stall information but started without it fails at reading.
        file.stalled_percent(&mut [0; 256]).map(|_| file)
    }

    /// The share of the last ten seconds in which some task waited for memory, in percent.
    pub(crate) fn stalled_percent(&self, buffer: &mut [u8]) -> Option<f32> {
        some_avg10(self.0.read(buffer)?)
    }
}

/// The number in `some avg10=5.79 avg60=..`.
fn some_avg10(text: &str) -> Option<f32> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let mut fields = some.split_ascii_whitespace();
    let percent: f32 = fields
        .find_map(|field| field.strip_prefix("avg10="))?
        .parse()
        .ok()?;
    // Whatever a file says that is not the kernel's, no comparison downstream may meet a NaN.
    (0.0..=100.0).contains(&percent).then_some(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_read_from_the_line_for_some_tasks() {
        for (text, percent) in [
            (
                "some avg10=5.79 avg60=1.00 avg300=0.20 total=9\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=1\n",
                Some(5.79),
            ),
            ("full avg10=9.00\nsome avg10=0.00\n", Some(0.0)),
            ("some avg60=1.00 avg10=100.00", Some(100.0)),
            ("full avg10=9.00\n", None),
            ("some avg10=NaN\n", None),
            ("some avg10=-1\n", None),
            ("some avg10=101\n", None),
            ("some avg10=\n", None),
            ("", None),
        ] {
            assert_eq!(some_avg10(text), percent, "{text}");
        }
    }

    #[test]
    fn a_machine_without_stall_information_has_no_file() {
        assert!(PressureFile::open(Path::new("/nowhere/pressure")).is_none());
    }
}
