//! Annotations of an image: what `--annotation` and `-o annotation….KEY=VALUE` say, and what of it belongs where.
//!
//! Text in, checked choices out. Annotations are of manifests and indexes, and not of the store, which keeps configs.

use frontend::Platform;
use serde_json::{Map, Value};

use crate::options::host_platform;

/// Says what is wrong with an annotation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnnotationError {
    /// No `=`, or no key.
    #[error("invalid annotation `{0}`: expected [LEVEL[PLATFORM]:]KEY=VALUE")]
    Syntax(String),
    /// A place that annotations don't have.
    #[error(
        "unknown annotation level `{0}`: expected manifest, index, manifest-descriptor or index-descriptor"
    )]
    Level(String),
    /// A platform that is none, or one for an index, which is for all.
    #[error("annotation level `{0}` can't have this platform")]
    Platform(String),
}

/// What of an image an annotation is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// A platform's manifest.
    Manifest,
    /// The index of several.
    Index,
    /// Where the index, or the layout, names a manifest.
    ManifestDescriptor,
    /// Where the layout names the index.
    IndexDescriptor,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Annotation {
    level: Level,
    /// `None`: all.
    platform: Option<Platform>,
    key: String,
    value: String,
}

/// Annotations, in the order in which they were given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Annotations(Vec<Annotation>);

impl Annotations {
    /// Adds what one `--annotation` says: `KEY=VALUE`, or with levels before it, as in
    /// `index,manifest[linux/amd64]:KEY=VALUE`.
    pub(crate) fn add_flag(&mut self, text: &str) -> Result<(), AnnotationError> {
        let syntax = || AnnotationError::Syntax(text.to_owned());
        let (left, value) = text.split_once('=').ok_or_else(syntax)?;
        let (levels, key) = left.split_once(':').unwrap_or(("", left));
        if key.is_empty() {
            return Err(syntax());
        }
        for level in levels.split(',') {
            self.add(level, key, value)?;
        }
        Ok(())
    }

    /// Adds an attribute of an output: `annotation.KEY`, `annotation-LEVEL[PLATFORM].KEY`.
    pub(crate) fn add_attribute(&mut self, name: &str, value: &str) -> Result<(), AnnotationError> {
        let syntax = || AnnotationError::Syntax(format!("{name}={value}"));
        let rest = name.strip_prefix("annotation").ok_or_else(syntax)?;
        // A platform has no dot, so that the first one ends the level.
        let (level, key) = rest.split_once('.').ok_or_else(syntax)?;
        if key.is_empty() {
            return Err(syntax());
        }
        let level = match level.strip_prefix('-') {
            Some(level) => level,
            None if level.is_empty() || level.starts_with('[') => level,
            None => return Err(syntax()),
        };
        self.add(level, key, value)
    }

    fn add(&mut self, level: &str, key: &str, value: &str) -> Result<(), AnnotationError> {
        let (name, platform) = match level.strip_suffix(']').and_then(|level| level.split_once('[')) {
            Some((name, platform)) => (name, Some(platform)),
            None => (level, None),
        };
        let parsed = match name {
            "" | "manifest" => Level::Manifest,
            "index" => Level::Index,
            "manifest-descriptor" => Level::ManifestDescriptor,
            "index-descriptor" => Level::IndexDescriptor,
            _ => return Err(AnnotationError::Level(level.to_owned())),
        };
        let platform = platform
            .map(|platform| Platform::parse(platform, &host_platform()))
            .transpose()
            .map_err(|_| AnnotationError::Platform(level.to_owned()))?;
        if platform.is_some() && matches!(parsed, Level::Index | Level::IndexDescriptor) {
            return Err(AnnotationError::Platform(level.to_owned()));
        }
        self.0.push(Annotation {
            level: parsed,
            platform,
            key: key.to_owned(),
            value: value.to_owned(),
        });
        Ok(())
    }

    /// Puts others before these, which win.
    pub(crate) fn prepend(&mut self, others: &Self) {
        self.0.splice(0..0, others.0.iter().cloned());
    }

    /// Says whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Says whether any needs an index.
    pub(crate) fn wants_index(&self) -> bool {
        self.0
            .iter()
            .any(|one| matches!(one.level, Level::Index | Level::IndexDescriptor))
    }

    /// Returns those of a place, by key; one for this very platform wins over one for all.
    pub(crate) fn at(&self, level: Level, platform: Option<&Platform>) -> Map<String, Value> {
        let chosen = |one: &&Annotation| one.level == level;
        let general = self.0.iter().filter(|one| one.platform.is_none());
        let own = self
            .0
            .iter()
            .filter(|one| one.platform.is_some() && one.platform.as_ref() == platform);
        let chosen = general.chain(own).filter(chosen);
        let mut found: Vec<(String, Value)> = Vec::new();
        for one in chosen {
            found.retain(|(key, _)| *key != one.key);
            found.push((one.key.clone(), Value::from(one.value.clone())));
        }
        // By key: the same annotations in another order make the same image.
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        found.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(annotations: &Annotations, level: Level, platform: &str) -> String {
        let platform = platform.parse().unwrap();
        Value::Object(annotations.at(level, Some(&platform))).to_string()
    }

    #[test]
    fn annotations_go_where_they_are_meant() {
        let mut all = Annotations::default();
        for text in [
            "b=1",
            "a=x=y",
            "manifest[linux/arm64]:b=arm",
            "index,index-descriptor:Top=1",
            "manifest-descriptor[linux/amd64],index:d:e=",
        ] {
            all.add_flag(text).unwrap();
        }
        all.add_attribute("annotation[linux/amd64].c.d", "2").unwrap();
        all.add_attribute("annotation-manifest-descriptor.d:e", "3")
            .unwrap();
        let check = |level, platform, expected: &str| assert_eq!(at(&all, level, platform), expected);
        check(Level::Manifest, "linux/amd64", r#"{"a":"x=y","b":"1","c.d":"2"}"#);
        check(Level::Manifest, "linux/aarch64", r#"{"a":"x=y","b":"arm"}"#);
        check(Level::Index, "linux/amd64", r#"{"Top":"1","d:e":""}"#);
        check(Level::IndexDescriptor, "linux/amd64", r#"{"Top":"1"}"#);
        check(Level::ManifestDescriptor, "linux/amd64", r#"{"d:e":""}"#);
        check(Level::ManifestDescriptor, "linux/arm64", r#"{"d:e":"3"}"#);
        assert!(all.wants_index() && !Annotations::default().wants_index());
    }

    #[test]
    fn what_is_no_annotation_is_an_error() {
        for (text, expected) in [
            ("a", "expected [LEVEL[PLATFORM]:]KEY=VALUE"),
            ("=b", "expected [LEVEL"),
            ("index:=b", "expected [LEVEL"),
            ("layer:a=b", "unknown annotation level `layer`"),
            ("index,:a=b", ""),
            (
                "index[linux/amd64]:a=b",
                "`index[linux/amd64]` can't have this platform",
            ),
            ("manifest[a/b/c/d]:a=b", "can't have this platform"),
        ] {
            let result = Annotations::default().add_flag(text);
            match expected {
                "" => assert_eq!(result, Ok(()), "{text}"),
                expected => {
                    let error = result.unwrap_err().to_string();
                    assert!(error.contains(expected), "{text}: {error}");
                }
            }
        }
        for name in ["annotation", "annotation.", "annotationindex.a", "annotation-x.a"] {
            assert!(Annotations::default().add_attribute(name, "b").is_err(), "{name}");
        }
    }
}
