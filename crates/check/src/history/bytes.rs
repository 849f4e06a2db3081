//! Keys and values: any bytes, cheap to clone.
//!
//! Invariant: in JSON, bytes that are UTF-8 are a string, all others `{"base64": "..."}`; either form can be read for
//! any bytes, only the first is written when it can be.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of a key or value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(Arc<[u8]>);

impl Bytes {
    /// Whether these bytes begin with `prefix`.
    #[must_use]
    pub fn starts_with(&self, prefix: &[u8]) -> bool {
        self.0.starts_with(prefix)
    }
}

impl Default for Bytes {
    fn default() -> Self {
        Self(Arc::from([].as_slice()))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Bytes {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(Arc::from(bytes))
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::from(bytes))
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Self(Arc::from(text.as_bytes()))
    }
}

impl From<String> for Bytes {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

/// As messages show it: quoted, escaped, and cut when it is long.
impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_BYTES_MAX: usize = 64;
        let shown = &self.0[..self.0.len().min(SHOWN_BYTES_MAX)];
        write!(formatter, "\"{}\"", shown.escape_ascii())?;
        if shown.len() < self.0.len() {
            write!(formatter, "… ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// The two forms in JSON.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form<'a> {
    Text(std::borrow::Cow<'a, str>),
    Binary(Binary),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Binary {
    base64: String,
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Form::Binary(Binary { base64: encode(&self.0) }).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = Form::deserialize(deserializer)
            .map_err(|_| D::Error::custom("bytes are a string, or {\"base64\": \"...\"} when they are not UTF-8"))?;
        match form {
            Form::Text(text) => Ok(Self::from(&*text)),
            Form::Binary(binary) => decode(&binary.base64)
                .map(Self::from)
                .ok_or_else(|| D::Error::custom(format!("`{}` is not base64 (RFC 4648, padded)", binary.base64))),
        }
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 as in RFC 4648 section 4, with padding.
fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let is_padding = digit > chunk.len();
            let index = (bits >> (18 - 6 * digit)) as usize & 63;
            text.push(if is_padding { '=' } else { char::from(ALPHABET[index]) });
        }
    }
    text
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    for (at, chunk) in digits.chunks(4).enumerate() {
        let is_last = (at + 1) * 4 == digits.len();
        let padding = if is_last { chunk.iter().rev().take_while(|digit| **digit == b'=').count() } else { 0 };
        let mut bits = 0u32;
        for digit in &chunk[..4 - padding.min(2)] {
            bits = bits << 6 | ALPHABET.iter().position(|letter| letter == digit)? as u32;
        }
        bits <<= 6 * padding.min(2);
        let whole = bits.to_be_bytes();
        let (kept, dropped) = whole[1..].split_at(3 - padding.min(2));
        // One text for one value: what padding hides must be zero.
        if dropped.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(kept);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (plain, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(encode(plain.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(plain.as_bytes()));
        }
        for wrong in ["Zg", "Zg=", "Z===", "====", "Zh==", "Zg==Zg==", "Zm9*", "Zm9v\n"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_byte_string_survives_json() {
        for length in 0..40u8 {
            let bytes = Bytes::from((0..length).map(|at| at.wrapping_mul(37) ^ 0x9d).collect::<Vec<u8>>());
            let text = serde_json::to_string(&bytes).unwrap();
            assert_eq!(serde_json::from_str::<Bytes>(&text).unwrap(), bytes);
        }
        assert_eq!(serde_json::to_string(&Bytes::from("k\"ü")).unwrap(), "\"k\\\"ü\"");
        assert_eq!(serde_json::to_string(&Bytes::from(&[0xff][..])).unwrap(), "{\"base64\":\"/w==\"}");
        assert_eq!(serde_json::from_str::<Bytes>("{\"base64\":\"YQ==\"}").unwrap(), Bytes::from("a"));
        assert!(serde_json::from_str::<Bytes>("[1,2]").is_err());
        assert!(serde_json::from_str::<Bytes>("{\"base64\":\"a\"}").unwrap_err().to_string().contains("not base64"));
    }

    #[test]
    fn messages_show_bytes_short_and_printable() {
        assert_eq!(Bytes::from("a\n\u{e9}").to_string(), "\"a\\n\\xc3\\xa9\"");
        assert!(Bytes::from("x".repeat(100)).to_string().ends_with("… (100 bytes)"));
    }
}
