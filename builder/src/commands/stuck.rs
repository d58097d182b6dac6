//! Processes of this one that wait in the kernel, where no signal reaches them: for whoever wonders what doesn't end.
//!
//! Nothing is done about them: they end when what they wait for happens. Spec: proc_pid_stat(5).

use std::collections::BTreeMap;

/// More of them say nothing new.
const MAX_NAMED: usize = 5;

/// One process, as `/proc/PID/stat` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    pid: u32,
    name: String,
    is_stuck: bool,
    parent: u32,
}

/// Returns `name (pid)` of every process below this one that no signal can end now.
pub(super) fn processes() -> Vec<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // One that is gone meanwhile is none to wait for.
    let stats = pids.filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok());
    stuck_below(std::process::id(), stats.filter_map(|text| read(&text)))
}

fn stuck_below(ancestor: u32, processes: impl Iterator<Item = Process>) -> Vec<String> {
    let all: BTreeMap<u32, Process> = processes.map(|process| (process.pid, process)).collect();
    let is_below = |process: &&Process| {
        let mut parents = std::iter::successors(Some(process.parent), |pid| Some(all.get(pid)?.parent));
        // Numbers are given again while one looks, so there may be a circle.
        parents.by_ref().take(all.len()).any(|pid| pid == ancestor)
    };
    let stuck = all.values().filter(|process| process.is_stuck).filter(is_below);
    stuck
        .take(MAX_NAMED)
        .map(|process| format!("{} ({})", process.name, process.pid))
        .collect()
}

/// Reads `pid (name) state parent …`; a name may hold anything, brackets too.
fn read(text: &str) -> Option<Process> {
    let (pid, rest) = text.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    Some(Process {
        pid: pid.parse().ok()?,
        name: name.to_owned(),
        is_stuck: fields.next()? == "D",
        parent: fields.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stats: &[&str], expected: &[&str]) {
        let found = stuck_below(10, stats.iter().filter_map(|text| read(text)));
        assert_eq!(found, expected, "{stats:?}");
    }

    #[test]
    fn only_what_is_below_and_stuck_is_told() {
        check(
            &["10 (ashlar) D 1 10", "11 (helper) S 10 11", "12 (sh) D 11 12"],
            &["sh (12)"],
        );
        check(
            &["11 (helper) S 10 11", "12 (a) D) (b) D 11 12", "13 (x) D 1 1"],
            &["a) D) (b (12)"],
        );
        check(&["11 (a) D 12 0", "12 (b) D 11 0", "nonsense", "13 (c) D"], &[]);
        let many: Vec<String> = (11..99).map(|pid| format!("{pid} (x) D 10 0")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        check(&many, &["x (11)", "x (12)", "x (13)", "x (14)", "x (15)"]);
    }
}
