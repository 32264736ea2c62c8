//! Patterns over keys, and templates that become patterns.
//!
//! A pattern is text in which `*` stands for any run of characters, separators included; `\` takes
//! its meaning from the next character. A template holds `{{name}}` where a value goes; a value that
//! is filled in has its `*` and `\` escaped, so that the id `*` is the id `*` and not all ids.

use std::borrow::Cow;
use std::fmt;

use crate::target::normal_form;

/// A glob over keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: Box<str>,
    /// The literal runs between the stars, unescaped: one more than there are stars.
    runs: Vec<Box<str>>,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// Says in words what is wrong: nothing in it, a `\` at the end, or over 1,024 bytes.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an empty pattern matches no key".to_owned());
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!("a pattern has at most {PATTERN_BYTES_MAX} bytes"));
        }
        let mut runs = vec![String::new()];
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            let literal = match char {
                '*' => {
                    runs.push(String::new());
                    continue;
                }
                '\\' => chars.next().ok_or("a `\\` at the end escapes nothing")?,
                other => other,
            };
            if let Some(run) = runs.last_mut() {
                run.push(literal);
            }
        }
        let runs = runs.into_iter().map(String::into_boxed_str).collect();
        Ok(Self {
            text: text.into(),
            runs,
        })
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The literal runs between the stars, unescaped, in order: one more than there are stars. A key
    /// that matches begins with the first, ends with the last, and holds the others in between.
    pub(crate) fn runs(&self) -> &[Box<str>] {
        &self.runs
    }

    /// The same pattern for keys that are targets of requests, which are kept in normal form.
    #[must_use]
    pub fn of_targets(mut self) -> Self {
        let mut changed = false;
        for run in &mut self.runs {
            if let Cow::Owned(normal) = normal_form(run) {
                *run = normal.into_boxed_str();
                changed = true;
            }
        }
        if changed {
            // It is read again from its text by those who hear of it.
            let runs: Vec<Cow<'_, str>> = self.runs.iter().map(|run| escape(run)).collect();
            self.text = runs.join("*").into();
        }
        self
    }

    /// The key this pattern stands for if it has no star: then it is that one key.
    #[must_use]
    pub fn exact(&self) -> Option<&str> {
        match &*self.runs {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Whether every key matches: nothing but stars.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.runs.len() > 1 && self.runs.iter().all(|run| run.is_empty())
    }

    /// Whether `key` matches. Linear in the key for each run of the pattern; never backtracks.
    #[must_use]
    pub fn matches(&self, key: &str) -> bool {
        let [first, middle @ .., last] = &*self.runs else {
            return self.exact() == Some(key);
        };
        let Some(mut rest) = key.strip_prefix(&**first) else {
            return false;
        };
        for run in middle {
            // The leftmost place is always good enough, because a star takes up any distance.
            let Some(at) = rest.find(&**run) else {
                return false;
            };
            rest = &rest[at + run.len()..];
        }
        rest.ends_with(&**last)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Text with `{{name}}` where values go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Text that stands for itself.
    Literal(Box<str>),
    /// The name of a variable whose value goes here.
    Variable(Box<str>),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// Says in words what is wrong: nothing in it, `{{` without `}}`, or a variable without a name.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an empty template names nothing".to_owned());
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, tail)) = rest.split_once("{{") {
            let (name, after) = tail.split_once("}}").ok_or("`{{` without `}}`")?;
            let name = name.trim();
            if name.is_empty() || name.contains(['{', '}']) {
                return Err("`{{ }}` needs the name of a variable inside".to_owned());
            }
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.into()));
            }
            parts.push(Part::Variable(name.into()));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.into()));
        }
        Ok(Self { parts })
    }

    /// Its pieces, in order.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The names of its variables, in order.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(name) => Some(&**name),
            Part::Literal(_) => None,
        })
    }

    /// The text with every variable replaced by its value, escaped for use in a pattern.
    /// `None` if a value is missing or empty.
    #[must_use]
    pub fn fill_pattern<'v>(&self, value: impl Fn(&str) -> Option<Cow<'v, str>>) -> Option<String> {
        self.fill(|name| value(name).map(|text| escape(&text).into_owned().into()))
    }

    /// The text with every variable replaced by its value as it is. `None` if a value is missing or
    /// empty.
    #[must_use]
    pub fn fill<'v>(&self, value: impl Fn(&str) -> Option<Cow<'v, str>>) -> Option<String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Variable(name) => {
                    text.push_str(&value(name).filter(|value| !value.is_empty())?);
                }
            }
        }
        Some(text)
    }
}

