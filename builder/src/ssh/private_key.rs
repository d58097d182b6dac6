//! Private keys: files in OpenSSH's own format (PROTOCOL.key) and in PEM (PKCS#1, SEC 1, PKCS#8), and signatures of theirs
//! (RFC 8709, RFC 5656, RFC 8332). The arithmetic is ring's. Not here: passphrases, certificates, keys in hardware,
//! DSA, nistp521, RSA beyond 4096 bits. Whoever has such a key loads it into an ssh-agent.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaKeyPair,
};

use super::wire::{Reader, put_string, put_whole};
use crate::secrets::Secret;

/// Larger than any key that is made.
const MAX_FILE_BYTES: usize = 64 << 10;
/// What OpenSSH's own format begins with.
const OPENSSH_MAGIC: &[u8] = b"openssh-key-v1\0";
/// `AlgorithmIdentifier` of EC keys on these curves, as PKCS#8 has it before the key.
const P256_ALGORITHM: &[u8] =
    b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384_ALGORITHM: &[u8] = b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";

/// Says why a file is no key that can be used. What to do instead is part of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// The file can't be read.
    #[error("cannot read it: {0}")]
    Read(#[source] io::Error),
    /// Something else.
    #[error("it is neither a socket nor a private key in the OpenSSH or PEM format")]
    NotKey,
    /// Nobody could be asked for the passphrase.
    #[error("the key is protected by a passphrase: load it into an ssh-agent and give its socket")]
    Encrypted,
    /// An algorithm that isn't here.
    #[error("{kind} keys can't be used here: load it into an ssh-agent and give its socket")]
    Kind {
        /// The algorithm's name.
        kind: String,
    },
    /// It ends too early, or its numbers don't belong together.
    #[error("the key is damaged, or of a size that can't be used here: {why}")]
    Damaged {
        /// What is wrong with it.
        why: String,
    },
}

/// What an RSA signature is to be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    /// What the algorithm itself says; of RSA that is SHA-1, which isn't to be used any more.
    Unsaid,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// A private key.
pub(super) struct Key {
    pair: Pair,
    public: Vec<u8>,
    comment: Vec<u8>,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Ecdsa(Curve, EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

#[derive(Clone, Copy)]
enum Curve {
    P256,
    P384,
}

impl Curve {
    const fn name(self) -> &'static str {
        match self {
            Self::P256 => "nistp256",
            Self::P384 => "nistp384",
        }
    }

    const fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        }
    }

    const fn n_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }

    const fn algorithm(self) -> &'static [u8] {
        match self {
            Self::P256 => P256_ALGORITHM,
            Self::P384 => P384_ALGORITHM,
        }
    }
}

impl Key {
    /// Reads a file of one key.
    pub(super) fn read(path: &Path) -> Result<Self, KeyError> {
        // All at once, so that no half-filled buffer with the key in it is left behind.
        let mut text = Secret::new(Vec::with_capacity(MAX_FILE_BYTES + 1));
        let limit = MAX_FILE_BYTES as u64 + 1;
        let file = File::open(path).map_err(KeyError::Read)?;
        file.take(limit)
            .read_to_end(text.bytes_mut())
            .map_err(KeyError::Read)?;
        if text.value().len() > MAX_FILE_BYTES {
            return Err(KeyError::NotKey);
        }
        Self::parse(text.value())
    }

    /// Reads the text of such a file.
    pub(super) fn parse(text: &[u8]) -> Result<Self, KeyError> {
        let (label, bytes) = unarmored(text)?;
        let bytes = bytes.value();
        let (pair, comment) = match label {
            "OPENSSH PRIVATE KEY" => openssh(bytes)?,
            "RSA PRIVATE KEY" => {
                let pair = RsaKeyPair::from_der(bytes).map_err(damaged)?;
                (Pair::Rsa(pair), Vec::new())
            }
            "EC PRIVATE KEY" => (sec1(bytes)?, Vec::new()),
            "PRIVATE KEY" => (pkcs8(bytes)?, Vec::new()),
            "ENCRYPTED PRIVATE KEY" => return Err(KeyError::Encrypted),
            label => {
                let kind = label.trim_end_matches("PRIVATE KEY").trim_end().to_owned();
                return Err(KeyError::Kind { kind });
            }
        };
        Ok(Self {
            public: pair.public(),
            pair,
            comment,
        })
    }

