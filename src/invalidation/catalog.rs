//! The entities made ready: each with all that is old when it changes.

use std::collections::BTreeMap;

use crate::error::Faults;
use crate::invalidation::cascade::{Changes, expanded, loops};
use crate::invalidation::naming::{Named, Unnamed};
use crate::invalidation::reading::{Change, Entities, Scope, Whose, Written, check_names};
use crate::invalidation::target::Target;
use crate::invalidation::value::Value;

/// The entities as they were read, for rules to be made ready with.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    pub(crate) entities: &'a Entities,
    /// `None` where something is wrong with any of them.
    changes: Option<Changes>,
    fan_out_max: usize,
}

/// The entities, ready to be changed by hand.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    entities: BTreeMap<Box<str>, Entity>,
}

#[derive(Debug)]
struct Entity {
    variables: Box<[String]>,
    targets: Vec<Named>,
}

/// Why nothing was purged for a [change](crate::invalidation::Invalidator::changed).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangedError {
    /// The configuration has no entity of this name.
    #[error("there is no entity {entity:?}")]
    UnknownEntity {
        /// The name.
        entity: String,
    },
    /// A variable of the entity was not given.
    #[error("the entity {entity:?} needs the variable {variable:?}")]
    MissingVariable {
        /// The entity.
        entity: String,
        /// The variable.
        variable: String,
    },
    /// The value of a variable has no text.
    #[error("the variable {variable:?} of the entity {entity:?} is empty, which names nothing")]
    EmptyValue {
        /// The entity.
        entity: String,
        /// The variable.
        variable: String,
    },
    /// With these values a target of the cascade is none.
    #[error("the entity {entity:?} names {target:?}: {why}")]
    Refused {
        /// The entity.
        entity: String,
        /// The target by its template.
        target: String,
        /// Why, in words.
        why: String,
    },
}

impl<'a> Reading<'a> {
    /// Reads the entities, which stand at `field`. No change names more targets than `fan_out_max`.
    pub(crate) fn of(
        entities: &'a Entities,
        fan_out_max: usize,
        field: &str,
        faults: &mut Faults,
    ) -> Self {
        let mut found = Faults::new();
        found.within(field, entities.len(), 0..=ENTITIES_MAX, "entities");
        let changes: Changes = entities
            .iter()
            .map(|(name, entity)| {
                let field = format!("{field}.{name}");
                if name.is_empty() {
                    found.add(&*field, "\"\"", "an entity has a name");
                }
                check_names(&entity.variables, &format!("{field}.variables"), &mut found);
                let scope = Scope {
                    field: &field,
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
                let change = Change::read(written, scope, &mut found);
                (name.as_str().into(), change)
            })
            .collect();
        for around in loops(&changes) {
            let place = format!("{field}.{}.cascades", around[0]);
            found.add(
                place,
                around.join(" -> "),
                "is a loop: a cascade has an end",
            );
        }
        let is_right = found.is_empty();
        if let Err(error) = found.into_result() {
            faults.absorb(error);
        }
        Self {
            entities,
            changes: is_right.then_some(changes),
            fan_out_max,
        }
    }

    /// All that `change`, which stands at `field`, makes old; `None` with a fault, now or before.
    pub(crate) fn expanded(
        &self,
        change: &Change,
        field: &str,
        faults: &mut Faults,
    ) -> Option<Vec<Named>> {
        expanded(change, self.changes.as_ref()?, self.fan_out_max)
            .map_err(|(value, why)| faults.add(field, value, why))
            .ok()
    }

    /// The entities made ready; those that are not right are left out.
    pub(crate) fn catalog(&self, field: &str, faults: &mut Faults) -> Catalog {
        let mut catalog = Catalog::default();
        for (name, change) in self.changes.iter().flatten() {
            let targets = self.expanded(change, &format!("{field}.{name}"), faults);
            let entity = self.entities.get(&**name);
            if let Some((targets, entity)) = targets.zip(entity) {
                let variables = entity.variables.as_slice().into();
                let ready = Entity { variables, targets };
                catalog.entities.insert(name.clone(), ready);
            }
        }
        catalog
    }
}

impl Catalog {
    /// All that is old when `entity` changes.
    pub(crate) fn targets(
        &self,
        entity: &str,
        variables: &[(&str, &str)],
    ) -> Result<Vec<Target>, ChangedError> {
        let name = || entity.to_owned();
        let known = self.entities.get(entity);
        let known = known.ok_or_else(|| ChangedError::UnknownEntity { entity: name() })?;
        let value = |variable: &str| {
            let mut given = variables.iter().rev();
            let (_, value) = given.find(|(name, _)| *name == variable)?;
            Some(Value::text(value))
        };
        for variable in &known.variables {
            let (entity, variable) = (name(), variable.clone());
            match value(&variable) {
                None => return Err(ChangedError::MissingVariable { entity, variable }),
                Some(value) if value.is_empty() => {
                    return Err(ChangedError::EmptyValue { entity, variable });
                }
                Some(_) => {}
            }
        }
        let targets = known.targets.iter().map(|named| {
            named.target(value).map_err(|why| match why {
                Unnamed::NoValue(variable) => ChangedError::MissingVariable {
                    entity: name(),
                    variable: variable.into(),
                },
                Unnamed::Refused(why) => ChangedError::Refused {
                    entity: name(),
                    target: named.to_string(),
                    why,
                },
            })
        });
        targets.collect()
    }
}

/// A configuration of more is written by a program, which may as well purge by hand.
const ENTITIES_MAX: usize = 1_000;
