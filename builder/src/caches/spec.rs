//! What `--cache-from` and `--cache-to` say: CSV of `key=value`, or a bare image name. Text in, checked choices out; no I/O.
//!
//! An attribute that isn't understood is an error, as with `--output`. Spec: cli-and-outputs.md §7.

use std::path::PathBuf;

use cache::digest::{Digest, ParseDigestError};

use crate::csv;
use crate::export::{Attributes, Compression, SpecError, zstd};
use crate::registry::{Reference, ReferenceError};

/// The tag of a cache in a directory that has no other.
const DEFAULT_TAG: &str = "latest";

/// Says what is wrong with a cache's description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CacheSpecError {
    /// Not CSV of `key=value`.
    #[error("invalid cache `{0}`: expected type=TYPE,key=value,…")]
    Syntax(String),
    /// An unknown type.
    #[error("unknown cache type `{0}`: expected local or registry")]
    Type(String),
    /// An attribute that the type does not have.
    #[error("cache type `{kind}` has no attribute `{key}`")]
    Key {
        /// The type.
        kind: String,
        /// The attribute.
        key: String,
    },
    /// An attribute that the type can't do without.
    #[error("cache type `{kind}` needs {key}=")]
    Missing {
        /// The type.
        kind: String,
        /// The attribute.
        key: &'static str,
    },
    /// A value that the attribute can't have.
    #[error("invalid value `{value}` of cache attribute `{key}`: expected {expected}")]
    Value {
        /// The attribute.
        key: &'static str,
        /// The value.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    /// Known to other builders, but not here yet.
    #[error("cache {0} isn't supported yet")]
    Unsupported(String),
    /// Not a digest.
    #[error(transparent)]
    Digest(#[from] ParseDigestError),
    /// A bad image name.
    #[error(transparent)]
    Name(#[from] ReferenceError),
    /// What outputs have too.
    #[error(transparent)]
    Output(#[from] SpecError),
}

/// Which of the caches that a place holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// By name.
    Tag(String),
    /// By its manifest.
    Digest(Digest),
}

/// One cache that a build may take results from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheFrom {
    /// Where it is.
    pub(crate) source: CacheSource,
    /// The content of its cache mounts is wanted.
    pub(crate) mounts: bool,
    /// The file of the public key that it must be signed with.
    pub(crate) verify: Option<PathBuf>,
}

/// Where a cache is taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CacheSource {
    /// An OCI layout in a directory.
    Local {
        /// The directory.
        src: PathBuf,
        /// Which cache in it.
        wanted: Wanted,
    },
    /// A repository of a registry.
    Registry {
        /// With a tag or digest.
        reference: Reference,
    },
}

/// Which steps a cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum CacheMode {
    /// Those that made layers of the image.
    #[default]
    Min,
    /// All.
    Max,
}

/// One cache that a build leaves its results in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheTo {
    /// Where.
    pub(crate) place: CachePlace,
    /// Which steps.
    pub(crate) mode: CacheMode,
    /// How layers are compressed that have no blob yet.
    pub(crate) compression: Compression,
    /// OCI media types, rather than Docker's.
    pub(crate) oci_types: bool,
    /// A cache that can't be written is a warning.
    pub(crate) ignore_error: bool,
    /// The content of the build's cache mounts is part of it.
    pub(crate) mounts: bool,
    /// The file of the private key that signs it.
    pub(crate) sign: Option<PathBuf>,
}

/// Where a cache is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CachePlace {
    /// An OCI layout in a directory.
    Local {
        /// The directory.
        dest: PathBuf,
        /// The name of this cache in it.
        tag: String,
        /// Nothing else stays in it.
        reset: bool,
    },
    /// A repository of a registry.
    Registry {
        /// With a tag.
        reference: Reference,
    },
}

impl CacheFrom {
    /// Parses one `--cache-from` value.
    pub(crate) fn parse(text: &str) -> Result<Self, CacheSpecError> {
        let mut attributes = attributes(text)?;
        let source = match attributes.kind.as_str() {
            "local" => CacheSource::Local {
                src: required(&mut attributes, "src")?.into(),
                wanted: match attributes.take("digest") {
                    Some(digest) => Wanted::Digest(digest.parse()?),
                    None => Wanted::Tag(tag(&mut attributes)),
                },
            },
            "registry" => CacheSource::Registry {
                reference: reference(&mut attributes)?,
            },
            kind => return Err(unknown(kind)),
        };
        let verify = attributes.take("verify").map(PathBuf::from);
        let mounts = attributes.flag("mounts", false)?;
        finished(attributes)?;
        Ok(Self {
            source,
            mounts,
            verify,
        })
    }

    /// Returns what to call it.
    pub(crate) fn title(&self) -> String {
        match &self.source {
            CacheSource::Local { src, .. } => format!("local {}", src.display()),
            CacheSource::Registry { reference } => reference.familiar(),
        }
    }
}

