//! What `-o`/`--output` says: CSV of `key=value`, or a directory, or `-`. Text in, checked choices out; no I/O.
//!
//! An attribute that isn't understood is an error: a typing mistake must not change what is written in silence.

use std::path::PathBuf;

use cache::Store;
use cache::compress::Codec;

use super::ExportError;
use super::annotations::{AnnotationError, Annotations};
use super::delta::Older;
use super::options::{Compression, Destination, Epoch, ImageOptions, Naming, Times};
use crate::csv;
use crate::registry::{Reference, ReferenceError};

/// Local builds want speed; libdeflate's level 1 is as small as zlib's level 4.
const DEFAULT_GZIP_LEVEL: i32 = 1;
const DEFAULT_ZSTD_LEVEL: i32 = 3;

/// Says what is wrong with an output's description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    /// Not CSV of `key=value`.
    #[error("invalid output `{0}`: expected a directory, `-`, or type=TYPE,key=value,…")]
    Syntax(String),
    /// An unknown type.
    #[error("unknown output type `{0}`: expected local, tar, oci, docker, image, registry or cacheonly")]
    Type(String),
    /// An attribute that the type does not have.
    #[error("output type `{kind}` has no attribute `{key}`")]
    Key {
        /// The type.
        kind: String,
        /// The attribute.
        key: String,
    },
    /// A value that the attribute can't have.
    #[error("invalid value `{value}` of attribute `{key}`: expected {expected}")]
    Value {
        /// The attribute.
        key: String,
        /// The value.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    /// Known to other builders, but not here yet.
    #[error("output {0} isn't supported yet")]
    Unsupported(String),
    /// Nowhere to write to.
    #[error("output type `{0}` needs dest=DIRECTORY")]
    NoDestination(String),
    /// What only a file can be.
    #[error("output attribute `{0}` needs dest=FILE")]
    NoFile(&'static str),
    /// A layer's files can't be unpacked as one and written as another.
    #[error("rewrite-timestamp conflicts with unpack")]
    RewriteUnpacked,
    /// A bad annotation.
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    /// A bad image name.
    #[error(transparent)]
    Name(#[from] ReferenceError),
}

/// One output of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// Nothing: the build only warms the cache.
    CacheOnly,
    /// The local store, under these names in addition to the build's tags.
    Image {
        /// Canonical.
        names: Vec<String>,
    },
    /// The local store, and the repositories of its names.
    Registry {
        /// How it leaves the store.
        image: ImageOptions,
        /// What it is called there.
        naming: Naming,
    },
    /// An OCI layout as one tar.
    OciArchive {
        /// Where.
        dest: Destination,
        /// How.
        image: ImageOptions,
    },
    /// An OCI layout as a directory.
    OciDirectory {
        /// Where.
        dest: PathBuf,
        /// How.
        image: ImageOptions,
    },
    /// What `docker load` reads.
    DockerArchive {
        /// Where.
        dest: Destination,
        /// How.
        image: ImageOptions,
    },
    /// The files of the result as one tar.
    Tar {
        /// Where.
        dest: Destination,
        /// Gives each platform of an index a directory of its own.
        split: bool,
        /// What the names of attestations begin with.
        prefix: String,
    },
    /// The files of the result in a directory.
    Local {
        /// Where.
        dest: PathBuf,
        /// Gives each platform of an index a directory of its own.
        split: bool,
        /// What the names of attestations begin with.
        prefix: String,
    },
}

impl Output {
    /// Says whether this output fills standard output.
    pub(crate) fn is_stdout(&self) -> bool {
        matches!(
            self,
            Self::OciArchive {
                dest: Destination::Stdout,
                ..
            } | Self::DockerArchive {
                dest: Destination::Stdout,
                ..
            } | Self::Tar {
                dest: Destination::Stdout,
                ..
            }
        )
    }

    /// Returns how it writes an image, where it does.
    pub(crate) fn image_options(&self) -> Option<&ImageOptions> {
        match self {
            Self::OciArchive { image, .. }
            | Self::OciDirectory { image, .. }
            | Self::Registry { image, .. }
            | Self::DockerArchive { image, .. } => Some(image),
            Self::CacheOnly | Self::Image { .. } | Self::Tar { .. } | Self::Local { .. } => None,
        }
    }

    /// Says whether it has a place for attestations.
    pub(crate) fn carries_attestations(&self) -> bool {
        matches!(
            self,
            Self::OciArchive { .. }
                | Self::OciDirectory { .. }
                | Self::Registry { .. }
                | Self::Tar { .. }
                | Self::Local { .. }
        )
    }

    /// Says whether it has a manifest that can carry a cache.
    pub(crate) fn carries_caches(&self) -> bool {
        matches!(
            self,
            Self::OciArchive { .. } | Self::OciDirectory { .. } | Self::Registry { .. }
        )
    }

    /// Returns the names that it adds to the build's.
    pub(crate) fn names(&self) -> &[String] {
        match self {
            Self::Image { names } => names,
            other => other.image_options().map_or(&[], |image| &image.names),
        }
    }

    /// Adds annotations of the whole build, where there is an image to be marked: its own win.
    pub(crate) fn annotate(&mut self, annotations: &Annotations) {
        match self {
            Self::OciArchive { image, .. }
            | Self::OciDirectory { image, .. }
            | Self::Registry { image, .. }
            | Self::DockerArchive { image, .. } => image.annotations.prepend(annotations),
            Self::CacheOnly | Self::Image { .. } | Self::Tar { .. } | Self::Local { .. } => {}
        }
    }

    /// Finds the images that are counted on in the store. To be called before the build changes what names mean.
    pub(crate) fn find_older(&mut self, store: &Store) -> Result<(), ExportError> {
        if let Self::DockerArchive { image, .. } = self {
            image.older = Older::find(store, &image.since)?;
        }
        Ok(())
    }

    /// Parses one `-o` value.
    pub(crate) fn parse(text: &str) -> Result<(Self, Times), SpecError> {
        let syntax = || SpecError::Syntax(text.to_owned());
        let fields = csv::fields(text).ok_or_else(syntax)?;
        if let [only] = &fields[..]
            && !only.contains('=')
        {
            let output = match only.as_str() {
                "" => return Err(syntax()),
                "-" => Self::Tar {
                    split: true,
                    prefix: String::new(),
                    dest: Destination::Stdout,
                },
                dir => Self::Local {
                    dest: dir.into(),
                    split: true,
                    prefix: String::new(),
                },
            };
            return Ok((output, Times::default()));
        }
        let mut annotations = Annotations::default();
        let mut others = Vec::with_capacity(fields.len());
        for field in fields {
            // What an annotation is called is the user's business, capitals included.
            match field.split_once('=').map(|(key, value)| (key.trim(), value)) {
                Some((key, value)) if key.starts_with("annotation") => {
                    annotations.add_attribute(key, value)?
                }
                _ => others.push(field),
            }
        }
        let mut attributes = Attributes::of_fields(&others).ok_or_else(syntax)?;
        attributes.annotations = annotations;
        let times = attributes.times()?;
        let output = attributes.output()?;
        match attributes.pairs.into_iter().next() {
            None if !attributes.annotations.is_empty() && !matches!(output, Self::Image { .. }) => {
                Err(SpecError::Key {
                    kind: attributes.kind,
                    key: "annotation".to_owned(),
                })
            }
            None => Ok((output, times)),
            Some((key, _)) if is_known_elsewhere(&key) => {
                Err(SpecError::Unsupported(format!("attribute `{key}`")))
            }
            Some((key, _)) => Err(SpecError::Key {
                kind: attributes.kind,
                key,
            }),
        }
    }
}

/// Attributes that BuildKit has and we refuse by name.
fn is_known_elsewhere(key: &str) -> bool {
    const KNOWN: [&str; 11] = [
        "attestation-inline",
        "compatibility-version",
        "context",
        "dangling-name-prefix",
        "danging-name-empty-only",
        "mode",
        "name-canonical",
        "prefer-nondist-layers",
        "registry.insecure",
        "store",
        "unpack",
    ];
    KNOWN.contains(&key)
}

/// The attributes not yet looked at.
#[derive(Default)]
pub(crate) struct Attributes {
    /// `type`.
    pub(crate) kind: String,
    /// The others.
    pub(crate) pairs: Vec<(String, String)>,
    /// `annotation….KEY`.
    pub(crate) annotations: Annotations,
}

impl Attributes {
    /// Splits fields into names and values; `None` where one has no `=`, or where there is no type.
    pub(crate) fn of_fields(fields: &[String]) -> Option<Self> {
        let mut attributes = Self::default();
        for field in fields {
            let (key, value) = field.split_once('=')?;
            attributes
                .pairs
                .push((key.trim().to_ascii_lowercase(), value.to_owned()));
        }
        attributes.kind = attributes.take("type")?;
        Some(attributes)
    }

    /// Takes an attribute; the last one counts where it is given twice.
    pub(crate) fn take(&mut self, key: &str) -> Option<String> {
        let mut value = None;
        self.pairs.retain(|(name, text)| {
            if name == key {
                value = Some(text.clone());
            }
            name != key
        });
        value
    }

    fn has(&self, key: &str) -> bool {
        self.pairs.iter().any(|(name, _)| name == key)
    }

    /// Takes an attribute that is true or false; without a value it is true.
    pub(crate) fn flag(&mut self, key: &str, default: bool) -> Result<bool, SpecError> {
        match self.take(key).as_deref() {
            None => Ok(default),
            Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(value) => Err(SpecError::Value {
                key: key.to_owned(),
                value: value.to_owned(),
                expected: "true or false",
            }),
        }
    }

    fn times(&mut self) -> Result<Times, SpecError> {
        if self.kind == "cacheonly" {
            return Ok(Times::default());
        }
        let rewrite = self.flag("rewrite-timestamp", false)?;
        if rewrite && self.kind == "image" && self.flag("unpack", false)? {
            return Err(SpecError::RewriteUnpacked);
        }
        let epoch = match self.take("source-date-epoch").as_deref() {
            None => Epoch::OfBuild,
            Some("") => Epoch::Off,
            Some(text) => Epoch::At(text.parse().map_err(|_| SpecError::Value {
                key: "source-date-epoch".to_owned(),
                value: text.to_owned(),
                expected: "seconds since 1970, or nothing",
            })?),
        };
        Ok(Times { epoch, rewrite })
    }

    fn output(&mut self) -> Result<Output, SpecError> {
        let kind = self.kind.clone();
        match kind.as_str() {
            "cacheonly" => Ok(Output::CacheOnly),
            "image" => {
                let by_digest = self.flag("push-by-digest", false)?;
                match self.flag("push", false)? || by_digest {
                    true => self.registry(by_digest),
                    false => Ok(Output::Image { names: self.names()? }),
                }
            }
            "registry" => {
                // It is, whatever this says.
                self.flag("push", true)?;
                let by_digest = self.flag("push-by-digest", false)?;
                self.registry(by_digest)
            }
            "moby" => Err(SpecError::Unsupported("type `moby`".to_owned())),
            "local" => {
                let (split, prefix) = (self.flag("platform-split", true)?, self.prefix()?);
                let dest = self.take("dest").filter(|dest| !dest.is_empty());
                let dest = dest.ok_or_else(|| SpecError::NoDestination(self.kind.clone()))?;
                Ok(Output::Local {
                    dest: dest.into(),
                    split,
                    prefix,
                })
            }
            "tar" => Ok(Output::Tar {
                split: self.flag("platform-split", true)?,
                prefix: self.prefix()?,
                dest: self.destination(),
            }),
            "oci" if !self.flag("tar", true)? => {
                let dest = self.take("dest").filter(|dest| !dest.is_empty() && dest != "-");
                let dest = dest.ok_or_else(|| SpecError::NoDestination(self.kind.clone()))?;
                Ok(Output::OciDirectory {
                    dest: dest.into(),
                    image: self.image(gzip())?,
                })
            }
            "oci" => Ok(Output::OciArchive {
                dest: self.destination(),
                image: self.image(gzip())?,
            }),
            // Nothing is left out of the store.
            "docker" if !self.has("dest") && self.has("since") => Err(SpecError::NoFile("since")),
            // Without a file, it is for the local engine, and that is this store.
            "docker" if !self.has("dest") => Ok(Output::Image { names: self.names()? }),
            "docker" => {
                let since = self.list("since");
                Ok(Output::DockerArchive {
                    dest: self.destination(),
                    image: ImageOptions {
                        since,
                        ..self.image(Codec::None)?
                    },
                })
            }
            other => Err(SpecError::Type(other.to_owned())),
        }
    }

    fn destination(&mut self) -> Destination {
        match self.take("dest").as_deref() {
            None | Some("" | "-") => Destination::Stdout,
            Some(path) => Destination::File(path.into()),
        }
    }

    fn registry(&mut self, by_digest: bool) -> Result<Output, SpecError> {
        // Nothing is unpacked in any case.
        if self.flag("unpack", false)? {
            return Err(SpecError::Unsupported("attribute `unpack`".to_owned()));
        }
        let naming = Naming {
            by_digest,
            canonical: self.flag("name-canonical", false)?,
        };
        let image = self.image(gzip())?;
        Ok(Output::Registry { image, naming })
    }

    /// Takes what the names of attestations begin with.
    fn prefix(&mut self) -> Result<String, SpecError> {
        let prefix = self.take("attestation-prefix").unwrap_or_default();
        match prefix.contains(['/', '\0']) {
            false => Ok(prefix),
            true => Err(SpecError::Value {
                key: "attestation-prefix".to_owned(),
                value: prefix,
                expected: "the beginning of a file's name",
            }),
        }
    }

    fn names(&mut self) -> Result<Vec<String>, SpecError> {
        let names = self.list("name");
        let names = names.iter().map(|name| Ok(Reference::parse(name)?.to_string()));
        names.collect()
    }

    /// Takes an attribute that lists words between commas.
    fn list(&mut self, key: &str) -> Vec<String> {
        let text = self.take(key).unwrap_or_default();
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    }

    fn image(&mut self, default: Codec) -> Result<ImageOptions, SpecError> {
        Ok(ImageOptions {
            names: self.names()?,
            compression: self.compression(default)?,
            oci_types: self.flag("oci-mediatypes", true)?,
            oci_artifact: self.flag("oci-artifact", true)?,
            annotations: std::mem::take(&mut self.annotations),
            since: Vec::new(),
            older: Older::default(),
        })
    }

    /// Takes what says how layers are compressed.
    pub(crate) fn compression(&mut self, default: Codec) -> Result<Compression, SpecError> {
        let asked = self.take("compression");
        let level = self.take("compression-level");
        let codec = match asked.as_deref() {
            None => default,
            Some("uncompressed") => Codec::None,
            Some("gzip") => gzip(),
            Some("zstd") => zstd(),
            Some("estargz") => return Err(SpecError::Unsupported("compression `estargz`".to_owned())),
            Some(value) => {
                return Err(SpecError::Value {
                    key: "compression".to_owned(),
                    value: value.to_owned(),
                    expected: "gzip, zstd or uncompressed",
                });
            }
        };
        let codec = match level {
            None => codec,
            Some(text) => {
                let bad = |expected| SpecError::Value {
                    key: "compression-level".to_owned(),
                    value: text.clone(),
                    expected,
                };
                let number = text.parse::<i32>().ok();
                match codec {
                    Codec::Gzip { .. } => Codec::Gzip {
                        level: number
                            .filter(|level| (0..=9).contains(level))
                            .ok_or_else(|| bad("0 to 9"))?,
                    },
                    Codec::Zstd { .. } => Codec::Zstd {
                        level: number
                            .filter(|level| (1..=22).contains(level))
                            .ok_or_else(|| bad("1 to 22"))?,
                    },
                    Codec::None => return Err(bad("none: the layers are not compressed")),
                }
            }
        };
        Ok(Compression {
            codec,
            is_explicit: asked.is_some(),
            force: self.flag("force-compression", false)?,
        })
    }
}

fn gzip() -> Codec {
    Codec::Gzip {
        level: DEFAULT_GZIP_LEVEL,
    }
}

/// Returns zstd at the level for speed.
pub(crate) fn zstd() -> Codec {
    Codec::Zstd {
        level: DEFAULT_ZSTD_LEVEL,
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
