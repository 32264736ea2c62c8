//! Rust source as a row of words: enough of the language to find paths, items and forbidden words.
//!
//! Comments are dropped and a string is one word that no rule takes for code, so neither prose nor an
//! error message can break or hide a rule.

/// One word of source, and the line it stands on.
#[derive(Clone, Debug)]
pub struct Word {
    pub kind: Kind,
    pub text: String,
    pub line: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An identifier, a keyword or a number.
    Name,
    /// One sign, or `::`.
    Sign,
    /// What stands between a string's quotes.
    Quoted,
}

/// A path such as `crate::cache::Cache`; `use crate::{a::B, c::D as E}` is two of them.
#[derive(Clone, Debug)]
pub struct Path {
    pub segments: Vec<String>,
    /// The name it goes by here: its last segment, or what follows `as`.
    pub name: String,
    pub line: usize,
}

impl Word {
    pub fn is(&self, text: &str) -> bool {
        self.kind != Kind::Quoted && self.text == text
    }
}

/// Whether the word at `at` exists and reads `text`.
pub fn reads(words: &[Word], at: usize, text: &str) -> bool {
    words.get(at).is_some_and(|word| word.is(text))
}

fn is_name(words: &[Word], at: usize) -> bool {
    words.get(at).is_some_and(|word| word.kind == Kind::Name)
}

/// Splits source into words.
pub fn words(source: &str) -> Vec<Word> {
    let mut reader = Reader {
        signs: source.chars().collect(),
        at: 0,
        line: 1,
        words: Vec::new(),
    };
    while let Some(sign) = reader.peek(0) {
        reader.step(sign);
    }
    reader.words
}

struct Reader {
    signs: Vec<char>,
    at: usize,
    line: usize,
    words: Vec<Word>,
}

impl Reader {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.signs.get(self.at + ahead).copied()
    }

    fn next(&mut self) -> Option<char> {
        let sign = self.peek(0)?;
        self.at += 1;
        self.line += usize::from(sign == '\n');
        Some(sign)
    }

    fn step(&mut self, sign: char) {
        match (sign, self.peek(1)) {
            ('/', Some('/')) => {
                while self.peek(0).is_some_and(|sign| sign != '\n') && self.next().is_some() {}
            }
            ('/', Some('*')) => self.block_comment(),
            ('"', _) => self.quoted(),
            ('\'', _) => self.character_or_lifetime(),
            (':', Some(':')) => self.sign(2),
            _ if sign.is_alphanumeric() || sign == '_' => self.name(),
            _ if sign.is_whitespace() => drop(self.next()),
            _ => self.sign(1),
        }
    }

    fn push(&mut self, kind: Kind, text: String, line: usize) {
        self.words.push(Word { kind, text, line });
    }

    fn sign(&mut self, length: usize) {
        let text = (0..length).filter_map(|_| self.next()).collect();
        self.push(Kind::Sign, text, self.line);
    }

    /// Block comments nest.
    fn block_comment(&mut self) {
        let mut depth = 0;
        while let Some(sign) = self.next() {
            match (sign, self.peek(0)) {
                ('/', Some('*')) => depth += 1,
                ('*', Some('/')) => depth -= 1,
                _ => continue,
            }
            self.next();
            if depth == 0 {
                return;
            }
        }
    }

    /// From the opening quote to the closing one, which a backslash may hide.
    fn quoted(&mut self) {
        let line = self.line;
        let mut text = String::new();
        self.next();
        while let Some(sign) = self.next() {
            match sign {
                '"' => break,
                '\\' => text.extend(self.next()),
                _ => text.push(sign),
            }
        }
        self.push(Kind::Quoted, text, line);
    }

    /// From the first `#` or quote after an `r` to the quote that as many `#` follow.
    fn raw_quoted(&mut self, hashes: usize) {
        let line = self.line;
        let mut text = String::new();
        for _ in 0..=hashes {
            self.next();
        }
        while let Some(sign) = self.next() {
            if sign == '"' && (0..hashes).all(|ahead| self.peek(ahead) == Some('#')) {
                for _ in 0..hashes {
                    self.next();
                }
                break;
            }
            text.push(sign);
        }
        self.push(Kind::Quoted, text, line);
    }

    /// `'a'` and `'\''` are characters, `'a` is a lifetime; both are dropped.
    fn character_or_lifetime(&mut self) {
        self.next();
        if self.peek(0) == Some('\\') {
            self.next();
            self.next();
            while self.next().is_some_and(|sign| sign != '\'') {}
        } else if self.peek(1) == Some('\'') {
            self.next();
            self.next();
        } else {
            self.plain_name();
        }
    }

    fn plain_name(&mut self) -> String {
        let mut text = String::new();
        while let Some(sign) = self
            .peek(0)
            .filter(|sign| sign.is_alphanumeric() || *sign == '_')
        {
            text.push(sign);
            self.next();
        }
        text
    }

    /// A name, unless it turns out to be the prefix of a string, a character or a raw name.
    fn name(&mut self) {
        let line = self.line;
        let text = self.plain_name();
        let hashes = (0..)
            .take_while(|ahead| self.peek(*ahead) == Some('#'))
            .count();
        let opens = self.peek(hashes) == Some('"');
        match text.as_str() {
            "r" | "br" | "cr" if opens => self.raw_quoted(hashes),
            "b" | "c" if opens && hashes == 0 => self.quoted(),
            "b" if self.peek(0) == Some('\'') => self.character_or_lifetime(),
            "r" if hashes == 1 => {
                self.next();
                let raw = format!("r#{}", self.plain_name());
                self.push(Kind::Name, raw, line);
            }
            _ => self.push(Kind::Name, text, line),
        }
    }
}

