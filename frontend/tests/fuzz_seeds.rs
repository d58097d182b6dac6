//! The fuzz targets on stable Rust: every seed of `fuzz/corpus`, and the same mutations of them each time.
//!
//! What a fuzzer finds becomes a seed. `fuzz/README.md` says how to search.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../../fuzz/bodies.rs"]
mod bodies;

use std::path::Path;

const MUTATIONS: usize = 100;

/// What files like these are made of.
const WORDS: &[&str] = &[
    "\n",
    " ",
    "\\\n",
    "\t",
    "\r\n",
    "FROM ",
    "RUN ",
    "COPY ",
    "ADD ",
    "ENV ",
    "ARG ",
    "ONBUILD ",
    "HEALTHCHECK ",
    "<<E",
    "<<-'E'",
    "\nE\n",
    "--from=",
    "--mount=",
    "type=cache,",
    "target=/x",
    "${",
    "}",
    ":-",
    ":+",
    "?",
    "##",
    "%%",
    "//",
    "$a",
    "\"",
    "'",
    "[\"",
    "\"]",
    "#",
    "=",
    "*",
    "**/",
    "!",
    "\u{feff}",
    "é",
    "\0",
    "\u{202e}",
    "scratch",
    "as x",
    "0",
    "4294967296",
    "-1",
    "/",
    "..",
    "escape=`",
    "`",
];

/// A sequence that looks random and is the same everywhere (splitmix64).
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut next = self.0;
        next = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        next = (next ^ (next >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((next ^ (next >> 31)) >> 33).unwrap() % end.max(1)
    }
}

fn mutate(seed: &[u8], other: &[u8], sequence: &mut Sequence) -> Vec<u8> {
    let mut out = seed.to_vec();
    for _ in 0..=sequence.below(4) {
        let at = sequence.below(out.len() + 1);
        let end = (at + sequence.below(20)).min(out.len());
        match sequence.below(6) {
            0 => drop(out.drain(at..end)),
            1 => {
                let word = WORDS[sequence.below(WORDS.len())];
                out.splice(at..at, word.bytes());
            }
            2 => {
                let word = WORDS[sequence.below(WORDS.len())];
                out.splice(at..end, word.bytes());
            }
            3 => {
                let again = out[at..end].to_vec();
                out.splice(at..at, again);
            }
            4 => {
                let from = sequence.below(other.len() + 1);
                out.splice(at.., other[from..].iter().copied());
            }
            _ => {
                if let Some(byte) = out.get_mut(at) {
                    *byte ^= 1 << sequence.below(8);
                }
            }
        }
    }
    out
}

fn replay(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 10, "{target} has {} seeds", paths.len());
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let mut sequence = Sequence(u64::try_from(seeds.len()).unwrap());
    for (seed, path) in seeds.iter().zip(&paths) {
        let other = &seeds[sequence.below(seeds.len())];
        let mutations = (0..MUTATIONS).map(|_| mutate(seed, other, &mut sequence));
        for input in std::iter::once(seed.clone()).chain(mutations.collect::<Vec<_>>()) {
            let text = String::from_utf8_lossy(&input);
            let ended = std::panic::catch_unwind(|| body(&input));
            assert!(ended.is_ok(), "{}: {text:?}", path.display());
        }
    }
}

#[test]
fn parser() {
    replay("parser", bodies::parser);
}

#[test]
fn heredocs() {
    replay("heredocs", bodies::heredocs);
}

#[test]
fn expansion() {
    replay("expansion", bodies::expansion);
}

#[test]
fn ignore() {
    replay("ignore", bodies::ignore);
}

#[test]
fn lower() {
    replay("lower", bodies::lower);
}