impl CacheTo {
    /// Parses one `--cache-to` value.
    pub(crate) fn parse(text: &str) -> Result<Self, CacheSpecError> {
        let mut attributes = attributes(text)?;
        let place = match attributes.kind.as_str() {
            "local" => CachePlace::Local {
                dest: required(&mut attributes, "dest")?.into(),
                tag: tag(&mut attributes),
                reset: attributes.flag("reset", false)?,
            },
            "registry" => CachePlace::Registry {
                reference: reference(&mut attributes)?,
            },
            kind => return Err(unknown(kind)),
        };
        let mode = match attributes.take("mode") {
            None => CacheMode::default(),
            Some(text) => match text.as_str() {
                "min" => CacheMode::Min,
                "max" => CacheMode::Max,
                _ => return Err(value("mode", text, "min or max")),
            },
        };
        let compression = attributes.compression(zstd())?;
        let oci_types = attributes.flag("oci-mediatypes", true)?;
        let ignore_error = attributes.flag("ignore-error", false)?;
        let mounts = attributes.flag("mounts", false)?;
        let sign = attributes.take("sign").map(PathBuf::from);
        // BuildKit's other form is an index of blobs, which registries don't like.
        if !attributes.flag("image-manifest", true)? {
            return Err(CacheSpecError::Unsupported(
                "attribute `image-manifest=false`".to_owned(),
            ));
        }
        finished(attributes)?;
        Ok(Self {
            place,
            mode,
            compression,
            oci_types,
            ignore_error,
            mounts,
            sign,
        })
    }

    /// Returns what to call it.
    pub(crate) fn title(&self) -> String {
        match &self.place {
            CachePlace::Local { dest, .. } => format!("local {}", dest.display()),
            CachePlace::Registry { reference } => reference.familiar(),
        }
    }
}

fn attributes(text: &str) -> Result<Attributes, CacheSpecError> {
    let syntax = || CacheSpecError::Syntax(text.to_owned());
    let fields = csv::fields(text).ok_or_else(syntax)?;
    if let [reference] = &fields[..]
        && !reference.contains('=')
        && !reference.is_empty()
    {
        // As docker has it: the name of an image.
        return Ok(Attributes {
            kind: "registry".to_owned(),
            pairs: vec![("ref".to_owned(), reference.clone())],
            ..Attributes::default()
        });
    }
    let attributes = Attributes::of_fields(&fields).ok_or_else(syntax)?;
    match attributes.kind.as_str() {
        "" => Err(syntax()),
        _ => Ok(attributes),
    }
}

fn required(attributes: &mut Attributes, key: &'static str) -> Result<String, CacheSpecError> {
    attributes
        .take(key)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| CacheSpecError::Missing {
            kind: attributes.kind.clone(),
            key,
        })
}

fn reference(attributes: &mut Attributes) -> Result<Reference, CacheSpecError> {
    Ok(Reference::parse(&required(attributes, "ref")?)?)
}

fn tag(attributes: &mut Attributes) -> String {
    let given = attributes.take("tag").filter(|tag| !tag.is_empty());
    given.unwrap_or_else(|| DEFAULT_TAG.to_owned())
}

fn value(key: &'static str, value: String, expected: &'static str) -> CacheSpecError {
    CacheSpecError::Value { key, value, expected }
}

fn unknown(kind: &str) -> CacheSpecError {
    match kind {
        "inline" | "gha" | "s3" | "azblob" => CacheSpecError::Unsupported(format!("type `{kind}`")),
        _ => CacheSpecError::Type(kind.to_owned()),
    }
}

/// Fails where an attribute is left that nobody took.
fn finished(attributes: Attributes) -> Result<(), CacheSpecError> {
    match attributes.pairs.into_iter().next() {
        None => Ok(()),
        Some((key, _)) => Err(CacheSpecError::Key {
            kind: attributes.kind,
            key,
        }),
    }
}

#[cfg(test)]
mod tests {
    use cache::compress::Codec;

    use super::*;

    #[test]
    fn attributes_are_read() {
        let to = CacheTo::parse("type=local,dest=out,mode=max,compression=gzip,compression-level=4,tag=main")
            .unwrap();
        assert_eq!(to.mode, CacheMode::Max);
        assert_eq!(to.compression.codec, Codec::Gzip { level: 4 });
        let place = CachePlace::Local {
            dest: "out".into(),
            tag: "main".into(),
            reset: false,
        };
        assert_eq!(to.place, place);
        let plain = CacheTo::parse("type=local,dest=out").unwrap();
        assert_eq!(
            (plain.mode, plain.compression.codec),
            (CacheMode::Min, Codec::Zstd { level: 3 })
        );
        let digest = Digest::of(b"x");
        let from = CacheFrom::parse(&format!("type=local,src=in,digest={digest}")).unwrap();
        let wanted = Wanted::Digest(digest);
        let src = "in".into();
        assert_eq!(from.source, CacheSource::Local { src, wanted });
        let short = CacheFrom::parse("app").unwrap();
        assert_eq!(
            short,
            CacheFrom::parse("type=registry,ref=docker.io/library/app:latest").unwrap()
        );
        let signed = CacheFrom::parse("type=local,src=in,verify=key.pub").unwrap();
        assert_eq!(signed.verify, Some("key.pub".into()));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |text: &str, words: &str| {
            let to = CacheTo::parse(text).unwrap_err().to_string();
            assert!(to.contains(words), "{text}: {to}");
        };
        check("type=local", "needs dest=");
        check("type=local,dest=", "needs dest=");
        check("type=local,dest=x,mode=all", "expected min or max");
        check("type=local,dest=x,src=y", "has no attribute `src`");
        check(
            "type=local,dest=x,compression=lz4",
            "expected gzip, zstd or uncompressed",
        );
        check("type=azblob,name=x", "`azblob` isn't supported yet");
        check("type=tape", "unknown cache type `tape`");
        check("dest=x", "expected type=TYPE");
        check("type=local,\"dest=x", "expected type=TYPE");
        let from = CacheFrom::parse("type=local,src=x,digest=abc")
            .unwrap_err()
            .to_string();
        assert!(from.contains("invalid digest"), "{from}");
    }
}
