//! What is to be done: the graph of ops, its keys, the plan and the run.

pub mod graph;
pub mod mode;
pub mod op;