    /// Returns the public key, as ssh writes it.
    pub(super) fn public(&self) -> &[u8] {
        &self.public
    }

    /// Returns what the file says about whose key it is.
    pub(super) fn comment(&self) -> &[u8] {
        &self.comment
    }

    /// Returns a signature, as ssh writes it; `None` for SHA-1.
    pub(super) fn sign(&self, data: &[u8], hash: Hash) -> Option<Vec<u8>> {
        let mut signature = Vec::new();
        match &self.pair {
            Pair::Ed25519(pair) => {
                put_string(&mut signature, b"ssh-ed25519");
                put_string(&mut signature, pair.sign(data).as_ref());
            }
            Pair::Ecdsa(curve, pair) => {
                let numbers = pair.sign(&SystemRandom::new(), data).ok()?;
                let (r, s) = numbers.as_ref().split_at(curve.n_bytes());
                let mut both = Vec::new();
                put_whole(&mut both, r);
                put_whole(&mut both, s);
                put_string(&mut signature, format!("ecdsa-sha2-{}", curve.name()).as_bytes());
                put_string(&mut signature, &both);
            }
            Pair::Rsa(pair) => {
                let (name, padding): (_, &'static dyn ring::signature::RsaEncoding) = match hash {
                    Hash::Unsaid => return None,
                    Hash::Sha256 => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
                    Hash::Sha512 => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
                };
                let mut bytes = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &SystemRandom::new(), data, &mut bytes).ok()?;
                put_string(&mut signature, name.as_bytes());
                put_string(&mut signature, &bytes);
            }
        }
        Some(signature)
    }
}

impl Pair {
    /// Returns the public key, as ssh writes it.
    fn public(&self) -> Vec<u8> {
        let mut public = Vec::new();
        match self {
            Self::Ed25519(pair) => {
                put_string(&mut public, b"ssh-ed25519");
                put_string(&mut public, pair.public_key().as_ref());
            }
            Self::Ecdsa(curve, pair) => {
                put_string(&mut public, format!("ecdsa-sha2-{}", curve.name()).as_bytes());
                put_string(&mut public, curve.name().as_bytes());
                put_string(&mut public, pair.public_key().as_ref());
            }
            Self::Rsa(pair) => {
                let numbers = PublicKeyComponents::<Vec<u8>>::from(pair.public());
                put_string(&mut public, b"ssh-rsa");
                put_whole(&mut public, &numbers.e);
                put_whole(&mut public, &numbers.n);
            }
        }
        public
    }
}

fn damaged(why: impl ToString) -> KeyError {
    KeyError::Damaged { why: why.to_string() }
}

/// Returns the kind and the bytes of the first private key in a text.
fn unarmored(text: &[u8]) -> Result<(&str, Secret), KeyError> {
    let text = std::str::from_utf8(text).map_err(|_| KeyError::NotKey)?;
    let mut lines = text.lines().map(str::trim);
    let label = lines.find_map(|line| {
        let label = line.strip_prefix("-----BEGIN ")?.strip_suffix("-----")?;
        label.ends_with("PRIVATE KEY").then_some(label)
    });
    let label = label.ok_or(KeyError::NotKey)?;
    let mut body = Secret::new(Vec::with_capacity(text.len()));
    let mut is_whole = false;
    let end = format!("-----END {label}-----");
    for line in lines {
        if line == end {
            is_whole = true;
            break;
        }
        // A header, of which one matters: `Proc-Type: 4,ENCRYPTED`. RFC 1421 §4.6.1.1.
        if line.contains(':') {
            if line.ends_with("ENCRYPTED") {
                return Err(KeyError::Encrypted);
            }
            continue;
        }
        body.bytes_mut().extend(line.as_bytes());
    }
    if !is_whole {
        return Err(damaged("it ends too early"));
    }
    let mut bytes = Secret::new(vec![0; body.value().len()]);
    let n_bytes = STANDARD
        .decode_slice(body.value(), bytes.bytes_mut())
        .map_err(damaged)?;
    bytes.bytes_mut().truncate(n_bytes);
    Ok((label, bytes))
}

