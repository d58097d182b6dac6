//! From the profile's table to a seccomp program: own compiler, because libseccomp takes longer to compile its filter
//! than the container takes to start.
//!
//! Shape: per architecture a binary search over ranges of system-call numbers, whose leaves are an action or a list of
//! argument tests. What the profile allows is `profile.json`'s business, not this file's.

use std::collections::BTreeMap;
use std::str::FromStr as _;

use super::profile::{Comparison, Profile, Test};
use super::sys::Instruction;

pub(super) const ALLOW: u32 = 0x7fff_0000;
pub(super) const ERRNO: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
pub(super) const EPERM: u32 = ERRNO | 1;
pub(super) const ENOSYS: u32 = ERRNO | 38;

/// AUDIT_ARCH_X86_64 and AUDIT_ARCH_I386.
pub(super) const X86_64: u32 = 0xC000_003E;
pub(super) const X86: u32 = 0x4000_0003;
/// Numbers from here on are the x32 ABI's, which shares X86_64's architecture value.
const X32_BIT: u32 = 0x4000_0000;

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

/// What happens for one range of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Leaf {
    Action(u32),
    /// Allowed when all tests of one of these lists hold, else refused.
    AllowedWhen(Vec<Vec<Test>>),
}

/// Compiles the profile for this machine's architectures.
pub(super) fn compile(profile: &Profile) -> Vec<Instruction> {
    let mut program = vec![load(4)];
    for audit in [X86_64, X86] {
        let body = search(&ranges(profile, audit));
        let skip = u32::try_from(body.len())
            .expect("because a program of the profile has a few hundred instructions");
        program.push(instruction(JUMP_IF_EQUAL, 1, 0, audit));
        program.push(instruction(JUMP, 0, 0, skip + 1));
        program.push(load(0));
        program.extend(body);
    }
    program.push(instruction(RETURN, 0, 0, KILL_PROCESS));
    program
}

/// Returns a system call's number; names that an architecture doesn't have are skipped.
fn number(audit: u32, name: &str) -> Option<u32> {
    let id = match audit {
        X86_64 => syscalls::x86_64::Sysno::from_str(name)
            .ok()
            .map(|sysno| sysno.id()),
        _ => syscalls::x86::Sysno::from_str(name).ok().map(|sysno| sysno.id()),
    };
    id.and_then(|id| u32::try_from(id).ok())
}

/// Returns (first number, what happens from there on), sorted, starting at 0.
fn ranges(profile: &Profile, audit: u32) -> Vec<(u32, Leaf)> {
    let mut leaves: BTreeMap<u32, Leaf> = BTreeMap::new();
    let find = |name: &str| number(audit, name);
    leaves.extend(
        profile
            .deny
            .iter()
            .filter_map(|name| Some((find(name)?, Leaf::Action(EPERM)))),
    );
    leaves.extend(
        profile
            .allow
            .iter()
            .filter_map(|name| Some((find(name)?, Leaf::Action(ALLOW)))),
    );
    for rule in &profile.errno {
        leaves.extend(find(&rule.name).map(|nr| (nr, Leaf::Action(ERRNO | u32::from(rule.errno)))));
    }
    for rule in &profile.allow_when {
        let Some(nr) = find(&rule.name) else { continue };
        let leaf = leaves.entry(nr).or_insert_with(|| Leaf::AllowedWhen(Vec::new()));
        if let Leaf::AllowedWhen(lists) = leaf {
            lists.push(rule.all.clone());
        }
    }
    // Newer than the profile: "not implemented", so that libraries fall back; refused would break their probing.
    let newest = leaves.keys().next_back().copied().unwrap_or(0);
    let mut ranges: Vec<(u32, Leaf)> = Vec::new();
    let mut push = |from: u32, leaf: Leaf| match ranges.last() {
        Some((_, last)) if *last == leaf => {}
        _ => ranges.push((from, leaf)),
    };
    let mut next = 0;
    for (nr, leaf) in leaves {
        if nr > next {
            push(next, Leaf::Action(EPERM));
        }
        push(nr, leaf);
        next = nr + 1;
    }
    push(newest + 1, Leaf::Action(ENOSYS));
    if audit == X86_64 {
        push(X32_BIT, Leaf::Action(ENOSYS));
    }
    ranges
}

/// Emits the binary search. The depth is the logarithm of the profile's size, so recursion is safe here.
fn search(ranges: &[(u32, Leaf)]) -> Vec<Instruction> {
    match ranges {
        [] => vec![instruction(RETURN, 0, 0, EPERM)],
        [(_, leaf)] => leaf_code(leaf),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let middle = high.first().map_or(0, |(from, _)| *from);
            let low = search(low);
            let mut code = match u8::try_from(low.len()) {
                Ok(skip) => vec![instruction(JUMP_IF_AT_LEAST, skip, 0, middle)],
                // Conditional jumps reach 255 instructions; unconditional ones reach everything.
                Err(_) => {
                    let skip =
                        u32::try_from(low.len()).expect("because programs have at most 4096 instructions");
                    vec![
                        instruction(JUMP_IF_AT_LEAST, 0, 1, middle),
                        instruction(JUMP, 0, 0, skip),
                    ]
                }
            };
            code.extend(low);
            code.extend(search(high));
            code
        }
    }
}

