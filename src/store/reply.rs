//! What Redis answered, and how it becomes a value: in one place, so that no room reads raw replies.

use std::str::FromStr;

use bytes::Bytes;
use redis::Value;

use crate::store::error::StoreError;

/// One answer. Take a value out with [`read`](Self::read).
#[derive(Debug)]
pub struct Reply(pub(crate) Value);

impl Reply {
    /// The answer as a `T`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unreadable`] if it is something else.
    pub fn read<T: FromReply>(self) -> Result<T, StoreError> {
        T::from_reply(self)
    }

    fn unreadable(&self, expected: &'static str) -> StoreError {
        StoreError::Unreadable {
            expected,
            found: kind(&self.0),
        }
    }
}

/// The answers to a [`Batch`](crate::store::Batch), in its order. Each is taken once.
#[derive(Debug)]
pub struct Replies(pub(crate) std::vec::IntoIter<Result<Reply, StoreError>>);

impl Replies {
    /// The next answer as a `T`.
    ///
    /// # Errors
    ///
    /// What the server refused, or [`StoreError::Unreadable`]: also when there is no further answer.
    pub fn read<T: FromReply>(&mut self) -> Result<T, StoreError> {
        let none = StoreError::Unreadable {
            expected: "another answer",
            found: "the end of the batch",
        };
        self.0.next().unwrap_or(Err(none))?.read()
    }

    /// How many are left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether all were taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }
}

