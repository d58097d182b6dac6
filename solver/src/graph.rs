//! The build graph: vertices that fold when they are equal, and inputs that always precede their users.
//!
//! There is no way to make a cycle: a vertex names its inputs when it is added. Walking vertices by number is
//! therefore walking them in topological order, without recursion. Keys and results live elsewhere.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use cache::tree::Selection;
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::op::Op;

/// Names a vertex of one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VertexId(u32);

impl VertexId {
    /// Returns the vertex's place in topological order, from 0.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    fn node(self) -> NodeIndex<u32> {
        NodeIndex::new(self.index())
    }
}

/// How an op looks at one of its inputs. Only this decides what of the input enters the cache key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum InputView {
    /// All of it.
    Whole,
    /// Only what these paths select.
    Paths(Selection),
}

/// An input of a vertex.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Input {
    /// The vertex whose result is used.
    pub vertex: VertexId,
    /// What of it.
    pub view: InputView,
}

/// What people see of a vertex. Not part of its identity: the first label of folded vertices stays.
#[derive(Debug, Clone, Default)]
pub struct Label {
    /// Name in progress output: `[build 2/3] RUN make`.
    pub name: String,
    /// The step's place in its build, the same from build to build: what a cache miss is compared with.
    pub step: String,
    /// First line of the instruction, from 1.
    pub line: Option<u32>,
    /// Last line of the instruction.
    pub last_line: Option<u32>,
    /// Runs the vertex even if its result is recorded, and records the new one (`--no-cache`).
    pub ignore_cache: bool,
}

/// A step of the build.
#[derive(Debug, Clone)]
pub struct Vertex {
    /// What it does.
    pub op: Op,
    /// On what, in the op's order.
    pub inputs: Vec<Input>,
    /// What people see.
    pub label: Label,
}

/// A directed acyclic graph of build steps.
#[derive(Debug, Default)]
pub struct Graph {
    steps: DiGraph<Vertex, (), u32>,
    /// Vertices by the hash of op and inputs.
    known: HashMap<u64, Vec<VertexId>>,
    hasher: RandomState,
}

impl Graph {
    /// Returns an empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step, or returns the vertex that is there when op and inputs are equal. A folded vertex ignores
    /// the cache as soon as one of its labels says so.
    ///
    /// # Panics
    /// When an input isn't a vertex of this graph.
    pub fn add(&mut self, op: Op, inputs: Vec<Input>, label: Label) -> VertexId {
        assert!(
            inputs.iter().all(|input| input.vertex.index() < self.len()),
            "inputs come from the same graph"
        );
        let hash = self.hasher.hash_one((&op, &inputs));
        let same = self.known.get(&hash).into_iter().flatten().copied().find(|&id| {
            let there = self.vertex(id);
            there.op == op && there.inputs == inputs
        });
        if let Some(id) = same {
            self.steps[id.node()].label.ignore_cache |= label.ignore_cache;
            return id;
        }
        // Once per pair: users count the vertices they wait for, not the views. Asking the graph whether there is an
        // edge already would walk all users of a vertex that everything uses.
        let mut sources: Vec<VertexId> = inputs.iter().map(|input| input.vertex).collect();
        sources.sort_unstable();
        sources.dedup();
        let node = self.steps.add_node(Vertex { op, inputs, label });
        for source in sources {
            self.steps.add_edge(source.node(), node, ());
        }
        let id = VertexId(u32::try_from(node.index()).expect("because node indices are u32"));
        self.known.entry(hash).or_default().push(id);
        id
    }

    /// Returns a vertex.
    ///
    /// # Panics
    /// When the id is of another graph.
    pub fn vertex(&self, id: VertexId) -> &Vertex {
        &self.steps[id.node()]
    }

    /// Returns how many vertices there are.
    pub fn len(&self) -> usize {
        self.steps.node_count()
    }

    /// Says whether there is no vertex at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns all vertices, inputs before their users.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = VertexId> + use<> {
        (0..u32::try_from(self.len()).expect("because node indices are u32")).map(VertexId)
    }

    /// Returns the vertices that use `id`, each once.
    pub fn users(&self, id: VertexId) -> impl Iterator<Item = VertexId> + '_ {
        self.steps
            .neighbors_directed(id.node(), Direction::Outgoing)
            .map(|node| VertexId(u32::try_from(node.index()).expect("because node indices are u32")))
    }

    /// Returns the vertices that `id` uses, each once.
    pub fn used(&self, id: VertexId) -> impl Iterator<Item = VertexId> + '_ {
        self.steps
            .neighbors_directed(id.node(), Direction::Incoming)
            .map(|node| VertexId(u32::try_from(node.index()).expect("because node indices are u32")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{FileOp, Source};

    fn local(name: &str) -> Op {
        Op::Source(Source::Local {
            name: name.to_owned(),
        })
    }

    fn whole(vertex: VertexId) -> Input {
        Input {
            vertex,
            view: InputView::Whole,
        }
    }

    fn file(epoch: i64) -> Op {
        Op::File(FileOp {
            actions: Vec::new(),
            epoch: Some(epoch),
        })
    }

    #[test]
    fn equal_vertices_fold_and_different_ones_do_not() {
        let mut graph = Graph::new();
        let a = graph.add(
            local("a"),
            vec![],
            Label {
                name: "first".into(),
                ..Label::default()
            },
        );
        let again = graph.add(
            local("a"),
            vec![],
            Label {
                ignore_cache: true,
                ..Label::default()
            },
        );
        let b = graph.add(local("b"), vec![], Label::default());
        assert_eq!(a, again);
        assert_ne!(a, b);
        assert_eq!(graph.vertex(a).label.name, "first");
        assert!(graph.vertex(a).label.ignore_cache);

        let on_a = graph.add(file(1), vec![whole(a)], Label::default());
        let paths = InputView::Paths(Selection::of(vec!["x".into()]));
        let of_a = graph.add(
            file(1),
            vec![Input {
                vertex: a,
                view: paths,
            }],
            Label::default(),
        );
        assert_eq!(on_a, graph.add(file(1), vec![whole(a)], Label::default()));
        assert_ne!(on_a, graph.add(file(1), vec![whole(b)], Label::default()));
        assert_ne!(on_a, graph.add(file(2), vec![whole(a)], Label::default()));
        assert_ne!(on_a, of_a);
    }

    #[test]
    fn inputs_precede_users_and_neighbours_are_told_once() {
        let mut graph = Graph::new();
        let a = graph.add(local("a"), vec![], Label::default());
        let user = graph.add(file(1), vec![whole(a), whole(a)], Label::default());
        assert!(a < user);
        assert_eq!(graph.users(a).collect::<Vec<_>>(), [user]);
        assert_eq!(graph.used(user).collect::<Vec<_>>(), [a]);
        assert_eq!(graph.ids().collect::<Vec<_>>(), [a, user]);
    }
}
