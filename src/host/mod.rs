//! What the operating system says of this process and its machine.
//!
//! On Linux that is read from `/proc` and from the control group's files, which are opened once and
//! stay open. Elsewhere nothing is known, and whoever asks is told so: no number is made up.

#[cfg(target_os = "linux")]
mod auxv;
#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(target_os = "linux")]
mod kept_file;
mod memory;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod procfs;
#[cfg(target_os = "linux")]
mod psi;
mod system;
#[cfg(all(feature = "glibc-trim", target_os = "linux", target_env = "gnu"))]
mod trim;

pub use memory::{MemoryBounds, MemoryProbe};
pub(crate) use system::{ProcessFigures, memory_probe, memory_trim};
