//! The profile's system calls as an OCI filter. What is compiled to a program for our own containers (`seccomp`) is said
//! here in the runtimes' language, and must mean the same.
//!
//! Runtimes take several tests of one argument for alternatives, so "neither 38 nor 40" can't be said as such: it is said
//! as all the blocks of numbers that are left, and of the argument's lower half only, as the kernel looks at it.
//!
//! An architecture that isn't named is death, not "not implemented". So x32 is named, as docker does: where a kernel has it
//! (few do) the same calls are allowed there.

use serde_json::{Value, json};

use super::super::profile::{Comparison, Profile, Test};

const EPERM: u16 = 1;

/// Returns `linux.seccomp`. Spec: OCI runtime-spec, config-linux.md#seccomp.
pub(super) fn seccomp(profile: &Profile) -> Value {
    let mut rules = vec![
        json!({"names": profile.allow, "action": "SCMP_ACT_ALLOW"}),
        // Refused anyway; named so that runc can tell what is newer than the profile.
        json!({"names": profile.deny, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM}),
    ];
    for rule in &profile.errno {
        rules.push(json!({"names": [rule.name], "action": "SCMP_ACT_ERRNO", "errnoRet": rule.errno}));
    }
    for rule in &profile.allow_when {
        for args in alternatives(&rule.all) {
            rules.push(json!({"names": [rule.name], "action": "SCMP_ACT_ALLOW", "args": args}));
        }
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

/// Returns lists of tests; the rule holds when all of one list hold.
fn alternatives(tests: &[Test]) -> Vec<Vec<Value>> {
    let is_equal = |test: &&Test| test.op == Comparison::Eq;
    if tests.iter().all(|test| is_equal(&test)) {
        return vec![tests.iter().map(equal).collect()];
    }
    let excluded: Vec<u32> = tests.iter().filter_map(unequal_half).collect();
    let arg = tests.first().map_or(0, |test| test.arg);
    assert!(
        excluded.len() == tests.len() && tests.iter().all(|test| test.arg == arg),
        "the committed profile, which a test translates, has no other combination"
    );
    let others = all_but(&excluded).into_iter();
    let lower_half = |(mask, value)| masked(arg, u64::from(mask), u64::from(value));
    others.map(|block| vec![lower_half(block)]).collect()
}

fn equal(test: &Test) -> Value {
    match test.mask {
        u64::MAX => json!({"index": test.arg, "value": test.value, "op": "SCMP_CMP_EQ"}),
        mask => masked(test.arg, mask, test.value),
    }
}

/// `arg & mask == value`: the mask comes first.
fn masked(arg: u8, mask: u64, value: u64) -> Value {
    json!({"index": arg, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"})
}

fn unequal_half(test: &Test) -> Option<u32> {
    let is_half = test.op == Comparison::Ne && test.mask == u64::from(u32::MAX);
    is_half.then(|| u32::try_from(test.value).ok()).flatten()
}

/// Returns all numbers but these as blocks: mask and value.
fn all_but(excluded: &[u32]) -> Vec<(u32, u32)> {
    let mut blocks = Vec::new();
    let mut pending = vec![(0_u32, 0_u32)];
    while let Some((mask, value)) = pending.pop() {
        if !excluded.iter().any(|number| number & mask == value) {
            blocks.push((mask, value));
        } else if mask != u32::MAX {
            // The highest bit that isn't looked at yet.
            let bit = 1 << (31 - mask.leading_ones());
            pending.extend([(mask | bit, value), (mask | bit, value | bit)]);
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::profile::default_profile;

    #[test]
    fn blocks_leave_out_what_is_excluded_and_nothing_else() {
        let check = |excluded: &[u32], numbers: &[u32]| {
            let blocks = all_but(excluded);
            for number in numbers {
                let n_hits = blocks
                    .iter()
                    .filter(|(mask, value)| number & mask == *value)
                    .count();
                let expected = usize::from(!excluded.contains(number));
                assert_eq!(n_hits, expected, "{number} of all but {excluded:?}");
            }
        };
        let some = [
            0,
            1,
            2,
            16,
            37,
            38,
            39,
            40,
            41,
            44,
            1 << 31,
            (1 << 31) + 38,
            u32::MAX,
        ];
        check(&[38, 40], &some);
        check(&[0, u32::MAX], &some);
        check(&[], &some);
    }

    /// Interprets the filter as runtimes do: rules are alternatives, the tests of a rule hold together.
    fn answer(filter: &Value, name: &str, first: u64) -> String {
        let number = |test: &Value, key: &str| test[key].as_u64().unwrap();
        let holds = |test: &Value| match test["op"].as_str().unwrap() {
            "SCMP_CMP_EQ" => first == number(test, "value"),
            "SCMP_CMP_MASKED_EQ" => first & number(test, "value") == number(test, "valueTwo"),
            other => panic!("{other}"),
        };
        let applies = |rule: &&Value| {
            let args = rule["args"].as_array();
            rule["names"]
                .as_array()
                .unwrap()
                .iter()
                .any(|known| known == name)
                && args.is_none_or(|tests| {
                    assert_eq!(tests.len(), 1, "several tests would be alternatives");
                    tests.iter().all(holds)
                })
        };
        let rules = filter["syscalls"].as_array().unwrap();
        match rules.iter().find(applies) {
            Some(rule) if rule["action"] == "SCMP_ACT_ALLOW" => "allowed".to_owned(),
            Some(rule) => rule["errnoRet"].to_string(),
            None => filter["defaultErrnoRet"].to_string(),
        }
    }

    /// hardening D.4: the answers of the profile, in the runtimes' language.
    #[test]
    fn the_filter_means_what_the_profile_says() {
        let filter = seccomp(&default_profile());
        let check = |name: &str, first: u64, expected: &str| {
            assert_eq!(answer(&filter, name, first), expected, "{name}({first:#x})");
        };
        check("read", 0, "allowed");
        check("mount", 0, "1");
        check("no_such_call", 0, "1");
        check("clone3", 0, "38");
        check("clone", 17, "allowed");
        check("clone", 0x1000_0000, "1");
        check("clone", 0x0002_0000 | 17, "1");
        for family in [1, 2, 10, 16, 17, 39, 41] {
            check("socket", family, "allowed");
        }
        for family in [38, 40, 0x1_0000_0026, 0xffff_ffff_0000_0028] {
            check("socket", family, "1");
        }
        check("personality", 0, "allowed");
        check("personality", 0x40000, "1");
    }
}
