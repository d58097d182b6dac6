//! The solver against a fake executor: which vertices run, in which order, and what happens when one fails.

#![allow(clippy::unwrap_used, reason = "all of it is test code, helpers included")]

mod fake;
mod random;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fake::{Bench, Make, World, label};
use solver::{Event, Events, Graph, Label, LocalHashes, Options, SolveError, Subject, VertexId, plan};
use tokio::sync::Barrier;

/// Context `c` with `/a` and `/b`; a build stage over `/a`, whose `/const` the final stage copies, and a step on that.
struct Stages {
    bench: Bench,
    graph: Arc<Graph>,
    compile: VertexId,
    copied: VertexId,
    last: VertexId,
}

fn stages(change: impl Fn(&str) -> Label) -> Stages {
    let bench = Bench::default();
    bench.world.set_file("c", "/a", "1");
    bench.world.set_file("c", "/b", "1");
    let mut make = Make::default();
    let context = make.local("c");
    let scratch = make.scratch();
    let sources = make.copy(scratch, context, &["/a"], "/src");
    let compile = make.exec_labelled(sources, &["compile"], change("compile"));
    let copied = make.copy(scratch, compile, &["/const"], "/app");
    let last = make.exec(copied, &["strip"]);
    Stages {
        bench,
        graph: Arc::new(make.0),
        compile,
        copied,
        last,
    }
}

#[test]
fn only_what_a_change_reaches_runs_again() {
    let s = stages(label);
    assert_eq!(s.bench.ran(&s.graph, s.last).len(), 4);
    assert_eq!(s.bench.ran(&s.graph, s.last), []);
    s.bench.world.set_file("c", "/b", "2");
    assert_eq!(s.bench.ran(&s.graph, s.last), [], "no step sees /b");
    // The build stage runs, but what is copied of it is equal: nothing after it runs.
    s.bench.world.set_file("c", "/a", "2");
    let ran = s.bench.ran(&s.graph, s.last);
    assert_eq!(ran.len(), 2, "{ran:?}");
    assert!(!ran.contains(&s.copied) && !ran.contains(&s.last) && ran.contains(&s.compile));
    s.bench.world.set_file("c", "/a", "1");
    assert_eq!(
        s.bench.ran(&s.graph, s.last),
        [],
        "going back finds the older records"
    );
}

#[test]
fn steps_are_expected_that_have_no_result_and_no_others() {
    let s = stages(label);
    let expected = || {
        s.bench.build(&s.graph, s.last).unwrap();
        std::mem::take(&mut *s.bench.world.expected.lock().unwrap())
    };
    // What the last step stands on depends on what the first makes: it may turn out to be known.
    assert_eq!(expected(), ["compile"]);
    assert_eq!(expected(), <[&str; 0]>::default());
    s.bench.world.set_file("c", "/b", "2");
    assert_eq!(expected(), <[&str; 0]>::default());
    s.bench.world.set_file("c", "/a", "2");
    assert_eq!(expected(), ["compile"]);
}

#[test]
fn pruned_intermediate_results_are_not_rebuilt_for_a_known_target() {
    let s = stages(label);
    s.bench.build(&s.graph, s.last).unwrap();
    let compiled = s
        .bench
        .world
        .take_ran()
        .into_iter()
        .find(|(id, _)| *id == s.compile)
        .unwrap()
        .1;
    assert!(s.bench.memory.records.lock().unwrap().remove(&compiled).is_some());
    assert_eq!(s.bench.ran(&s.graph, s.last), []);
    assert_eq!(s.bench.ran(&s.graph, s.compile), [s.compile]);
}

#[test]
fn ignoring_the_cache_runs_the_step_and_what_stands_on_it() {
    let s = stages(label);
    s.bench.build(&s.graph, s.last).unwrap();
    let forced = stages(|name| Label {
        ignore_cache: true,
        ..label(name)
    });
    s.bench.world.take_ran();
    // Equal files: the copy is a hit although its input ran.
    assert_eq!(s.bench.ran(&forced.graph, s.last), [s.compile]);
    assert_eq!(s.bench.ran(&s.graph, s.last), [], "the new result is recorded");

    let mut make = Make(Graph::new());
    let scratch = make.scratch();
    let first = make.exec_labelled(
        scratch,
        &["a"],
        Label {
            ignore_cache: true,
            ..label("a")
        },
    );
    let second = make.exec(first, &["b"]);
    let graph = Arc::new(make.0);
    let bench = Bench::default();
    assert_eq!(bench.ran(&graph, second), [first, second]);
    assert_eq!(bench.ran(&graph, second), [first, second]);
}

