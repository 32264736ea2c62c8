//! A rule made ready: its route matched, its templates filled, nothing left that can be refused.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, HeaderName, Method};

use crate::error::Faults;
use crate::identity::RequestView;
use crate::invalidation::rule::InvalidationRule;
use crate::invalidation::target::Target;
use crate::journal::Marker;
use crate::pattern::{PATTERN_BYTES_MAX, Pattern, Template};
use crate::route::{PathVars, Route};
use crate::target::normal_form;

/// A rule that was found right.
#[derive(Debug)]
pub(crate) struct Plan {
    name: Box<str>,
    route: Route,
    targets: Vec<Named>,
    /// Whether it was told that a target could not be named.
    warned: AtomicBool,
}

/// A target by its template.
#[derive(Debug)]
struct Named {
    kind: Kind,
    text: Box<str>,
    template: Template,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Path,
    Tag,
    Pattern,
}

impl Plan {
    /// Reads `rule`, which stands at `field` of the configuration.
    pub(crate) fn compile(
        rule: &InvalidationRule,
        field: &str,
        faults: &mut Faults,
    ) -> Option<Self> {
        let mut found = Faults::new();
        let methods = methods(rule, field, &mut found);
        let route = match Route::new(&rule.route, &methods) {
            Ok(route) => Some(route),
            Err(why) => {
                found.add(format!("{field}.route"), &rule.route, why);
                None
            }
        };
        let variables = route.as_ref().map(Route::variables);
        let mut targets = Vec::new();
        for (kind, list, texts) in [
            (Kind::Path, "paths", &rule.paths),
            (Kind::Tag, "tags", &rule.tags),
            (Kind::Pattern, "patterns", &rule.patterns),
        ] {
            for (at, text) in texts.iter().enumerate() {
                match Named::read(kind, text, variables.as_deref()) {
                    Ok(named) => targets.push(named),
                    Err(faulty) => {
                        for why in faulty {
                            found.add(format!("{field}.{list}[{at}]"), text, why);
                        }
                    }
                }
            }
        }
        match rule.paths.len() + rule.tags.len() + rule.patterns.len() {
            0 => found.add(field, &rule.route, "the rule names nothing to purge"),
            count => found.within(field, count, 1..=RULE_TARGETS_MAX, "targets"),
        }
        if let Err(error) = found.into_result() {
            faults.absorb(error);
            return None;
        }
        let name = if rule.name.is_empty() {
            &rule.route
        } else {
            &rule.name
        };
        Some(Self {
            name: name.as_str().into(),
            route: route?,
            targets,
            warned: AtomicBool::new(false),
        })
    }

    /// Adds what a request of this rule makes old. Gives a warning to be told where a target could
    /// not be named, the first time.
    pub(crate) fn name(
        &self,
        request: &RequestView<'_>,
        markers: &mut Vec<Marker>,
    ) -> Option<String> {
        let vars = self.route.vars(request)?;
        let mut unnamed = None;
        for named in &self.targets {
            match named.marker(&vars, request.headers) {
                Some(marker) => markers.push(marker),
                None => unnamed = Some(&*named.text),
            }
        }
        let text = unnamed?;
        if self.warned.swap(true, Ordering::Relaxed) {
            return None;
        }
        Some(format!(
            "invalidation rule {:?}: {text:?} was not purged for a request that lacks a value for \
             it, or whose value makes no tag; see that every request of the route carries one",
            self.name
        ))
    }
}

impl Named {
    /// Reads the template; `variables` are the route's, `None` if the route is no good itself.
    fn read(kind: Kind, text: &str, variables: Option<&[String]>) -> Result<Self, Vec<String>> {
        let template = Template::parse(text).map_err(|why| vec![why])?;
        let unknown = |name: &str| match name.strip_prefix(HEADER) {
            Some(header) => HeaderName::from_bytes(header.as_bytes())
                .is_err()
                .then(|| format!("`{header}` is not the name of a header field")),
            None => variables
                .filter(|known| !known.iter().any(|variable| variable == name))
                .map(|known| no_variable(name, known)),
        };
        let mut faults: Vec<String> = template.variables().filter_map(unknown).collect();
        if let Err(why) = try_out(kind, &template) {
            faults.push(why);
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self {
            kind,
            text: text.into(),
            template,
        })
    }

