//! What a handler says is old now, in the extensions of its response.

use crate::invalidation::target::{Target, TargetError};
use crate::journal::Marker;
use crate::pattern::Pattern;

/// Put into a response's extensions, purges what it names before the response's head is released.
///
/// ```
/// use tower_keep::invalidation::Invalidate;
///
/// let mut response = http::Response::new("moved");
/// response
///     .extensions_mut()
///     .insert(Invalidate::tag("contact:7").and_tag("organisation:3").and_path("/contacts"));
/// ```
///
/// With axum it is a part of the answer: `(Extension(Invalidate::tag("contact:7")), "moved")`. A
/// response carries one; where two are set, the last counts.
///
/// It is carried out whatever the method and the status, because the handler knows what it did, and
/// taken out of the response. At most 64 targets are kept: with one more, everything is purged,
/// since forgetting some would keep old answers. That, and what [`Target`] refuses (a tag that no
/// entry can carry, a pattern of nothing but stars), is told by a
/// [`Warning`](crate::event::Event::Warning).
#[derive(Clone, Debug, Default)]
pub struct Invalidate {
    targets: Vec<Target>,
    overfull: bool,
    refused: Option<TargetError>,
}

impl Invalidate {
    /// The entry of this key.
    #[must_use]
    pub fn key(key: &str) -> Self {
        Self::default().and_key(key)
    }

    /// The entries of this path, whatever their query.
    #[must_use]
    pub fn path(path: &str) -> Self {
        Self::default().and_path(path)
    }

    /// The entries that carry this tag.
    #[must_use]
    pub fn tag(tag: &str) -> Self {
        Self::default().and_tag(tag)
    }

    /// The entries whose key matches.
    #[must_use]
    pub fn pattern(pattern: &Pattern) -> Self {
        Self::default().and_pattern(pattern)
    }

    /// And the entry of this key.
    #[must_use]
    pub fn and_key(self, key: &str) -> Self {
        self.and(Ok(Target::key(key)))
    }

    /// And the entries of this path, whatever their query.
    #[must_use]
    pub fn and_path(self, path: &str) -> Self {
        self.and(Ok(Target::path(path)))
    }

    /// And the entries that carry this tag.
    #[must_use]
    pub fn and_tag(self, tag: &str) -> Self {
        self.and(Target::tag(tag))
    }

    /// And the entries whose key matches.
    #[must_use]
    pub fn and_pattern(self, pattern: &Pattern) -> Self {
        self.and(Target::pattern(pattern))
    }

    fn and(mut self, target: Result<Target, TargetError>) -> Self {
        match target {
            Err(why) => self.refused = Some(why),
            Ok(_) if self.overfull => {}
            Ok(_) if self.targets.len() == RESPONSE_TARGETS_MAX => {
                self.overfull = true;
                self.targets.clear();
            }
            Ok(target) => self.targets.push(target),
        }
        self
    }

    /// What the journal records; `rewritten` says whether queries are rewritten before they are keys.
    pub(crate) fn into_markers(self, rewritten: bool) -> Vec<Marker> {
        if self.overfull {
            return vec![Marker::Everything];
        }
        let targets = self.targets.into_iter();
        targets.map(|target| target.marker(rewritten)).collect()
    }

    /// Whether more was named than is kept, so that everything goes.
    pub(crate) const fn is_overfull(&self) -> bool {
        self.overfull
    }

    /// Why one of the targets, the last of them, was refused.
    pub(crate) const fn refused(&self) -> Option<TargetError> {
        self.refused
    }
}

/// The most targets of one response.
const RESPONSE_TARGETS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_to_the_bound_targets_are_kept_and_beyond_it_everything_goes() {
        let many = |count: usize| {
            (0..count).fold(Invalidate::default(), |said, at| {
                said.and_tag(&format!("t{at}"))
            })
        };
        assert_eq!(many(64).into_markers(false).len(), 64);
        assert!(!many(64).is_overfull());
        for count in [65, 1_000] {
            assert!(many(count).is_overfull());
            let markers = many(count).into_markers(false);
            assert!(matches!(&*markers, [Marker::Everything]), "{count}");
        }
    }

    #[test]
    fn what_cannot_be_named_is_left_out_and_the_rest_stands() {
        let stars = Pattern::parse("**").unwrap();
        let said = Invalidate::tag("").and_path("/x").and_pattern(&stars);
        assert_eq!(said.refused(), Some(TargetError::MatchesEverything));
        assert_eq!(said.into_markers(false).len(), 1);
        assert_eq!(Invalidate::key("/x?y").refused(), None);
    }

    #[test]
    fn it_fits_into_extensions() {
        fn fits<T: Clone + Send + Sync + 'static>() {}
        fits::<Invalidate>();
    }
}
