//! Platforms: operating system, architecture, variant; read, normalised, written.

use std::fmt;
use std::str::FromStr;

/// What a binary runs on, normalised: `arm64` has no variant `v8`, `arm` has always one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    /// `linux`
    pub os: String,
    /// Go's word for the architecture: `amd64`, `arm64`, `arm`.
    pub architecture: String,
    /// `v7`
    pub variant: Option<String>,
}

/// Says why a text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse platform {0}: expected os[/arch[/variant]]")]
pub struct ParsePlatformError(pub String);

const SYSTEMS: [&str; 8] = [
    "linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "android", "wasip1",
];
const ARCHITECTURES: [&str; 12] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips64", "mips64le", "ppc64", "ppc64le", "riscv64", "s390x",
    "wasm",
];

impl Platform {
    /// Puts the parts together and normalises them.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let lower = architecture.to_ascii_lowercase();
        let (architecture, implied) = match lower.as_str() {
            "x86_64" | "x86-64" => ("amd64", None),
            "i386" | "i486" | "i586" | "i686" | "x86" => ("386", None),
            "aarch64" => ("arm64", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            other => (other, None),
        };
        let variant = implied.or(variant.filter(|variant| !variant.is_empty()));
        let variant = match (architecture, variant) {
            ("arm64", Some("8" | "v8")) | ("amd64", Some("v1")) | ("386", _) => None,
            ("arm", None) => Some("v7".to_owned()),
            ("arm", Some(number)) if !number.starts_with('v') => Some(format!("v{number}")),
            (_, variant) => variant.map(str::to_ascii_lowercase),
        };
        let os = os.to_ascii_lowercase();
        let os = if os == "macos" { "darwin".to_owned() } else { os };
        Self {
            os,
            architecture: architecture.to_owned(),
            variant,
        }
    }

    /// Reads a platform; what `text` leaves out comes from `default`.
    pub fn parse(text: &str, default: &Self) -> Result<Self, ParsePlatformError> {
        let error = || ParsePlatformError(text.chars().take(100).collect());
        let valid = |part: &str| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '.'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|part| valid(part)) {
            return Err(error());
        }
        Ok(match parts[..] {
            [one] => {
                let as_architecture = Self::new(&default.os, one, None);
                if SYSTEMS.contains(&one.to_ascii_lowercase().as_str()) {
                    Self {
                        os: one.to_ascii_lowercase(),
                        ..default.clone()
                    }
                } else if ARCHITECTURES.contains(&as_architecture.architecture.as_str()) {
                    as_architecture
                } else {
                    return Err(error());
                }
            }
            [os, architecture] => Self::new(os, architecture, None),
            [os, architecture, variant] => Self::new(os, architecture, Some(variant)),
            _ => return Err(error()),
        })
    }
}

impl Platform {
    /// Says how well an image for `other` runs here: 0 is exact, more is worse, `None` is not at all.
    pub fn distance(&self, other: &Self) -> Option<u32> {
        if self.os != other.os || self.architecture != other.architecture {
            return None;
        }
        let level = |variant: &Option<String>| -> Option<u32> {
            let digits = variant.as_deref().unwrap_or("v1").strip_prefix('v')?;
            digits.split('.').next()?.parse().ok()
        };
        if self.variant == other.variant {
            return Some(0);
        }
        // A processor runs what was made for its predecessors.
        level(&self.variant)?.checked_sub(level(&other.variant)?)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant
            .iter()
            .try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;
    /// Missing parts are those of `linux/amd64`.
    fn from_str(text: &str) -> Result<Self, ParsePlatformError> {
        Self::parse(text, &Self::new("linux", "amd64", None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_normalised() {
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux", "linux/amd64"),
            ("arm64", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("LINUX/x86_64", "linux/amd64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), expected, "{text}");
        }
        for bad in ["", "bad", "bad/x/y/z", "linux/", "linux/a b"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }
}