#[test]
fn plans_print() {
    let s = stages(label);
    let print = |s: &Stages, locals: &LocalHashes| {
        let plan = plan(&s.graph, &[s.last], &*s.bench.memory, locals).unwrap();
        let reasons = plan
            .reasons(
                &s.graph,
                &*s.bench.memory,
                locals,
                std::collections::HashMap::new(),
            )
            .unwrap();
        plan.print(&s.graph, &reasons)
    };
    insta::assert_snapshot!(print(&s, &LocalHashes::new()), @r#"
    copy ["/a"] /src: run, unless what it stands on turns out to be as before
    compile: run, unless what it stands on turns out to be as before
    copy ["/const"] /app: run, unless what it stands on turns out to be as before
    strip: run, unless what it stands on turns out to be as before
    "#);
    s.bench.build(&s.graph, s.compile).unwrap();
    let mut locals = LocalHashes::new();
    for (local, selection, _) in solver::plan::local_selections(&s.graph, &[s.last]) {
        let of = solver::Snapshot::Local("c".into());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let hash = runtime
            .block_on(solver::Executor::tree_hash(&*s.bench.world, &of, &selection))
            .unwrap();
        locals.insert((local, selection), hash);
    }
    insta::assert_snapshot!(print(&s, &locals), @r#"
    copy ["/a"] /src: not needed
    compile: cached
    copy ["/const"] /app: run, unless what it stands on turns out to be as before
    strip: run, unless what it stands on turns out to be as before
    "#);
    s.bench.build(&s.graph, s.last).unwrap();
    insta::assert_snapshot!(print(&s, &locals), @r#"
    copy ["/a"] /src: not needed
    compile: not needed
    copy ["/const"] /app: not needed
    strip: cached
    "#);
}

#[test]
fn a_chain_of_20_000_vertices_needs_no_stack() {
    let bench = Bench::default();
    let mut make = Make::default();
    let (scratch, mut last) = (make.scratch(), make.scratch());
    for step in 0..20_000 {
        // Each sees only its predecessor's files, not its layers: those would make the fake quadratic.
        last = make.copy(scratch, last, &["/"], &step.to_string());
    }
    let graph = Arc::new(make.0);
    assert_eq!(graph.len(), 20_001);
    let first = bench.build(&graph, last).unwrap();
    assert_eq!((first.n_executed, first.n_cached), (20_000, 0));
    let second = bench.build(&graph, last).unwrap();
    assert_eq!((second.n_executed, second.n_cached), (0, 20_000));
}

#[test]
fn a_diamond_of_40_levels_is_walked_once() {
    let bench = Bench::default();
    let mut make = Make::default();
    let mut last = make.scratch();
    for level in 0..40 {
        let left = make.exec(last, &["left", &level.to_string()]);
        let right = make.exec(last, &["right", &level.to_string()]);
        last = make.copy(left, right, &["/out"], "/r");
    }
    let graph = Arc::new(make.0);
    assert_eq!(bench.ran(&graph, last).len(), 120);
    assert_eq!(bench.ran(&graph, last), []);
}

#[test]
fn stages_run_at_the_same_time_within_the_slots() {
    let wide = |word: &str, bench: &Bench| {
        let mut make = Make::default();
        let scratch = make.scratch();
        let stages: Vec<VertexId> = (0..8)
            .map(|n| make.exec(scratch, &[word, &n.to_string()]))
            .collect();
        bench
            .build_with(&Arc::new(make.0), &stages, Events::none())
            .unwrap();
        bench.world.most_running.load(Ordering::SeqCst)
    };
    // Ends only if all eight meet.
    let world = World {
        barrier: Some(Barrier::new(8)),
        ..World::default()
    };
    assert_eq!(
        wide(
            "meet",
            &Bench {
                world: Arc::new(world),
                ..Bench::default()
            }
        ),
        8
    );
    let options = Options { n_exec: 2, n_file: 1 };
    assert_eq!(
        wide(
            "plain",
            &Bench {
                options,
                ..Bench::default()
            }
        ),
        2
    );
}

/// Returns one word per event about a vertex.
fn words(receiver: &std::sync::mpsc::Receiver<Event>) -> Vec<(VertexId, &'static str)> {
    let mut words = Vec::new();
    for event in receiver.try_iter() {
        let (subject, word) = match event {
            Event::Started { subject, .. } => (subject, "started"),
            Event::Cached { subject } => (subject, "cached"),
            Event::Finished { subject, .. } => (subject, "finished"),
            Event::Failed { subject, .. } => (subject, "failed"),
            Event::Cancelled { subject } => (subject, "cancelled"),
            _ => continue,
        };
        if let Subject::Vertex(id) = subject {
            words.push((id, word));
        }
    }
    words
}

#[test]
fn the_first_error_cancels_the_rest_and_is_the_one_returned() {
    let bench = Bench::default();
    let mut make = Make::default();
    let scratch = make.scratch();
    let waits = make.exec(scratch, &["wait"]);
    let fails = make.exec(scratch, &["fail-late"]);
    let after = make.exec(fails, &["never"]);
    let target = make.merge(waits, after);
    let (events, receiver) = Events::channel();
    match bench.build_with(&Arc::new(make.0), &[target], events) {
        Err(SolveError::Step { vertex, name, source }) => {
            assert_eq!(
                (vertex, &*name, &*source.0),
                (fails, "fail-late", "it failed late")
            );
        }
        other => panic!("{other:?}"),
    }
    let mut words = words(&receiver);
    words.sort();
    assert_eq!(
        words,
        [
            (waits, "cancelled"),
            (waits, "started"),
            (fails, "failed"),
            (fails, "started")
        ]
    );
}

#[test]
fn what_finished_before_an_error_is_not_run_again() {
    let bench = Bench::default();
    let mut make = Make::default();
    let scratch = make.scratch();
    let good = make.exec(scratch, &["good"]);
    let fails = make.exec(good, &["fail"]);
    let graph = Arc::new(make.0);
    assert!(bench.build(&graph, fails).is_err());
    assert_eq!(bench.world.take_ran().len(), 1);
    assert!(bench.build(&graph, fails).is_err());
    assert_eq!(bench.world.take_ran(), []);
}

#[test]
fn a_cancelled_build_stops_its_steps_and_keeps_what_still_ended_well() {
    let bench = Bench::default();
    let mut make = Make::default();
    let scratch = make.scratch();
    let waits = make.exec(scratch, &["wait"]);
    let ends = make.exec(scratch, &["cancel-build"]);
    let target = make.merge(waits, ends);
    let graph = Arc::new(make.0);
    let (events, receiver) = Events::channel();
    let cancel = bench.cancel.clone();
    let watcher = std::thread::spawn(move || {
        let started = receiver
            .iter()
            .filter(|event| matches!(event, Event::Started { .. }))
            .take(2);
        assert_eq!(started.count(), 2);
        cancel.cancel();
        receiver
    });
    assert!(matches!(
        bench.build_with(&graph, &[target], events),
        Err(SolveError::Cancelled)
    ));
    let mut words = words(&watcher.join().unwrap());
    words.sort();
    assert_eq!(words, [(waits, "cancelled"), (ends, "finished")]);
    assert_eq!(bench.memory.records.lock().unwrap().len(), 1);
    assert!(
        matches!(bench.build(&graph, target), Err(SolveError::Cancelled)),
        "cancelled is for good"
    );
}

#[test]
fn a_missing_source_fails_before_anything_runs() {
    let bench = Bench::default();
    let mut make = Make::default();
    let (scratch, context) = (make.scratch(), make.local("c"));
    let slow = make.exec(scratch, &["slow"]);
    let copy = make.copy(slow, context, &["/missing"], "/x");
    match bench.build(&Arc::new(make.0), copy) {
        Err(SolveError::Step { vertex, .. }) => assert_eq!(vertex, copy),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.world.take_ran(), []);
}

#[test]
fn a_merge_of_a_local_directory_is_refused() {
    let mut make = Make::default();
    let (scratch, context) = (make.scratch(), make.local("c"));
    let merge = make.merge(scratch, context);
    match Bench::default().build(&Arc::new(make.0), merge) {
        Err(SolveError::NotLayers { vertex, .. }) => assert_eq!(vertex, merge),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_builds_at_once_do_equal_work_once() {
    let memory = Arc::<fake::Memory>::default();
    let world = Arc::new(World {
        watched: Some(Arc::clone(&memory)),
        ..World::default()
    });
    let mut make = Make::default();
    let scratch = make.scratch();
    // Ends when the other build waits for its lock.
    let target = make.exec(scratch, &["await-waiter"]);
    let graph = Arc::new(make.0);
    let build = || {
        let bench = Bench {
            world: Arc::clone(&world),
            memory: Arc::clone(&memory),
            ..Bench::default()
        };
        bench.build(&graph, target).unwrap().snapshots
    };
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(build);
        (build(), other.join().unwrap())
    });
    assert_eq!(one, other);
    assert_eq!(world.take_ran().len(), 1);
}

#[test]
fn misses_explain_themselves() {
    let bench = Bench::default();
    let why = |version: &str| {
        let mut make = Make::default();
        let scratch = make.scratch();
        let target = make.exec_labelled(scratch, &["x", version], label("x"));
        let (events, receiver) = Events::channel();
        bench.build_with(&Arc::new(make.0), &[target], events).unwrap();
        receiver
            .try_iter()
            .find_map(|event| match event {
                Event::Started { why, .. } => why.map(|why| why.to_string()),
                _ => None,
            })
            .unwrap_or_default()
    };
    assert_eq!(why("1"), "never built before");
    assert_eq!(why("1"), "");
    assert_eq!(why("2"), "command changed");
}
