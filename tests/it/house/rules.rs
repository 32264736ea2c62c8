//! The rules of the house: each reads the tree and returns its faults, naming file, line and rule.

use crate::house::plan::{File, House, OPEN_FLOORS, circles, floor};
use crate::house::text::{Kind, Word, behind_attributes, behind_bracket, behind_item, reads};

/// How long a file may be before its tests.
pub const LONGEST_FILE: usize = 400;

pub type Rule = fn(&House) -> Vec<String>;

fn at(file: &File, line: usize, what: impl std::fmt::Display) -> String {
    format!("{}:{line}: {what}", file.path)
}

/// Asks every file for its faults.
fn each(house: &House, faults: impl Fn(&File) -> Vec<String>) -> Vec<String> {
    house.files.iter().flat_map(faults).collect()
}

pub fn arrows_point_down(house: &House) -> Vec<String> {
    each(house, |file| {
        let Some((room, own)) = file.room().and_then(|room| Some((room, floor(room)?))) else {
            return Vec::new();
        };
        let fault = |arrow: crate::house::plan::Arrow| {
            let other = floor(&arrow.room).filter(|_| arrow.room != room)?;
            let allowed = other < own || (other == own && OPEN_FLOORS.contains(&own));
            let written = arrow.written();
            let what = format!(
                "a room imports only lower floors: `{written}` is on floor {other}, `{room}` on {own}"
            );
            (!allowed).then(|| at(file, arrow.line, what))
        };
        house.arrows(file).into_iter().filter_map(fault).collect()
    })
}

pub fn rooms_are_on_the_plan(house: &House) -> Vec<String> {
    each(house, |file| {
        let why = "is no room on the plan: put it into FLOORS of tests/it/house/plan.rs on purpose";
        let unknown = |room: &&str| floor(room).is_none();
        let own = file.room().filter(unknown);
        let mut faults: Vec<_> = own
            .map(|room| at(file, 1, format!("`{room}` {why}")))
            .into_iter()
            .collect();
        let arrows = house.arrows(file).into_iter();
        let arrows = arrows.filter(|arrow| unknown(&arrow.room.as_str()));
        faults.extend(
            arrows.map(|arrow| at(file, arrow.line, format!("`{}` {why}", arrow.written()))),
        );
        faults
    })
}

pub fn files_form_no_circle(house: &House) -> Vec<String> {
    let told = |circle: Vec<String>| {
        format!(
            "{}:1: no two files import each other: {}",
            circle[0],
            circle.join(" -> ")
        )
    };
    circles(&house.graph()).into_iter().map(told).collect()
}

/// From outside through the door, inside by the file.
pub fn doors_are_used(house: &House) -> Vec<String> {
    each(house, |file| {
        let fault = |arrow: crate::house::plan::Arrow| {
            let name = arrow.rest.first()?;
            let shown = house.shows(&arrow.room, name).is_some();
            let is_file = house.file_of(&arrow.room, name).is_some();
            let written = arrow.written();
            if file.room() != Some(&arrow.room) {
                // A door may show an item that is named as its file is; the item ends the path.
                let item = shown && arrow.rest.len() == 1;
                let what = format!("outside of its room a path ends at the door: `{written}`");
                return (is_file && !item).then(|| at(file, arrow.line, what));
            }
            let what = format!("inside a room name the file, not the door: `{written}`");
            let through_door = !file.is_door() && !is_file && (shown || name == "*");
            through_door.then(|| at(file, arrow.line, what))
        };
        house.arrows(file).into_iter().filter_map(fault).collect()
    })
}

pub fn doors_define_nothing(house: &House) -> Vec<String> {
    each(house, |file| {
        if file.is_door() {
            definitions(file)
        } else {
            Vec::new()
        }
    })
}

/// Whatever is neither `mod name;` nor `use ..;`. The front door may hold the README for doctests.
fn definitions(file: &File) -> Vec<String> {
    let (words, mut faults, mut start) = (&file.words, Vec::new(), 0);
    while start < words.len() {
        let item = behind_attributes(words, start);
        let Some(word) = words.get(item) else { break };
        let plain_mod = word.is("mod") && reads(words, item + 2, ";");
        let plain_use = word.is("use");
        let attributes = &words[start..item];
        let readme = file.room().is_none() && attributes.iter().any(|word| word.is("doctest"));
        let end = if plain_use {
            behind_semicolon(words, item)
        } else {
            behind_item(words, item)
        };
        if !(plain_mod || plain_use || readme) {
            let begin: Vec<_> = words[item..end]
                .iter()
                .take(3)
                .map(|word| &*word.text)
                .collect();
            let what = format!("a door defines nothing, this one has `{}`", begin.join(" "));
            faults.push(at(file, word.line, what));
        }
        start = end.max(start + 1);
    }
    faults
}