/// `text` so that a pattern takes it literally.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['*', '\\']) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace('\\', "\\\\").replace('*', "\\*"))
}

/// The longest pattern; a longer one is more likely an attack than a wish.
pub const PATTERN_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_is_any_run_separators_included() {
        for (pattern, key, matches) in [
            ("/contacts*", "/contacts", true),
            ("/contacts*", "/contacts/7/notes", true),
            ("/contacts*", "/organizations", false),
            ("report:*:7:*", "report:sales:7:eu", true),
            ("report:*:7:*", "report:sales:8:eu", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*", "", true),
            ("plain", "plain", true),
            ("plain", "plainer", false),
            (r"\*", "*", true),
            (r"\*", "x", false),
            (r"a\\*", r"a\b", true),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            assert_eq!(parsed.matches(key), matches, "{pattern} on {key}");
        }
    }

    #[test]
    fn a_pattern_of_targets_says_in_its_text_what_it_matches() {
        let pattern = Pattern::parse(r"/caf%c3%a9/\*x*").unwrap().of_targets();
        let again = Pattern::parse(pattern.as_str()).unwrap();
        assert_eq!(again, pattern);
        assert!(again.matches("/caf%C3%A9/*xy"));
    }

    #[test]
    fn what_is_no_pattern_says_so() {
        assert!(Pattern::parse("").is_err());
        assert!(Pattern::parse("a\\").is_err());
        assert!(Pattern::parse(&"x".repeat(1025)).is_err());
        assert!(Pattern::parse("**").unwrap().is_everything());
        assert!(!Pattern::parse("*a").unwrap().is_everything());
    }

    #[test]
    fn a_filled_value_never_becomes_a_wildcard() {
        let template = Template::parse("search:*:{{id}}:*").unwrap();
        assert_eq!(template.variables().collect::<Vec<_>>(), ["id"]);
        let text = template.fill_pattern(|_| Some("*".into())).unwrap();
        let pattern = Pattern::parse(&text).unwrap();
        assert!(pattern.matches("search:a:*:b"));
        assert!(!pattern.matches("search:a:7:b"));
        assert_eq!(
            template.fill(|_| Some("".into())),
            None,
            "an empty value names nothing"
        );
    }

    #[test]
    fn what_is_no_template_says_so() {
        for text in ["", "a{{", "{{}}", "{{ }}", "{{a{b}}"] {
            assert!(Template::parse(text).is_err(), "{text:?}");
        }
    }

    /// Matches by trying every length for every star; slow and plainly right.
    fn naive(pattern: &[char], key: &[char]) -> bool {
        match pattern {
            [] => key.is_empty(),
            ['*', rest @ ..] => (0..=key.len()).any(|skip| naive(rest, &key[skip..])),
            ['\\', literal, rest @ ..] | [literal, rest @ ..] => {
                key.first() == Some(literal) && naive(rest, &key[1..])
            }
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_a_naive_matcher(pattern in r"[ab*:]{1,8}", key in "[ab:]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let parsed = Pattern::parse(&pattern).unwrap();
            prop_assert_eq!(parsed.matches(&key), naive(&chars(&pattern), &chars(&key)));
        }

        #[test]
        fn an_escaped_text_matches_itself_and_nothing_else(text in r"[a*\\]{1,6}", other in r"[a*\\]{1,6}") {
            let pattern = Pattern::parse(&escape(&text)).unwrap();
            prop_assert_eq!(pattern.matches(&other), text == other);
        }

        #[test]
        fn parsing_never_panics(text in ".{0,40}") {
            let _ = Pattern::parse(&text).map(|pattern| pattern.matches(&text));
            let _ = Template::parse(&text);
        }
    }
}
