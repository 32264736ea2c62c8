//! Reads structured fields (RFC 9651) as far as quotas are told in them: lists of named items with
//! parameters, and dictionaries of integers.
//!
//! Nothing is allocated: a member borrows from the field, and its parameters are read again when one is
//! asked for. RFC 9651 §4.2: "If parsing fails [..] the entire field value MUST be ignored (i.e., treated
//! as if the field were not present in the section)", so whoever reads must stop at the first `None`
//! within a field and forget what came before it.

/// A part of a field, and how far it was read. Only ASCII gets this far.
#[derive(Clone, Copy, Debug)]
struct Cursor<'a> {
    rest: &'a str,
}

/// One item of a list: `"burst";r=50;t=30`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member<'a> {
    /// The string between its quotes, or the token. Escapes stay as they are: two strings are equal if
    /// they are written equally.
    pub(crate) name: &'a str,
    params: &'a str,
}

impl Member<'_> {
    /// The parameter of this name, where it is an integer. RFC 9651 §3.1.2 lets the last one count.
    pub(crate) fn integer(&self, key: &str) -> Option<i64> {
        let mut cursor = Cursor { rest: self.params };
        let mut found = None;
        while let Param::Next(name, value) = cursor.param()? {
            if name == key {
                found = value.integer();
            }
        }
        found
    }
}

/// What stands behind an item.
#[derive(Clone, Copy, Debug)]
enum Param<'a> {
    Next(&'a str, Bare<'a>),
    End,
}

/// What stands alone or behind a `=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bare<'a> {
    Integer(i64),
    /// A string or a token, by which something is named.
    Name(&'a str),
    /// Of a type that no quota is told in.
    Other,
}

impl Bare<'_> {
    const fn integer(self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(number),
            Self::Name(_) | Self::Other => None,
        }
    }
}

/// Shows every item of a list whose items are strings or tokens. `None` if it is no such list; items
/// before the fault have been shown then.
pub(crate) fn items<'a>(field: &'a str, mut see: impl FnMut(Member<'a>)) -> Option<()> {
    let mut cursor = Cursor::of(field);
    while !cursor.rest.is_empty() {
        let Bare::Name(name) = cursor.bare()? else {
            return None;
        };
        let before = cursor.rest;
        cursor.params()?;
        let params = before.get(..before.len() - cursor.rest.len())?;
        see(Member { name, params });
        cursor.comma()?;
    }
    Some(())
}

/// Shows every integer of a dictionary with its key. `None` if it is no dictionary of items.
pub(crate) fn integers<'a>(field: &'a str, mut see: impl FnMut(&'a str, i64)) -> Option<()> {
    let mut cursor = Cursor::of(field);
    while !cursor.rest.is_empty() {
        let key = cursor.key()?;
        let value = if cursor.takes('=') {
            cursor.bare()?
        } else {
            Bare::Other
        };
        cursor.params()?;
        if let Some(number) = value.integer() {
            see(key, number);
        }
        cursor.comma()?;
    }
    Some(())
}

impl<'a> Cursor<'a> {
    /// RFC 9651 §4.2: leading and trailing spaces are discarded.
    fn of(field: &'a str) -> Self {
        Self {
            rest: field.trim_matches(' '),
        }
    }

    fn takes(&mut self, expected: char) -> bool {
        match self.rest.strip_prefix(expected) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// What goes on for as long as `belongs` says so.
    fn run(&mut self, belongs: impl Fn(u8) -> bool) -> &'a str {
        let length = self.rest.bytes().take_while(|byte| belongs(*byte)).count();
        let (run, rest) = self.rest.split_at(length);
        self.rest = rest;
        run
    }

    /// §4.2.1: the comma between two members, or the end. A comma at the end is a fault.
    fn comma(&mut self) -> Option<()> {
        self.run(is_space);
        if self.rest.is_empty() {
            return Some(());
        }
        let comma = self.takes(',');
        self.run(is_space);
        (comma && !self.rest.is_empty()).then_some(())
    }