fn behind_semicolon(words: &[Word], start: usize) -> usize {
    let rest = words.iter().skip(start);
    start + rest.take_while(|word| !word.is(";")).count() + 1
}

pub fn files_are_short(house: &House) -> Vec<String> {
    each(house, |file| {
        let what = format!(
            "{} lines before its tests, {LONGEST_FILE} are allowed",
            file.lines
        );
        let long = file.lines > LONGEST_FILE;
        long.then(|| at(file, file.lines, what))
            .into_iter()
            .collect()
    })
}

pub fn nothing_reaches_up_by_super(house: &House) -> Vec<String> {
    each(house, |file| {
        let words = file.words.iter().filter(|word| word.is("super"));
        words
            .map(|word| at(file, word.line, "`super` only in tests: name the file"))
            .collect()
    })
}

pub fn files_lie_in_rooms(house: &House) -> Vec<String> {
    each(house, |file| {
        let parts = file.parts();
        let room = file.room().unwrap_or_default();
        let has = |path: String| house.files.iter().any(|file| file.path == path);
        let what = if parts.len() > 2 {
            "lies deeper than src/room/file.rs".to_owned()
        } else if parts.len() == 2 && has(format!("src/{room}.rs")) {
            format!("`{room}` is both a file and a folder: its door is src/{room}/mod.rs")
        } else if parts.len() == 2 && !has(format!("src/{room}/mod.rs")) {
            format!("the room `{room}` has no door src/{room}/mod.rs")
        } else {
            return Vec::new();
        };
        vec![at(file, 1, what)]
    })
}

/// Tokio's, the runtime's and the system's ways to start something that outlives its caller.
const SPAWNERS: &[&str] = &[
    "tokio", "task", "thread", "Handle", "Runtime", "JoinSet", "LocalSet", "Builder",
];
const SPAWNING_WORDS: &[&str] = &[
    "spawn_blocking",
    "spawn_local",
    "spawn_on",
    "spawn_local_on",
];

pub fn only_task_spawns(house: &House) -> Vec<String> {
    each(house, |file| {
        if file.path == "src/task.rs" {
            return Vec::new();
        }
        let words = file.words.iter().enumerate().filter(|(place, word)| {
            word.kind == Kind::Name
                && ((SPAWNING_WORDS.contains(&word.text.as_str())
                    && !(word.is("spawn_blocking") && is_asked(&file.words, *place)))
                    || (word.is("spawn") && is_foreign_method(&file.words, *place)))
        });
        let by_word = words.map(|(_, word)| (word.line, word.text.clone()));
        let paths = file
            .paths
            .iter()
            .filter(|path| match path.segments.as_slice() {
                [.., owner, last] => last == "spawn" && SPAWNERS.contains(&owner.as_str()),
                _ => false,
            });
        let by_path = paths.map(|path| (path.line, path.segments.join("::")));
        let told = |(line, what)| {
            at(
                file,
                line,
                format!("`{what}`: only src/task.rs spawns, ask a `Spawner`"),
            )
        };
        by_word.chain(by_path).map(told).collect()
    })
}

/// `.spawn(` on anything but `self`, `spawner` or `spawner()`.
fn is_foreign_method(words: &[Word], spawn: usize) -> bool {
    spawn > 0
        && reads(words, spawn - 1, ".")
        && reads(words, spawn + 1, "(")
        && !is_asked(words, spawn)
}

/// Whether the method at `spawn` is one of `self`, `spawner` or `spawner()`.
fn is_asked(words: &[Word], spawn: usize) -> bool {
    if spawn == 0 || !reads(words, spawn - 1, ".") {
        return false;
    }
    let owner = &words[..spawn - 1];
    let owner = match owner {
        [owner @ .., open, close] if open.is("(") && close.is(")") => owner,
        _ => owner,
    };
    owner
        .last()
        .is_some_and(|word| word.is("self") || word.is("spawner"))
}

