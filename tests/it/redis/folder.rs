//! A folder for one server's files, gone with it.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A new folder below the system's temporary one; dropping it removes it and all that is in it.
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let mut path = prefix();
            path.push(number.to_string());
            let path = PathBuf::from(path);
            match fs::create_dir(&path) {
                Ok(()) => return Self { path },
                // Left behind by a killed process that had the same number.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A file's path as an argument for a program.
    pub(super) fn file(&self, name: &str) -> String {
        self.path
            .join(name)
            .to_str()
            .expect("a path in UTF-8")
            .to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// What the paths of all folders of this process begin with, and those of no other.
///
/// Short, because a Unix socket's whole path must fit into some hundred bytes.
pub(super) fn prefix() -> OsString {
    let name = format!("keep-redis-{}-", std::process::id());
    std::env::temp_dir().join(name).into_os_string()
}
