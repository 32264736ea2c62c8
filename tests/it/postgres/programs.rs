//! Where PostgreSQL's programs are. Debian puts them on nobody's PATH, and may have several versions.

use std::path::{Path, PathBuf};
use std::process::Command;

const DEBIAN: &str = "/usr/lib/postgresql";

/// The folder with `initdb` and `postgres`.
pub(super) fn folder() -> PathBuf {
    let mut tried = Vec::new();
    let asked = std::env::var("TEST_POSTGRES_BIN").ok().map(PathBuf::from);
    for folder in asked
        .into_iter()
        .chain(newest_of_debian())
        .chain(told_by_pg_config())
    {
        if has_server(&folder) {
            return folder;
        }
        tried.push(folder);
    }
    panic!(
        "there is no initdb and postgres (looked in {tried:?}, in {DEBIAN}/*/bin, and where pg_config \
         points). These tests start a server of their own; on Debian or Ubuntu `apt-get install postgresql` \
         installs what they need."
    )
}

fn has_server(folder: &Path) -> bool {
    ["initdb", "postgres"]
        .iter()
        .all(|program| folder.join(program).is_file())
}

fn newest_of_debian() -> Option<PathBuf> {
    let versions = std::fs::read_dir(DEBIAN).ok()?;
    let numbered = versions.filter_map(|version| {
        let name = version.ok()?.file_name().into_string().ok()?;
        let number: f32 = name.parse().ok()?;
        Some((number, Path::new(DEBIAN).join(name).join("bin")))
    });
    let newest = numbered
        .filter(|(_, folder)| has_server(folder))
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    newest.map(|(_, folder)| folder)
}

fn told_by_pg_config() -> Option<PathBuf> {
    let told = Command::new("pg_config").arg("--bindir").output().ok()?;
    let folder = String::from_utf8(told.stdout).ok()?;
    told.status.success().then(|| PathBuf::from(folder.trim()))
}