    /// What the template names for this request; `None` where a value is missing or makes no tag.
    fn marker(&self, vars: &PathVars<'_>, headers: &HeaderMap) -> Option<Marker> {
        let value = |name: &str| match name.strip_prefix(HEADER) {
            Some(header) => headers.get(header)?.to_str().ok(),
            None => vars.value(name),
        };
        let raw = |name: &str| value(name).map(Cow::Borrowed);
        match self.kind {
            Kind::Path => Some(Target::path(&self.template.fill(raw)?).into_marker()),
            Kind::Tag => {
                let tag = self.template.fill(|name| {
                    let text = value(name)?;
                    Some(match name.starts_with(HEADER) {
                        true => Cow::Borrowed(text),
                        false => decoded(text),
                    })
                })?;
                Some(Target::tag(&tag).ok()?.into_marker())
            }
            Kind::Pattern => {
                // A pattern is compared with the normal form of what is stored.
                let normal = |name: &str| value(name).map(normal_form);
                let text = within_bound(self.template.fill_pattern(normal)?);
                Some(Marker::pattern(Pattern::parse(&text).ok()?.of_targets()))
            }
        }
    }
}

/// The methods of the rule that are right; faults for the others.
fn methods(rule: &InvalidationRule, field: &str, faults: &mut Faults) -> Vec<Method> {
    if rule.methods.is_empty() {
        faults.add(
            format!("{field}.methods"),
            "[]",
            "must name at least one method",
        );
    }
    let mut methods = Vec::new();
    for (at, text) in rule.methods.iter().enumerate() {
        let allowed = match Method::from_bytes(text.as_bytes()) {
            Err(_) => "is no method",
            // Methods are case-sensitive (RFC 9110 §9.1), so `put` would be one that nobody uses.
            Ok(_) if text.contains(|char: char| char.is_ascii_lowercase()) => {
                "must be written in capitals"
            }
            Ok(method) if method.is_safe() => "is a safe method (RFC 9110 §9.2.1), changes nothing",
            Ok(method) => {
                methods.push(method);
                continue;
            }
        };
        faults.add(format!("{field}.methods[{at}]"), text, allowed);
    }
    methods
}

fn no_variable(name: &str, known: &[String]) -> String {
    let has = if known.is_empty() {
        "has none".to_owned()
    } else {
        format!("has `{}`", known.join("`, `"))
    };
    format!("`{name}` is no variable: the route {has}, and there is `header.` with a field's name")
}

/// Fills the template with harmless values, to see what its own text does.
fn try_out(kind: Kind, template: &Template) -> Result<(), String> {
    let text = template.fill(|_| Some("x".into())).unwrap_or_default();
    match kind {
        Kind::Tag => Target::tag(&text).map(drop).map_err(|why| why.to_string()),
        Kind::Path if !text.starts_with('/') => Err("a path must begin with `/`".to_owned()),
        Kind::Path if text.contains(['?', '#']) => {
            Err("a path has no query: entries are purged whatever their query".to_owned())
        }
        Kind::Path if text.contains('*') => {
            Err("a path has no stars: write it among the `patterns`".to_owned())
        }
        Kind::Path => Ok(()),
        Kind::Pattern => {
            let pattern = Pattern::parse(&text)?;
            let target = Target::pattern(&pattern);
            target.map(drop).map_err(|why| why.to_string())
        }
    }
}

/// A pattern that has grown too long, cut and ended with a star. Leaving it out would keep old
/// answers; what it matches too much are only misses.
fn within_bound(mut pattern: String) -> String {
    if pattern.len() <= PATTERN_BYTES_MAX {
        return pattern;
    }
    pattern.truncate(pattern.floor_char_boundary(PATTERN_BYTES_MAX - 1));
    let escapes = pattern.bytes().rev().take_while(|byte| *byte == b'\\');
    // An odd one has lost the character that it escaped, and must not take the star instead.
    if escapes.count() % 2 == 1 {
        pattern.pop();
    }
    pattern.push('*');
    pattern
}

