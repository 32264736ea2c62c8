//! The house stands as it was drawn: floors, doors, no circles, short files.
//!
//! Each rule is asked twice: of the source tree, where it must find nothing, and of a made-up tree
//! that breaks it, where it must. A rule that cannot fail guards nothing.

mod plan;
mod rules;
mod text;

use std::fs;
use std::path::{Path, PathBuf};

use crate::house::plan::House;
use crate::house::rules::Rule;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read_tree(folder: &Path, tree: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_tree(&path, tree);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path
                .strip_prefix(root())
                .unwrap()
                .to_str()
                .unwrap()
                .replace('\\', "/");
            tree.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

fn tree() -> Vec<(String, String)> {
    let mut tree = Vec::new();
    read_tree(&root().join("src"), &mut tree);
    tree.sort();
    tree
}

#[track_caller]
fn holds(rule: Rule) {
    let faults = rule(&House::read(&tree()));
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// Asserts that the rule finds one fault for each of `expected`, in order, and that the fault
/// contains it.
#[track_caller]
fn finds(rule: Rule, tree: &[(&str, &str)], expected: &[&str]) {
    let faults = rule(&House::read(tree));
    let matches = faults
        .iter()
        .zip(expected)
        .all(|(fault, part)| fault.contains(part));
    assert!(
        matches && faults.len() == expected.len(),
        "found {faults:#?}, expected {expected:#?}"
    );
}

#[test]
fn the_whole_tree_is_read() {
    let tree = tree();
    let has = |path: &str| tree.iter().any(|(name, _)| name == path);
    assert!(has("src/lib.rs") && has("src/clock.rs") && has("src/identity/mod.rs"));
    let house = House::read(&tree);
    let graph = house.graph();
    let names =
        |file: &str, other: &str| graph.get(file).is_some_and(|named| named.contains(other));
    assert!(
        names("src/response.rs", "src/refusal.rs"),
        "a file's paths are not read"
    );
    assert!(
        names("src/route.rs", "src/identity/view.rs"),
        "a door is not seen through"
    );
}

#[test]
fn a_room_imports_only_rooms_on_lower_floors() {
    holds(rules::arrows_point_down);
}

#[test]
fn an_arrow_that_points_up_is_found_however_it_is_written() {
    let tree = [
        (
            "src/clock.rs",
            "use crate::event::Event;\nfn f() { crate::error::Fault::new(); }",
        ),
        (
            "src/event.rs",
            "use crate::{\n clock::Clock,\n response::{AnswerBody, other},\n};",
        ),
        (
            "src/cache/key.rs",
            "fn f() -> crate::keep::Keep { todo() }\nuse crate::journal::Stamp;",
        ),
        (
            "src/cache/entry.rs",
            "#[serde(with = \"crate::warming::millis\")]\nstruct A;",
        ),
        (
            "src/keep/builder.rs",
            "use crate::profile::Profile;\nuse crate::cache::Cache;",
        ),
        (
            "src/guard/layer.rs",
            "macro_rules! m { () => { $crate::metrics::Metrics } }",
        ),
        ("src/lib.rs", "pub use keep::Keep;"),
    ];
    let expected = [
        "src/clock.rs:1: a room imports only lower floors: `crate::event::Event` is on floor 2, `clock` on 1",
        "src/event.rs:3: a room imports only lower floors: `crate::response::AnswerBody`",
        "src/event.rs:3: a room imports only lower floors: `crate::response::other`",
        "src/cache/key.rs:1: a room imports only lower floors: `crate::keep::Keep`",
        "src/cache/entry.rs:1: a room imports only lower floors: `crate::warming::millis`",
        "src/guard/layer.rs:1: a room imports only lower floors: `crate::metrics::Metrics`",
    ];
    finds(rules::arrows_point_down, &tree, &expected);
}

#[test]
fn comments_strings_and_tests_point_nowhere() {
    let source = r##"
//! See [`crate::keep::Keep`].
/* use crate::keep::Keep; /* nested */ use crate::cache::Cache; */
fn f<'a>(text: &'a str) -> char { let quote = '"'; let other = '\''; quote }
const A: &str = "use crate::keep::Keep; \" still inside";
const B: &str = r#"say "crate::keep::Keep" twice"#;
const C: &[u8] = b"crate"; const D: u8 = b'"';
#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::Keep;
    fn g() { if true { std::thread::spawn(|| {}); } }
}
"##;
    let tree = [("src/clock.rs", source)];
    finds(rules::arrows_point_down, &tree, &[]);
    finds(rules::nothing_reaches_up_by_super, &tree, &[]);
    finds(rules::only_task_spawns, &tree, &[]);
    let behind = format!("{source}\nuse crate::keep::Keep;");
    finds(
        rules::arrows_point_down,
        &[("src/clock.rs", &behind)],
        &["src/clock.rs:15: "],
    );
}

