//! `ashlar history --files`: what makes an image big, layer by layer, from the indexes of its layers.

use cache::tree::{Heavy, LayerWeight};
use cache::{DiffId, Store};
use serde_json::{Value, json};

use super::steps;
use crate::cli::HistoryArgs;
use crate::commands::{human, table};
use crate::image::{self, StoredImage};
use crate::report::{Failure, one_line};

/// Longest command in a heading.
const MAX_COMMAND: usize = 70;
/// Width of the column of sizes: `1.23GB` and a gap.
const SIZE_WIDTH: usize = 8;

/// A layer with what made it and what it weighs.
struct Layer {
    id: DiffId,
    created_by: String,
    tar_bytes: u64,
    weight: LayerWeight,
}

/// Returns the layers of an image, newest first, each with the heaviest things in it.
pub(super) fn files(
    args: &HistoryArgs,
    store: &Store,
    image: &StoredImage,
    most: usize,
) -> Result<String, Failure> {
    let json = match args.format.as_deref() {
        None | Some("" | "table") => false,
        Some("json") => true,
        Some(_) => return Err(Failure::usage("`--files` has no templates").with_help("table or json")),
    };
    let ids = image.layers()?;
    let weights = image::view(store, &ids)?.weights(most);
    let mut made_by = steps(image)
        .filter(|(_, makes_layer)| *makes_layer)
        .map(|(step, _)| {
            let text = step.get("created_by").and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        });
    let mut layers: Vec<Layer> = ids
        .into_iter()
        .zip(weights)
        .map(|(id, weight)| Layer {
            id,
            created_by: made_by.next().unwrap_or_default(),
            tar_bytes: image::layer_size_bytes(store, &id),
            weight,
        })
        .collect();
    layers.reverse();
    match json {
        true => Ok(format!("{}\n", Value::from_iter(layers.iter().map(Layer::json)))),
        false => Ok(text(args, &layers)),
    }
}

fn text(args: &HistoryArgs, layers: &[Layer]) -> String {
    let mut out = String::new();
    let (mut total, mut hidden) = (0_u64, 0_u64);
    for layer in layers {
        total = total.saturating_add(layer.tar_bytes);
        hidden = hidden.saturating_add(layer.weight.hidden_bytes);
        out.push_str(&layer.text(args));
    }
    out.push_str(&format!(
        "total {} in {} layers",
        human::size(total),
        layers.len()
    ));
    if hidden > 0 {
        out.push_str(&format!(", {} of it hidden by later layers", human::size(hidden)));
    }
    out + "\n"
}

impl Layer {
    fn text(&self, args: &HistoryArgs) -> String {
        let (id, created_by) = match args.no_trunc {
            true => (self.id.to_string(), one_line(&self.created_by)),
            false => (
                self.id.hex()[..12].to_owned(),
                table::ellipsis(&one_line(&self.created_by), MAX_COMMAND),
            ),
        };
        let size = human::size(self.tar_bytes);
        let mut out = format!("{size:SIZE_WIDTH$} {id} {created_by}");
        out.truncate(out.trim_end().len());
        out.push('\n');
        for heavy in &self.weight.heaviest {
            out.push_str(&one_line(&line(heavy)));
            out.push('\n');
        }
        out
    }

    fn json(&self) -> Value {
        let heavy = |heavy: &Heavy| {
            json!({
                "Path": heavy.path.to_string(),
                "Size": heavy.size_bytes,
                "Hidden": heavy.hidden_bytes,
                "Type": if heavy.n_files.is_some() { "directory" } else { "file" },
                "Files": heavy.n_files,
            })
        };
        json!({
            "Layer": self.id,
            "CreatedBy": self.created_by,
            "Size": self.tar_bytes,
            "Files": self.weight.n_files,
            "FilesSize": self.weight.size_bytes,
            "Hidden": self.weight.hidden_bytes,
            "Largest": self.weight.heaviest.iter().map(heavy).collect::<Vec<_>>(),
        })
    }
}

fn line(heavy: &Heavy) -> String {
    let size = human::size(heavy.size_bytes);
    let mut out = format!("  {size:SIZE_WIDTH$} {}", heavy.path);
    if let Some(n_files) = heavy.n_files {
        out.push_str(&format!("/ ({n_files} files)"));
    }
    match heavy.hidden_bytes {
        0 => {}
        hidden if hidden == heavy.size_bytes => out.push_str(" [hidden by later layers]"),
        hidden => out.push_str(&format!(" [{} hidden by later layers]", human::size(hidden))),
    }
    out
}