fn leaf_code(leaf: &Leaf) -> Vec<Instruction> {
    let lists = match leaf {
        Leaf::Action(action) => return vec![instruction(RETURN, 0, 0, *action)],
        Leaf::AllowedWhen(lists) => lists,
    };
    let mut code = Vec::new();
    for tests in lists {
        code.extend(list_code(tests));
    }
    code.push(instruction(RETURN, 0, 0, EPERM));
    code
}

/// Where a jump of a test goes.
#[derive(Clone, Copy)]
enum To {
    Next,
    /// Over the rest of this test: it holds.
    Holds(u8),
    /// To the next list: this one doesn't hold.
    Fails,
}

/// Emits: return ALLOW if all tests hold, else go on behind this code. Both halves of the 64-bit argument count.
fn list_code(tests: &[Test]) -> Vec<Instruction> {
    let mut code: Vec<(Instruction, To, To)> = Vec::new();
    for test in tests {
        let low_at = 16 + 8 * u32::from(test.arg);
        let half = |value: u64, high: bool| (if high { value >> 32 } else { value & 0xffff_ffff }) as u32;
        for high in [true, false] {
            code.push((load(low_at + if high { 4 } else { 0 }), To::Next, To::Next));
            code.push((instruction(AND, 0, 0, half(test.mask, high)), To::Next, To::Next));
            let compare = instruction(JUMP_IF_EQUAL, 0, 0, half(test.value, high));
            match (test.op, high) {
                (Comparison::Eq, _) => code.push((compare, To::Next, To::Fails)),
                // Unequal high halves settle it: skip load, and, compare of the low half.
                (Comparison::Ne, true) => code.push((compare, To::Next, To::Holds(3))),
                (Comparison::Ne, false) => code.push((compare, To::Fails, To::Next)),
            }
        }
    }
    code.push((instruction(RETURN, 0, 0, ALLOW), To::Next, To::Next));
    let length = code.len();
    let offset = |to: To, at: usize| match to {
        To::Next => 0,
        To::Holds(skip) => skip,
        To::Fails => {
            u8::try_from(length - 1 - at).expect("because a rule has at most six tests of six instructions")
        }
    };
    code.into_iter()
        .enumerate()
        .map(|(at, (mut instruction, then, otherwise))| {
            if instruction.code == JUMP_IF_EQUAL {
                instruction.jt = offset(then, at);
                instruction.jf = offset(otherwise, at);
            }
            instruction
        })
        .collect()
}

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// Loads a 32-bit word of seccomp_data: 0 number, 4 architecture, 16 + 8 n argument n.
fn load(at: u32) -> Instruction {
    instruction(LOAD, 0, 0, at)
}

/// Returns the program as bytes for the helper.
pub(super) fn encode(program: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        bytes.extend(instruction.code.to_le_bytes());
        bytes.extend([instruction.jt, instruction.jf]);
        bytes.extend(instruction.k.to_le_bytes());
    }
    bytes
}

