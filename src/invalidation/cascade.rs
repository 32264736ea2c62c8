//! What a change makes old in the end: its own targets and those of all that changes with it.
//!
//! Worked out when the rules are read, so that a request only fills in values. Each entity is gone
//! through once for each way its variables are told; a diamond that tells them alike counts once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::invalidation::naming::{Named, Unnamed, Values};
use crate::invalidation::reading::Change;
use crate::invalidation::value::Value;
use crate::pattern::Part;

/// What changes with each entity, by its name.
pub(crate) type Changes = BTreeMap<Box<str>, Change>;

/// All that `start` makes old, in the order of the cascade and each only once. There must be no
/// [loop](loops) in `all`.
///
/// # Errors
///
/// Says in words with which value something is wrong, and what: more targets than `most`, a value that
/// grows from step to step, a tag that none can carry.
pub(crate) fn expanded<'a>(
    start: &'a Change,
    all: &'a Changes,
    most: usize,
) -> Result<Vec<Named>, (String, String)> {
    let (mut known, mut targets) = (BTreeSet::new(), Vec::new());
    let mut seen: BTreeSet<(&'a str, Values)> = BTreeSet::new();
    let mut next: VecDeque<(&'a Change, Option<Values>)> = VecDeque::from([(start, None)]);
    while let Some((change, values)) = next.pop_front() {
        for (kind, template) in &change.targets {
            let named = Named::new(*kind, template, values.as_ref());
            if !known.insert(named.clone()) {
                continue;
            }
            if let Err(Unnamed::Refused(why)) = named.target(|_| Some(Value::text("x"))) {
                return Err((named.to_string(), why));
            }
            if targets.len() == most {
                let why = format!("is one target more than `fan_out_max` = {most} allows");
                return Err((named.to_string(), why));
            }
            targets.push(named);
        }
        for step in &change.cascades {
            // Names of steps were found among the entities when they were read.
            let Some((entity, change)) = all.get_key_value(&step.entity) else {
                continue;
            };
            let values = handed_on(&step.values, values.as_ref());
            if let Some((variable, _)) = values.iter().find(|(_, parts)| is_too_long(parts)) {
                let why =
                    format!("a value of over {VALUE_PARTS_MAX} parts, grown from step to step");
                return Err((format!("{entity}.{variable}"), why));
            }
            if seen.len() == STEPS_MAX {
                let why = format!("leads to more than {STEPS_MAX} changes of entities");
                return Err((entity.to_string(), why));
            }
            if seen.insert((&**entity, values.clone())) {
                next.push_back((change, Some(values)));
            }
        }
    }
    Ok(targets)
}

/// What a step says of an entity's variables, told in the variables of the start.
fn handed_on(step: &Values, values: Option<&Values>) -> Values {
    let Some(values) = values else {
        return step.clone();
    };
    let told = |parts: &[Part]| -> Box<[Part]> {
        let mut all = Vec::new();
        for part in parts {
            match part {
                Part::Literal(_) => all.push(part.clone()),
                Part::Variable(name) => {
                    let parts = values.get(name).map_or(&[][..], |parts| parts);
                    all.extend_from_slice(parts);
                }
            }
        }
        joined(all).into()
    };
    step.iter()
        .map(|(variable, parts)| (variable.clone(), told(parts)))
        .collect()
}

/// Texts one after the other made one, so that what says the same is the same.
fn joined(parts: Vec<Part>) -> Vec<Part> {
    let mut all: Vec<Part> = Vec::with_capacity(parts.len());
    for part in parts {
        match (all.last_mut(), &part) {
            (Some(Part::Literal(last)), Part::Literal(text)) => {
                *last = format!("{last}{text}").into();
            }
            _ => all.push(part),
        }
    }
    all
}

/// A tag has at most 256 bytes and a pattern is cut at 1,024, so such a value names nothing; and doubled
/// with each step it would outgrow the memory.
fn is_too_long(parts: &[Part]) -> bool {
    let bytes = |part: &Part| match part {
        Part::Literal(text) => text.len(),
        Part::Variable(_) => 1,
    };
    parts.len() > VALUE_PARTS_MAX || parts.iter().map(bytes).sum::<usize>() > VALUE_BYTES_MAX
}

/// The loops among the entities, each as the names along it, the first one again at its end. No entity is
/// in two of them: where loops share one, the next is found when that one is mended.
pub(crate) fn loops(all: &Changes) -> Vec<Vec<&str>> {
    let mut left: BTreeMap<&str, BTreeSet<&str>> = all
        .iter()
        .map(|(name, change)| {
            let names = change.cascades.iter().map(|step| &*step.entity);
            (&**name, names.collect())
        })
        .collect();
    let mut found = Vec::new();
    loop {
        // Whoever leads only to what is done with is in no loop.
        loop {
            let names: BTreeSet<&str> = left.keys().copied().collect();
            let before = left.len();
            left.retain(|_, to| to.iter().any(|name| names.contains(name)));
            if left.len() == before {
                break;
            }
        }
        let Some(around) = any_loop(&left) else {
            return found;
        };
        for name in &around {
            left.remove(name);
        }
        found.push(around);
    }
}

/// Walks until it comes where it was; everybody in `left` leads on to somebody in it.
fn any_loop<'a>(left: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Option<Vec<&'a str>> {
    let mut walked = vec![*left.keys().next()?];
    loop {
        let last = *walked.last()?;
        let next = *left
            .get(last)?
            .iter()
            .find(|name| left.contains_key(**name))?;
        let begin = walked.iter().position(|name| *name == next);
        walked.push(next);
        if let Some(begin) = begin {
            return Some(walked.split_off(begin));
        }
    }
}

/// A guard against cascades that fork at every step and name little.
const STEPS_MAX: usize = 4_096;

const VALUE_PARTS_MAX: usize = 64;

const VALUE_BYTES_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Faults;
    use crate::invalidation::entity::InvalidationEntity;
    use crate::invalidation::reading::{Entities, Scope, Whose, Written};

    /// Reads the entities; unlike a configuration it lets loops pass.
    fn changes(entities: &Entities) -> Changes {
        let mut faults = Faults::new();
        let read = |(name, entity): (&String, &InvalidationEntity)| {
            let scope = Scope {
                field: name,
                whose: Whose::Entity,
                variables: Some(&entity.variables),
                entities,
            };
            let written = Written {
                paths: &entity.paths,
                tags: &entity.tags,
                patterns: &entity.patterns,
                cascades: &entity.cascades,
            };
            let change = Change::read(written, scope, &mut faults);
            (name.as_str().into(), change)
        };
        let changes = entities.iter().map(read).collect();
        faults.into_result().unwrap();
        changes
    }

    fn entities<const N: usize>(entities: [(&str, InvalidationEntity); N]) -> Entities {
        let named = |(name, entity): (&str, InvalidationEntity)| (name.to_owned(), entity);
        entities.into_iter().map(named).collect()
    }

    fn of_id() -> InvalidationEntity {
        InvalidationEntity::new(["id"])
    }

    /// What `entity` makes old, as templates.
    fn named(all: &Entities, entity: &str, most: usize) -> Result<Vec<String>, (String, String)> {
        let changes = changes(all);
        let named = expanded(&changes[entity], &changes, most)?;
        Ok(named.iter().map(Named::to_string).collect())
    }

    #[test]
    fn a_cascade_tells_all_its_targets_in_variables_of_its_beginning() {
        let all = entities([
            (
                "contact",
                InvalidationEntity::new(["id", "org"])
                    .tags(["contact:{{id}}"])
                    .cascade("organization", [("id", "{{org}}")]),
            ),
            (
                "organization",
                of_id()
                    .paths(["/organizations/{{id}}"])
                    .cascade("region", [("name", "eu/{{id}}-x"), ("kind", "*")]),
            ),
            (
                "region",
                InvalidationEntity::new(["name", "kind"])
                    .tags(["region:{{name}}:{{kind}}"])
                    .paths(["/regions/{{name}}"])
                    .patterns(["/r?kind={{kind}}&n={{name}}&*", "r:{{name}}:*"]),
            ),
        ]);
        let expected = [
            "contact:{{id}}",
            "/organizations/{{org}}",
            "/regions/eu%2F{{org}}-x",
            "region:eu/{{org}}-x:*",
            r"/r?kind=\*&n=eu%2F{{org}}-x&*",
            "r:eu%2F{{org}}-x:*",
        ];
        assert_eq!(named(&all, "contact", 6).unwrap(), expected);
    }

    #[test]
    fn a_value_of_the_same_name_is_handed_on_and_a_mapped_one_is_not() {
        let all = entities([
            (
                "a",
                of_id()
                    .cascade("b", [])
                    .cascade("b", [("id", "x-{{id}}")])
                    .cascade("b", [("id", "fixed")]),
            ),
            ("b", of_id().tags(["b:{{id}}"])),
        ]);
        let expected = ["b:{{id}}", "b:x-{{id}}", "b:fixed"];
        assert_eq!(named(&all, "a", 256).unwrap(), expected);
    }

    #[test]
    fn a_diamond_names_each_target_once() {
        let all = entities([
            ("top", of_id().cascade("left", []).cascade("right", [])),
            ("left", of_id().tags(["all"]).cascade("end", [])),
            (
                "right",
                InvalidationEntity::new(["id"])
                    .tags(["all"])
                    .cascade("end", [("id", "{{id}}")]),
            ),
            ("end", of_id().tags(["end:{{id}}", "end:{{ id }}"])),
        ]);
        assert_eq!(named(&all, "top", 2).unwrap(), ["all", "end:{{id}}"]);
        let (value, why) = named(&all, "top", 1).unwrap_err();
        assert_eq!(value, "end:{{id}}");
        assert!(why.contains("`fan_out_max` = 1"), "{why}");
    }

    /// Forks at each of 30 steps into two that are told differently: a thousand million ways.
    #[test]
    fn a_cascade_that_forks_at_every_step_is_refused_and_not_followed() {
        let mut all = entities([("30", of_id().tags(["the same for all"]))]);
        for at in 0..30 {
            let next = (at + 1).to_string();
            let fork = of_id()
                .cascade(&next, [("id", "a{{id}}")])
                .cascade(&next, [("id", "b{{id}}")]);
            all.insert(at.to_string(), fork);
        }
        let (_, why) = named(&all, "0", 256).unwrap_err();
        assert!(why.contains("4096 changes"), "{why}");
    }

    #[test]
    fn a_value_that_doubles_at_every_step_is_refused() {
        for double in [
            "{{id}}{{id}}",
            "{{id}}text and more of it, as long as you like",
        ] {
            let mut all = entities([("40", of_id().tags(["{{id}}"]))]);
            for at in 0..40 {
                let next = (at + 1).to_string();
                all.insert(at.to_string(), of_id().cascade(&next, [("id", double)]));
            }
            let (_, why) = named(&all, "0", 256).unwrap_err();
            assert!(why.contains("grown"), "{why}");
        }
    }

    #[test]
    fn a_tag_that_a_mapped_text_makes_impossible_is_refused() {
        for text in ["/x", "a\nb"] {
            let all = entities([
                ("a", of_id().cascade("b", [("id", text)])),
                ("b", of_id().tags(["{{id}}"])),
            ]);
            let (value, why) = named(&all, "a", 256).unwrap_err();
            assert_eq!(value, text);
            assert!(why.contains("tag"), "{why}");
        }
    }

    #[test]
    fn loops_are_found_with_their_way() {
        let to = |names: &[&str]| {
            let all = of_id().tags(["x"]);
            names.iter().fold(all, |all, name| all.cascade(name, []))
        };
        type Case = (
            [(&'static str, &'static [&'static str]); 5],
            &'static [&'static str],
        );
        let cases: [Case; 5] = [
            (
                [
                    ("a", &["b", "c"]),
                    ("b", &["d"]),
                    ("c", &["d"]),
                    ("d", &["e"]),
                    ("e", &[]),
                ],
                &[],
            ),
            (
                [
                    ("a", &["a"]),
                    ("b", &["a"]),
                    ("c", &[]),
                    ("d", &["c"]),
                    ("e", &[]),
                ],
                &["a a"],
            ),
            (
                [
                    ("a", &["b"]),
                    ("b", &["c"]),
                    ("c", &["d"]),
                    ("d", &["b"]),
                    ("e", &[]),
                ],
                &["b c d b"],
            ),
            (
                [
                    ("a", &["b"]),
                    ("b", &["a"]),
                    ("c", &["d"]),
                    ("d", &["e"]),
                    ("e", &["c"]),
                ],
                &["a b a", "c d e c"],
            ),
            (
                [
                    ("a", &["b"]),
                    ("b", &["c", "e"]),
                    ("c", &[]),
                    ("d", &["a"]),
                    ("e", &["d"]),
                ],
                &["a b e d a"],
            ),
        ];
        for (case, expected) in cases {
            let all = entities(case.map(|(name, names)| (name, to(names))));
            let changes = changes(&all);
            let found: Vec<_> = loops(&changes)
                .iter()
                .map(|around| around.join(" "))
                .collect();
            assert_eq!(found, expected);
        }
    }

    proptest! {
        /// Whatever leads to whatever: without a loop it ends, within its bound, each target once.
        #[test]
        fn every_cascade_ends_within_its_bound(
            edges in prop::collection::vec((0usize..8, 0usize..8, 0usize..4), 0..24),
            most in 1usize..12,
        ) {
            let mut all: Entities = (0..8)
                .map(|at| (at.to_string(), of_id().tags([format!("{at}:{{{{id}}}}")])))
                .collect();
            for (from, to, how) in &edges {
                let with = [("id", ["{{id}}", "a{{id}}", "{{id}}{{id}}", "eu"][*how])];
                let entity = all.remove(&from.to_string()).unwrap();
                all.insert(from.to_string(), entity.cascade(&to.to_string(), with));
            }
            let changes = changes(&all);
            let found = loops(&changes);
            for around in &found {
                prop_assert_eq!(around.first(), around.last());
                for pair in around.windows(2) {
                    let is_there = edges.iter().any(|(from, to, _)| {
                        from.to_string() == pair[0] && to.to_string() == pair[1]
                    });
                    prop_assert!(is_there, "{:?} is no way", around);
                }
            }
            // A second opinion: whether all can be put in an order.
            let mut left: BTreeSet<usize> = (0..8).collect();
            while let Some(end) = left.iter().copied().find(|at| {
                !edges.iter().any(|(from, to, _)| from == at && left.contains(to))
            }) {
                left.remove(&end);
            }
            prop_assert_eq!(found.is_empty(), left.is_empty());
            if !found.is_empty() {
                return Ok(());
            }
            for change in changes.values() {
                let whole = expanded(change, &changes, usize::MAX);
                let bound = expanded(change, &changes, most);
                match (&whole, &bound) {
                    (Ok(whole), Ok(bound)) => {
                        prop_assert_eq!(whole, bound);
                        prop_assert!(bound.len() <= most);
                        let once: BTreeSet<_> = bound.iter().collect();
                        prop_assert_eq!(once.len(), bound.len());
                    }
                    (Ok(whole), Err(_)) => prop_assert!(whole.len() > most),
                    (Err(_), Ok(_)) => prop_assert!(false, "the bound took a fault away"),
                    (Err(_), Err(_)) => {}
                }
            }
        }
    }
}
