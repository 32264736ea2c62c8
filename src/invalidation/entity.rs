//! What can change, as it is written: an entity, what is old when it changes, and what changes with it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A thing of the service that changes: a contact, an organization.
///
/// Its templates and those of its cascades speak of its variables, `{{id}}`, and of nothing else: not
/// of a request's path or fields, because it can be changed by hand, without a request. Whoever
/// changes it gives them their values. See the [module](crate::invalidation) for an example.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InvalidationEntity {
    /// What has to be known of one that changed: `id`, say.
    pub variables: Vec<String>,
    /// Templates of paths. Entries of such a path are purged whatever their query.
    pub paths: Vec<String>,
    /// Templates of tags.
    pub tags: Vec<String>,
    /// Templates of patterns over keys.
    pub patterns: Vec<String>,
    /// The entities that change with it, at most 64.
    pub cascades: Vec<Cascade>,
}

/// An entity that changes because something else does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cascade {
    /// Its name.
    pub entity: String,
    /// Its variables by templates over those of what changes it: `id = "{{organization_id}}"`, or
    /// just a text, `kind = "eu"`. One that is left out has the value of the same name there.
    #[serde(default)]
    pub with: BTreeMap<String, String>,
}

impl InvalidationEntity {
    /// An entity of these variables that names nothing yet.
    #[must_use]
    pub fn new<T: AsRef<str>>(variables: impl IntoIterator<Item = T>) -> Self {
        Self {
            variables: texts(variables),
            ..Self::default()
        }
    }

    /// Purges these paths.
    #[must_use]
    pub fn paths<T: AsRef<str>>(mut self, paths: impl IntoIterator<Item = T>) -> Self {
        self.paths = texts(paths);
        self
    }

    /// Purges these tags.
    #[must_use]
    pub fn tags<T: AsRef<str>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags = texts(tags);
        self
    }

    /// Purges these patterns.
    #[must_use]
    pub fn patterns<T: AsRef<str>>(mut self, patterns: impl IntoIterator<Item = T>) -> Self {
        self.patterns = texts(patterns);
        self
    }

    /// And `entity` changes with it; called again, one more. See [`Cascade::with`].
    #[must_use]
    pub fn cascade<const N: usize>(mut self, entity: &str, with: [(&str, &str); N]) -> Self {
        self.cascades.push(Cascade::new(entity, with));
        self
    }
}

impl Cascade {
    /// A change of `entity`, with its variables by templates; see [`with`](Self::with).
    #[must_use]
    pub fn new<const N: usize>(entity: &str, with: [(&str, &str); N]) -> Self {
        let owned = |(name, text): (&str, &str)| (name.to_owned(), text.to_owned());
        Self {
            entity: entity.to_owned(),
            with: with.into_iter().map(owned).collect(),
        }
    }
}

/// The texts, owned.
pub(crate) fn texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Vec<String> {
    texts
        .into_iter()
        .map(|text| text.as_ref().to_owned())
        .collect()
}
