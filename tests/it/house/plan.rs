//! The plan of the house: which room stands on which floor, and which file names which.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::house::text::{self, Path, Word};

/// A room imports only rooms on lower floors. A new room is put here on purpose, or the test fails.
pub const FLOORS: &[(u8, &[&str])] = &[
    (
        1,
        &[
            "error",
            "clock",
            "refusal",
            "pattern",
            "route",
            "task",
            "config_time",
            // What threads share; `tests/models` puts a model checker's in its place.
            "sync",
            "target",
            "encoding",
            "identity",
        ],
    ),
    (2, &["event", "response", "database", "host", "health"]),
    (3, &["store", "metrics", "guard", "breaker", "connections"]),
    (
        4,
        &[
            "journal",
            "rate_limit",
            "outbound",
            "progress",
            "idempotency",
            "lock",
            "fleet",
        ],
    ),
    // What the HTTP cache and the typed one stand on.
    (5, &["tiers", "report", "alerts"]),
    (6, &["cache"]),
    (7, &["invalidation", "warming"]),
    (8, &["sqlx", "admin"]),
    (9, &["config", "http_config", "profile", "env", "keep"]),
];

/// The ground and the roof: their rooms may use each other, as long as no two files do.
pub const OPEN_FLOORS: &[u8] = &[1, 9];

pub fn floor(room: &str) -> Option<u8> {
    let mut floors = FLOORS.iter();
    floors.find_map(|(floor, rooms)| rooms.contains(&room).then_some(*floor))
}

/// The source tree, read.
pub struct House {
    pub files: Vec<File>,
}

/// One file under `src/`.
pub struct File {
    /// From the repository's root: `src/cache/key.rs`.
    pub path: String,
    /// Its words without comments and without its tests.
    pub words: Vec<Word>,
    /// How many lines it has besides its tests.
    pub lines: usize,
    /// Its paths as written.
    pub paths: Vec<Path>,
}

/// What a path leads to, seen from the house: `room`, and the segments behind it.
pub struct Arrow {
    pub room: String,
    pub rest: Vec<String>,
    pub line: usize,
}

impl Arrow {
    pub fn written(&self) -> String {
        let mut written = format!("crate::{}", self.room);
        for segment in &self.rest {
            written.push_str("::");
            written.push_str(segment);
        }
        written
    }
}

impl File {
    fn read(path: &str, source: &str) -> Self {
        let all = text::words(source);
        let (words, of_tests) = text::without_tests(&all);
        let lines = source.lines().count().saturating_sub(of_tests);
        let paths = text::paths(&words);
        Self {
            path: path.to_owned(),
            words,
            lines,
            paths,
        }
    }

    /// The path's parts below `src/`.
    pub fn parts(&self) -> Vec<&str> {
        self.path.split('/').skip(1).collect()
    }

    /// The room it belongs to; `None` for the front door, `lib.rs`.
    pub fn room(&self) -> Option<&str> {
        match self.parts().as_slice() {
            ["lib.rs"] => None,
            [file] => Some(file.trim_end_matches(".rs")),
            [room, ..] => Some(room),
            [] => None,
        }
    }

    pub fn is_door(&self) -> bool {
        matches!(self.parts().last(), Some(&"mod.rs" | &"lib.rs"))
    }
}

impl House {
    /// Reads a tree given as pairs of path and text.
    pub fn read<P: AsRef<str>, T: AsRef<str>>(tree: &[(P, T)]) -> Self {
        let read = |(path, text): &(P, T)| File::read(path.as_ref(), text.as_ref());
        Self {
            files: tree.iter().map(read).collect(),
        }
    }

    fn has(&self, path: &str) -> bool {
        self.files.iter().any(|file| file.path == path)
    }

    fn is_room(&self, name: &str) -> bool {
        self.files.iter().any(|file| file.room() == Some(name))
    }

    /// The file behind `room::name`, where the room is a folder and has one of that name.
    pub fn file_of(&self, room: &str, name: &str) -> Option<String> {
        let path = format!("src/{room}/{name}.rs");
        (name != "mod" && self.has(&path)).then_some(path)
    }

    /// The file's paths that stay in this crate. In a door they may be written without `crate::`.
    pub fn arrows(&self, file: &File) -> Vec<Arrow> {
        file.paths
            .iter()
            .filter_map(|path| self.arrow(file, path))
            .collect()
    }

