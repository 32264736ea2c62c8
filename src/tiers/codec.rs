//! How values become bytes outside of this process, and values again.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes values of one type as bytes, and reads them.
///
/// # Contract
///
/// `decode` never panics, whatever the bytes: they may have been written by another version of the program,
/// or damaged. What it refuses is a miss, never an error to whoever asked. Two codecs whose bytes differ have
/// different [`id`](Self::id)s: bytes are only ever read by the codec that wrote them.
pub trait Codec<T>: Send + Sync + 'static {
    /// Tells the format apart from others. 0 to 127 are the crate's, 128 to 255 are yours.
    fn id(&self) -> u8;

    /// The bytes of `value`.
    ///
    /// # Errors
    ///
    /// Where it cannot be written in this format. It is then served, and kept in this process only.
    fn encode(&self, value: &T) -> Result<Vec<u8>, CodecError>;

    /// The value of `bytes`.
    ///
    /// # Errors
    ///
    /// Where they are no value of this type.
    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError>;
}

/// A value that cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(String);

impl CodecError {
    /// What is wrong, in words.
    pub fn new(what: impl fmt::Display) -> Self {
        Self(what.to_string())
    }
}

/// MessagePack with the names of fields: somewhat shorter than JSON. A struct may gain fields that have a
/// default and lose others, and still reads what was written before; whatever else changes is a miss.
#[derive(Clone, Copy, Debug, Default)]
pub struct MessagePack;

/// JSON, for entries that other programs read, or people.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Codec<T> for MessagePack {
    fn id(&self) -> u8 {
        1
    }

    fn encode(&self, value: &T) -> Result<Vec<u8>, CodecError> {
        rmp_serde::to_vec_named(value).map_err(CodecError::new)
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        // Bytes behind the value are not looked at: whoever keeps it knows where it ends.
        rmp_serde::from_slice(bytes).map_err(CodecError::new)
    }
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn id(&self) -> u8 {
        2
    }

    fn encode(&self, value: &T) -> Result<Vec<u8>, CodecError> {
        serde_json::to_vec(value).map_err(CodecError::new)
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        serde_json::from_slice(bytes).map_err(CodecError::new)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Old {
        id: u64,
        gone: String,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct New {
        #[serde(default)]
        added: Vec<u8>,
        id: u64,
    }

    fn reads_on(codec: &(impl Codec<Old> + Codec<New>)) {
        let old = Old {
            id: 7,
            gone: "x".to_owned(),
        };
        let bytes = codec.encode(&old).unwrap();
        let new: New = codec.decode(&bytes).unwrap();
        assert_eq!(
            new,
            New {
                added: Vec::new(),
                id: 7
            }
        );
        let read: Result<Old, _> = codec.decode(&bytes);
        assert_eq!(read.unwrap(), old);
        let shorter: Result<New, _> = codec.decode(&bytes[..bytes.len() - 1]);
        assert!(shorter.is_err());
    }

    #[test]
    fn fields_may_come_and_go() {
        reads_on(&MessagePack);
        reads_on(&Json);
    }
}
