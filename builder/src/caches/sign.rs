//! Signatures of caches: Ed25519 over the config's digest, kept in the manifest. The config names every blob and record, so that
//! nothing of a cache is outside of what is signed.
//!
//! Keys are files as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cache::Digest;
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

/// The annotation of the manifest that holds the signature.
pub(super) const SIGNATURE: &str = "vnd.ashlar.cache.signature";
/// Before the digest, so that a signature of a cache is never one of anything else.
const CONTEXT: &str = "ashlar cache v1\n";
/// Largest key file.
const MAX_KEY_BYTES: u64 = 64 << 10;
/// What comes before the key in the public key's file. Spec: RFC 8410, 4.
const ED25519_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Says why a key can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// The file system's word.
    #[error("cannot read key {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{path} holds no {what} of type Ed25519 in PEM")]
    NotAKey {
        /// Which.
        path: PathBuf,
        /// `private key`, `public key`.
        what: &'static str,
    },
}

/// Makes signatures.
pub(super) struct Signer(Ed25519KeyPair);

impl Signer {
    /// Reads a private key.
    pub(super) fn read(path: &Path) -> Result<Self, KeyError> {
        let not_a_key = || KeyError::NotAKey {
            path: path.to_owned(),
            what: "private key",
        };
        let key = PrivatePkcs8KeyDer::from_pem_slice(&read(path)?).map_err(|_| not_a_key())?;
        // openssl leaves the public key out, which the checking reader insists on.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der());
        Ok(Self(pair.map_err(|_| not_a_key())?))
    }

    /// Signs the config of a cache.
    pub(super) fn sign(&self, config: &Digest) -> String {
        STANDARD.encode(self.0.sign(&message(config)))
    }
}

/// Checks signatures.
#[derive(Debug)]
pub(super) struct Verifier([u8; 32]);

impl Verifier {
    /// Reads a public key.
    pub(super) fn read(path: &Path) -> Result<Self, KeyError> {
        let not_a_key = || KeyError::NotAKey {
            path: path.to_owned(),
            what: "public key",
        };
        let key = SubjectPublicKeyInfoDer::from_pem_slice(&read(path)?).map_err(|_| not_a_key())?;
        let bytes = key.strip_prefix(&ED25519_PREFIX).ok_or_else(not_a_key)?;
        Ok(Self(bytes.try_into().map_err(|_| not_a_key())?))
    }

    /// Says whether the key's owner signed the config.
    pub(super) fn accepts(&self, config: &Digest, signature: Option<&str>) -> bool {
        let Some(signature) = signature.and_then(|text| STANDARD.decode(text).ok()) else {
            return false;
        };
        let key = UnparsedPublicKey::new(&ED25519, self.0);
        key.verify(&message(config), &signature).is_ok()
    }
}

fn message(config: &Digest) -> Vec<u8> {
    format!("{CONTEXT}{config}").into_bytes()
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_KEY_BYTES).read_to_end(&mut bytes))
        .map_err(|source| KeyError::Read {
            path: path.to_owned(),
            source,
        })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl genpkey -algorithm ed25519`.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIF7r8qfJvI6xYkCxXpzHBeCZEg090EecvfI8Yeq/6xCX\n-----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA/QQOi6cza4TVHhabzBMKdvKbOucLbojc9Gox88GKwRg=\n-----END PUBLIC KEY-----\n";
    const OTHER: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAxWFq1daQXL9TeQuBjhSvYT6T1+UeLtMHjP2qBJszEyA=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn a_signature_is_of_one_config_and_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            io::Write::write_all(&mut File::create(&path).unwrap(), text.as_bytes()).unwrap();
            path
        };
        let signer = Signer::read(&file("private", PRIVATE)).unwrap();
        let public = file("public", PUBLIC);
        let verifier = Verifier::read(&public).unwrap();
        let other = Verifier::read(&file("other", OTHER)).unwrap();
        let (config, changed) = (Digest::of(b"config"), Digest::of(b"changed"));
        let signature = signer.sign(&config);
        assert!(verifier.accepts(&config, Some(&signature)));
        assert!(!verifier.accepts(&changed, Some(&signature)));
        assert!(!other.accepts(&config, Some(&signature)));
        assert!(!verifier.accepts(&config, None));
        assert!(!verifier.accepts(&config, Some("AAAA")));
        // Each of the two in the other's place.
        assert!(matches!(Signer::read(&public), Err(KeyError::NotAKey { .. })));
        let private = dir.path().join("private");
        assert!(matches!(Verifier::read(&private), Err(KeyError::NotAKey { .. })));
        assert!(matches!(Verifier::read(dir.path()), Err(KeyError::Read { .. })));
    }
}
