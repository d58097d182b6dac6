//! What `--attest`, `--provenance` and `--sbom` ask for. Text in, checked choices out.

use crate::csv;

/// The generator that docker's tools use where none is named.
pub(crate) const DEFAULT_GENERATOR: &str = "docker/buildkit-syft-scanner:stable-1";

/// Says what is wrong with a request for an attestation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AttestError {
    /// Not CSV of `key=value`.
    #[error("invalid attestation `{0}`: expected type=provenance|sbom[,key=value,…]")]
    Syntax(String),
    /// No such type.
    #[error("unknown attestation type `{0}`: expected provenance or sbom")]
    Type(String),
    /// The type has no such attribute.
    #[error("attestation type `{kind}` has no attribute `{key}`")]
    Key { kind: &'static str, key: String },
    /// A value that the attribute can't have.
    #[error("invalid value `{value}` of attestation attribute `{key}`: expected {expected}")]
    Value {
        key: String,
        value: String,
        expected: &'static str,
    },
    /// Two requests for one type.
    #[error("attestation type `{0}` is asked for twice")]
    Twice(&'static str),
}

/// The attestations that a build makes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Attestations {
    /// How it was built.
    pub(crate) provenance: Option<Provenance>,
    /// What is in it, by this generator: an image's reference.
    pub(crate) sbom: Option<String>,
}

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Nothing that a build argument or a label may hold, and no steps.
    Min,
    /// All.
    Max,
}

/// Which version of SLSA provenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// <https://slsa.dev/provenance/v1>
    V1,
    /// <https://slsa.dev/provenance/v0.2>
    V02,
}

/// How provenance is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Provenance {
    /// How much.
    pub(crate) mode: Detail,
    /// In which form.
    pub(crate) version: Version,
    /// Who builds: an address, usually of a CI job.
    pub(crate) builder_id: String,
    /// Its name where outputs are plain files.
    pub(crate) file_name: String,
    /// The user's word that the result is the same every time.
    pub(crate) is_reproducible: bool,
    /// Only where the output is an image.
    pub(crate) inline_only: bool,
}

impl Provenance {
    /// Returns provenance as it is told where only the mode was asked for.
    pub(crate) fn of_mode(mode: Detail) -> Self {
        Self {
            mode,
            version: Version::V1,
            builder_id: String::new(),
            file_name: "provenance.json".to_owned(),
            is_reproducible: false,
            inline_only: false,
        }
    }
}

impl Attestations {
    /// Settles the three flags. `true` asks for the defaults, `false` for nothing.
    pub(crate) fn parse(
        attest: &[String],
        provenance: Option<&str>,
        sbom: Option<&str>,
    ) -> Result<Self, AttestError> {
        let short = |kind: &str, value: &str| match value {
            "" | "true" | "1" => format!("type={kind}"),
            "false" | "0" => format!("type={kind},disabled=true"),
            value => format!("type={kind},{value}"),
        };
        let given = attest.iter().cloned();
        let given = given
            .chain(provenance.map(|value| short("provenance", value)))
            .chain(sbom.map(|value| short("sbom", value)));
        let mut settled = Self::default();
        let mut seen = Vec::new();
        for text in given {
            let mut attributes = Attributes::read(&text)?;
            if seen.contains(&attributes.kind) {
                return Err(AttestError::Twice(attributes.kind));
            }
            seen.push(attributes.kind);
            let is_off = attributes.flag("disabled")?;
            match attributes.kind {
                "provenance" => {
                    let wanted = attributes.provenance()?;
                    settled.provenance = Some(wanted).filter(|_| !is_off);
                }
                _ => {
                    let generator = attributes.take("generator").filter(|name| !name.is_empty());
                    let generator = generator.unwrap_or_else(|| DEFAULT_GENERATOR.to_owned());
                    settled.sbom = Some(generator).filter(|_| !is_off);
                }
            }
            attributes.done()?;
        }
        Ok(settled)
    }

    /// Says whether there is anything to attest.
    pub(crate) fn is_empty(&self) -> bool {
        self.provenance.is_none() && self.sbom.is_none()
    }

    /// Says whether an output that can't have attestations would break a promise.
    pub(crate) fn are_needed(&self) -> bool {
        self.sbom.is_some() || self.provenance.as_ref().is_some_and(|wanted| !wanted.inline_only)
    }
}

struct Attributes {
    kind: &'static str,
    pairs: Vec<(String, String)>,
}

