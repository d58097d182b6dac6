//! What must be run, and what need not even be looked at.
//!
//! Pure: keys that can be known before anything runs are computed bottom-up, then results are looked up top-down from
//! the targets; a hit hides its inputs. A key that depends on the unknown result of a step is left open, and everything it may
//! need is planned to run; [`run`](crate::run) looks again once the key is known.

use std::collections::HashMap;
use std::fmt::Write as _;

use cache::tree::Selection;
use cache::{Key, Record, TreeHash};

use crate::error::IndexError;
use crate::graph::{Graph, Input, InputView, Label, VertexId};
use crate::index::Index;
use crate::key::{Seen, key, keyed};
use crate::miss::Miss;
use crate::op::{Op, Source};

/// Hashes of what steps select of local directories, known before anything runs.
pub type LocalHashes = HashMap<(VertexId, Selection), TreeHash>;

/// What is planned for a vertex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Planned {
    /// Nothing needs it, or a hit hides it.
    Skip,
    /// Its result is recorded.
    Hit(Record),
    /// It is to be run, or looked up again under this key or the one that becomes known.
    Run(Option<Key>),
}

/// What is planned for every vertex of a graph.
#[derive(Debug)]
pub struct Plan {
    steps: Vec<Planned>,
    keys: Vec<Option<Key>>,
    reachable: Vec<bool>,
    fresh: Vec<bool>,
}

impl Plan {
    /// Returns what is planned for a vertex.
    pub fn step(&self, id: VertexId) -> &Planned {
        &self.steps[id.index()]
    }

    /// Returns the key of a vertex, where it can be known before anything runs.
    pub fn key(&self, id: VertexId) -> Option<Key> {
        self.keys[id.index()]
    }

    /// Says whether the targets depend on a vertex, hidden or not.
    pub fn is_reachable(&self, id: VertexId) -> bool {
        self.reachable[id.index()]
    }

    /// Says whether a vertex must run even if a result is recorded: because it ignores the cache, or stands on one that
    /// does.
    pub fn is_fresh(&self, id: VertexId) -> bool {
        self.fresh[id.index()]
    }

    /// Says why steps that are to run can't be answered from the cache, as far as that is known before anything runs.
    pub fn reasons(
        &self,
        graph: &Graph,
        index: &dyn Index,
        locals: &LocalHashes,
    ) -> Result<HashMap<VertexId, Miss>, IndexError> {
        let mut reasons = HashMap::new();
        for id in graph.ids() {
            let op = &graph.vertex(id).op;
            if !matches!(self.step(id), Planned::Run(Some(_))) || matches!(op, Op::Source(_) | Op::Merge) {
                continue;
            }
            let seen = seen(graph, id, &self.keys, &self.fresh, index, locals)?;
            if let Some(keyed) = seen.and_then(|seen| keyed(graph, id, &seen)) {
                let label = &graph.vertex(id).label;
                let latest = latest(label, index)?;
                let miss = Miss::of(label, self.is_fresh(id), &keyed, latest.as_ref(), index)?;
                reasons.insert(id, miss);
            }
        }
        Ok(reasons)
    }

    /// Prints one line per reachable vertex that isn't just there, inputs before users; what is known of `reasons` behind
    /// it.
    pub fn print(&self, graph: &Graph, reasons: &HashMap<VertexId, Miss>) -> String {
        let mut out = String::new();
        let isnt_given = |id: &VertexId| !is_given(&graph.vertex(*id).op);
        for id in graph.ids().filter(|id| self.is_reachable(*id)).filter(isnt_given) {
            let word = match (self.step(id), &graph.vertex(id).op) {
                (Planned::Skip, _) => "not needed",
                (Planned::Hit(_), _) => "cached",
                (Planned::Run(_), Op::Source(_)) => "fetch what is missing",
                (Planned::Run(Some(_)), _) => "run",
                (Planned::Run(None), _) if self.is_fresh(id) => "run",
                (Planned::Run(None), _) => "run, unless what it stands on turns out to be as before",
            };
            // Writing to a string can't fail.
            let _ = write!(out, "{}: {word}", graph.vertex(id).label.name);
            let _ = match reasons.get(&id) {
                Some(reason) => writeln!(out, " ({reason})"),
                None => writeln!(out),
            };
        }
        out
    }
}

/// Returns the newest record of a step; without a place in its build there is nothing to compare with.
pub(crate) fn latest(label: &Label, index: &dyn Index) -> Result<Option<Record>, IndexError> {
    match label.step.as_str() {
        "" => Ok(None),
        step => index.latest(step),
    }
}

/// Says whether an op needs no work at all.
pub(crate) fn is_given(op: &Op) -> bool {
    matches!(op, Op::Source(Source::Scratch | Source::Local { .. }))
}