/// Reads OpenSSH's own format. Spec: OpenSSH, PROTOCOL.key.
fn openssh(bytes: &[u8]) -> Result<(Pair, Vec<u8>), KeyError> {
    let short = || damaged("it ends too early");
    let rest = bytes.strip_prefix(OPENSSH_MAGIC).ok_or(KeyError::NotKey)?;
    let mut outer = Reader(rest);
    let cipher = outer.string().ok_or_else(short)?;
    let (_kdf, _kdf_options) = (outer.string(), outer.string());
    if cipher != b"none" {
        return Err(KeyError::Encrypted);
    }
    if outer.number().ok_or_else(short)? != 1 {
        return Err(damaged("it is more than one key"));
    }
    let public = outer.string().ok_or_else(short)?;
    let mut inner = Reader(outer.string().ok_or_else(short)?);
    if inner.number().ok_or_else(short)? != inner.number().ok_or_else(short)? {
        return Err(damaged("its check numbers differ"));
    }
    let kind = inner.string().ok_or_else(short)?;
    let pair = match kind {
        b"ssh-ed25519" => ed25519(&mut inner)?,
        b"ecdsa-sha2-nistp256" => ecdsa(Curve::P256, &mut inner)?,
        b"ecdsa-sha2-nistp384" => ecdsa(Curve::P384, &mut inner)?,
        b"ssh-rsa" => rsa(&mut inner)?,
        kind => {
            let kind = kind.escape_ascii().to_string();
            return Err(KeyError::Kind { kind });
        }
    };
    if pair.public() != public {
        return Err(damaged("its public key is another one's"));
    }
    let comment = inner.string().ok_or_else(short)?.to_vec();
    // 1, 2, 3 … up to the cipher's block size.
    if inner.0.iter().zip(1..).any(|(byte, expected)| *byte != expected) {
        return Err(damaged("its padding is wrong"));
    }
    Ok((pair, comment))
}

fn ed25519(fields: &mut Reader<'_>) -> Result<Pair, KeyError> {
    let read = fields.string().zip(fields.string());
    let (public, private) = read.ok_or_else(|| damaged("it ends too early"))?;
    // The seed, and once more the public key.
    let seed = private.get(..32).ok_or_else(|| damaged("it ends too early"))?;
    let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public).map_err(damaged)?;
    Ok(Pair::Ed25519(pair))
}

fn ecdsa(curve: Curve, fields: &mut Reader<'_>) -> Result<Pair, KeyError> {
    let mut read = || Some((fields.string()?, fields.string()?, fields.whole()?));
    let (name, public, private) = read().ok_or_else(|| damaged("it ends too early"))?;
    if name != curve.name().as_bytes() {
        return Err(damaged("it is on another curve"));
    }
    let n_zeros = curve.n_bytes().checked_sub(private.len());
    let n_zeros = n_zeros.ok_or_else(|| damaged("its number is too large"))?;
    let mut padded = Secret::new(vec![0; curve.n_bytes()]);
    padded.bytes_mut()[n_zeros..].copy_from_slice(private);
    let rng = SystemRandom::new();
    let pair = EcdsaKeyPair::from_private_key_and_public_key(curve.signing(), padded.value(), public, &rng);
    Ok(Pair::Ecdsa(curve, pair.map_err(damaged)?))
}