pub fn only_the_clock_reads_time(house: &House) -> Vec<String> {
    each(house, |file| {
        if file.path == "src/clock.rs" {
            return Vec::new();
        }
        let paths = file
            .paths
            .iter()
            .filter(|path| match path.segments.as_slice() {
                [first, ..] if first == "quanta" => true,
                [.., owner, last] => last == "now" && (owner == "Instant" || owner == "SystemTime"),
                _ => false,
            });
        let told = |path: &crate::house::text::Path| {
            let written = path.segments.join("::");
            at(
                file,
                path.line,
                format!("`{written}`: only src/clock.rs reads time, ask the `Clock`"),
            )
        };
        paths.map(told).collect()
    })
}

/// The one call that safe Rust has no way for, behind the feature `glibc-trim`.
const UNSAFE_FILE: &str = "src/host/trim.rs";

pub fn no_unsafe_and_nothing_unfinished(house: &House) -> Vec<String> {
    each(house, |file| {
        let words = file.words.iter().enumerate().filter(|(place, word)| {
            let is_macro = reads(&file.words, place + 1, "!");
            let is_unsafe = word.is("unsafe") && file.path != UNSAFE_FILE;
            is_unsafe || (is_macro && (word.is("todo") || word.is("unimplemented")))
        });
        words
            .map(|(_, word)| {
                at(
                    file,
                    word.line,
                    format!("`{}` has no place here", word.text),
                )
            })
            .collect()
    })
}

pub fn exceptions_have_reasons(house: &House) -> Vec<String> {
    each(house, |file| {
        let bare = file.words.iter().enumerate().filter(|(place, word)| {
            let attribute = (word.is("allow") || word.is("expect"))
                && reads(&file.words, place + 1, "(")
                && in_attribute(&file.words, *place);
            let inside = &file.words[*place..behind_bracket(&file.words, place + 1)];
            attribute && !inside.iter().any(|word| word.is("reason"))
        });
        let told = |(_, word): (usize, &Word)| {
            let name = &word.text;
            at(
                file,
                word.line,
                format!("bare `#[{name}(..)]`: write `#[expect(lint, reason = \"..\")]`"),
            )
        };
        bare.map(told).collect()
    })
}

/// Whether the name at `place` begins an attribute, or a part of a `cfg_attr`.
fn in_attribute(words: &[Word], place: usize) -> bool {
    let Some(before) = place.checked_sub(1) else {
        return false;
    };
    let open = reads(words, before, "[")
        && before > 0
        && (reads(words, before - 1, "#") || reads(words, before - 1, "!"));
    let conditional = reads(words, before, ",") && {
        let start = words[..before].iter().rposition(|word| word.is("#"));
        start.is_some_and(|start| {
            reads(words, start + 2, "cfg_attr") && behind_bracket(words, start + 1) > place
        })
    };
    open || conditional
}

/// Cargo.toml, the changelog and the README name one version.
pub fn versions_agree(cargo: &str, changelog: &str, readme: Option<&str>) -> Vec<String> {
    let mut faults = Vec::new();
    let Some(version) = cargo
        .lines()
        .find_map(|line| quoted(line.strip_prefix("version")?))
    else {
        return vec!["Cargo.toml: has no version".to_owned()];
    };
    let headings = changelog
        .lines()
        .filter_map(|line| line.strip_prefix("## ["));
    let headings = headings.filter_map(|line| line.split(']').next());
    let newest = headings
        .into_iter()
        .find(|name| !name.eq_ignore_ascii_case("unreleased"));
    if newest != Some(version) {
        let newest = newest.unwrap_or("none");
        let what = "src/docs/changelog.md: its newest version is";
        faults.push(format!("{what} {newest}, Cargo.toml says {version}"));
    }
    for line in readme.unwrap_or_default().lines() {
        let Some(rest) = line.trim().strip_prefix("tower-keep") else {
            continue;
        };
        let Some(rest) = rest.trim_start().strip_prefix('=') else {
            continue;
        };
        let shown = rest.split_once("version").map_or(rest, |(_, rest)| rest);
        let shown = quoted(shown).unwrap_or_default();
        // `0.1` means 0.1.0 and later, which is what most people want to write.
        if shown != version && (shown.is_empty() || !version.starts_with(&format!("{shown}."))) {
            faults.push(format!(
                "README.md: shows `{line}`, Cargo.toml says {version}"
            ));
        }
    }
    faults
}

fn quoted(text: &str) -> Option<&str> {
    text.split('"').nth(1)
}
