//! The identities of stored things, one type each, so that they can't be mixed up.
//!
//! Parsing is strict: what came from a manifest or a command line is a digest only after it
//! went through [`FromStr`], and only then may it become part of a path.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// Says why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid digest `{0}`: expected sha256: and 64 lower-case hexadecimal digits")]
pub struct ParseDigestError(pub String);

/// Writes `bytes` as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]])
        .map(char::from)
        .collect()
}

/// Reads exactly 64 lower-case hexadecimal digits.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(out)
}

macro_rules! sha256_identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps a finished SHA-256.
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
            /// Hashes `data`.
            pub fn of(data: &[u8]) -> Self {
                Self(Sha256::digest(data).into())
            }
            /// Returns the raw hash.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
            /// Returns the 64 digits without the algorithm; safe as a file name.
            pub fn hex(&self) -> String {
                hex(&self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "sha256:{}", self.hex())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl FromStr for $name {
            type Err = ParseDigestError;
            fn from_str(text: &str) -> Result<Self, ParseDigestError> {
                text.strip_prefix("sha256:")
                    .and_then(unhex)
                    .map(Self)
                    .ok_or_else(|| ParseDigestError(text.chars().take(100).collect()))
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

sha256_identity! {
    /// SHA-256 of stored bytes: a config, a manifest, a compressed layer blob.
    Digest
}
sha256_identity! {
    /// SHA-256 of a layer's uncompressed tar stream. Spec: OCI image-spec, config.md#layer-diffid.
    DiffId
}
sha256_identity! {
    /// Identity of a stack of layers. Spec: OCI image-spec, config.md#layer-chainid.
    ChainId
}

impl ChainId {
    /// Computes the chain ID of a stack, base layer first; `None` for an empty stack.
    pub fn of_stack(layers: &[DiffId]) -> Option<Self> {
        let (first, rest) = layers.split_first()?;
        Some(rest.iter().fold(Self(first.0), |below, layer| {
            Self::of(format!("{below} {layer}").as_bytes())
        }))
    }
}

macro_rules! blake3_identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps a finished BLAKE3.
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
            /// Returns the raw hash.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
            /// Returns the 64 digits.
            pub fn hex(&self) -> String {
                hex(&self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.hex())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.hex())
            }
        }
        impl From<blake3::Hash> for $name {
            fn from(hash: blake3::Hash) -> Self {
                Self(*hash.as_bytes())
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                unhex(&text)
                    .map(Self)
                    .ok_or_else(|| serde::de::Error::custom("expected 64 lower-case hexadecimal digits"))
            }
        }
    };
}

blake3_identity! {
    /// BLAKE3 of one file's content.
    ContentHash
}
blake3_identity! {
    /// BLAKE3 of a selection of a tree: names, types, modes, owners, link targets, xattrs, contents; no times.
    TreeHash
}
blake3_identity! {
    /// BLAKE3 that names the result of a build step: its op and how the op sees its inputs.
    Key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_parse_strictly() {
        let good = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(good.parse::<Digest>().unwrap().to_string(), good);
        for bad in [
            String::new(),
            "0f".repeat(32),
            format!("sha256:{}", "0F".repeat(32)),
            format!("sha256:{}", "0f".repeat(31)),
            format!("sha256:{}0", "0f".repeat(32)),
            format!("md5:{}", "0f".repeat(32)),
            "sha256:../../x".to_owned(),
        ] {
            assert_eq!(bad.parse::<Digest>(), Err(ParseDigestError(bad.clone())), "{bad}");
        }
    }

    #[test]
    fn chain_ids_follow_the_image_spec() {
        let (a, b) = (DiffId::of(b"a"), DiffId::of(b"b"));
        assert_eq!(ChainId::of_stack(&[]), None);
        assert_eq!(ChainId::of_stack(&[a]).unwrap().as_bytes(), a.as_bytes());
        assert_eq!(
            ChainId::of_stack(&[a, b]).unwrap(),
            ChainId::of(format!("{a} {b}").as_bytes())
        );
    }
}