impl Iterator for Replies {
    type Item = Result<Reply, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

/// Can be read from a [`Reply`].
///
/// Integers may come as numbers or as digits (scripts send large ones as text), text and bytes as any
/// kind of string. `Option` is `None` for nil; a tuple is an array of exactly that many.
pub trait FromReply: Sized {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unreadable`] if it is something else.
    fn from_reply(reply: Reply) -> Result<Self, StoreError>;
}

impl FromReply for Reply {
    fn from_reply(reply: Reply) -> Result<Self, StoreError> {
        Ok(reply)
    }
}

impl FromReply for () {
    fn from_reply(_: Reply) -> Result<Self, StoreError> {
        Ok(())
    }
}

/// A number that was sent as text: by scripts, and by most commands.
fn digits<T: FromStr>(value: &Value) -> Option<T> {
    match value {
        Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        Value::SimpleString(digits) => digits.parse().ok(),
        _ => None,
    }
}

impl FromReply for i64 {
    fn from_reply(reply: Reply) -> Result<Self, StoreError> {
        let read = match &reply.0 {
            Value::Int(number) => Some(*number),
            Value::Boolean(yes) => Some(Self::from(*yes)),
            text => digits(text),
        };
        read.ok_or_else(|| reply.unreadable("an integer"))
    }
}

impl FromReply for u64 {
    fn from_reply(reply: Reply) -> Result<Self, StoreError> {
        let read = match &reply.0 {
            Value::Int(number) => Self::try_from(*number).ok(),
            Value::Boolean(yes) => Some(Self::from(*yes)),
            // Above i64::MAX there is no integer reply, only digits.
            text => digits(text),
        };
        read.ok_or_else(|| reply.unreadable("an integer of at least 0"))
    }
}

impl FromReply for u32 {
    fn from_reply(reply: Reply) -> Result<Self, StoreError> {
        Self::try_from(u64::from_reply(reply)?).map_err(|_| StoreError::Unreadable {
            expected: "an integer below 2^32",
            found: "a larger one",
        })
    }
}

impl FromReply for usize {
    fn from_reply(reply: Reply) -> Result<Self, StoreError> {
        Self::try_from(u64::from_reply(reply)?).map_err(|_| StoreError::Unreadable {
            expected: "an integer of a size",
            found: "a larger one",
        })
    }
}

impl FromReply for f64 {
    fn from_reply(reply: Reply) -> Result<Self, StoreError> {
        let read = match &reply.0 {
            Value::Double(number) => Some(*number),
            Value::Int(number) => Some(*number as Self),
            text => digits(text),
        };
        read.ok_or_else(|| reply.unreadable("a number"))
    }
}

impl FromReply for bool {
    fn from_reply(reply: Reply) -> Result<Self, StoreError> {
        match &reply.0 {
            Value::Boolean(yes) => Ok(*yes),
            Value::Int(number) => Ok(*number != 0),
            Value::Okay => Ok(true),
            Value::Nil => Ok(false),
            _ => Err(reply.unreadable("a yes or no")),
        }
    }
}

impl FromReply for Vec<u8> {
    fn from_reply(reply: Reply) -> Result<Self, StoreError> {
        match reply.0 {
            Value::BulkString(bytes) => Ok(bytes),
            Value::SimpleString(text) => Ok(text.into_bytes()),
            Value::VerbatimString { text, .. } => Ok(text.into_bytes()),
            Value::Okay => Ok(b"OK".to_vec()),
            Value::Int(number) => Ok(number.to_string().into_bytes()),
            other => Err(Reply(other).unreadable("a string")),
        }
    }
}

impl FromReply for Bytes {
    fn from_reply(reply: Reply) -> Result<Self, StoreError> {
        Vec::from_reply(reply).map(Self::from)
    }
}

impl FromReply for String {
    fn from_reply(reply: Reply) -> Result<Self, StoreError> {
        Self::from_utf8(Vec::from_reply(reply)?).map_err(|_| StoreError::Unreadable {
            expected: "UTF-8 text",
            found: "other bytes",
        })
    }
}

impl<T: FromReply> FromReply for Option<T> {
    fn from_reply(reply: Reply) -> Result<Self, StoreError> {
        match reply.0 {
            Value::Nil => Ok(None),
            other => T::from_reply(Reply(other)).map(Some),
        }
    }
}

/// A list. Of bytes it is none: those are one string, `Vec<u8>` or `Bytes`.
impl<T: FromReply> FromReply for Vec<T> {
    fn from_reply(reply: Reply) -> Result<Self, StoreError> {
        let items = items(reply)?;
        let read = items.into_iter().map(|item| T::from_reply(Reply(item)));
        read.collect()
    }
}

/// A map, or an array of names and values by turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs<K, V>(pub Vec<(K, V)>);

impl<K: FromReply, V: FromReply> FromReply for Pairs<K, V> {
    fn from_reply(reply: Reply) -> Result<Self, StoreError> {
        let pairs = match reply.0 {
            Value::Map(pairs) => pairs,
            other => {
                let flat = items(Reply(other))?;
                if flat.len() % 2 == 1 {
                    return Err(StoreError::Unreadable {
                        expected: "names and values by turns",
                        found: "a name without a value",
                    });
                }
                let mut items = flat.into_iter();
                let mut pairs = Vec::with_capacity(items.len() / 2);
                while let (Some(name), Some(value)) = (items.next(), items.next()) {
                    pairs.push((name, value));
                }
                pairs
            }
        };
        let read = pairs
            .into_iter()
            .map(|(name, value)| Ok((K::from_reply(Reply(name))?, V::from_reply(Reply(value))?)));
        read.collect::<Result<_, _>>().map(Self)
    }
}

fn items(reply: Reply) -> Result<Vec<Value>, StoreError> {
    match reply.0 {
        Value::Array(items) | Value::Set(items) => Ok(items),
        other => Err(Reply(other).unreadable("a list")),
    }
}

macro_rules! tuples {
    ($($len:literal: $($part:ident)+;)+) => {$(
        impl<$($part: FromReply),+> FromReply for ($($part,)+) {
            fn from_reply(reply: Reply) -> Result<Self, StoreError> {
                let items = items(reply)?;
                if items.len() != $len {
                    let expected = concat!("a list of ", $len);
                    return Err(StoreError::Unreadable { expected, found: "a list of another length" });
                }
                let mut items = items.into_iter().map(Reply);
                Ok(($($part::from_reply(items.next().unwrap_or(Reply(Value::Nil)))?,)+))
            }
        }
    )+};
}

tuples! {
    1: A;
    2: A B;
    3: A B C;
    4: A B C D;
    5: A B C D E;
    6: A B C D E F;
}

/// What a value is, in words.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Int(_) => "an integer",
        Value::BulkString(_) | Value::SimpleString(_) | Value::VerbatimString { .. } => "a string",
        Value::Okay => "OK",
        Value::Array(_) | Value::Set(_) => "a list",
        Value::Map(_) => "a map",
        Value::Double(_) => "a number",
        Value::Boolean(_) => "a boolean",
        Value::Push { .. } => "a push message",
        Value::ServerError(_) => "an error",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn numbers_are_read_from_integers_and_from_digits() {
        assert_eq!(Reply(Value::Int(-3)).read(), Ok(-3_i64));
        assert_eq!(Reply(text("-3")).read(), Ok(-3_i64));
        assert_eq!(Reply(text("18446744073709551615")).read(), Ok(u64::MAX));
        assert!(Reply(Value::Int(-1)).read::<u64>().is_err());
        assert!(Reply(text("1.5")).read::<i64>().is_err());
        assert_eq!(Reply(text("1.5")).read(), Ok(1.5_f64));
        assert_eq!(Reply(Value::Int(7)).read(), Ok(7_u32));
        assert!(Reply(text("4294967296")).read::<u32>().is_err());
    }

    #[test]
    fn lists_are_read_item_by_item_and_bytes_are_none() {
        let list = || Reply(Value::Array(vec![text("1"), text("2")]));
        assert_eq!(list().read(), Ok(vec![1_i64, 2]));
        assert_eq!(list().read(), Ok(vec![b"1".to_vec(), b"2".to_vec()]));
        assert!(list().read::<Vec<u8>>().is_err());
        assert!(Reply(text("12")).read::<Vec<i64>>().is_err());
    }

    #[test]
    fn nil_is_none_and_nothing_else_is() {
        assert_eq!(Reply(Value::Nil).read(), Ok(None::<String>));
        assert_eq!(Reply(text("")).read(), Ok(Some(String::new())));
        assert_eq!(
            Reply(Value::Nil).read::<String>(),
            Err(StoreError::Unreadable {
                expected: "a string",
                found: "nil"
            })
        );
    }

    #[test]
    fn tuples_want_their_exact_length() {
        let reply = || Reply(Value::Array(vec![Value::Int(1), text("b"), Value::Nil]));
        assert_eq!(reply().read(), Ok((1_i64, "b".to_owned(), None::<Vec<u8>>)));
        assert!(reply().read::<(i64, String)>().is_err());
    }

    #[test]
    fn maps_are_read_from_both_protocols() {
        let map = Value::Map(vec![(text("a"), Value::Int(1))]);
        let flat = Value::Array(vec![text("a"), Value::Int(1)]);
        for value in [map, flat] {
            assert_eq!(
                Reply(value).read(),
                Ok(Pairs(vec![("a".to_owned(), 1_i64)]))
            );
        }
        let odd = Reply(Value::Array(vec![text("a")]));
        assert!(odd.read::<Pairs<String, i64>>().is_err());
    }
}
