//! A rule made ready: its route matched, its templates filled, nothing left that can be refused.

use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;

use crate::error::Faults;
use crate::identity::RequestView;
use crate::invalidation::catalog::Reading;
use crate::invalidation::naming::{Named, Unnamed};
use crate::invalidation::reading::{Change, HEADER, Scope, Whose, Written, check_names};
use crate::invalidation::rule::InvalidationRule;
use crate::invalidation::target::Target;
use crate::invalidation::value::Value;
use crate::invalidation::variables::Variables;
use crate::route::Route;

/// A rule that was found right.
#[derive(Debug)]
pub(crate) struct Plan {
    name: Box<str>,
    route: Route,
    /// All that it makes old in the end, each once.
    targets: Vec<Named>,
    /// The variables that `targets` speak of.
    variables: Vec<Box<str>>,
    /// Whether it was told that a target could not be named.
    warned: AtomicBool,
    /// The same of requests that ended without an answer, which lack what the answer would have told.
    warned_unanswered: AtomicBool,
}

/// What a request that a plan speaks of told by itself.
#[derive(Debug)]
pub(crate) struct Match {
    /// The plan, by its place among all.
    pub(crate) plan: usize,
    /// The values of its variables, in their order.
    values: Box<[Option<Value<'static>>]>,
}

/// What is told when the answer is there. It comes before what the request told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered<'a> {
    /// By the response itself.
    pub(crate) told: Option<&'a Variables>,
    /// By the closure.
    pub(crate) supplied: &'a Variables,
}

impl Plan {
    /// Reads `rule`, which stands at `field` of the configuration that `reading` is of.
    pub(crate) fn compile(
        rule: &InvalidationRule,
        field: &str,
        reading: &Reading<'_>,
        faults: &mut Faults,
    ) -> Option<Self> {
        let mut found = Faults::new();
        let methods = methods(rule, field, &mut found);
        let route = Route::new(&rule.route, &methods)
            .map_err(|why| found.add(format!("{field}.route"), &rule.route, why))
            .ok();
        check_names(&rule.supplied, &format!("{field}.supplied"), &mut found);
        let variables = route.as_ref().map(|route| {
            let mut known = route.variables();
            known.extend(rule.supplied.iter().cloned());
            known
        });
        let scope = Scope {
            field,
            whose: Whose::Rule,
            variables: variables.as_deref(),
            entities: reading.entities,
        };
        let written = Written {
            paths: &rule.paths,
            tags: &rule.tags,
            patterns: &rule.patterns,
            cascades: &rule.changes,
        };
        let change = Change::read(written, scope, &mut found);
        if let Err(error) = found.into_result() {
            faults.absorb(error);
            return None;
        }
        let targets = reading.expanded(&change, field, faults)?;
        let name = if rule.name.is_empty() {
            &rule.route
        } else {
            &rule.name
        };
        let mut variables: Vec<Box<str>> = Vec::new();
        for variable in targets.iter().flat_map(Named::variables) {
            if !variables.iter().any(|known| **known == *variable) {
                variables.push(variable.into());
            }
        }
        Some(Self {
            name: name.as_str().into(),
            route: route?,
            targets,
            variables,
            warned: AtomicBool::new(false),
            warned_unanswered: AtomicBool::new(false),
        })
    }

    /// What `request` tells by itself, if this plan, which stands at `at` among all, speaks of it: by
    /// what outer layers left with it, by its path, by its fields.
    pub(crate) fn matched(&self, at: usize, request: &RequestView<'_>) -> Option<Match> {
        let path = self.route.vars(request)?;
        let told = request.extensions.get::<Variables>();
        let values = self.variables.iter().map(|name| {
            let value = if let Some(value) = told.and_then(|told| told.value(name)) {
                Value::text(value)
            } else if let Some(header) = name.strip_prefix(HEADER) {
                Value::text(request.headers.get(header)?.to_str().ok()?)
            } else {
                Value::in_path(path.value(name)?)
            };
            Some(value.into_owned())
        });
        let values = values.collect();
        Some(Match { plan: at, values })
    }