impl Attributes {
    fn read(text: &str) -> Result<Self, AttestError> {
        let syntax = || AttestError::Syntax(text.to_owned());
        let fields = csv::fields(text).ok_or_else(syntax)?;
        let mut pairs = Vec::new();
        for field in &fields {
            let (key, value) = field.split_once('=').ok_or_else(syntax)?;
            pairs.push((key.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut attributes = Self { kind: "", pairs };
        attributes.kind = match attributes.take("type").ok_or_else(syntax)?.as_str() {
            "provenance" => "provenance",
            "sbom" => "sbom",
            other => return Err(AttestError::Type(other.to_owned())),
        };
        Ok(attributes)
    }

    /// Takes an attribute; the last one counts where it is given twice.
    fn take(&mut self, key: &str) -> Option<String> {
        let found = self.pairs.iter().rev().find(|(name, _)| name == key);
        let value = found.map(|(_, value)| value.clone());
        self.pairs.retain(|(name, _)| name != key);
        value
    }

    fn flag(&mut self, key: &'static str) -> Result<bool, AttestError> {
        self.choice(key, "true or false", |value| match value {
            "1" | "t" | "true" => Some(true),
            "" | "0" | "f" | "false" => Some(false),
            _ => None,
        })
        .map(|flag| flag.unwrap_or(false))
    }

    fn choice<T>(
        &mut self,
        key: &'static str,
        expected: &'static str,
        choose: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, AttestError> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let chosen = choose(&value.to_ascii_lowercase());
        chosen.map(Some).ok_or_else(|| AttestError::Value {
            key: key.to_owned(),
            value,
            expected,
        })
    }

    fn provenance(&mut self) -> Result<Provenance, AttestError> {
        let mode = self.choice("mode", "min or max", |value| match value {
            "min" => Some(Detail::Min),
            "max" => Some(Detail::Max),
            _ => None,
        })?;
        let version = self.choice("version", "v1 or v0.2", |value| match value {
            "v1" => Some(Version::V1),
            "v0.2" => Some(Version::V02),
            _ => None,
        })?;
        // It is joined to a directory, and must not lead out of it.
        let is_name =
            |name: &str| !name.is_empty() && !matches!(name, "." | "..") && !name.contains(['/', '\0']);
        let file_name = self.take("filename");
        if let Some(value) = file_name.clone().filter(|name| !is_name(name)) {
            return Err(AttestError::Value {
                key: "filename".to_owned(),
                value,
                expected: "the name of a file",
            });
        }
        Ok(Provenance {
            version: version.unwrap_or(Version::V1),
            builder_id: self.take("builder-id").unwrap_or_default(),
            file_name: file_name.unwrap_or_else(|| "provenance.json".to_owned()),
            is_reproducible: self.flag("reproducible")?,
            inline_only: self.flag("inline-only")?,
            // Who asks for provenance and not for how much means all of it. Spec: cli-and-outputs.md §8.
            ..Provenance::of_mode(mode.unwrap_or(Detail::Max))
        })
    }

    fn done(self) -> Result<(), AttestError> {
        match self.pairs.into_iter().next() {
            None => Ok(()),
            Some((key, _)) => Err(AttestError::Key { kind: self.kind, key }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(attest: &[&str], provenance: Option<&str>, sbom: Option<&str>) -> Result<Attestations, String> {
        let attest: Vec<String> = attest.iter().map(|&text| text.to_owned()).collect();
        Attestations::parse(&attest, provenance, sbom).map_err(|error| error.to_string())
    }

    #[test]
    fn the_three_flags_say_what_is_wanted() {
        let provenance = |provenance| Attestations {
            provenance: Some(provenance),
            sbom: None,
        };
        let max = Provenance::of_mode(Detail::Max);
        assert_eq!(parse(&[], None, None), Ok(Attestations::default()));
        assert_eq!(
            parse(&[], Some("false"), Some("false")),
            Ok(Attestations::default())
        );
        assert_eq!(parse(&[], Some("true"), None), Ok(provenance(max.clone())));
        assert_eq!(
            parse(&["type=provenance,mode=min,version=v0.2"], None, None),
            Ok(provenance(Provenance {
                version: Version::V02,
                ..Provenance::of_mode(Detail::Min)
            }))
        );
        assert_eq!(
            parse(
                &[],
                Some("builder-id=https://ci/1,filename=p.json,reproducible=true,inline-only=true"),
                None
            ),
            Ok(provenance(Provenance {
                builder_id: "https://ci/1".to_owned(),
                file_name: "p.json".to_owned(),
                is_reproducible: true,
                inline_only: true,
                ..max
            }))
        );
        let sbom = |generator: &str| Attestations {
            provenance: None,
            sbom: Some(generator.to_owned()),
        };
        assert_eq!(parse(&[], None, Some("true")), Ok(sbom(DEFAULT_GENERATOR)));
        assert_eq!(parse(&["type=sbom,generator=x:1"], None, None), Ok(sbom("x:1")));
        assert_eq!(
            parse(&["type=sbom,disabled=true"], None, None),
            Ok(Attestations::default())
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for (attest, provenance, expected) in [
            ("mode=max", None, "expected type=provenance|sbom"),
            ("type=x", None, "unknown attestation type `x`"),
            ("type=provenance,mode=all", None, "expected min or max"),
            ("type=provenance,version=v2", None, "expected v1 or v0.2"),
            (
                "type=provenance,filename=../x",
                None,
                "expected the name of a file",
            ),
            ("type=sbom,mode=max", None, "`sbom` has no attribute `mode`"),
            ("type=provenance", Some("false"), "is asked for twice"),
        ] {
            let error = parse(&[attest], provenance, None).unwrap_err();
            assert!(error.contains(expected), "{attest}: {error}");
        }
    }
}
