//! What one stop has to hand to the next: of images to lowering, of the graph to the scan of local trees.

use std::collections::BTreeMap;

use cache::tree::Selection;
use frontend::{ImageConfig, ResolvedImage};
use solver::op::{Op, Source};
use solver::{Graph, InputView};

use crate::registry::Resolved;
use crate::report::{Failure, Kind};

/// Returns what lowering has to know of an image.
pub(super) fn resolved_image(resolved: &Resolved) -> Result<ResolvedImage, Failure> {
    Ok(ResolvedImage {
        config: ImageConfig::parse(&resolved.config).map_err(|error| Failure::of(Kind::Machine, &error))?,
        layers: resolved.layers.iter().map(|layer| layer.diff_id).collect(),
        reference: resolved.reference.clone(),
    })
}

/// Returns what the graph selects of each local tree.
pub(super) fn wanted(graph: &Graph) -> BTreeMap<String, Vec<Selection>> {
    let mut wanted: BTreeMap<String, Vec<Selection>> = BTreeMap::new();
    for input in graph.ids().flat_map(|id| &graph.vertex(id).inputs) {
        if let Op::Source(Source::Local { name }) = &graph.vertex(input.vertex).op {
            wanted.entry(name.clone()).or_default().push(match &input.view {
                InputView::Whole => Selection::everything(),
                InputView::Paths(selection) => selection.clone(),
            });
        }
    }
    wanted
}