    /// §4.2.3.2: the next parameter.
    fn param(&mut self) -> Option<Param<'a>> {
        if !self.takes(';') {
            return Some(Param::End);
        }
        self.run(|byte| byte == b' ');
        let key = self.key()?;
        let value = if self.takes('=') {
            self.bare()?
        } else {
            Bare::Other
        };
        Some(Param::Next(key, value))
    }

    /// All that are left.
    fn params(&mut self) -> Option<()> {
        while let Param::Next(..) = self.param()? {}
        Some(())
    }

    /// §4.2.3.3.
    fn key(&mut self) -> Option<&'a str> {
        let begins = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'*';
        self.rest.as_bytes().first().filter(|byte| begins(byte))?;
        Some(self.run(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)
        }))
    }

    /// §4.2.3.1: what it is shows at its first byte.
    fn bare(&mut self) -> Option<Bare<'a>> {
        match self.rest.as_bytes().first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string().map(Bare::Name),
            b'*' | b'A'..=b'Z' | b'a'..=b'z' => Some(Bare::Name(self.run(is_token))),
            b':' => self.bytes(),
            b'?' => self.boolean(),
            b'@' => self.date(),
            b'%' => self.display(),
            _ => None,
        }
    }

    /// §4.2.4: at most 15 digits, or 12 before the point and three behind.
    fn number(&mut self) -> Option<Bare<'a>> {
        let sign = if self.takes('-') { -1 } else { 1 };
        let whole = self.run(|byte| byte.is_ascii_digit());
        if self.takes('.') {
            let digits = self.run(|byte| byte.is_ascii_digit()).len();
            let fits = (1..=12).contains(&whole.len()) && (1..=3).contains(&digits);
            return fits.then_some(Bare::Other);
        }
        let number = whole
            .parse::<i64>()
            .ok()
            .filter(|_| whole.len() <= DIGITS_MAX)?;
        Some(Bare::Integer(sign * number))
    }

    /// §4.2.5: printable ASCII, in which only `"` and `\` are escaped.
    fn string(&mut self) -> Option<&'a str> {
        let body = self.rest.strip_prefix('"')?;
        let mut escaped = false;
        for (at, byte) in body.bytes().enumerate() {
            match byte {
                b'"' | b'\\' if escaped => escaped = false,
                _ if escaped => return None,
                b'\\' => escaped = true,
                b'"' => {
                    self.rest = body.get(at + 1..)?;
                    return body.get(..at);
                }
                b' '..=b'~' => {}
                _ => return None,
            }
        }
        None
    }

    /// §4.2.7. What the bytes are is nobody's business here.
    fn bytes(&mut self) -> Option<Bare<'a>> {
        self.takes(':');
        self.run(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
        self.takes(':').then_some(Bare::Other)
    }

    /// §4.2.8.
    fn boolean(&mut self) -> Option<Bare<'a>> {
        self.takes('?');
        (self.takes('0') || self.takes('1')).then_some(Bare::Other)
    }

    /// §4.2.9: an integer, and no decimal.
    fn date(&mut self) -> Option<Bare<'a>> {
        self.takes('@');
        self.number()?.integer().map(|_| Bare::Other)
    }

    /// §4.2.10: percent-encoded UTF-8, in which hexadecimal digits are lowercase.
    fn display(&mut self) -> Option<Bare<'a>> {
        let mut body = self.rest.strip_prefix("%\"")?.bytes();
        let mut text = Vec::new();
        loop {
            match body.next()? {
                b'"' => break,
                b'%' => text.push(hex(body.next()?)? << 4 | hex(body.next()?)?),
                byte @ b' '..=b'~' => text.push(byte),
                _ => return None,
            }
        }
        self.rest = self.rest.get(self.rest.len() - body.len()..)?;
        std::str::from_utf8(&text).is_ok().then_some(Bare::Other)
    }
}

/// More digits than an integer of a structured field may have (RFC 9651 §3.3.1) are no number.
pub(crate) const DIGITS_MAX: usize = 15;

