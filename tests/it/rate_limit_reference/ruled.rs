//! Rules, and the requests that they speak of.

use std::collections::BTreeMap;

use crate::rate_limit_reference::Amount;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Against {
    Ip,
    Caller,
    Tenant,
    ApiKey,
    Everybody,
    /// Whatever the field `x-name` says.
    Name,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Price {
    One,
    /// Whatever the request says.
    Weight,
    Told,
    Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Counted {
    All,
    Failures,
    Successes,
}

#[derive(Clone, Debug)]
pub struct Ruled {
    pub name: &'static str,
    pub path: Option<&'static str>,
    pub against: Against,
    pub amount: Option<Amount>,
    pub tiers: BTreeMap<&'static str, Amount>,
    pub price: Price,
    pub counted: Counted,
    pub shadow: bool,
}

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Visit {
    pub path: &'static str,
    /// The client, IPv6 by its first 64 bits.
    pub ip: Option<&'static str>,
    pub caller: Option<Visitor>,
    pub key: Option<&'static str>,
    pub name: Option<&'static str>,
    pub weight: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Visitor {
    pub id: &'static str,
    pub tier: &'static str,
    pub tenant: Option<&'static str>,
}

impl Ruled {
    /// The quota of all whose tier has none of its own: the rule's, or the smallest.
    pub fn base(&self) -> Amount {
        let smaller = |left: Amount, right: Amount| {
            let (((n, per), all), ((m, other), whole)) = (left.size(), right.size());
            let smaller = (m * per, whole) < (n * other, all);
            if smaller { right } else { left }
        };
        let smallest = || self.tiers.values().copied().reduce(smaller);
        self.amount.or_else(smallest).unwrap()
    }

    pub fn goes_by_calendar(&self) -> bool {
        matches!(self.base(), Amount::Calendar { .. })
    }

    pub fn speaks_of(&self, visit: &Visit) -> bool {
        self.path.is_none_or(|path| path == visit.path)
    }

    pub fn cost(&self, visit: &Visit) -> u32 {
        match self.price {
            Price::One | Price::Told => 1,
            Price::Weight => visit.weight,
            Price::Bytes => 0,
        }
    }

    /// Whose bucket a request is counted in, and whether that one is the same whatever the tier.
    pub fn whose(&self, visit: &Visit) -> (String, bool) {
        let caller = visit.caller;
        let known = match self.against {
            Against::Ip => None,
            Against::Caller => caller.map(|caller| (format!("caller {}", caller.id), true)),
            Against::Tenant => caller.map(|caller| match caller.tenant {
                Some(tenant) => (format!("tenant {tenant}"), false),
                None => (format!("caller {}", caller.id), true),
            }),
            Against::ApiKey => visit.key.map(|key| (format!("key {key}"), true)),
            Against::Everybody => Some(("everybody".to_owned(), false)),
            Against::Name => visit.name.map(|name| (format!("name {name}"), false)),
        };
        let address = || {
            visit
                .ip
                .map_or("nobody".to_owned(), |ip| format!("ip {ip}"))
        };
        known.unwrap_or_else(|| (address(), false))
    }
}