/// Returns which vertices the targets depend on, themselves included.
pub(crate) fn reachable(graph: &Graph, targets: &[VertexId]) -> Vec<bool> {
    let mut reachable = vec![false; graph.len()];
    let mut todo = targets.to_vec();
    while let Some(id) = todo.pop() {
        if !std::mem::replace(&mut reachable[id.index()], true) {
            todo.extend(graph.used(id));
        }
    }
    reachable
}

/// Returns what must be hashed of local directories before a plan can be made: each selection once, with the first
/// vertex that makes it.
pub fn local_selections(graph: &Graph, targets: &[VertexId]) -> Vec<(VertexId, Selection, VertexId)> {
    let reachable = reachable(graph, targets);
    let mut seen = std::collections::HashSet::new();
    let mut out = Vec::new();
    for user in graph.ids().filter(|id| reachable[id.index()]) {
        for input in &graph.vertex(user).inputs {
            if let Op::Source(Source::Local { .. }) = graph.vertex(input.vertex).op {
                let selection = selection(input);
                if seen.insert((input.vertex, selection.clone())) {
                    out.push((input.vertex, selection, user));
                }
            }
        }
    }
    out
}

/// Returns what an input selects of a tree that has no key.
pub(crate) fn selection(input: &Input) -> Selection {
    match &input.view {
        InputView::Whole => Selection::everything(),
        InputView::Paths(selection) => selection.clone(),
    }
}

/// Plans how to get the results of `targets`. `locals` holds what [`local_selections`] asks for; a missing hash
/// leaves keys open.
pub fn plan(
    graph: &Graph,
    targets: &[VertexId],
    index: &dyn Index,
    locals: &LocalHashes,
) -> Result<Plan, IndexError> {
    let reachable = reachable(graph, targets);
    let fresh = fresh(graph);
    let mut keys: Vec<Option<Key>> = vec![None; graph.len()];
    for id in graph.ids().filter(|id| reachable[id.index()]) {
        let seen = seen(graph, id, &keys, &fresh, index, locals)?;
        keys[id.index()] = seen.and_then(|seen| key(graph, id, &seen));
    }
    let mut steps = vec![Planned::Skip; graph.len()];
    let mut todo = targets.to_vec();
    while let Some(id) = todo.pop() {
        if steps[id.index()] != Planned::Skip {
            continue;
        }
        let known = keys[id.index()];
        let record = match known {
            Some(key) if !fresh[id.index()] => index.record(&key)?,
            _ => None,
        };
        steps[id.index()] = match record {
            Some(record) => Planned::Hit(record),
            None => {
                todo.extend(graph.used(id));
                Planned::Run(known)
            }
        };
    }
    Ok(Plan {
        steps,
        keys,
        reachable,
        fresh,
    })
}

/// A vertex that stands on a re-made tree must be re-made too: its record stacks on the older one. One that only
/// reads files of it needs not, if those turn out to be equal.
fn fresh(graph: &Graph) -> Vec<bool> {
    let mut fresh = vec![false; graph.len()];
    for id in graph.ids() {
        let vertex = graph.vertex(id);
        fresh[id.index()] = match vertex.op {
            // Sources aren't recorded: there is nothing to ignore.
            Op::Source(_) => false,
            _ => {
                vertex.label.ignore_cache
                    || vertex
                        .inputs
                        .iter()
                        .any(|input| input.view == InputView::Whole && fresh[input.vertex.index()])
            }
        };
    }
    fresh
}

/// Returns how an op sees its inputs, if that is known before anything runs.
fn seen(
    graph: &Graph,
    id: VertexId,
    keys: &[Option<Key>],
    fresh: &[bool],
    index: &dyn Index,
    locals: &LocalHashes,
) -> Result<Option<Vec<Seen>>, IndexError> {
    let inputs = &graph.vertex(id).inputs;
    let mut seen = Vec::with_capacity(inputs.len());
    for input in inputs {
        let of = input.vertex;
        let local = matches!(graph.vertex(of).op, Op::Source(Source::Local { .. }));
        let one = match (&input.view, keys[of.index()]) {
            _ if local => locals.get(&(of, selection(input))).copied().map(Seen::Paths),
            (InputView::Whole, known) => known.map(Seen::Whole),
            // What is memoised is of the older result.
            (InputView::Paths(_), _) if fresh[of.index()] => None,
            (InputView::Paths(selection), Some(known)) => {
                index.tree_hash(&known, selection)?.map(Seen::Paths)
            }
            (InputView::Paths(_), None) => None,
        };
        match one {
            Some(one) => seen.push(one),
            None => return Ok(None),
        }
    }
    Ok(Some(seen))
}