    fn arrow(&self, file: &File, path: &Path) -> Option<Arrow> {
        let skip = usize::from(file.is_door() && path.segments[0] == "self");
        let segments = &path.segments[skip..];
        let (room, rest) = match (segments, file.room()) {
            ([root, room, rest @ ..], _) if root == "crate" => (room.clone(), rest),
            ([first, ..], Some(room)) if file.is_door() && self.file_of(room, first).is_some() => {
                (room.to_owned(), segments)
            }
            ([room, rest @ ..], None) if self.is_room(room) => (room.clone(), rest),
            _ => return None,
        };
        Some(Arrow {
            room,
            rest: rest.to_vec(),
            line: path.line,
        })
    }

    /// What a room's door shows: the name, and the files behind it.
    pub fn shows(&self, room: &str, name: &str) -> Option<Vec<String>> {
        self.shows_within(room, name, 8)
    }

    fn shows_within(&self, room: &str, name: &str, doors: u8) -> Option<Vec<String>> {
        let path = format!("src/{room}/mod.rs");
        let door = self.files.iter().find(|file| file.path == path)?;
        let shown = door.paths.iter().filter(|path| path.name == name);
        let behind: Vec<_> = shown
            .filter_map(|path| self.arrow(door, path))
            .map(|arrow| self.behind(&arrow, doors))
            .collect();
        (!behind.is_empty()).then(|| behind.concat())
    }

    /// The files that an arrow reaches.
    pub fn targets(&self, arrow: &Arrow) -> Vec<String> {
        self.behind(arrow, 8)
    }

    fn behind(&self, arrow: &Arrow, doors: u8) -> Vec<String> {
        let room = &arrow.room;
        let single = format!("src/{room}.rs");
        if self.has(&single) {
            return vec![single];
        }
        if let Some(name) = arrow.rest.first().filter(|name| *name != "*") {
            let shown = doors
                .checked_sub(1)
                .and_then(|left| self.shows_within(room, name, left));
            let glob = || self.shows_within(room, "*", doors.checked_sub(1)?);
            let file = || self.file_of(room, name).map(|file| vec![file]);
            return shown.or_else(file).or_else(glob).unwrap_or_default();
        }
        // The whole room is named: whatever of it is used, it is one of its files.
        let within = format!("src/{room}/");
        let files = self.files.iter().filter(|file| !file.is_door());
        files
            .map(|file| &file.path)
            .filter(|path| path.starts_with(&within))
            .cloned()
            .collect()
    }

    /// Which file names which; doors are seen through.
    pub fn graph(&self) -> BTreeMap<String, BTreeSet<String>> {
        let files = self.files.iter().filter(|file| !file.is_door());
        files
            .map(|file| (file.path.clone(), self.named_by(file)))
            .collect()
    }

    fn named_by(&self, file: &File) -> BTreeSet<String> {
        let own_room = |arrow: &Arrow| arrow.rest.is_empty() && file.room() == Some(&arrow.room);
        let arrows = self
            .arrows(file)
            .into_iter()
            .filter(|arrow| !own_room(arrow));
        let named: BTreeSet<_> = arrows.flat_map(|arrow| self.targets(&arrow)).collect();
        named
            .into_iter()
            .filter(|target| *target != file.path)
            .collect()
    }
}

/// The shortest circle through each file that stands on one; a circle is told once.
pub fn circles(graph: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let mut told = BTreeSet::new();
    let mut circles = Vec::new();
    for start in graph.keys() {
        if let Some(circle) = circle_through(graph, start) {
            let mut members = circle.clone();
            members.sort();
            members.dedup();
            if told.insert(members) {
                circles.push(circle);
            }
        }
    }
    circles
}

fn circle_through(graph: &BTreeMap<String, BTreeSet<String>>, start: &str) -> Option<Vec<String>> {
    let mut ways = VecDeque::from([vec![start.to_owned()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in way
            .last()
            .and_then(|last| graph.get(last))
            .into_iter()
            .flatten()
        {
            if next == start || seen.insert(next.clone()) {
                let mut longer = way.clone();
                longer.push(next.clone());
                if next == start {
                    return Some(longer);
                }
                ways.push_back(longer);
            }
        }
    }
    None
}
