//! `RUN --mount`: fields to keys, and keys to what the five types mean. Spec: dockerfile.md §9.2.
//!
//! Reading the fields needs no variables. [`settle`] does the rest: it is called while parsing for mounts without
//! variables, so that a mistake shows in stages that aren't built, too, and while lowering for all.

use solver::op::{FileOwner, Sharing};

use crate::ast::{Mount, MountField, MountKey};
use crate::diagnostic::Diagnostic;
use crate::lines::Text;
use crate::parse::Context;
use crate::parse::traced::Traced;
use crate::source::Span;

/// The names of the keys.
pub(crate) const KEYS: [(&str, MountKey); 19] = [
    ("type", MountKey::Type),
    ("target", MountKey::Target),
    ("dst", MountKey::Target),
    ("destination", MountKey::Target),
    ("source", MountKey::Source),
    ("src", MountKey::Source),
    ("from", MountKey::From),
    ("readonly", MountKey::Readonly),
    ("ro", MountKey::Readonly),
    ("readwrite", MountKey::Readonly),
    ("rw", MountKey::Readonly),
    ("id", MountKey::Id),
    ("sharing", MountKey::Sharing),
    ("mode", MountKey::Mode),
    ("uid", MountKey::Uid),
    ("gid", MountKey::Gid),
    ("size", MountKey::Size),
    ("required", MountKey::Required),
    ("env", MountKey::Env),
];

/// The types.
pub(crate) const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];

const SHARINGS: [&str; 3] = ["shared", "private", "locked"];

/// What a mount means, its variables expanded; paths are as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settled {
    Bind {
        target: String,
        source: String,
        readonly: bool,
    },
    Cache(Cache),
    Tmpfs {
        target: String,
        size_bytes: Option<u64>,
        readonly: bool,
    },
    Secret {
        id: String,
        /// `None`: no file.
        target: Option<String>,
        env: Option<String>,
        required: bool,
        owner: FileOwner,
    },
    Ssh {
        id: String,
        /// Empty: the default.
        target: String,
        required: bool,
        owner: FileOwner,
    },
}

/// A cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cache {
    pub(crate) target: String,
    /// Of its first content, where that comes from somewhere.
    pub(crate) source: String,
    /// Empty: the default.
    pub(crate) id: String,
    pub(crate) sharing: Sharing,
    pub(crate) readonly: bool,
    pub(crate) owner: FileOwner,
}

/// Reads the value of one flag.
pub(crate) fn parse(context: &Context<'_>, value: &Traced, span: Span) -> Result<Mount, Diagnostic> {
    let fields = value.fields(context.line)?;
    let fields = fields.iter().map(|field| read_field(context, field));
    let mount = Mount {
        span,
        fields: fields.collect::<Result<_, _>>()?,
    };
    if let Some(from) = mount.from().filter(|from| has_variable(&from.value)) {
        let message = "'from' doesn't support variable expansion, define alias stage instead";
        return Err(Diagnostic::error(message)
            .at(from.span)
            .help("write FROM … AS name with an ARG from before the first FROM"));
    }
    let is_plain = |value: &Text| !value.value.contains(['$', '\'', '"', context.escape]);
    let mut values = mount.fields.iter().filter_map(|field| field.value.as_ref());
    if values.all(is_plain) {
        settle(&mount, |text| Ok(text.value.clone()))?;
    }
    Ok(mount)
}

/// Says whether a dollar sign stands before something.
fn has_variable(text: &str) -> bool {
    text.trim_end_matches('$').contains('$') || text.contains("$$")
}

fn read_field(context: &Context<'_>, field: &Traced) -> Result<MountField, Diagnostic> {
    let text = &field.text;
    let (end, value) = match text.split_once('=') {
        Some((key, value)) => (key.len(), Some(field.part(text.len() - value.len()..text.len()))),
        None => (text.len(), None),
    };
    let key = field.part(0..end).to_text(context.line);
    let written = Text {
        value: key.value.to_lowercase(),
        ..key
    };
    let name = written.value.as_str();
    let known = KEYS.iter().find(|(known, _)| *known == name).map(|(_, key)| *key);
    let shown: String = text.chars().take(128).collect();
    let names = || KEYS.iter().map(|(name, _)| *name);
    match (known, &value) {
        (Some(MountKey::Readonly | MountKey::Required), _) | (Some(_), Some(_)) => {}
        (None, Some(_)) => {
            let message = format!("unexpected key '{name}' in '{shown}'");
            return Err(Diagnostic::error(message).at(written.span).suggest(name, names()));
        }
        (_, None) => {
            let message = format!("invalid field '{shown}' must be a key=value pair");
            return Err(Diagnostic::error(message).at(written.span).suggest(name, names()));
        }
    }
    Ok(MountField {
        key: known.expect("because an unknown key was refused"),
        value: value.map(|value| value.to_text(context.line)),
        written,
    })
}

/// The values of one mount, expanded.
struct Values<'a> {
    mount: &'a Mount,
    /// Beside the mount's fields; empty for bare ones.
    expanded: Vec<String>,
}

