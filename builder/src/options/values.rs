//! Grammars of single option values: named contexts, host lines, sizes, durations. Pure; texts in, values or usage errors
//! out.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use frontend::Until;

use super::{HOST_GATEWAY, NamedSource, git_source, is_http, is_remote, not_yet};
use crate::report::Failure;

/// Parses `NAME=VALUE` of `--build-context`.
pub(super) fn named_context(text: &str) -> Result<(String, NamedSource), Failure> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
        .ok_or_else(|| Failure::usage(format!("invalid --build-context `{text}`: expected NAME=VALUE")))?;
    let source = if let Some(rest) = value.strip_prefix("oci-layout://") {
        oci_layout(text, rest)?
    } else if let Some(reference) = value.strip_prefix("docker-image://") {
        NamedSource::Image(reference.to_owned())
    } else if is_http(value) {
        NamedSource::Http(value.to_owned())
    } else if is_remote(value) {
        NamedSource::Git(git_source(value)?)
    } else if value == "-" || value.contains("://") || value.starts_with("target:") {
        return Err(
            not_yet(&format!("what `--build-context {name}` names")).with_help(
                "a directory, http(s)://…, a git address, oci-layout://DIR[:TAG] or docker-image://REF",
            ),
        );
    } else {
        NamedSource::Directory(PathBuf::from(value))
    };
    Ok((name.to_owned(), source))
}

/// Parses `DIR[:TAG|@DIGEST]`. Only the last path component can hold a tag, so that directories may have colons.
fn oci_layout(text: &str, rest: &str) -> Result<NamedSource, Failure> {
    let last = rest.rfind('/').map_or(0, |slash| slash + 1);
    let name = &rest[last..];
    let (dir, reference) = match (name.find('@'), name.rfind(':')) {
        (Some(at), _) => (&rest[..last + at], Some(&name[at..])),
        (None, Some(colon)) => (&rest[..last + colon], Some(&name[colon + 1..])),
        (None, None) => (rest, None),
    };
    if dir.is_empty() || matches!(reference, Some("" | "@")) {
        return Err(Failure::usage(format!(
            "invalid --build-context `{text}`: expected oci-layout://DIR[:TAG]"
        )));
    }
    Ok(NamedSource::OciLayout {
        dir: PathBuf::from(dir),
        reference: reference.map(str::to_owned),
    })
}

/// Parses `STAGE`, `STAGE:N` or `:N` of `--until`.
pub(super) fn until(text: &str) -> Result<Until, Failure> {
    let invalid = || {
        Failure::usage(format!("invalid --until `{text}`: expected STAGE[:N]")).with_help(
            "STAGE and N are those of progress: `build:2` is [build 2/3]; `:2` is a step of the last stage",
        )
    };
    let (stage, step) = match text.rsplit_once(':') {
        Some((stage, step)) => (stage, Some(step.parse().map_err(|_| invalid())?)),
        None => (text, None),
    };
    match (stage, step) {
        ("", None) => Err(invalid()),
        (stage, step) => Ok(Until {
            stage: stage.to_owned(),
            step,
        }),
    }
}

/// Parses `HOST:IP` or `HOST=IP` of `--add-host`; IPv6 bare or in brackets.
pub(super) fn add_host(text: &str) -> Result<(String, String), Failure> {
    let invalid = || {
        Failure::usage(format!(
            "invalid --add-host `{text}`: expected HOST:IP or HOST=IP"
        ))
    };
    let (host, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or_else(invalid)?;
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        return Err(invalid());
    }
    if address == HOST_GATEWAY {
        return Ok((host.to_owned(), address.to_owned()));
    }
    let bare = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(address);
    let address: IpAddr = bare.parse().map_err(|_| invalid())?;
    Ok((host.to_owned(), address.to_string()))
}

/// Parses a size with a binary unit, as docker does: `67108864`, `64m`, `1.5g`, `64MiB`.
pub(crate) fn size_bytes(text: &str) -> Result<u64, Failure> {
    let invalid = || Failure::usage(format!("invalid size `{text}`: expected for instance 64m or 1g"));
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(invalid()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole: u64 = whole.parse().map_err(|_| invalid())?;
    // Nine digits after the point are finer than a byte of a gibibyte; more would only overflow.
    if fraction.is_empty() || fraction.len() > 9 {
        return Err(invalid());
    }
    let part: u128 = fraction.parse().map_err(|_| invalid())?;
    let scale = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| invalid())?);
    let unit = 1u128 << shift;
    u64::try_from(u128::from(whole) * unit + part * unit / scale).map_err(|_| invalid())
}

/// Reads a duration after which something is ended: `90s`, `10m`, `1h30m`; 0 stands for never.
pub(super) fn timeout(text: Option<&str>) -> Result<Option<Duration>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let seconds = match text {
        "0" => Some(0),
        text => seconds(text),
    };
    let wrong = || format!("invalid duration `{text}`: expected such as 90s, 10m or 1h30m");
    let seconds = seconds.ok_or_else(|| Failure::usage(wrong()))?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

/// Reads `1h30m`, `24h`, `45s` as seconds.
pub(crate) fn seconds(text: &str) -> Option<u64> {
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|char: char| !char.is_ascii_digit())?;
        let number: u64 = rest.get(..end)?.parse().ok()?;
        let unit = match rest.get(end..=end)? {
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = rest.get(end + 1..)?;
    }
    (!text.is_empty()).then_some(total)
}

impl fmt::Display for NamedSource {
    /// As the command line has it, but for credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(dir) => write!(f, "{}", dir.display()),
            Self::OciLayout { dir, reference } => {
                write!(f, "oci-layout://{}", dir.display())?;
                match reference.as_deref() {
                    None => Ok(()),
                    Some(digest) if digest.starts_with('@') => f.write_str(digest),
                    Some(tag) => write!(f, ":{tag}"),
                }
            }
            Self::Image(reference) => write!(f, "docker-image://{reference}"),
            Self::Http(url) => f.write_str(&frontend::without_credentials(url)),
            Self::Git(source) => source.fmt(f),
        }
    }
}
