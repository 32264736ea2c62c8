//! The limiter's files as they are shipped, and as much of their neighbours as they name.

#[path = "../../../src/rate_limit/calendar.rs"]
pub(crate) mod calendar;
#[path = "../../../src/rate_limit/charges.rs"]
pub(crate) mod charges;
#[path = "../../../src/rate_limit/flights.rs"]
pub(crate) mod flights;
#[path = "../../../src/rate_limit/gcra.rs"]
pub(crate) mod gcra;
#[path = "../../../src/rate_limit/leases.rs"]
pub(crate) mod leases;
#[path = "../../../src/rate_limit/outage.rs"]
pub(crate) mod outage;
#[path = "../../../src/rate_limit/penalty.rs"]
pub(crate) mod penalty;
#[path = "../../../src/rate_limit/place.rs"]
pub(crate) mod place;
#[path = "../../../src/rate_limit/slot.rs"]
pub(crate) mod slot;
#[path = "../../../src/rate_limit/table.rs"]
pub(crate) mod table;

/// As much of a rule as a charge needs.
pub(crate) mod compiled {
    use std::sync::Arc;

    use crate::rate_limit::terms::Terms;

    #[derive(Debug, Default)]
    pub(crate) struct CompiledRule {
        pub(crate) shadow: bool,
    }

    #[derive(Debug, Default)]
    pub(crate) struct Plan {
        pub(crate) terms: Arc<Terms>,
    }
}

pub(crate) mod terms {
    #[derive(Debug, Default)]
    pub(crate) struct Terms;
}

/// Hours, days and months as they were before the calendar: all of one length.
pub(crate) mod period {
    #[derive(Clone, Copy, Debug)]
    pub(crate) enum Period {
        Hour,
        Day,
        Month,
    }

    impl Period {
        pub(crate) const fn end(self, at: u64) -> u64 {
            let lasts = match self {
                Self::Hour => 3600,
                Self::Day => 24 * 3600,
                Self::Month => 30 * 24 * 3600,
            };
            (at / lasts + 1) * lasts
        }
    }
}