/// `text` without its percent-encoding (RFC 3986 §2.1); as it is if that is not UTF-8.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let pair = match rest {
            [b'%', high, low, ..] => digit(*high).zip(digit(*low)),
            _ => None,
        };
        let byte = pair.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &rest[3..] } else { tail };
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Variables that begin so are fields of the request.
const HEADER: &str = "header.";

/// The most targets of one rule; whoever needs more wants a tag or a pattern.
const RULE_TARGETS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;
    use crate::event::Events;
    use crate::journal::{Checked, Journal, JournalConfig, Subject};

    fn plan(rule: &InvalidationRule) -> Plan {
        let mut faults = Faults::new();
        let plan = Plan::compile(rule, "rule", &mut faults);
        faults.into_result().unwrap();
        plan.unwrap()
    }

    fn put(path: &str) -> Request<()> {
        Request::put(path).body(()).unwrap()
    }

    /// Whether an entry of `key` with `tag` survives what `request` makes old.
    fn survives(plan: &Plan, request: &Request<()>, key: &str, tag: &str) -> bool {
        let journal = Journal::new(&JournalConfig::default(), Events::none()).unwrap();
        let born = journal.position();
        let mut markers = Vec::new();
        let _ = plan.name(&RequestView::of(request), &mut markers);
        drop(journal.append(&markers));
        // As the cache names what it stores.
        let key = normal_form(key);
        let path = key.split('?').next().unwrap();
        let subject = Subject::of(&*key, &[path.into(), tag.into()]);
        journal.holds(born, &Checked::at(born), &subject)
    }

    #[test]
    fn a_rule_purges_what_its_templates_name_and_nothing_else() {
        let rule = InvalidationRule::new("/contacts/{id}")
            .paths(["/contacts/{{id}}", "/contacts"])
            .tags(["contact:{{id}}", "org:{{header.x-org}}"])
            .patterns(["/search?*owner={{id}}", "/count?all"]);
        let plan = plan(&rule);
        let mut request = put("/contacts/7?quiet=1");
        request
            .headers_mut()
            .insert("x-org", "acme".parse().unwrap());
        for (key, tag, holds) in [
            ("/contacts/7", "", false),
            ("/contacts/7?full=1", "", false),
            ("/contacts/70", "", true),
            ("/contacts/7/notes", "", true),
            ("/contacts?page=9", "", false),
            ("/search?q=x&owner=7", "", false),
            ("/search?q=x&owner=77", "", true),
            ("/search?owner=7&q=x", "", true),
            ("/count?all", "", false),
            ("/count", "", true),
            ("/x", "contact:7", false),
            ("/x", "contact:70", true),
            ("/x", "org:acme", false),
            ("/x", "org:other", true),
        ] {
            assert_eq!(survives(&plan, &request, key, tag), holds, "{key} {tag}");
        }
    }

    #[test]
    fn another_route_or_method_purges_nothing() {
        let plan = plan(
            &InvalidationRule::new("/contacts/{id}")
                .methods([Method::PUT])
                .tags(["t"]),
        );
        assert!(!survives(&plan, &put("/contacts/7"), "/x", "t"));
        assert!(survives(&plan, &put("/contacts"), "/x", "t"));
        assert!(survives(&plan, &put("/contacts/7/notes"), "/x", "t"));
        let delete = Request::delete("/contacts/7").body(()).unwrap();
        assert!(survives(&plan, &delete, "/x", "t"));
    }

    #[test]
    fn a_value_stays_encoded_in_paths_and_patterns_and_is_decoded_in_tags() {
        let rule = InvalidationRule::new("/t/{id}")
            .paths(["/t/{{id}}"])
            .tags(["t:{{id}}"])
            .patterns(["/p/{{id}}/*"]);
        let plan = plan(&rule);
        let request = put("/t/a%20%C3%A4");
        assert!(!survives(&plan, &request, "/t/a%20%C3%A4?x", ""));
        assert!(!survives(&plan, &request, "/p/a%20%C3%A4/1", ""));
        assert!(!survives(&plan, &request, "/x", "t:a ä"));
        assert!(survives(&plan, &request, "/x", "t:a%20%C3%A4"));
    }

    #[test]
    fn decoding_takes_pairs_of_digits_only_and_leaves_what_is_no_text() {
        for (text, plain) in [
            ("plain", "plain"),
            ("%41%6a%6A", "Ajj"),
            ("100%", "100%"),
            ("%4", "%4"),
            ("%+4%zz%%41", "%+4%zz%A"),
            ("%ff%41", "%ff%41"),
            ("ä%41", "äA"),
        ] {
            assert_eq!(decoded(text), plain);
        }
    }

    #[test]
    fn a_target_without_its_value_is_left_out_and_told_once() {
        let rule = InvalidationRule::new("/t/{id}").name("tenants").tags([
            "{{header.x-a}}:{{id}}",
            "all",
            "{{id}}",
        ]);
        let plan = plan(&rule);
        let named = |request: &Request<()>| {
            let mut markers = Vec::new();
            let warning = plan.name(&RequestView::of(request), &mut markers);
            (markers.len(), warning)
        };
        let (count, warning) = named(&put("/t/1"));
        assert_eq!(count, 2);
        let warning = warning.unwrap();
        assert!(warning.contains("\"tenants\""), "{warning}");
        assert!(warning.contains("{{header.x-a}}:{{id}}"), "{warning}");
        assert_eq!(
            named(&put("/t/1")),
            (2, None),
            "the second time it is known"
        );
        let mut empty = put("/t/1");
        empty.headers_mut().insert("x-a", "".parse().unwrap());
        assert_eq!(named(&empty).0, 2);
        // A value that makes no tag: a newline, and one that would name a path.
        assert_eq!(named(&put("/t/%0a")).0, 1);
        assert_eq!(named(&put("/t/%2Fsecret")).0, 1);
    }

    #[test]
    fn a_pattern_that_grows_too_long_matches_more_and_not_less() {
        let plan = plan(&InvalidationRule::new("/t/{id}").patterns(["/p/{{id}}/*"]));
        for id in ["x".repeat(2_000), "*".repeat(2_000), r"\".repeat(2_000)] {
            let request = put(&format!("/t/{id}"));
            assert!(!survives(&plan, &request, &format!("/p/{id}/1"), ""));
            assert!(survives(&plan, &request, "/p/y/1", ""));
        }
        for length in 1020..1030 {
            for char in ["\\", "*", "ä"] {
                let text = crate::pattern::escape(&char.repeat(length)).into_owned();
                let whole = Pattern::parse(&within_bound(text)).unwrap();
                assert!(whole.matches(&char.repeat(length)), "{length} {char}");
                assert!(!whole.matches("z"));
            }
        }
    }

    proptest! {
        #[test]
        fn a_filled_id_never_purges_what_is_another_ids(
            id in r"[ab7*\\%:._~]{1,5}", other in r"[ab7*\\%:._~]{1,5}", query in "[ab7*&=]{0,5}",
        ) {
            let rule = InvalidationRule::new("/contacts/{id}")
                .paths(["/contacts/{{id}}"])
                .patterns(["/contacts/{{id}}/*", "/by-owner/*/{{id}}?*"]);
            let (plan, request) = (plan(&rule), put(&format!("/contacts/{id}")));
            let same = id == other;
            for key in [
                format!("/contacts/{other}?{query}"),
                format!("/contacts/{other}/notes?{query}"),
                format!("/by-owner/a/{other}?{query}"),
            ] {
                prop_assert_eq!(survives(&plan, &request, &key, ""), !same, "{}", key);
            }
        }

        #[test]
        fn decoding_never_panics(text in ".{0,20}|[%0-9a-f]{0,12}") {
            prop_assert!(decoded(&text).len() <= text.len());
        }
    }
}