const fn is_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// `tchar` of RFC 9110 §5.6.2, a colon or a slash.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every item with these parameters, or `None` for a field that is to be ignored.
    fn read(field: &str) -> Option<Vec<(String, Option<i64>, Option<i64>)>> {
        let mut found = Vec::new();
        items(field, |member| {
            let (r, t) = (member.integer("r"), member.integer("t"));
            found.push((member.name.to_owned(), r, t));
        })?;
        Some(found)
    }

    #[test]
    fn items_are_read_with_their_parameters() {
        let item = |name: &str, r, t| (name.to_owned(), r, t);
        for (field, expected) in [
            ("", vec![]),
            ("  \"a\"  ", vec![item("a", None, None)]),
            (
                "\"burst\";r=50;t=30",
                vec![item("burst", Some(50), Some(30))],
            ),
            (
                "\"a\";r=0;t=1 ,\t \"b\"; r=7;x",
                vec![item("a", Some(0), Some(1)), item("b", Some(7), None)],
            ),
            ("default;r=-1", vec![item("default", Some(-1), None)]),
            ("a;r=1;r=2", vec![item("a", Some(2), None)]),
            ("a;r=1;r=two", vec![item("a", None, None)]),
            ("a;r=1.5;t=?1", vec![item("a", None, None)]),
            (
                r#""q\"u\\o";pk=:aGk=:;d=@-1;s="r=9";t=3"#,
                vec![item(r#"q\"u\\o"#, None, Some(3))],
            ),
            (
                "a;n=%\"%c3%bc\";r=999999999999999",
                vec![item("a", Some(999_999_999_999_999), None)],
            ),
        ] {
            assert_eq!(read(field), Some(expected), "{field:?}");
        }
    }

    #[test]
    fn a_malformed_field_is_no_list() {
        for field in [
            "\"a\";r=1,",
            ",\"a\"",
            "\"a\" \"b\"",
            "\"a",
            "\"a\\n\"",
            "\"a\";R=1",
            "\"a\";=1",
            "\"a\";r=",
            "\"a\";r=1000000000000000",
            "\"a\";r=1.0000",
            "\"a\";r=1.",
            "\"a\";r=-",
            "\"a\";r=1;",
            "\"a\" ;r=1",
            "\"a\";r=?2",
            "\"a\";r=@1.5",
            "\"a\";r=:a",
            "\"a\";r=%\"%C3%BC\"",
            "\"a\";r=%\"%ff\"",
            "\"a\";r=%\"a",
            // Well-formed, but its items are no strings.
            "1;r=1",
            "(\"a\");r=1",
            "limit=10, remaining=5",
            "a, ?1",
            "\t\"a\"",
        ] {
            assert_eq!(read(field), None, "{field:?}");
        }
    }

    #[test]
    fn a_dictionary_shows_its_integers() {
        let read = |field| {
            let mut found = Vec::new();
            integers(field, |key, number| found.push((key, number)))?;
            Some(found)
        };
        for (field, expected) in [
            (
                "limit=10, remaining=5;x=1,reset=3",
                Some(vec![("limit", 10), ("remaining", 5), ("reset", 3)]),
            ),
            ("limit, reset=\"5\", a=-7", Some(vec![("a", -7)])),
            ("", Some(vec![])),
            ("limit=10,", None),
            ("Limit=10", None),
            ("limit=10 reset=1", None),
        ] {
            assert_eq!(read(field), expected, "{field:?}");
        }
    }

    /// The same field by a parser of the whole standard.
    fn reference(field: &str) -> Option<Vec<(String, Option<i64>, Option<i64>)>> {
        let list: sfv::List = sfv::Parser::new(field).parse().ok()?;
        let integer = |params: &sfv::Parameters, key: &str| {
            let item = params.get(sfv::KeyRef::from_str(key).ok()?)?;
            item.as_integer().map(i64::from)
        };
        let item = |entry: &sfv::ListEntry| {
            let sfv::ListEntry::Item(item) = entry else {
                return None;
            };
            let name = match &item.bare_item {
                sfv::BareItem::String(name) => {
                    name.as_str().replace('\\', "\\\\").replace('"', "\\\"")
                }
                sfv::BareItem::Token(name) => name.as_str().to_owned(),
                _ => return None,
            };
            Some((name, integer(&item.params, "r"), integer(&item.params, "t")))
        };
        list.iter().map(item).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

        /// Built of pieces, for letters by chance are hardly ever a list.
        #[test]
        fn fields_mean_what_they_mean_to_a_parser_of_the_whole_standard(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "\"a\"", "tok", ";", "r", "t", "=", "=1", ";r=7", ";t=30", ",", ", ", " ", "\t",
                    "\"", "\\", "\\\"", "-", "12", ".5", ".", "?", "?1", "@5", "@-5.1", ":aGk=:",
                    "%\"%c3%bc\"", "%\"%c3\"", "(", ")", "*x", "A/b", "999999999999999", "0",
                    "1234567890123", "\"é\"",
                ]),
                0..8,
            ),
        ) {
            let field = pieces.concat();
            prop_assert_eq!(read(&field), reference(&field), "{:?}", field);
        }

        #[test]
        fn no_field_makes_it_panic(field in ".{0,64}") {
            let _ = (read(&field), integers(&field, |_, _| {}));
        }
    }
}