impl<'a> Values<'a> {
    /// Returns the last value of a key that isn't empty, with its field.
    fn get(&self, key: MountKey) -> Option<(&str, &'a MountField)> {
        let fields = self.mount.fields.iter().zip(&self.expanded).rev();
        let mut fields = fields.filter(|(field, _)| field.key == key);
        fields.next().map(|(field, value)| (value.as_str(), field))
    }

    /// Returns a value that means nothing when it is empty.
    fn text(&self, key: MountKey) -> String {
        self.get(key)
            .map_or_else(String::new, |(value, _)| value.to_owned())
    }

    fn switch(&self, key: MountKey) -> Result<Option<bool>, Diagnostic> {
        let Some((value, field)) = self.get(key) else {
            return Ok(None);
        };
        let given = match &field.value {
            None => true,
            Some(text) => boolean(value).ok_or_else(|| {
                let message = format!("invalid value for {}: {value}", field.written.value);
                Diagnostic::error(message).at(text.span)
            })?,
        };
        Ok(Some(
            given != matches!(field.written.value.as_str(), "readwrite" | "rw"),
        ))
    }

    fn number(&self, key: MountKey, radix: u32, most: u32) -> Result<Option<u32>, Diagnostic> {
        let Some((value, field)) = self.get(key) else {
            return Ok(None);
        };
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        let number = u32::from_str_radix(value, radix).ok();
        match number.filter(|number| digits && *number <= most) {
            Some(number) => Ok(Some(number)),
            None => {
                let message = format!("invalid value {value} for {}", field.written.value);
                Err(Diagnostic::error(message).at(place(field)))
            }
        }
    }

    fn owner(&self, mode: u32) -> Result<FileOwner, Diagnostic> {
        Ok(FileOwner {
            mode: self.number(MountKey::Mode, 8, 0o7777)?.unwrap_or(mode),
            uid: self.number(MountKey::Uid, 10, u32::MAX)?.unwrap_or(0),
            gid: self.number(MountKey::Gid, 10, u32::MAX)?.unwrap_or(0),
        })
    }

    fn sharing(&self) -> Result<Sharing, Diagnostic> {
        let Some((value, field)) = self.get(MountKey::Sharing) else {
            return Ok(Sharing::Shared);
        };
        Ok(match value.to_lowercase().as_str() {
            "shared" => Sharing::Shared,
            "private" => Sharing::Private,
            "locked" => Sharing::Locked,
            _ => {
                let message = format!("unsupported sharing value \"{value}\"");
                let error = Diagnostic::error(message).at(place(field));
                return Err(match value {
                    // Whose builds share a cache is for those to say who run them, not for the file.
                    "global" => {
                        error.help("with all projects, caches are shared by: ashlar build --cache-ns global")
                    }
                    _ => error.suggest(value, SHARINGS),
                });
            }
        })
    }

    fn size(&self) -> Result<Option<u64>, Diagnostic> {
        let Some((value, field)) = self.get(MountKey::Size) else {
            return Ok(None);
        };
        let size = size(value).ok_or_else(|| {
            let error = Diagnostic::error(format!("invalid value for size: {value}")).at(place(field));
            error.help("write a number of bytes, or one with k, m or g")
        })?;
        Ok(Some(size).filter(|size| *size > 0))
    }
}

/// Returns where a field's value stands.
fn place(field: &MountField) -> Span {
    field
        .value
        .as_ref()
        .map_or(field.written.span, |value| value.span)
}

/// Says what a mount means; `expand` makes values of texts. Keys are looked at after all of them are read, so their
/// order means nothing.
pub(crate) fn settle(
    mount: &Mount,
    mut expand: impl FnMut(&Text) -> Result<String, Diagnostic>,
) -> Result<Settled, Diagnostic> {
    let expanded = mount.fields.iter().map(|field| match &field.value {
        Some(value) if field.key != MountKey::From => expand(value),
        Some(value) => Ok(value.value.clone()),
        None => Ok(String::new()),
    });
    let values = Values {
        mount,
        expanded: expanded.collect::<Result<_, _>>()?,
    };
    let kind = match values.get(MountKey::Type) {
        None => "bind".to_owned(),
        Some((value, field)) => {
            let lower = value.to_lowercase();
            if !TYPES.contains(&lower.as_str()) {
                let error = Diagnostic::error(format!("unsupported mount type \"{value}\""));
                return Err(error.at(place(field)).suggest(value, TYPES));
            }
            lower
        }
    };
    check_keys(&values, &kind)?;
    let target = values.text(MountKey::Target);
    let readonly = values.switch(MountKey::Readonly)?;
    Ok(match kind.as_str() {
        "bind" => Settled::Bind {
            target,
            source: values.text(MountKey::Source),
            readonly: readonly.unwrap_or(true),
        },
        "cache" => Settled::Cache(Cache {
            target,
            source: values.text(MountKey::Source),
            id: values.text(MountKey::Id),
            sharing: values.sharing()?,
            readonly: readonly.unwrap_or(false),
            owner: values.owner(0o755)?,
        }),
        "tmpfs" => Settled::Tmpfs {
            target,
            size_bytes: values.size()?,
            readonly: readonly.unwrap_or(false),
        },
        "ssh" => Settled::Ssh {
            id: Some(values.text(MountKey::Id))
                .filter(|id| !id.is_empty())
                .unwrap_or_else(|| "default".to_owned()),
            target,
            required: values.switch(MountKey::Required)?.unwrap_or(false),
            owner: values.owner(0o600)?,
        },
        _ => secret(&values, target)?,
    })
}