    /// Adds what is old, `answered` being what was told with the answer if there was one. Gives a warning
    /// to be told where a target could not be named, the first time.
    pub(crate) fn name(
        &self,
        matched: &Match,
        answered: Option<&Answered<'_>>,
        targets: &mut Vec<Target>,
    ) -> Option<String> {
        let value = |name: &str| {
            let late = answered.and_then(|answered| {
                let told = answered.told.and_then(|told| told.value(name));
                told.or_else(|| answered.supplied.value(name))
            });
            if let Some(value) = late {
                return Some(Value::text(value));
            }
            let at = self.variables.iter().position(|known| **known == *name)?;
            Some(matched.values.get(at)?.as_ref()?.borrowed())
        };
        let mut unnamed = None;
        for named in &self.targets {
            match named.target(value) {
                Ok(target) => targets.push(target),
                Err(why) => unnamed = Some((named, why)),
            }
        }
        let (named, why) = unnamed?;
        self.warning(named, &why, answered.is_some())
    }

    fn warning(&self, named: &Named, why: &Unnamed, is_answered: bool) -> Option<String> {
        let (warned, what, advice) = if is_answered {
            let advice = "see that every request of the route carries one, or that its answer does";
            (&self.warned, "a request", advice)
        } else {
            let advice = "what only an answer tells is purged by `Invalidator::changed`, called right \
                          after the commit, where that matters";
            let what = "a request that ended without an answer";
            (&self.warned_unanswered, what, advice)
        };
        if warned.swap(true, Ordering::Relaxed) {
            return None;
        }
        let (rule, target) = (&self.name, named.to_string());
        Some(format!(
            "invalidation rule {rule:?}: {target:?} was not purged for {what}: {why}; {advice}"
        ))
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

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;
    use crate::event::Events;
    use crate::invalidation::reading::Entities;
    use crate::journal::{Checked, Journal, JournalConfig, Marker, Subject};
    use crate::target::normal_form;

    fn plan(rule: &InvalidationRule) -> Plan {
        let mut faults = Faults::new();
        let entities = Entities::new();
        let reading = Reading::of(&entities, 256, "entities", &mut faults);
        let plan = Plan::compile(rule, "rule", &reading, &mut faults);
        faults.into_result().unwrap();
        plan.unwrap()
    }

    fn put(path: &str) -> Request<()> {
        Request::put(path).body(()).unwrap()
    }

    /// What the plan names for a request that was answered without a word, and its warning.
    fn named(plan: &Plan, request: &Request<()>) -> (Vec<Marker>, Option<String>) {
        let Some(matched) = plan.matched(0, &RequestView::of(request)) else {
            return (Vec::new(), None);
        };
        let (supplied, mut targets) = (Variables::new(), Vec::new());
        let answered = Answered {
            told: None,
            supplied: &supplied,
        };
        let warning = plan.name(&matched, Some(&answered), &mut targets);
        let markers = targets.into_iter().map(|target| target.marker(false));
        (markers.collect(), warning)
    }

    /// Whether an entry of `key` with `tag` survives what `request` makes old.
    fn survives(plan: &Plan, request: &Request<()>, key: &str, tag: &str) -> bool {
        let journal = Journal::new(&JournalConfig::default(), Events::none()).unwrap();
        let born = journal.position();
        drop(journal.append(&named(plan, request).0));
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
    fn a_target_without_its_value_is_left_out_and_told_once() {
        let rule = InvalidationRule::new("/t/{id}").name("tenants").tags([
            "{{header.x-a}}:{{id}}",
            "all",
            "{{id}}",
        ]);
        let plan = plan(&rule);
        let named = |request: &Request<()>| {
            let (markers, warning) = named(&plan, request);
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
    }
}
