//! Which parameters of a query count for the key.

use std::borrow::Cow;

use http::uri::PathAndQuery;
use percent_encoding::percent_decode_str;

/// What is done with a query before it becomes a part of the key. The service sees it as it was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueryRules {
    /// Whether the order of parameters of different names does not matter.
    pub(crate) sorted: bool,
    /// If there are any, only these parameters count.
    pub(crate) only: Vec<String>,
    /// These parameters do not count. A `*` at the end stands for any rest.
    pub(crate) ignored: Vec<String>,
}

impl QueryRules {
    /// The target as far as it counts. Allocates only where there is a query and something is done to it.
    #[inline]
    pub(crate) fn target<'a>(&self, target: &'a PathAndQuery) -> Cow<'a, str> {
        match target.query() {
            Some(query) if self.rewrite() => self.rewritten(target.path(), query),
            _ => Cow::Borrowed(target.as_str()),
        }
    }

    /// Whether any query is rewritten.
    pub(crate) const fn rewrite(&self) -> bool {
        self.sorted || !self.only.is_empty() || !self.ignored.is_empty()
    }

    fn rewritten(&self, path: &str, query: &str) -> Cow<'static, str> {
        let pairs = query.split('&').map(|pair| (name(pair), pair));
        let mut pairs: Vec<_> = pairs
            .filter(|(name, pair)| self.counts(name, pair))
            .collect();
        if self.sorted {
            // Stable: of one name the first value often wins, so their order is theirs.
            pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
        let mut target = path.to_owned();
        for (at, (_, pair)) in pairs.iter().enumerate() {
            target.push(if at == 0 { '?' } else { '&' });
            target.push_str(pair);
        }
        Cow::Owned(target)
    }

    fn counts(&self, name: &[u8], pair: &str) -> bool {
        let among = |list: &[String]| list.iter().any(|known| matches(known, name));
        !pair.is_empty() && (self.only.is_empty() || among(&self.only)) && !among(&self.ignored)
    }
}

/// The name of a parameter as the service reads it: `ids%5B%5D` is `ids[]`, `a+b` is `a b`.
fn name(pair: &str) -> Cow<'_, [u8]> {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name);
    if !name.contains(['%', '+']) {
        return Cow::Borrowed(name.as_bytes());
    }
    let spaced = name.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).collect())
}

fn matches(known: &str, name: &[u8]) -> bool {
    match known.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix.as_bytes()),
        None => name == known.as_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_left_out_and_put_in_order_as_told() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let as_is = QueryRules::default();
        let sorted = QueryRules {
            sorted: true,
            ..QueryRules::default()
        };
        let only = QueryRules {
            only: list(&["page", "q"]),
            ..QueryRules::default()
        };
        let encoded = QueryRules {
            only: list(&["ids[]", "größe", "a b"]),
            ..QueryRules::default()
        };
        let ignored = QueryRules {
            sorted: true,
            ignored: list(&["utm_*", "fbclid"]),
            ..QueryRules::default()
        };
        for (rules, target, counts) in [
            (&as_is, "/a?b=1&a=2&", "/a?b=1&a=2&"),
            (&as_is, "/a?", "/a?"),
            (&sorted, "/a?b=1&a=2&a=1", "/a?a=2&a=1&b=1"),
            (&sorted, "/a", "/a"),
            (&only, "/a?x=1&q=z&page=2", "/a?q=z&page=2"),
            (&only, "/a?x=1", "/a"),
            (
                &encoded,
                "/a?ids%5B%5D=1&gr%C3%B6%C3%9Fe=2&a+b=3&x",
                "/a?ids%5B%5D=1&gr%C3%B6%C3%9Fe=2&a+b=3",
            ),
            (&sorted, "/a?%62=1&a=2", "/a?a=2&%62=1"),
            (
                &ignored,
                "/a?utm_source=x&b&fbclid=1&a&utm%5Fid=3",
                "/a?a&b",
            ),
            (&ignored, "/a?fbclid=1&fbclida=1", "/a?fbclida=1"),
        ] {
            let target: PathAndQuery = target.parse().unwrap();
            assert_eq!(rules.target(&target), counts, "{target}");
        }
    }
}
