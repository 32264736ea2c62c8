//! How important a request is.

use serde::{Deserialize, Serialize};

/// How much it matters that a request is served, in the four classes of Google's SRE book ("Handling
/// Overload"). Ordered: the more important, the greater.
///
/// Classes decide only where not everybody can be served: who is first in the queue, who has to give up a
/// place in it, and who is still let in at [`Pressure::Critical`](crate::guard::Pressure::Critical).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Criticality {
    /// May fail often or for long, and nobody minds: prefetching, crawlers.
    Sheddable,
    /// The rest: what nothing is known of. It can be asked for again.
    #[default]
    SheddablePlus,
    /// A user would notice; served even at critical memory pressure.
    Critical,
    /// Served before all others: health checks, payments.
    CriticalPlus,
}

impl Criticality {
    /// How many classes there are.
    pub(crate) const COUNT: usize = 4;

    /// Its name in settings and fields: `sheddable`, `sheddable_plus`, `critical`, `critical_plus`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sheddable => "sheddable",
            Self::SheddablePlus => "sheddable_plus",
            Self::Critical => "critical",
            Self::CriticalPlus => "critical_plus",
        }
    }

    /// The class of this name, in letters of any case and with `-` or `_`; `None` for anything else.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Sheddable,
            Self::SheddablePlus,
            Self::Critical,
            Self::CriticalPlus,
        ];
        let letter = |byte: u8| match byte {
            b'-' => b'_',
            other => other.to_ascii_lowercase(),
        };
        let name = name.trim();
        all.into_iter()
            .find(|class| name.bytes().map(letter).eq(class.name().bytes()))
    }

    /// Its place among the queues: the most important is the first.
    pub(crate) const fn rank(self) -> usize {
        match self {
            Self::CriticalPlus => 0,
            Self::Critical => 1,
            Self::SheddablePlus => 2,
            Self::Sheddable => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_ordered_and_found_by_name() {
        assert!(Criticality::Sheddable < Criticality::SheddablePlus);
        assert!(Criticality::SheddablePlus < Criticality::Critical);
        assert!(Criticality::Critical < Criticality::CriticalPlus);
        for (name, class) in [
            ("critical", Some(Criticality::Critical)),
            (" Critical-Plus ", Some(Criticality::CriticalPlus)),
            ("SHEDDABLE_PLUS", Some(Criticality::SheddablePlus)),
            ("sheddable", Some(Criticality::Sheddable)),
            ("", None),
            ("critical plus", None),
            ("criticalplus", None),
        ] {
            assert_eq!(Criticality::named(name), class, "{name:?}");
        }
    }
}