#[test]
fn every_room_is_on_the_plan() {
    holds(rules::rooms_are_on_the_plan);
}

#[test]
fn a_room_that_is_not_on_the_plan_is_found() {
    let tree = [
        ("src/lib.rs", "pub mod attic;"),
        ("src/attic.rs", "use crate::clock::Clock;"),
        ("src/cellar/mod.rs", ""),
        (
            "src/cache/key.rs",
            "use crate::Keep;\nuse crate::{attic::Box, clock::Clock};",
        ),
    ];
    let expected = [
        "src/attic.rs:1: `attic` is no room on the plan",
        "src/cellar/mod.rs:1: `cellar` is no room on the plan",
        "src/cache/key.rs:1: `crate::Keep` is no room on the plan",
        "src/cache/key.rs:2: `crate::attic::Box` is no room on the plan",
    ];
    finds(rules::rooms_are_on_the_plan, &tree, &expected);
}

#[test]
fn no_two_files_import_each_other() {
    holds(rules::files_form_no_circle);
}

#[test]
fn a_circle_is_found_inside_a_room_and_through_doors() {
    let inside = [
        (
            "src/cache/mod.rs",
            "mod entry;\nmod key;\nmod tiers;\npub use key::Key;",
        ),
        (
            "src/cache/key.rs",
            "use crate::cache::tiers::Tiers;\npub struct Key;",
        ),
        ("src/cache/entry.rs", "use crate::cache::key::Key;"),
        (
            "src/cache/tiers.rs",
            "use crate::cache::{entry::Entry, key};",
        ),
    ];
    let expected = [
        "src/cache/entry.rs -> src/cache/key.rs -> src/cache/tiers.rs -> src/cache/entry.rs",
        "src/cache/key.rs -> src/cache/tiers.rs -> src/cache/key.rs",
    ];
    finds(rules::files_form_no_circle, &inside, &expected);
    let through_doors = [
        ("src/route.rs", "use crate::identity::Viewed as V;"),
        (
            "src/identity/mod.rs",
            "mod peer;\nmod view;\npub use {peer::Peer, view::View as Viewed};",
        ),
        ("src/identity/view.rs", "use crate::identity::peer::Peer;"),
        (
            "src/identity/peer.rs",
            "fn f() { crate::route::matched(); }",
        ),
    ];
    let expected = ["src/identity/peer.rs -> src/route.rs -> src/identity/view.rs"];
    finds(rules::files_form_no_circle, &through_doors, &expected);
    let by_glob = [
        ("src/route.rs", "use crate::identity::*;"),
        ("src/identity/mod.rs", "mod peer;\npub use peer::*;"),
        ("src/identity/peer.rs", "use crate::route::Routes;"),
    ];
    finds(
        rules::files_form_no_circle,
        &by_glob,
        &["src/identity/peer.rs -> src/route.rs"],
    );
}

#[test]
fn rooms_may_meet_on_the_ground_floor_while_their_files_form_no_circle() {
    let tree = [
        ("src/route.rs", "use crate::identity::View;"),
        (
            "src/identity/mod.rs",
            "mod peer;\nmod view;\npub use peer::Peer;\npub use view::View;",
        ),
        (
            "src/identity/view.rs",
            "pub(in crate::identity) struct View;",
        ),
        ("src/identity/peer.rs", "use crate::route::Routes;"),
    ];
    finds(rules::files_form_no_circle, &tree, &[]);
    finds(rules::arrows_point_down, &tree, &[]);
}

