//! Random graphs with fixed seeds, checked against a second, naive way to compute the same things.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use solver::op::{Op, Source};
use solver::{Graph, InputView, VertexId};

use crate::fake::{Bench, Make, Tree};

/// A small generator: the same numbers on every machine, for ever (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).unwrap()
    }

    fn pick(&mut self, of: &[VertexId]) -> VertexId {
        of[self.roll(of.len())]
    }
}

const FILES: [&str; 5] = ["/a", "/b", "/c", "/out0", "/const1"];

fn random_graph(dice: &mut Dice) -> (Graph, VertexId) {
    let mut make = Make::default();
    let locals = [make.local("c"), make.local("d")];
    let mut trees = vec![make.scratch()];
    for step in 0..5 + dice.roll(40) {
        let on = dice.pick(&trees);
        let made = match dice.roll(5) {
            0 => make.exec(on, &[["x", "yy", "zzz"][dice.roll(3)]]),
            1 => make.exec(on, &["x", &step.to_string()]),
            2 => make.copy(
                on,
                locals[dice.roll(2)],
                &[FILES[dice.roll(5)], FILES[dice.roll(5)]],
                "/l",
            ),
            3 => make.copy(on, dice.pick(&trees), &[FILES[dice.roll(5)]], "/s"),
            _ => make.copy(on, dice.pick(&trees), &["/"], ""),
        };
        trees.push(made);
    }
    let target = *trees.last().unwrap();
    (make.0, target)
}

/// What a vertex is and sees, spelled out; computed from trees that a build without any cache made.
fn identities(graph: &Graph, target: VertexId, bench: &Bench) -> HashMap<VertexId, String> {
    let mut reachable = BTreeSet::from([target]);
    for id in graph.ids().rev() {
        if reachable.contains(&id) {
            reachable.extend(graph.vertex(id).inputs.iter().map(|input| input.vertex));
        }
    }
    let mut identities: HashMap<VertexId, String> = HashMap::new();
    for id in reachable {
        let vertex = graph.vertex(id);
        let mut text = format!("{:?}", vertex.op);
        for input in &vertex.inputs {
            let local = matches!(graph.vertex(input.vertex).op, Op::Source(Source::Local { .. }));
            text += &match &input.view {
                InputView::Whole => identities[&input.vertex].clone(),
                InputView::Paths(selection) => {
                    let tree = tree_of(graph, input.vertex, bench);
                    let seen: Vec<_> = tree
                        .iter()
                        .filter(|(path, _)| selection.patterns.iter().any(|p| path.starts_with(p.as_str())))
                        .collect();
                    format!("{local}{seen:?}")
                }
            };
        }
        identities.insert(id, blake3::hash(text.as_bytes()).to_string());
    }
    identities
}

/// Builds a vertex in a world without memory, with the contexts of `bench`.
fn tree_of(graph: &Graph, id: VertexId, bench: &Bench) -> Tree {
    let clean = Bench::default();
    for context in ["c", "d"] {
        for (path, content) in bench.world.tree(&solver::Snapshot::Local(context.into())) {
            clean.world.set_file(context, &path, &content);
        }
    }
    let mut copy = Graph::new();
    for old in graph.ids() {
        let vertex = graph.vertex(old);
        assert_eq!(
            copy.add(vertex.op.clone(), vertex.inputs.clone(), vertex.label.clone()),
            old
        );
    }
    let outcome = clean.build(&Arc::new(copy), id).unwrap();
    clean.world.tree(&outcome.snapshots[0])
}

fn check(seed: u64) {
    let mut dice = Dice(seed);
    let bench = Bench::default();
    for context in ["c", "d"] {
        for file in ["/a", "/b", "/c"] {
            bench.world.set_file(context, file, "1");
        }
    }
    let (graph, target) = random_graph(&mut dice);
    let graph = Arc::new(graph);
    let mut known: BTreeSet<String> = BTreeSet::new();
    for round in 0..4 {
        let identities = identities(&graph, target, &bench);
        let outcome = bench.build(&graph, target).unwrap();
        let expected = tree_of(&graph, target, &bench);
        assert_eq!(
            bench.world.tree(&outcome.snapshots[0]),
            expected,
            "seed {seed} round {round}"
        );

        let ran: Vec<VertexId> = bench.world.take_ran().into_iter().map(|(id, _)| id).collect();
        let ran_identities: BTreeSet<String> = ran.iter().map(|id| identities[id].clone()).collect();
        assert_eq!(
            ran_identities.len(),
            ran.len(),
            "seed {seed} round {round}: equal work ran twice"
        );
        for (place, id) in ran.iter().enumerate() {
            for input in graph.used(*id) {
                assert!(
                    !ran[place..].contains(&input),
                    "seed {seed}: {input:?} ran after its user {id:?}"
                );
            }
        }
        let steps = identities
            .iter()
            .filter(|(id, _)| !matches!(graph.vertex(**id).op, Op::Source(_)));
        let needed: BTreeSet<String> = steps.map(|(_, identity)| identity.clone()).collect();
        assert_eq!(
            ran_identities,
            needed.difference(&known).cloned().collect(),
            "seed {seed} round {round}: exactly what is new runs"
        );
        known.extend(needed);
        assert_eq!(
            bench.ran(&graph, target),
            [],
            "seed {seed} round {round}: all is known now"
        );

        bench.world.set_file(
            ["c", "d"][dice.roll(2)],
            FILES[dice.roll(3)],
            &(2 + round).to_string(),
        );
    }
}

#[test]
fn random_graphs_run_exactly_what_is_new() {
    for seed in 0..200 {
        check(seed);
    }
}
