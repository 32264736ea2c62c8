//! A rule as it is written: which requests make what old.

use serde::{Deserialize, Serialize};

use crate::invalidation::entity::{Cascade, texts};

/// When a request of `route` and `methods` was carried out, purge what the templates name.
///
/// In templates `{{name}}` stands for a variable of the route or one that is `supplied`, and
/// `{{header.x-name}}` for the first field of that name in the request. See the
/// [module](crate::invalidation).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InvalidationRule {
    /// What warnings call the rule; the route if empty.
    pub name: String,
    /// A path template as axum writes it, `/contacts/{id}`.
    pub route: String,
    /// The methods, in capitals: by default POST, PUT, PATCH and DELETE. Safe ones (RFC 9110
    /// §9.2.1: GET, HEAD, OPTIONS, TRACE) are refused, because they change nothing.
    pub methods: Vec<String>,
    /// Templates of paths. Entries of such a path are purged whatever their query.
    pub paths: Vec<String>,
    /// Templates of tags.
    pub tags: Vec<String>,
    /// Templates of patterns over keys, which are paths with their queries: `/contacts/{{id}}/*`.
    /// A `*` is any run of characters; mind that `/contacts/{{id}}*` matches `/contacts/70` when
    /// the id is 7.
    pub patterns: Vec<String>,
    /// The entities that such a request changes, at most 64, with their variables by templates over
    /// those of the rule.
    pub changes: Vec<Cascade>,
    /// The variables that the service supplies while it runs, in addition to those of the route: see
    /// [`Variables`](crate::invalidation::Variables).
    pub supplied: Vec<String>,
}

impl InvalidationRule {
    /// A rule for the unsafe methods of `route` that names nothing yet.
    #[must_use]
    pub fn new(route: impl Into<String>) -> Self {
        Self {
            route: route.into(),
            ..Self::default()
        }
    }

    /// Gives the rule a name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// These methods instead of the default ones.
    #[must_use]
    pub fn methods<T: AsRef<str>>(mut self, methods: impl IntoIterator<Item = T>) -> Self {
        self.methods = texts(methods);
        self
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

    /// Changes `entity`; called again, one more. `with` says what its variables are, in templates over
    /// the rule's; one that is left out has the value of the same name.
    #[must_use]
    pub fn changes<const N: usize>(mut self, entity: &str, with: [(&str, &str); N]) -> Self {
        self.changes.push(Cascade::new(entity, with));
        self
    }

    /// Declares variables that the service supplies while it runs.
    #[must_use]
    pub fn supplied<T: AsRef<str>>(mut self, variables: impl IntoIterator<Item = T>) -> Self {
        self.supplied = texts(variables);
        self
    }
}

impl Default for InvalidationRule {
    fn default() -> Self {
        Self {
            name: String::new(),
            route: String::new(),
            methods: texts(["POST", "PUT", "PATCH", "DELETE"]),
            paths: Vec::new(),
            tags: Vec::new(),
            patterns: Vec::new(),
            changes: Vec::new(),
            supplied: Vec::new(),
        }
    }
}