fn rsa(fields: &mut Reader<'_>) -> Result<Pair, KeyError> {
    let mut numbers = [&[][..]; 6];
    for number in &mut numbers {
        *number = fields.whole().ok_or_else(|| damaged("it ends too early"))?;
    }
    let [n, e, d, q_inverse, p, q] = numbers;
    let (d_p, d_q) = (reduced(d, p), reduced(d, q));
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n, e },
        d,
        p,
        q,
        dP: d_p.value(),
        dQ: d_q.value(),
        qInv: q_inverse,
    };
    Ok(Pair::Rsa(
        RsaKeyPair::from_components(&components).map_err(damaged)?,
    ))
}

/// Returns the exponent modulo one less than the prime, which OpenSSH's format leaves out and every signature needs. Bit by
/// bit: it is done once for each key. Whether the numbers are what they should be is seen by ring.
fn reduced(exponent: &[u8], prime: &[u8]) -> Secret {
    // One byte more than the prime, so that doubling doesn't overflow.
    let mut modulus = Secret::new(vec![0; prime.len() + 1]);
    modulus.bytes_mut()[1..].copy_from_slice(prime);
    if let Some(last) = modulus.bytes_mut().last_mut() {
        // Primes are odd, but for one that is of no use here.
        *last &= !1;
    }
    let mut rest = Secret::new(vec![0; prime.len() + 1]);
    for byte in exponent {
        for bit in (0..8).rev().map(|place| byte >> place & 1) {
            let mut carry = bit;
            for byte in rest.bytes_mut().iter_mut().rev() {
                let high = *byte >> 7;
                *byte = *byte << 1 | carry;
                carry = high;
            }
            // Both are of one length.
            if rest.value() >= modulus.value() {
                let mut borrow = false;
                for (byte, less) in rest.bytes_mut().iter_mut().zip(modulus.value()).rev() {
                    let (one, first) = byte.overflowing_sub(*less);
                    let (two, second) = one.overflowing_sub(u8::from(borrow));
                    (*byte, borrow) = (two, first || second);
                }
            }
        }
    }
    // What is smaller than the modulus fits.
    rest.bytes_mut().remove(0);
    rest
}

/// Reads SEC 1: what PKCS#8 has inside, without the name of the curve, which is told by which one fits.
fn sec1(bytes: &[u8]) -> Result<Pair, KeyError> {
    let mut refused = None;
    for curve in [Curve::P256, Curve::P384] {
        let mut inside = Secret::new(Vec::with_capacity(bytes.len() + 64));
        inside.bytes_mut().extend(b"\x02\x01\x00");
        inside.bytes_mut().extend(curve.algorithm());
        put_der(0x04, bytes, &mut inside);
        let mut whole = Secret::new(Vec::with_capacity(inside.value().len() + 8));
        put_der(0x30, inside.value(), &mut whole);
        match EcdsaKeyPair::from_pkcs8(curve.signing(), whole.value(), &SystemRandom::new()) {
            Ok(pair) => return Ok(Pair::Ecdsa(curve, pair)),
            Err(why) => refused = Some(why),
        }
    }
    Err(refused.map_or(KeyError::NotKey, damaged))
}

/// Appends a value with its tag and length. Longer ones than files of keys are don't come here.
fn put_der(tag: u8, value: &[u8], into: &mut Secret) {
    let [.., high, low] = value.len().to_be_bytes();
    let into = into.bytes_mut();
    match (high, low) {
        (0, ..0x80) => into.extend([tag, low]),
        (0, _) => into.extend([tag, 0x81, low]),
        _ => into.extend([tag, 0x82, high, low]),
    }
    into.extend(value);
}

/// Reads PKCS#8: the first algorithm that knows the key.
fn pkcs8(bytes: &[u8]) -> Result<Pair, KeyError> {
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes) {
        return Ok(Pair::Ed25519(pair));
    }
    for curve in [Curve::P256, Curve::P384] {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(curve.signing(), bytes, &SystemRandom::new()) {
            return Ok(Pair::Ecdsa(curve, pair));
        }
    }
    Ok(Pair::Rsa(RsaKeyPair::from_pkcs8(bytes).map_err(damaged)?))
}
