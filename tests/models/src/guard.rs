//! The guard's files as they are shipped, and as much of their neighbours as they name.

#[path = "../../../src/guard/codel.rs"]
pub(crate) mod codel;
#[path = "../../../src/guard/line.rs"]
pub(crate) mod line;
#[path = "../../../src/guard/slots.rs"]
pub(crate) mod slots;

/// The classes, without what reads and writes them.
pub(crate) mod criticality {
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) enum Criticality {
        Sheddable,
        #[default]
        SheddablePlus,
        Critical,
        CriticalPlus,
    }

    impl Criticality {
        pub(crate) const COUNT: usize = 4;

        pub(crate) const fn rank(self) -> usize {
            match self {
                Self::CriticalPlus => 0,
                Self::Critical => 1,
                Self::SheddablePlus => 2,
                Self::Sheddable => 3,
            }
        }
    }
}