/// The index behind the bracket that closes the one at `open`.
pub fn behind_bracket(words: &[Word], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, word) in words.iter().enumerate().skip(open) {
        if word.kind != Kind::Sign {
            continue;
        }
        match word.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    words.len()
}

/// The index behind the attributes and the `pub`, `pub(..)` that begin at `at`.
pub fn behind_attributes(words: &[Word], mut at: usize) -> usize {
    loop {
        if reads(words, at, "#") {
            let open = at + 1 + usize::from(reads(words, at + 1, "!"));
            at = behind_bracket(words, open);
        } else if reads(words, at, "pub") {
            at += 1;
            if reads(words, at, "(") {
                at = behind_bracket(words, at);
            }
        } else {
            return at;
        }
    }
}

/// The index behind the item that begins at `at`: behind its `;`, or its closing brace.
pub fn behind_item(words: &[Word], mut at: usize) -> usize {
    while at < words.len() {
        let closes = reads(words, at, "{");
        if closes || reads(words, at, "(") || reads(words, at, "[") {
            at = behind_bracket(words, at);
            if closes {
                return at;
            }
        } else if reads(words, at, ";") {
            return at + 1;
        } else {
            at += 1;
        }
    }
    at
}

/// Takes the modules of tests out; returns the rest and how many lines went with them.
pub fn without_tests(words: &[Word]) -> (Vec<Word>, usize) {
    let (mut kept, mut lines, mut at) = (Vec::new(), 0, 0);
    while at < words.len() {
        if is_test_attribute(words, at) {
            let item = behind_attributes(words, at);
            if reads(words, item, "mod") && reads(words, item + 2, "{") {
                let end = behind_item(words, item);
                lines += words[end - 1].line + 1 - words[at].line;
                at = end;
                continue;
            }
        }
        kept.push(words[at].clone());
        at += 1;
    }
    (kept, lines)
}

/// Whether `#[cfg(test)]`, `#[cfg(all(test, ..))]` or the like begins at `at`.
fn is_test_attribute(words: &[Word], at: usize) -> bool {
    if !(reads(words, at, "#") && reads(words, at + 1, "[") && reads(words, at + 2, "cfg")) {
        return false;
    }
    let inside = &words[at + 2..behind_bracket(words, at + 1)];
    let has = |text| inside.iter().any(|word| word.is(text));
    has("test") && !has("not") && !has("any")
}

/// Every path of two segments or more, groups of `use` spread out. A string that is a path, as in
/// serde's `with = "crate::config_time::millis"`, counts as well: the derive makes code of it.
pub fn paths(words: &[Word]) -> Vec<Path> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < words.len() {
        let word = &words[at];
        match word.kind {
            Kind::Name => at = path(words, at, &[], &mut found),
            Kind::Quoted if word.text.starts_with("crate::") => {
                let line = word.line;
                let inside = paths(&self::words(&word.text));
                found.extend(inside.into_iter().map(|path| Path { line, ..path }));
                at += 1;
            }
            Kind::Quoted | Kind::Sign => at += 1,
        }
    }
    found.retain(|path| path.segments.len() > 1);
    found
}

/// Reads the path, or the tree of paths, that begins at `at`; returns the index behind it.
fn path(words: &[Word], mut at: usize, trunk: &[String], found: &mut Vec<Path>) -> usize {
    let line = words[at].line;
    let mut segments = trunk.to_vec();
    loop {
        // `a::{self}` is `a`, but a leading `self::` says where the path begins.
        if trunk.is_empty() || !reads(words, at, "self") {
            segments.push(words[at].text.clone());
        }
        at += 1;
        if !reads(words, at, "::") {
            break;
        }
        if reads(words, at + 1, "{") {
            return group(words, at + 2, &segments, found);
        }
        if !is_name(words, at + 1) && !reads(words, at + 1, "*") {
            break;
        }
        at += 1;
    }
    let renamed = reads(words, at, "as") && is_name(words, at + 1) && !reads(words, at + 2, "::");
    let name = if renamed {
        Some(&words[at + 1].text)
    } else {
        segments.last()
    };
    let name = name.cloned().unwrap_or_default();
    found.push(Path {
        segments,
        name,
        line,
    });
    at + if renamed { 2 } else { 0 }
}

fn group(words: &[Word], mut at: usize, trunk: &[String], found: &mut Vec<Path>) -> usize {
    while at < words.len() && !reads(words, at, "}") {
        if is_name(words, at) || reads(words, at, "*") {
            at = path(words, at, trunk, found);
        } else {
            at += 1;
        }
    }
    at + 1
}