#[test]
fn a_room_is_entered_through_its_door() {
    holds(rules::doors_are_used);
}

#[test]
fn a_path_behind_a_door_is_found() {
    let tree = [
        (
            "src/cache/mod.rs",
            "pub mod key;\nmod query;\npub use self::key::Key;\npub use query::query;",
        ),
        ("src/cache/key.rs", "pub struct Key;"),
        (
            "src/cache/query.rs",
            "use crate::cache::Key;\nuse crate::cache::key::Key as K;",
        ),
        (
            "src/admin/page.rs",
            "use crate::cache::{Key, key::Key as K};\nuse crate::cache::query;",
        ),
        (
            "src/lib.rs",
            "pub mod cache;\npub use cache::key::Key;\npub use crate::cache::query;",
        ),
    ];
    let expected = [
        "src/cache/query.rs:1: inside a room name the file, not the door: `crate::cache::Key`",
        "src/admin/page.rs:1: outside of its room a path ends at the door: `crate::cache::key::Key`",
        "src/lib.rs:2: outside of its room a path ends at the door: `crate::cache::key::Key`",
    ];
    finds(rules::doors_are_used, &tree, &expected);
}

#[test]
fn doors_define_nothing() {
    holds(rules::doors_define_nothing);
}

#[test]
fn a_definition_in_a_door_is_found() {
    let door = "
//! A door.
#![cfg_attr(docsrs, feature(doc_cfg))]
#[cfg(feature = \"axum\")]
pub mod router;
mod key;
pub use key::{Key, Key as r#type};
pub(crate) use key::inner;
";
    let defining = "mod a { pub struct B; }\npub async fn f() {}\nstruct S(u8);\npub enum E { A }
impl S { fn g() {} }\ntrait T {}\nconst C: [u8; 2] = [1, 2];\nstatic D: u8 = 1;\ntype F = u8;
macro_rules! m { () => {} }\ncompile_error!(\"no\");\npub use key::Last;\n#[derive(Debug)]\nunion U { a: u8 }";
    let expected = [
        ":1: a door defines nothing, this one has `mod a {`",
        ":2: a door defines nothing, this one has `async fn f`",
        ":3: a door defines nothing, this one has `struct S (`",
        ":4: a door defines nothing, this one has `enum E {`",
        ":5: a door defines nothing, this one has `impl S {`",
        ":6: a door defines nothing, this one has `trait T {`",
        ":7: a door defines nothing, this one has `const C :`",
        ":8: a door defines nothing, this one has `static D :`",
        ":9: a door defines nothing, this one has `type F =`",
        ":10: a door defines nothing, this one has `macro_rules ! m`",
        ":11: a door defines nothing, this one has `compile_error ! (`",
        ":14: a door defines nothing, this one has `union U {`",
    ];
    let readme = "#[cfg(doctest)]\n#[doc = include_str!(\"../README.md\")]\nstruct Readme;";
    finds(
        rules::doors_define_nothing,
        &[("src/cache/mod.rs", door), ("src/lib.rs", readme)],
        &[],
    );
    finds(
        rules::doors_define_nothing,
        &[("src/lib.rs", defining)],
        &expected,
    );
    finds(
        rules::doors_define_nothing,
        &[("src/cache/mod.rs", defining)],
        &expected,
    );
    finds(
        rules::doors_define_nothing,
        &[("src/cache/mod.rs", readme)],
        &["struct Readme ;"],
    );
    finds(
        rules::doors_define_nothing,
        &[("src/cache/key.rs", defining)],
        &[],
    );
}

#[test]
fn a_file_is_short_before_its_tests() {
    holds(rules::files_are_short);
}

#[test]
fn a_long_file_is_found_and_its_tests_are_not_counted() {
    let short = "fn f() {}\n".repeat(rules::LONGEST_FILE - 1);
    let tests = "#[cfg(test)]\nmod tests {\n".to_owned() + &"fn t() {}\n".repeat(500) + "}\n";
    let exact = format!("{short}fn last() {{}}\n{tests}");
    finds(rules::files_are_short, &[("src/clock.rs", &exact)], &[]);
    let long = format!("{short}\n{tests}fn hidden_behind_the_tests() {{}}\n");
    let expected = ["src/clock.rs:401: 401 lines before its tests, 400 are allowed"];
    finds(
        rules::files_are_short,
        &[("src/clock.rs", &long)],
        &expected,
    );
    let not_tests = exact.replace("cfg(test)", "cfg(not(test))");
    finds(
        rules::files_are_short,
        &[("src/clock.rs", &not_tests)],
        &["903 lines"],
    );
}

#[test]
fn super_is_written_only_in_tests() {
    holds(rules::nothing_reaches_up_by_super);
}

#[test]
fn a_super_outside_of_tests_is_found() {
    let source = "use super::*;\npub(super) fn f() {}\nmod a { use super::super::B; }";
    let expected = [
        "src/cache/key.rs:1: `super`",
        ":2: `super`",
        ":3: `super`",
        ":3: `super`",
    ];
    finds(
        rules::nothing_reaches_up_by_super,
        &[("src/cache/key.rs", source)],
        &expected,
    );
}

#[test]
fn a_file_lies_in_a_room_and_no_deeper() {
    holds(rules::files_lie_in_rooms);
}

#[test]
fn a_file_in_the_wrong_place_is_found() {
    let tree = [
        ("src/lib.rs", ""),
        ("src/cache/mod.rs", ""),
        ("src/cache/http/key.rs", ""),
        ("src/guard/layer.rs", ""),
        ("src/metrics.rs", ""),
        ("src/metrics/mod.rs", ""),
    ];
    let expected = [
        "src/cache/http/key.rs:1: lies deeper than src/room/file.rs",
        "src/guard/layer.rs:1: the room `guard` has no door",
        "src/metrics/mod.rs:1: `metrics` is both a file and a folder",
    ];
    finds(rules::files_lie_in_rooms, &tree, &expected);
}

#[test]
fn only_the_file_for_tasks_spawns() {
    holds(rules::only_task_spawns);
}

#[test]
fn a_spawn_anywhere_else_is_found() {
    let source = "use tokio::{spawn, time};\nuse std::thread;\nfn f() { thread::spawn(|| {}); }
fn g() { tokio::task::spawn(x()); task::spawn_blocking(|| {}); }\nfn h() { handle.spawn(x()); }
fn i() { Handle::current().spawn(x()); set.spawn_on(x()); Handle::spawn(&a, b); }";
    let expected = [
        "`spawn_blocking`: only src/task.rs spawns",
        "src/guard/queue.rs:5: `spawn`",
        "src/guard/queue.rs:6: `spawn`",
        "src/guard/queue.rs:6: `spawn_on`",
        "src/guard/queue.rs:1: `tokio::spawn`",
        "src/guard/queue.rs:3: `thread::spawn`",
        "src/guard/queue.rs:4: `tokio::task::spawn`",
        "src/guard/queue.rs:6: `Handle::spawn`",
    ];
    finds(
        rules::only_task_spawns,
        &[("src/guard/queue.rs", source)],
        &expected,
    );
    finds(rules::only_task_spawns, &[("src/task.rs", source)], &[]);
    let asked = "fn f() { spawner.spawn(a); self.spawn(b); self.spawner.spawn(c); keep.spawner().spawn(d); }
fn g() { self.spawner.spawn_blocking(|| {}); }
fn spawn() {}\nuse tokio::task::JoinError;";
    finds(
        rules::only_task_spawns,
        &[("src/guard/queue.rs", asked)],
        &[],
    );
}

#[test]
fn only_the_clock_reads_time() {
    holds(rules::only_the_clock_reads_time);
}

#[test]
fn a_reading_of_time_anywhere_else_is_found() {
    let source = "fn f() { std::time::Instant::now(); tokio::time::Instant::now(); }
fn g() { SystemTime::now(); }\nuse quanta::Clock;\nuse std::time::{Instant, SystemTime};
fn h() { clock.now(); Clock::now(&clock); }";
    let expected = [
        "src/event.rs:1: `std::time::Instant::now`: only src/clock.rs reads time",
        "src/event.rs:1: `tokio::time::Instant::now`",
        "src/event.rs:2: `SystemTime::now`",
        "src/event.rs:3: `quanta::Clock`",
    ];
    finds(
        rules::only_the_clock_reads_time,
        &[("src/event.rs", source)],
        &expected,
    );
    finds(
        rules::only_the_clock_reads_time,
        &[("src/clock.rs", source)],
        &[],
    );
}

#[test]
fn nothing_is_unsafe_or_unfinished() {
    holds(rules::no_unsafe_and_nothing_unfinished);
}

#[test]
fn an_unsafe_or_unfinished_place_is_found() {
    let source = "fn f() { unsafe { g() } }\nfn g() { todo!() }\nfn h() { unimplemented!(\"x\") }
fn todo() {} // unsafe todo!()\nconst A: &str = \"unsafe\";";
    let expected = [
        "src/event.rs:1: `unsafe`",
        ":2: `todo`",
        ":3: `unimplemented`",
    ];
    finds(
        rules::no_unsafe_and_nothing_unfinished,
        &[("src/event.rs", source)],
        &expected,
    );
    // One file holds the crate's one unsafe call, and nothing unfinished either.
    finds(
        rules::no_unsafe_and_nothing_unfinished,
        &[("src/host/trim.rs", source)],
        &expected[1..],
    );
}

#[test]
fn an_exception_from_a_lint_has_a_reason() {
    holds(rules::exceptions_have_reasons);
}

#[test]
fn an_exception_without_a_reason_is_found() {
    let source = "#![allow(dead_code)]\n#[expect(clippy::panic)]\nfn f() { x.expect(\"y\"); allow(z); }
#[cfg_attr(test, allow(dead_code))]\nfn g() {}\n#[expect(dead_code, reason = \"a port for later\")]\nfn h() {}
#[allow(a, reason = \"only without axum\")]\nfn i(expect: u8) { f(1, expect(2)); }";
    let expected = [
        "src/event.rs:1: bare `#[allow(..)]`",
        ":2: bare `#[expect(..)]`",
        ":4: bare `#[allow(",
    ];
    finds(
        rules::exceptions_have_reasons,
        &[("src/event.rs", source)],
        &expected,
    );
}

#[test]
fn cargo_changelog_and_readme_name_one_version() {
    let read = |path: &str| fs::read_to_string(root().join(path));
    let readme = read("README.md").ok();
    let cargo = read("Cargo.toml").unwrap();
    let changelog = read("src/docs/changelog.md").unwrap();
    let faults = rules::versions_agree(&cargo, &changelog, readme.as_deref());
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn versions_that_disagree_are_found() {
    let cargo = "[package]\nname = \"tower-keep\"\nrust-version = \"1.94\"\nversion = \"0.2.1\"\n";
    let newest = "# Changelog\n\n## [Unreleased]\n\n## [0.2.1] - 2027-01-01\n\n## [0.2.0]\n";
    let stale = "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2027-01-01\n";
    let agree =
        |changelog: &str, readme: Option<&str>| rules::versions_agree(cargo, changelog, readme);
    assert_eq!(agree(newest, None), Vec::<String>::new());
    for line in [
        "\"0.2.1\"",
        "\"0.2\"",
        "{ version = \"0.2\", features = [\"axum\"] }",
    ] {
        let readme = format!("# tower-keep\n```toml\ntower-keep = {line}\n```\n");
        assert_eq!(agree(newest, Some(&readme)), Vec::<String>::new());
    }
    assert!(agree(stale, None)[0].contains("newest version is 0.2.0, Cargo.toml says 0.2.1"));
    assert!(agree("# Changelog\n", None)[0].contains("newest version is none"));
    for line in [
        "\"0.2.0\"",
        "\"0.1\"",
        "{ version = \"0.3\" }",
        "{ git = \"https://x\" }",
    ] {
        let readme = format!("tower-keep = {line}\n");
        assert_eq!(agree(newest, Some(&readme)).len(), 1, "{line}");
    }
    assert_eq!(rules::versions_agree("[package]", newest, None).len(), 1);
}