/// Refuses keys that the type doesn't have.
fn check_keys(values: &Values<'_>, kind: &str) -> Result<(), Diagnostic> {
    let is_secret = kind == "secret";
    for (field, value) in values.mount.fields.iter().zip(&values.expanded) {
        let name = field.written.value.as_str();
        let message = match field.key {
            MountKey::Required if !is_secret && kind != "ssh" => {
                format!("unexpected key '{name}' for mount type '{kind}'")
            }
            MountKey::Size if kind != "tmpfs" => format!("unexpected key '{name}' for mount type '{kind}'"),
            MountKey::Mode | MountKey::Uid | MountKey::Gid if matches!(kind, "bind" | "tmpfs") => {
                format!("{name} not allowed for \"{kind}\" type mounts")
            }
            MountKey::From if is_secret && !value.is_empty() => {
                "secret mount should not have a from".to_owned()
            }
            MountKey::Sharing if is_secret => "secret mount should not define sharing".to_owned(),
            MountKey::Sharing if kind != "cache" => format!("invalid cache sharing set for {kind} mount"),
            MountKey::Source if kind == "ssh" && !value.is_empty() => {
                "ssh does not support source".to_owned()
            }
            _ => continue,
        };
        return Err(Diagnostic::error(message).at(field.written.span));
    }
    let source = values
        .get(MountKey::Source)
        .filter(|(value, _)| !value.is_empty());
    if kind == "cache" && source.is_some() && values.mount.from().is_none() {
        let message = "cache mount with a source needs a from, which has its first content";
        let span = source.map_or(values.mount.span, |(_, field)| field.written.span);
        return Err(Diagnostic::error(message).at(span));
    }
    Ok(())
}

fn secret(values: &Values<'_>, target: String) -> Result<Settled, Diagnostic> {
    let error = |message: &str| Err(Diagnostic::error(message).at(values.mount.span));
    let (id, source) = (values.text(MountKey::Id), values.text(MountKey::Source));
    let id = match (id.is_empty(), source.is_empty()) {
        (false, false) => return error("both source and id can't be set"),
        (false, true) => id,
        (true, false) => source,
        (true, true) if target.is_empty() => {
            return error("invalid secret mount. one of source, target required");
        }
        (true, true) => base_name(&target),
    };
    let env = values.get(MountKey::Env).map(|(name, _)| {
        // BuildKit's way to say "named like the secret".
        if name.is_empty() {
            id.clone()
        } else {
            name.to_owned()
        }
    });
    let target = match (target.is_empty(), &env) {
        (false, _) => Some(target),
        (true, Some(_)) => None,
        (true, None) => Some(format!("/run/secrets/{}", base_name(&id))),
    };
    Ok(Settled::Secret {
        id,
        target,
        env,
        required: values.switch(MountKey::Required)?.unwrap_or(false),
        owner: values.owner(0o400)?,
    })
}

fn base_name(path: &str) -> String {
    let name = path.trim_end_matches('/').rsplit('/').next();
    name.unwrap_or_default().to_owned()
}

/// Reads a boolean as Go does.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Reads `64m`, `1.5GiB`, `1000`: units are powers of 1024.
fn size(text: &str) -> Option<u64> {
    let end = text.find(|char: char| !char.is_ascii_digit() && char != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        _ => {
            let letter = unit
                .strip_suffix("ib")
                .or(unit.strip_suffix('b'))
                .unwrap_or(&unit);
            10 * (1 + ["k", "m", "g", "t", "p"]
                .iter()
                .position(|known| *known == letter)?)
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // Eighteen digits are below a byte even for the largest unit.
    if number.len() > 32 || fraction.len() > 18 || fraction.contains('.') || whole.is_empty() {
        return None;
    }
    let scale = 1_u128.checked_shl(u32::try_from(shift).ok()?)?;
    let parts = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let fraction: u128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    let total = whole.parse::<u64>().map(u128::from).ok()?.checked_mul(scale)?;
    u64::try_from(total.checked_add(fraction.checked_mul(scale)? / parts)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_docker() {
        for (text, expected) in [
            ("64m", Some(64 << 20)),
            ("1.5GiB", Some(3 << 29)),
            ("10kb", Some(10240)),
            ("1000", Some(1000)),
            ("2 g", Some(2 << 30)),
            ("1p", Some(1 << 50)),
            ("", None),
            ("m", None),
            ("1x", None),
            ("-1", None),
            ("1..5m", None),
            ("99999999999999999999", None),
            ("99999999999p", None),
        ] {
            assert_eq!(size(text), expected, "{text}");
        }
    }
}