/// Reads what [`encode`] wrote; `None` for anything else.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Instruction>> {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let program = chunks
        .iter()
        .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| Instruction {
            code: u16::from_le_bytes([c0, c1]),
            jt,
            jf,
            k: u32::from_le_bytes([k0, k1, k2, k3]),
        })
        .collect::<Vec<_>>();
    (rest.is_empty() && !program.is_empty()).then_some(program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::profile::{ConditionalRule, default_profile};

    /// Runs a program as the kernel would. Spec: Documentation/networking/filter.rst, the instructions used here.
    fn interpret(program: &[Instruction], audit: u32, nr: u32, args: [u64; 6]) -> u32 {
        let mut data = [0_u8; 64];
        data[..4].copy_from_slice(&nr.to_le_bytes());
        data[4..8].copy_from_slice(&audit.to_le_bytes());
        for (at, arg) in args.iter().enumerate() {
            data[16 + 8 * at..24 + 8 * at].copy_from_slice(&arg.to_le_bytes());
        }
        let (mut at, mut accumulator) = (0, 0_u32);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            match code {
                LOAD => {
                    let from = k as usize;
                    assert_eq!(from % 4, 0, "the kernel refuses unaligned loads");
                    accumulator = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
                }
                AND => accumulator &= k,
                JUMP => at += k as usize,
                JUMP_IF_EQUAL => at += usize::from(if accumulator == k { jt } else { jf }),
                JUMP_IF_AT_LEAST => at += usize::from(if accumulator >= k { jt } else { jf }),
                RETURN => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    /// What the table says, without ranges, trees or jumps.
    fn expected(profile: &Profile, audit: u32, nr: u32, args: [u64; 6]) -> u32 {
        let is = |name: &str| number(audit, name) == Some(nr);
        let names = profile.allow.iter().chain(&profile.deny);
        let names = names.chain(profile.errno.iter().map(|rule| &rule.name));
        let names = names.chain(profile.allow_when.iter().map(|rule| &rule.name));
        let newest = names.filter_map(|name| number(audit, name)).max().unwrap();
        if nr > newest {
            return ENOSYS;
        }
        if let Some(rule) = profile.errno.iter().find(|rule| is(&rule.name)) {
            return ERRNO | u32::from(rule.errno);
        }
        let holds = |test: &Test| {
            let equal = args[usize::from(test.arg)] & test.mask == test.value;
            equal == (test.op == Comparison::Eq)
        };
        let by_args = profile
            .allow_when
            .iter()
            .any(|rule| is(&rule.name) && rule.all.iter().all(holds));
        if by_args || profile.allow.iter().any(|name| is(name)) {
            ALLOW
        } else {
            EPERM
        }
    }

    #[test]
    fn the_program_does_what_the_table_says() {
        check_table(&default_profile());
    }

    #[test]
    fn both_halves_of_an_argument_count() {
        let test = |op, value| Test {
            arg: 0,
            op,
            mask: u64::MAX,
            value,
        };
        let rule = |name: &str, all| ConditionalRule {
            name: name.to_owned(),
            all,
        };
        check_table(&Profile {
            allow: vec!["read".to_owned()],
            deny: vec!["mseal".to_owned()],
            errno: Vec::new(),
            allow_when: vec![
                rule(
                    "write",
                    vec![test(Comparison::Ne, 0x1_0000_0026), test(Comparison::Ne, 38)],
                ),
                rule("open", vec![test(Comparison::Eq, 0x2000_0000_0000_0011)]),
                rule("open", vec![test(Comparison::Eq, 17)]),
            ],
        });
    }

    fn check_table(profile: &Profile) {
        let program = compile(profile);
        assert!(
            program.len() < 4096,
            "the kernel's limit, {} instructions",
            program.len()
        );
        let values = [
            0,
            1,
            2,
            8,
            9,
            16,
            38,
            40,
            0x20000,
            0x20008,
            0x40000,
            0xffff_ffff,
            0x1_0000_0000,
            0x1_0000_0026,
            0x1_0000_0028,
            0x1000_0000,
            0x7e02_0000,
            0x2000_0000_0000_0011,
            0x26_0000_0000,
            u64::MAX,
            17,
            0x0100_0011,
        ];
        for audit in [X86_64, X86] {
            for nr in (0..600).chain([999, X32_BIT - 1, X32_BIT, X32_BIT + 1, u32::MAX]) {
                for value in values {
                    let args = [value, 3, 0, 0, 0, 0];
                    assert_eq!(
                        interpret(&program, audit, nr, args),
                        expected(profile, audit, nr, args),
                        "architecture {audit:#x}, number {nr}, first argument {value:#x}"
                    );
                }
            }
        }
        assert_eq!(
            interpret(&program, 0xC000_00B7, 0, [0; 6]),
            KILL_PROCESS,
            "a foreign architecture"
        );
        assert_eq!(decode(&encode(&program)), Some(program));
    }

    #[test]
    fn dangerous_calls_get_the_documented_answers() {
        let program = compile(&default_profile());
        let check = |name: &str, first: u64, action: u32| {
            let nr = number(X86_64, name).unwrap_or_else(|| panic!("{name} is unknown"));
            assert_eq!(
                interpret(&program, X86_64, nr, [first, 0, 0, 0, 0, 0]),
                action,
                "{name}({first:#x})"
            );
        };
        for name in [
            "unshare",
            "mount",
            "fsopen",
            "open_tree",
            "bpf",
            "keyctl",
            "add_key",
            "userfaultfd",
            "io_uring_setup",
            "perf_event_open",
            "open_by_handle_at",
            "kexec_load",
            "init_module",
            "swapon",
            "reboot",
            "settimeofday",
            "sethostname",
            "setns",
            "pivot_root",
            "quotactl",
            "iopl",
            "syslog",
            "pidfd_getfd",
            "kcmp",
        ] {
            check(name, 0, EPERM);
        }
        check("clone3", 0, ENOSYS);
        check("open_tree_attr", 0, ENOSYS);
        for name in [
            "read",
            "chroot",
            "mknod",
            "ptrace",
            "statmount",
            "capset",
            "execve",
            "close_range",
        ] {
            check(name, 0, ALLOW);
        }
        check("socket", 38, EPERM);
        check("socket", 40, EPERM);
        // The kernel reads the family as an int: high bits must not hide it.
        check("socket", 0x1_0000_0026, EPERM);
        check("socket", 17, ALLOW);
        check("socket", 2, ALLOW);
        check("personality", 0x40000, EPERM);
        check("personality", 0xffff_ffff, ALLOW);
        check("clone", libc::SIGCHLD as u64, ALLOW);
        check("clone", libc::CLONE_NEWUSER as u64, EPERM);
        check("clone", libc::CLONE_NEWNS as u64 | libc::SIGCHLD as u64, EPERM);
    }
}
