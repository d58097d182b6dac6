//! `ashlar images`.

use cache::Store;
use serde_json::{Map, Value};

use super::human;
use super::table::Format;
use crate::cli::ImagesArgs;
use crate::image::{self, StoredImage};
use crate::registry::Reference;
use crate::report::Failure;

const NONE: &str = "<none>";
const HEADINGS: [(&str, &str); 7] = [
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
];

/// Returns the list of images, newest first, one line for each name.
pub(crate) fn images(args: &ImagesArgs, store: &Store, now_unix: i64) -> Result<String, Failure> {
    let format = Format::parse(args.format.as_deref())?;
    let filters = args
        .filter
        .iter()
        .map(|text| Filter::parse(text, store))
        .collect::<Result<Vec<_>, _>>()?;
    let mut images = image::all(store)?;
    images.sort_by_key(|image| std::cmp::Reverse(image.created_unix()));
    let mut rows = Vec::new();
    for image in &images {
        let size_bytes = image.size_bytes(store)?;
        for name in names(image) {
            let chosen = args
                .repository
                .as_deref()
                .is_none_or(|pattern| name.is_called(pattern))
                && keeps(&filters, image, &name);
            if chosen {
                rows.push(row(args, image, &name, size_bytes, now_unix));
            }
        }
    }
    if args.quiet {
        let mut ids: Vec<String> = rows
            .iter()
            .filter_map(|row| row.get("ID")?.as_str().map(|id| format!("{id}\n")))
            .collect();
        ids.dedup();
        return Ok(ids.concat());
    }
    let mut columns = vec![("REPOSITORY", "Repository"), ("TAG", "Tag")];
    columns.extend(args.digests.then_some(("DIGEST", "Digest")));
    columns.extend([("IMAGE ID", "ID"), ("CREATED", "CreatedSince"), ("SIZE", "Size")]);
    format.list(rows, &columns, &HEADINGS)
}

/// One name of an image; or that it has none.
struct Name {
    repository: String,
    tag: String,
    digest: String,
    dangling: bool,
}

impl Name {
    /// Says whether a pattern (`*` and `?` stay within a path component) means this name. A pattern without a tag
    /// means every tag.
    fn is_called(&self, pattern: &str) -> bool {
        let last = pattern.rfind('/').map_or(0, |slash| slash + 1);
        let (repository, tag) = match pattern[last..].find(':') {
            Some(colon) => (&pattern[..last + colon], Some(&pattern[last + colon + 1..])),
            None => (pattern, None),
        };
        let repository = repository
            .strip_prefix("docker.io/library/")
            .or_else(|| repository.strip_prefix("docker.io/"))
            .unwrap_or(repository);
        !self.dangling && glob(repository, &self.repository) && tag.is_none_or(|tag| glob(tag, &self.tag))
    }
}

fn names(image: &StoredImage) -> Vec<Name> {
    let digest = |manifest: Option<cache::Digest>| {
        manifest.map_or_else(|| NONE.to_owned(), |digest| digest.to_string())
    };
    let mut names: Vec<Name> = image
        .named()
        .filter_map(|row| {
            let reference = Reference::parse(&row.name).ok()?;
            Some(Name {
                repository: reference.familiar_name(),
                tag: reference.tag().unwrap_or(NONE).to_owned(),
                digest: digest(row.manifest),
                dangling: false,
            })
        })
        .collect();
    if names.is_empty() {
        names.push(Name {
            repository: NONE.to_owned(),
            tag: NONE.to_owned(),
            digest: NONE.to_owned(),
            dangling: true,
        });
    }
    names
}

