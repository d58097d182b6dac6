//! `ashlar diff`: what is other in one image than in another: files, settings, layers.
//!
//! Answered from the indexes of layers: nothing is unpacked, and no file is read.

mod files;
mod settings;

use cache::tree::{Times, View};
use cache::{DiffId, Store};
use serde_json::{Value, json};

use super::human;
use crate::cli::DiffArgs;
use crate::image::{self, StoredImage};
use crate::report::{Failure, one_line};
use files::FileChange;
use settings::SettingChange;

/// What came of a comparison.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// For stdout.
    pub(crate) text: String,
    /// Whether there is any difference.
    pub(crate) differs: bool,
}

/// How the answer looks.
enum Look {
    Text,
    Json,
}

/// Compares two images.
pub(crate) fn diff(args: &DiffArgs, store: &Store) -> Result<Outcome, Failure> {
    let look = match args.format.as_deref() {
        None | Some("" | "text") => Look::Text,
        Some("json") => Look::Json,
        Some(other) => {
            return Err(Failure::usage(format!("invalid format `{other}`")).with_help("text or json"));
        }
    };
    let from = Side::read(store, &args.from)?;
    let to = Side::read(store, &args.to)?;
    let times = match args.times {
        true => Times::Compare,
        false => Times::Ignore,
    };
    let files = files::changes(&from.view, &to.view, times)?;
    let settings = settings::changes(&from.image.config, &to.image.config);
    let layers = Layers::compare(&from.layers, &to.layers);
    let differs = !files.is_empty() || !settings.is_empty();
    let text = match look {
        Look::Text => text(&files, &settings, differs.then(|| layers.text(store))),
        Look::Json => {
            let facts = json!({
                "From": from.image.id,
                "To": to.image.id,
                "Files": files.iter().map(FileChange::json).collect::<Vec<_>>(),
                "Config": settings.iter().map(SettingChange::json).collect::<Vec<_>>(),
                "Layers": layers.json(),
            });
            format!("{facts}\n")
        }
    };
    Ok(Outcome { text, differs })
}

/// One of the two images.
struct Side {
    image: StoredImage,
    layers: Vec<DiffId>,
    view: View,
}

impl Side {
    fn read(store: &Store, word: &str) -> Result<Self, Failure> {
        let image = image::find(store, word)?;
        let layers = image.layers()?;
        let view = image::view(store, &layers)?;
        Ok(Self { image, layers, view })
    }
}

/// Lines for people: files, settings, and a summary if there is anything to sum up.
fn text(files: &[FileChange], settings: &[SettingChange], layers: Option<String>) -> String {
    let mut out = String::new();
    for line in files.iter().map(FileChange::text) {
        out.push_str(&one_line(&line));
        out.push('\n');
    }
    for line in settings.iter().map(SettingChange::text) {
        out.push_str(&one_line(&line));
        out.push('\n');
    }
    if let Some(layers) = layers {
        out.push_str(&format!("{}\n{layers}\n", files::summary(files)));
    }
    out
}

/// Which layers two images have in common.
struct Layers<'a> {
    common: usize,
    only_from: &'a [DiffId],
    only_to: &'a [DiffId],
}

impl<'a> Layers<'a> {
    /// Only what both begin with is in common: that is what engines and registries can share.
    fn compare(from: &'a [DiffId], to: &'a [DiffId]) -> Self {
        let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
        Self {
            common,
            only_from: &from[common..],
            only_to: &to[common..],
        }
    }

    fn text(&self, store: &Store) -> String {
        let said = |layers: &[DiffId]| {
            let bytes: u64 = layers
                .iter()
                .map(|layer| image::layer_size_bytes(store, layer))
                .sum();
            format!("{} ({})", layers.len(), human::size(bytes))
        };
        format!(
            "layers: {} in common, {} only in the first, {} only in the second",
            self.common,
            said(self.only_from),
            said(self.only_to)
        )
    }

    fn json(&self) -> Value {
        json!({ "Common": self.common, "OnlyFrom": self.only_from, "OnlyTo": self.only_to })
    }
}
