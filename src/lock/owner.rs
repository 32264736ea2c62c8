//! Who asks for a lock.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// A random name of 32 hexadecimal digits for one attempt, unlike that of any other attempt anywhere.
///
/// An attempt and not an instance has a name: two tasks of one instance must shut each other out as well,
/// and what an attempt has left behind is undone by its name without touching the next one's.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Owner(Arc<str>);

impl Owner {
    pub(crate) fn random() -> Self {
        // The standard library seeds its hashers with 128 random bits of the system's.
        let (first, second) = (RandomState::new(), RandomState::new());
        Self(format!("{:016x}{:016x}", first.hash_one(0), second.hash_one(1)).into())
    }

    #[cfg(feature = "redis")]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_owners_have_one_name() {
        let names: std::collections::HashSet<String> = (0..1_000)
            .map(|_| format!("{:?}", Owner::random()))
            .collect();
        assert_eq!(names.len(), 1_000);
        assert!(names.iter().all(|name| name.len() == 32));
    }
}
