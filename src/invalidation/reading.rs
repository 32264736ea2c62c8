//! Reads what a rule or an entity says is old, and notes everything that is wrong with it.

use std::collections::BTreeMap;

use http::HeaderName;

use crate::error::Faults;
use crate::invalidation::entity::{Cascade, InvalidationEntity};
use crate::invalidation::naming::{Kind, Values, try_out};
use crate::pattern::{Part, Template};

/// The entities as they are written.
pub(crate) type Entities = BTreeMap<String, InvalidationEntity>;

/// What changes: what is old then, and what changes with it.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) targets: Vec<(Kind, Template)>,
    pub(crate) cascades: Vec<Step>,
}

/// From a change to that of an entity.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) entity: Box<str>,
    /// All variables of the entity.
    pub(crate) values: Values,
}

/// What a rule and an entity have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written<'a> {
    pub(crate) paths: &'a [String],
    pub(crate) tags: &'a [String],
    pub(crate) patterns: &'a [String],
    pub(crate) cascades: &'a [Cascade],
}

/// Where it stands, and what it may speak of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) field: &'a str,
    pub(crate) whose: Whose,
    /// `None` where they cannot be told, because what they come from is wrong itself.
    pub(crate) variables: Option<&'a [String]>,
    pub(crate) entities: &'a Entities,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Rule,
    Entity,
}

impl Change {
    /// Reads all of it. Where a fault was noted it is not complete.
    pub(crate) fn read(written: Written<'_>, scope: Scope<'_>, faults: &mut Faults) -> Self {
        let mut change = Self::default();
        let field = scope.field;
        for (kind, list, texts) in [
            (Kind::Path, "paths", written.paths),
            (Kind::Tag, "tags", written.tags),
            (Kind::Pattern, "patterns", written.patterns),
        ] {
            for (at, text) in texts.iter().enumerate() {
                match scope.target(kind, text) {
                    Ok(template) => change.targets.push((kind, template)),
                    Err(found) => {
                        for why in found {
                            faults.add(format!("{field}.{list}[{at}]"), text, why);
                        }
                    }
                }
            }
        }
        let list = scope.whose.list();
        for (at, cascade) in written.cascades.iter().enumerate() {
            let place = format!("{field}.{list}[{at}]");
            change.cascades.extend(scope.step(cascade, &place, faults));
        }
        let targets = written.paths.len() + written.tags.len() + written.patterns.len();
        let cascades = written.cascades.len();
        if targets + cascades == 0 {
            faults.add(field, "nothing", scope.whose.nothing());
        }
        faults.within(field, targets, 0..=OWN_MAX, "targets");
        faults.within(format!("{field}.{list}"), cascades, 0..=OWN_MAX, "entities");
        change
    }
}

impl Scope<'_> {
    fn target(&self, kind: Kind, text: &str) -> Result<Template, Vec<String>> {
        let (template, mut found) = self.template(text)?;
        found.extend(try_out(kind, &template).err());
        if found.is_empty() {
            Ok(template)
        } else {
            Err(found)
        }
    }

    /// The template, and what is wrong with its variables.
    fn template(&self, text: &str) -> Result<(Template, Vec<String>), Vec<String>> {
        let template = Template::parse(text).map_err(|why| vec![why])?;
        let found = template.variables().filter_map(|name| self.fault(name));
        let found = found.collect();
        Ok((template, found))
    }

    fn knows(&self, name: &str) -> bool {
        // What cannot be told is not told wrong.
        self.variables
            .is_none_or(|known| known.iter().any(|variable| variable == name))
    }

    /// What is wrong with speaking of `name` here.
    fn fault(&self, name: &str) -> Option<String> {
        match (name.strip_prefix(HEADER), self.whose) {
            (Some(_), Whose::Entity) => Some(format!(
                "`{name}` is known to rules alone: declare a variable, and let a rule say `with` what"
            )),
            (Some(header), Whose::Rule) => HeaderName::from_bytes(header.as_bytes())
                .is_err()
                .then(|| format!("`{header}` is not the name of a header field")),
            (None, _) if self.knows(name) => None,
            (None, whose) => {
                let has = listed(self.variables.unwrap_or_default());
                Some(match whose {
                    Whose::Rule => format!(
                        "`{name}` is no variable: the rule has {has}, there is `header.` with a \
                         field's name, and what the service tells is declared in `supplied`"
                    ),
                    Whose::Entity => format!("`{name}` is no variable: the entity has {has}"),
                })
            }
        }
    }

    /// What `cascade`, which stands at `field`, leads to.
    fn step(&self, cascade: &Cascade, field: &str, faults: &mut Faults) -> Option<Step> {
        let name = &*cascade.entity;
        let Some(entity) = self.entities.get(name) else {
            let known: Vec<_> = self.entities.keys().take(NAMES_TOLD).cloned().collect();
            let allowed = format!("is no entity: the configuration has {}", listed(&known));
            faults.add(format!("{field}.entity"), name, allowed);
            return None;
        };
        let mut values = Values::new();
        for (variable, text) in &cascade.with {
            let place = format!("{field}.with.{variable}");
            if !entity.variables.contains(variable) {
                let has = listed(&entity.variables);
                let allowed = format!("`{variable}` is no variable: the entity `{name}` has {has}");
                faults.add(&*place, text, allowed);
            }
            match self.template(text) {
                Ok((template, found)) => {
                    for why in found {
                        faults.add(&*place, text, why);
                    }
                    values.insert(variable.as_str().into(), template.parts().into());
                }
                Err(found) => {
                    for why in found {
                        faults.add(&*place, text, why);
                    }
                }
            }
        }
        for variable in &entity.variables {
            if cascade.with.contains_key(variable) {
                continue;
            }
            if !self.knows(variable) {
                let allowed =
                    format!("leaves its variable `{variable}` without a value: say `with` what");
                faults.add(field, name, allowed);
            }
            let same = Part::Variable(variable.as_str().into());
            values.insert(variable.as_str().into(), [same].into());
        }
        let entity = name.into();
        Some(Step { entity, values })
    }
}

impl Whose {
    /// The setting that holds its cascades.
    const fn list(self) -> &'static str {
        match self {
            Self::Rule => "changes",
            Self::Entity => "cascades",
        }
    }

    const fn nothing(self) -> &'static str {
        match self {
            Self::Rule => "the rule names nothing to purge and no entity that changes",
            Self::Entity => "the entity names nothing to purge and no other that changes with it",
        }
    }
}

/// Notes what is wrong with the names of variables that stand at `field`.
pub(crate) fn check_names(names: &[String], field: &str, faults: &mut Faults) {
    for (at, name) in names.iter().enumerate() {
        let allowed = if name.is_empty() || name.trim() != name || name.contains(['{', '}']) {
            "must be the name of a variable: some text without braces, and without space around it"
        } else if name.starts_with(HEADER) {
            "is the name of a header field: what begins with `header.` is known without being said"
        } else if names[..at].contains(name) {
            "is there twice"
        } else {
            continue;
        };
        faults.add(format!("{field}[{at}]"), format!("{name:?}"), allowed);
    }
    faults.within(field, names.len(), 0..=OWN_MAX, "variables");
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    format!("`{}`", names.join("`, `"))
}

/// Variables that begin so are fields of the request.
pub(crate) const HEADER: &str = "header.";

/// The most targets, the most cascades and the most variables that one rule or entity has of its own; whoever
/// needs more wants a tag or a pattern.
const OWN_MAX: usize = 64;

/// More names than these make a fault unreadable.
const NAMES_TOLD: usize = 12;
