//! `ashlar history`.

mod files;

use cache::Store;
use serde_json::{Map, Value};

use super::human;
use super::table::{self, Format};
use crate::cli::HistoryArgs;
use crate::clock;
use crate::image::{self, StoredImage};
use crate::report::Failure;

/// Longest command of the table.
const MAX_COMMAND: usize = 45;
const HEADINGS: [(&str, &str); 6] = [
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

/// Returns how an image was made, newest step first.
pub(crate) fn history(args: &HistoryArgs, store: &Store, now_unix: i64) -> Result<String, Failure> {
    if let Some(most) = args.files {
        return files::files(args, store, &image::find(store, &args.image)?, most);
    }
    let format = Format::parse(args.format.as_deref())?;
    let image = image::find(store, &args.image)?;
    let rows = rows(args, store, &image, now_unix)?;
    if args.quiet {
        return Ok(rows
            .iter()
            .filter_map(|row| row.get("ID")?.as_str().map(|id| format!("{id}\n")))
            .collect());
    }
    let created = if args.human.unwrap_or(true) {
        ("CREATED", "CreatedSince")
    } else {
        ("CREATED AT", "CreatedAt")
    };
    let columns = [
        ("IMAGE", "ID"),
        created,
        ("CREATED BY", "CreatedBy"),
        ("SIZE", "Size"),
        ("COMMENT", "Comment"),
    ];
    format.list(rows, &columns, &HEADINGS)
}

/// Returns the steps that made an image, oldest first, each with whether it made a layer.
fn steps(image: &StoredImage) -> impl Iterator<Item = (&Value, bool)> {
    let steps = image.config.get("history").and_then(Value::as_array);
    steps.into_iter().flatten().map(|step| {
        let is_empty = step.get("empty_layer").and_then(Value::as_bool).unwrap_or(false);
        (step, !is_empty)
    })
}

fn rows(
    args: &HistoryArgs,
    store: &Store,
    image: &StoredImage,
    now_unix: i64,
) -> Result<Vec<Map<String, Value>>, Failure> {
    let people = args.human.unwrap_or(true);
    let mut layers = image.layers()?.into_iter();
    let mut rows = Vec::new();
    for (step, makes_layer) in steps(image) {
        let text = |field: &str| step.get(field).and_then(Value::as_str).unwrap_or_default();
        let layer = if makes_layer { layers.next() } else { None };
        let size_bytes = layer.map_or(0, |layer| image::layer_size_bytes(store, &layer));
        let created_by = text("created_by").replace('\t', " ");
        let since = clock::unix_seconds(text("created"))
            .map_or_else(|| "N/A".to_owned(), |then| human::ago(then, now_unix));
        let fields = [
            ("ID", "<missing>".to_owned()),
            ("CreatedSince", since),
            ("CreatedAt", text("created").to_owned()),
            (
                "CreatedBy",
                if args.no_trunc {
                    created_by
                } else {
                    table::ellipsis(&created_by, MAX_COMMAND)
                },
            ),
            (
                "Size",
                if people {
                    human::size(size_bytes)
                } else {
                    size_bytes.to_string()
                },
            ),
            ("Comment", text("comment").to_owned()),
        ];
        rows.push(
            fields
                .into_iter()
                .map(|(field, text)| (field.to_owned(), Value::from(text)))
                .collect::<Map<_, _>>(),
        );
    }
    rows.reverse();
    if let Some(newest) = rows.first_mut() {
        let id = if args.no_trunc {
            image.id.to_string()
        } else {
            image.short_id()
        };
        newest.insert("ID".to_owned(), Value::from(id));
    }
    Ok(rows)
}