fn row(
    args: &ImagesArgs,
    image: &StoredImage,
    name: &Name,
    size_bytes: u64,
    now_unix: i64,
) -> Map<String, Value> {
    let id = if args.no_trunc {
        image.id.to_string()
    } else {
        image.short_id()
    };
    let since = image
        .created_unix()
        .map_or_else(|| "N/A".to_owned(), |then| human::ago(then, now_unix));
    let fields = [
        ("Repository", name.repository.clone()),
        ("Tag", name.tag.clone()),
        ("Digest", name.digest.clone()),
        ("ID", id),
        ("CreatedSince", since),
        ("CreatedAt", image.text("created").to_owned()),
        ("Size", human::size(size_bytes)),
    ];
    fields
        .into_iter()
        .map(|(field, text)| (field.to_owned(), Value::from(text)))
        .collect()
}

enum Filter {
    Reference(String),
    Dangling(bool),
    /// A label, and what it must be where that was said.
    Label(String, Option<String>),
    /// Made before that time.
    Before(i64),
    /// Made after that time.
    Since(i64),
}

/// Says whether all filters keep a name of an image; of several patterns for the name one is enough.
fn keeps(filters: &[Filter], image: &StoredImage, name: &Name) -> bool {
    let is_pattern = |filter: &&Filter| matches!(filter, Filter::Reference(_));
    let mut patterns = filters.iter().filter(is_pattern).peekable();
    let is_called = patterns.peek().is_none() || patterns.any(|filter| filter.keeps(image, name));
    let others = filters.iter().filter(|filter| !is_pattern(filter));
    is_called && others.into_iter().all(|filter| filter.keeps(image, name))
}

impl Filter {
    fn parse(text: &str, store: &Store) -> Result<Self, Failure> {
        let made = |word: &str| {
            let image = image::find(store, word)?;
            Ok(image.created_unix().unwrap_or(0))
        };
        match text.split_once('=') {
            Some(("before", word)) => made(word).map(Self::Before),
            Some(("since", word)) => made(word).map(Self::Since),
            Some(("label", label)) => Ok(match label.split_once('=') {
                Some((name, value)) => Self::Label(name.to_owned(), Some(value.to_owned())),
                None => Self::Label(label.to_owned(), None),
            }),
            Some(("reference", pattern)) => Ok(Self::Reference(pattern.to_owned())),
            Some(("dangling", "true" | "1")) => Ok(Self::Dangling(true)),
            Some(("dangling", "false" | "0")) => Ok(Self::Dangling(false)),
            _ => Err(Failure::usage(format!("invalid filter `{text}`")).with_help(
                "reference=PATTERN, dangling=true|false, label=NAME[=VALUE], before=IMAGE or since=IMAGE",
            )),
        }
    }

    fn keeps(&self, image: &StoredImage, name: &Name) -> bool {
        // An image that doesn't say when it was made is as old as can be.
        let made = image.created_unix().unwrap_or(0);
        match self {
            Self::Before(then) => made < *then,
            Self::Since(then) => made > *then,
            Self::Label(label, wanted) => {
                let labels = image.config.pointer("/config/Labels").and_then(Value::as_object);
                let value = labels
                    .and_then(|labels| labels.get(label))
                    .and_then(Value::as_str);
                value.is_some_and(|value| wanted.as_deref().is_none_or(|wanted| wanted == value))
            }
            Self::Reference(pattern) => name.is_called(pattern),
            Self::Dangling(wanted) => name.dangling == *wanted,
        }
    }
}

/// Matches `*` and `?` within path components, remembering only the last star: linear enough for any pattern.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some('?') if text[t] != '/' => {
                p += 1;
                t += 1;
            }
            Some(c) if *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((after, from)) if text[from] != '/' => {
                    star = Some((after, from + 1));
                    p = after;
                    t = from + 1;
                }
                _ => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stay_within_components() {
        for (pattern, text, expected) in [
            ("app", "app", true),
            ("app", "apps", false),
            ("a*", "app", true),
            ("a*p", "app", true),
            ("*", "x/app", false),
            ("*/a?p", "x/app", true),
            ("x*app", "x/app", false),
            ("*b*", "aabaa", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}
