//! What `--cache-from` and `--cache-to` say: CSV of `key=value`, or a bare image name. Text in, checked choices out; no I/O.
//!
//! An attribute that isn't understood is an error, as with `--output`. Spec: cli-and-outputs.md §7.

mod objects;

use std::path::PathBuf;

use cache::digest::{Digest, ParseDigestError};

use crate::csv;
use crate::export::{Attributes, Compression, SpecError, zstd};
use crate::objects::{GhaSettings, S3Settings};
use crate::options::Environment;
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
    #[error("unknown cache type `{0}`: expected local, registry, inline, s3 or gha")]
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
    /// A bucket that can't be.
    #[error("invalid cache: {0}")]
    Place(String),
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
    /// A repository of a registry: a cache, or an image with one in it.
    Registry {
        /// With a tag or digest.
        reference: Reference,
    },
    /// A bucket.
    S3(S3Settings),
    /// The cache service of GitHub Actions.
    Gha(GhaSettings),
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
    /// The image itself.
    Inline,
    /// A bucket.
    S3(S3Settings),
    /// The cache service of GitHub Actions.
    Gha(GhaSettings),
}

impl CacheFrom {
    /// Parses one `--cache-from` value; credentials may be in the environment.
    pub(crate) fn parse(text: &str, environment: &Environment) -> Result<Self, CacheSpecError> {
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
            "s3" => CacheSource::S3(objects::s3(&mut attributes, environment)?),
            "gha" => CacheSource::Gha(objects::gha(&mut attributes, environment)?),
            "inline" => {
                return Err(CacheSpecError::Unsupported(
                    "type `inline` to read from: name the image, as in --cache-from NAME".to_owned(),
                ));
            }
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
            CacheSource::S3(settings) => settings.title(),
            CacheSource::Gha(settings) => settings.title(),
        }
    }
}

impl CacheTo {
    /// Parses one `--cache-to` value; credentials may be in the environment.
    pub(crate) fn parse(text: &str, environment: &Environment) -> Result<Self, CacheSpecError> {
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
            "inline" => return inline(attributes),
            "s3" => {
                let settings = objects::s3(&mut attributes, environment)?;
                if settings.credentials.is_none() {
                    let (kind, key) = ("s3".to_owned(), "access_key_id");
                    return Err(CacheSpecError::Missing { kind, key });
                }
                CachePlace::S3(settings)
            }
            "gha" => CachePlace::Gha(objects::gha(&mut attributes, environment)?),
            kind => return Err(unknown(kind)),
        };
        let mode = mode(&mut attributes)?;
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
            CachePlace::Inline => "the image".to_owned(),
            CachePlace::S3(settings) => settings.title(),
            CachePlace::Gha(settings) => settings.title(),
        }
    }
}

/// Reads what is left to say of a cache that is a part of the image: nothing about its layers, which are the image's.
fn inline(mut attributes: Attributes) -> Result<CacheTo, CacheSpecError> {
    if mode(&mut attributes)? == CacheMode::Max {
        let expected = "min: only steps whose layers are the image's can be in it";
        return Err(value("mode", "max".to_owned(), expected));
    }
    let ignore_error = attributes.flag("ignore-error", false)?;
    finished(attributes)?;
    Ok(CacheTo {
        place: CachePlace::Inline,
        mode: CacheMode::Min,
        compression: Attributes::default().compression(zstd())?,
        oci_types: true,
        ignore_error,
        mounts: false,
        sign: None,
    })
}

fn mode(attributes: &mut Attributes) -> Result<CacheMode, CacheSpecError> {
    match attributes.take("mode") {
        None => Ok(CacheMode::default()),
        Some(text) => match text.as_str() {
            "min" => Ok(CacheMode::Min),
            "max" => Ok(CacheMode::Max),
            _ => Err(value("mode", text, "min or max")),
        },
    }
}

fn attributes(text: &str) -> Result<Attributes, CacheSpecError> {
    let syntax = || CacheSpecError::Syntax(shown(text));
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

/// Returns a description without what nobody may see.
fn shown(text: &str) -> String {
    let hide = |field: &str| match field.split_once('=') {
        Some((key, _)) if key.contains("secret") || key.contains("token") => format!("{key}=…"),
        _ => field.to_owned(),
    };
    let fields: Vec<String> = text.split(',').map(hide).collect();
    fields.join(",")
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
        "azblob" => CacheSpecError::Unsupported(format!("type `{kind}`")),
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
mod tests;
