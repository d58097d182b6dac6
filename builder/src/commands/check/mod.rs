//! `ashlar check`: says whether the store is sound, and with `--repair` sets aside what isn't.
//!
//! What is stored is looked at by the cache (`cache::check`); what images need of it, by `images`. Nothing is changed without
//! `--repair`, and nothing that an image needs is made up: what can't be had again is said, and stays a fault.

mod images;

use std::collections::HashSet;

use cache::check::{Checked, Depth, Subject};
use cache::{DiffId, Digest, Store};
use serde_json::json;

use super::human::count;
use crate::cli::CheckArgs;
use crate::failure;
use crate::report::Failure;

/// Something that is wrong, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    /// `layer sha256:…`, `image app:1`.
    subject: String,
    problem: String,
    /// How it was put right; `None` when it wasn't.
    repaired: Option<&'static str>,
    /// What can be done about it.
    advice: Option<String>,
}

/// What images can't use: damaged, and set aside if that was asked for.
#[derive(Debug, Default)]
struct Lost {
    layers: HashSet<DiffId>,
    blobs: HashSet<Digest>,
}

/// What images turned out to be.
#[derive(Debug, Default)]
struct Images {
    n_images: usize,
    findings: Vec<Finding>,
    /// What is no fault, but worth a line.
    notes: Vec<String>,
}

/// Looks at the store; returns what to print, and the exit code: 0 if nothing is wrong any more.
pub(crate) fn check(args: &CheckArgs, store: &Store) -> Result<(String, u8), Failure> {
    let as_json = match args.format.as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => {
            return Err(Failure::usage(format!("unknown format `{other}`")).with_help("one of text, json"));
        }
    };
    let depth = match args.deep {
        true => Depth::Deep,
        false => Depth::Quick,
    };
    let failed = |error: cache::StoreError| failure::of_store(&error);
    let checked = store.check(depth, &images::sizes(store)).map_err(failed)?;
    let mut lost = Lost::default();
    let mut findings = Vec::new();
    let mut is_index_lost = false;
    for fault in &checked.faults {
        match &fault.subject {
            Subject::Layer(layer) => drop(lost.layers.insert(*layer)),
            Subject::Blob(digest) => drop(lost.blobs.insert(*digest)),
            Subject::Index | Subject::Rows(_) => is_index_lost = true,
            _ => {}
        }
        let is_repaired = args.repair && store.repair(fault).map_err(failed)?;
        findings.push(Finding {
            subject: fault.subject.to_string(),
            problem: fault.what.clone(),
            repaired: is_repaired.then(|| remedy(&fault.subject)),
            advice: None,
        });
    }
    let images = match is_index_lost {
        // Names that can't be read lead nowhere; after a repair the next check reads what is left.
        true => Images::default(),
        false => images::check(store, &lost)?,
    };
    findings.extend(images.findings.iter().cloned());
    let is_sound = findings.iter().all(|finding| finding.repaired.is_some());
    let text = match as_json {
        true => json_of(&findings, &checked, &images),
        false => text_of(&findings, &checked, &images, args),
    };
    Ok((text, u8::from(!is_sound)))
}

/// Returns what was done about something that was repaired.
fn remedy(subject: &Subject) -> &'static str {
    match subject {
        Subject::Index | Subject::Layer(_) | Subject::Blob(_) | Subject::Stray(_) => "set aside",
        Subject::Rows(_) => "forgotten",
        Subject::Unpacked(_) | Subject::Mount(_) | Subject::Scratch(_) => "removed",
    }
}

fn json_of(findings: &[Finding], checked: &Checked, images: &Images) -> String {
    let findings = findings.iter().map(|finding| {
        json!({
            "subject": finding.subject,
            "problem": finding.problem,
            "repaired": finding.repaired,
            "advice": finding.advice,
        })
    });
    let document = json!({
        "faults": findings.collect::<Vec<_>>(),
        "notes": images.notes,
        "images": images.n_images,
        "layers": checked.n_layers,
        "blobs": checked.n_blobs,
        "records": checked.n_records,
        "recordsWithoutLayers": checked.n_dead_records,
        "cacheMounts": checked.n_mounts,
    });
    format!("{document:#}\n")
}

fn text_of(findings: &[Finding], checked: &Checked, images: &Images, args: &CheckArgs) -> String {
    let mut text = String::new();
    for finding in findings {
        let done = finding
            .repaired
            .map_or_else(String::new, |done| format!(" ({done})"));
        let line = crate::report::one_line(&format!("{}: {}{done}", finding.subject, finding.problem));
        text.push_str(&format!("{line}\n"));
        if let Some(advice) = &finding.advice {
            text.push_str(&format!("  to do: {advice}\n"));
        }
    }
    for note in &images.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    let dead = match checked.n_dead_records {
        0 => String::new(),
        count => format!(" ({count} of them without layers)"),
    };
    text.push_str(&format!(
        "Checked {}, {}, {}, {}{dead}, {}: ",
        count(images.n_images, "image"),
        count(checked.n_layers, "layer"),
        count(checked.n_blobs, "blob"),
        count(checked.n_records, "record"),
        count(checked.n_mounts, "cache mount")
    ));
    let n_left = findings
        .iter()
        .filter(|finding| finding.repaired.is_none())
        .count();
    text.push_str(&match (findings.len(), n_left) {
        (0, _) => "all is well.\n".to_owned(),
        (count, 0) => format!("{count} wrong, repaired.\n"),
        (count, left) if args.repair => format!("{count} wrong, {left} of them not repaired.\n"),
        (count, _) => {
            format!("{count} wrong; `ashlar check --repair` sets aside what can be made or fetched again.\n")
        }
    });
    text
}
