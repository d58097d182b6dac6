//! The build graph: vertices in the order they were added, inputs always before their users.
//!
//! Folding happens at construction: adding what is already there returns the vertex that is there.

use std::collections::HashMap;

use cache::tree::Selection;

use crate::op::Op;

/// Names a vertex of one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VertexId(usize);

impl VertexId {
    /// Returns the position in the order of construction.
    pub fn index(self) -> usize {
        self.0
    }
}

/// How an op sees one of its inputs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum InputView {
    /// All of it.
    Whole,
    /// These paths only.
    Paths(Selection),
}

/// An edge of the graph.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Input {
    /// What is read.
    pub vertex: VertexId,
    /// Which part of it.
    pub view: InputView,
}

/// What people are told about a vertex. Not part of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// `[build 2/3] RUN make`.
    pub name: String,
    /// Identity of the step across edits of its values, to find the previous record for explanations.
    pub step: String,
    /// First line in the Dockerfile, from 1.
    pub line: Option<u32>,
    /// Last line.
    pub last_line: Option<u32>,
    /// Runs the step even when its result is cached.
    pub ignore_cache: bool,
}

/// A node of the graph.
#[derive(Debug, Clone)]
pub struct Vertex {
    /// What it does.
    pub op: Op,
    /// What it does it to.
    pub inputs: Vec<Input>,
    /// What it is called.
    pub label: Label,
}

/// A directed acyclic graph of ops.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    vertices: Vec<Vertex>,
    known: HashMap<(Op, Vec<Input>), VertexId>,
}

impl Graph {
    /// Returns an empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a vertex, or returns the one with an equal op and equal inputs.
    pub fn add(&mut self, op: Op, inputs: Vec<Input>, label: Label) -> VertexId {
        let next = VertexId(self.vertices.len());
        let id = *self.known.entry((op.clone(), inputs.clone())).or_insert(next);
        if id == next {
            self.vertices.push(Vertex { op, inputs, label });
        } else {
            self.vertices[id.0].label.ignore_cache |= label.ignore_cache;
        }
        id
    }

    /// Returns a vertex of this graph.
    pub fn vertex(&self, id: VertexId) -> &Vertex {
        &self.vertices[id.0]
    }

    /// Returns the number of vertices.
    pub fn len(&self) -> usize {
        self.vertices.len()
    }

    /// Says whether there are none.
    pub fn is_empty(&self) -> bool {
        self.vertices.is_empty()
    }
}
