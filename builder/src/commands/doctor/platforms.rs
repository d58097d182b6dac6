//! Which platforms' programs run in containers here: the smallest program of each is run.
//!
//! That tells emulators that containers can use from those that they can't (without the flag F the kernel looks for the
//! emulator in the container), and from those that are registered and broken.

use super::Check;
use crate::sandbox::Trial;
use crate::sandbox::userns::program_in_path;

/// A platform: how its programs begin, and the instructions that end one with code 0.
struct Platform {
    name: &'static str,
    /// QEMU's name of it.
    emulator: &'static str,
    /// `e_machine`.
    machine: u16,
    /// `e_flags`.
    flags: u32,
    is_64_bit: bool,
    is_big_endian: bool,
    code: &'static [u8],
}

/// Spec: the architectures' instruction sets and system call tables; elf(5).
const PLATFORMS: &[Platform] = &[
    Platform {
        name: "linux/amd64",
        emulator: "x86_64",
        machine: 62,
        flags: 0,
        is_64_bit: true,
        is_big_endian: false,
        // mov eax, 60; xor edi, edi; syscall
        code: &[0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05],
    },
    Platform {
        name: "linux/386",
        emulator: "i386",
        machine: 3,
        flags: 0,
        is_64_bit: false,
        is_big_endian: false,
        // mov eax, 1; xor ebx, ebx; int 0x80
        code: &[0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80],
    },
    Platform {
        name: "linux/arm64",
        emulator: "aarch64",
        machine: 183,
        flags: 0,
        is_64_bit: true,
        is_big_endian: false,
        // mov x8, #93; mov x0, #0; svc #0
        code: &[0xa8, 0x0b, 0x80, 0xd2, 0, 0, 0x80, 0xd2, 0x01, 0, 0, 0xd4],
    },
    Platform {
        name: "linux/arm/v7",
        emulator: "arm",
        machine: 40,
        flags: 0x0500_0000,
        is_64_bit: false,
        is_big_endian: false,
        // mov r7, #1; mov r0, #0; svc #0
        code: &[0x01, 0x70, 0xa0, 0xe3, 0, 0, 0xa0, 0xe3, 0, 0, 0, 0xef],
    },
    Platform {
        name: "linux/riscv64",
        emulator: "riscv64",
        machine: 243,
        flags: 0,
        is_64_bit: true,
        is_big_endian: false,
        // li a7, 93; li a0, 0; ecall
        code: &[0x93, 0x08, 0xd0, 0x05, 0x13, 0x05, 0, 0, 0x73, 0, 0, 0],
    },
    Platform {
        name: "linux/ppc64le",
        emulator: "ppc64le",
        machine: 21,
        flags: 2,
        is_64_bit: true,
        is_big_endian: false,
        // li r0, 1; li r3, 0; sc
        code: &[0x01, 0, 0, 0x38, 0, 0, 0x60, 0x38, 0x02, 0, 0, 0x44],
    },
    Platform {
        name: "linux/s390x",
        emulator: "s390x",
        machine: 22,
        flags: 0,
        is_64_bit: true,
        is_big_endian: true,
        // lghi %r2, 0; svc 1
        code: &[0xa7, 0x29, 0, 0, 0x0a, 0x01],
    },
];

/// Returns a program for this machine that does nothing.
pub(super) fn own_program() -> Option<Vec<u8>> {
    let own = PLATFORMS
        .iter()
        .find(|platform| platform.emulator == std::env::consts::ARCH);
    own.map(program)
}

/// Runs one program of each platform.
pub(super) fn check(trial: &Trial) -> Check {
    let runs = |platform: &Platform| trial.executes(&program(platform)).unwrap_or(false);
    let (here, elsewhere): (Vec<_>, Vec<_>) = PLATFORMS.iter().partition(|platform| runs(platform));
    told(&here, &elsewhere)
}

fn told(here: &[&Platform], elsewhere: &[&Platform]) -> Check {
    const NAME: &str = "platforms";
    let names = |platforms: &[&Platform]| {
        let names: Vec<&str> = platforms.iter().map(|platform| platform.name).collect();
        names.join(", ")
    };
    let found = format!("RUN works for {}", names(here));
    if elsewhere.is_empty() {
        return Check::ok(NAME, found);
    }
    let installed = elsewhere
        .iter()
        .any(|platform| program_in_path(&format!("qemu-{}-static", platform.emulator)).is_some());
    let how = match installed {
        true => {
            "qemu-user-static is installed; register it with the flag F (fix binary), as Debian's binfmt-support or \
             systemd's systemd-binfmt does when /proc/sys/fs/binfmt_misc is mounted"
        }
        false => {
            "install an emulator that is registered with the flag F (fix binary), as Debian's qemu-user-static with \
             binfmt-support is"
        }
    };
    // An ordinary machine: nothing is wrong with it.
    Check {
        advice: Some(format!("for {}: {how}", names(elsewhere))),
        ..Check::ok(NAME, found)
    }
}

/// Returns a static program of one segment. Spec: elf(5).
fn program(platform: &Platform) -> Vec<u8> {
    const BASE: u64 = 0x1_0000;
    let (header, entry) = if platform.is_64_bit {
        (64_u64, 56_u64)
    } else {
        (52, 32)
    };
    let start = header + entry;
    let size = start + platform.code.len() as u64;
    let mut elf = Writer {
        bytes: b"\x7fELF".to_vec(),
        is_big_endian: platform.is_big_endian,
        is_64_bit: platform.is_64_bit,
    };
    let class = if platform.is_64_bit { 2 } else { 1 };
    let order = if platform.is_big_endian { 2 } else { 1 };
    elf.bytes.extend([class, order, 1]);
    elf.bytes.resize(16, 0);
    elf.number(2, 2); // ET_EXEC
    elf.number(platform.machine.into(), 2);
    elf.number(1, 4);
    elf.word(BASE + start);
    elf.word(header);
    elf.word(0);
    elf.number(platform.flags.into(), 4);
    for half in [header, entry, 1, 0, 0, 0] {
        elf.number(half, 2);
    }
    // The segment: all of the file, readable and executable. The flags stand elsewhere in 32-bit files.
    let (loaded, flags) = (1, 5);
    elf.number(loaded, 4);
    if platform.is_64_bit {
        elf.number(flags, 4);
    }
    for word in [0, BASE, BASE, size, size] {
        elf.word(word);
    }
    if !platform.is_64_bit {
        elf.number(flags, 4);
    }
    elf.word(BASE);
    elf.bytes.extend(platform.code);
    elf.bytes
}

/// Writes numbers as a platform has them.
struct Writer {
    bytes: Vec<u8>,
    is_big_endian: bool,
    is_64_bit: bool,
}

impl Writer {
    fn number(&mut self, value: u64, n_bytes: usize) {
        let little = value.to_le_bytes();
        let little = little.iter().take(n_bytes);
        match self.is_big_endian {
            false => self.bytes.extend(little),
            true => self.bytes.extend(little.rev()),
        }
    }

    fn word(&mut self, value: u64) {
        self.number(value, if self.is_64_bit { 8 } else { 4 });
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    use super::*;

    /// Each program really is one of its platform: its emulator runs it, and ends with its code.
    #[test]
    fn emulators_run_the_programs() {
        let dir = tempfile::tempdir().unwrap();
        for platform in PLATFORMS {
            let Some(emulator) = program_in_path(&format!("qemu-{}-static", platform.emulator)) else {
                eprintln!(
                    "SKIP emulators_run_the_programs: needs qemu-{}-static",
                    platform.emulator
                );
                return;
            };
            let run = |program: &[u8]| {
                let path = dir.path().join("program");
                let mut options = std::fs::File::options();
                options.create(true).truncate(true).write(true).mode(0o755);
                options.open(&path).unwrap().write_all(program).unwrap();
                std::process::Command::new(&emulator)
                    .arg(&path)
                    .output()
                    .unwrap()
                    .status
            };
            assert!(run(&program(platform)).success(), "{}", platform.name);
            let mut broken = program(platform);
            // Data where instructions were.
            broken.truncate(broken.len() - platform.code.len());
            broken.extend([0xff; 16]);
            assert!(!run(&broken).success(), "{}", platform.name);
        }
    }

    #[test]
    fn platforms_that_cannot_run_are_named_with_what_to_do() {
        let (here, elsewhere): (Vec<_>, Vec<_>) = PLATFORMS.iter().partition(|p| p.machine == 62);
        let check = told(&here, &elsewhere);
        assert_eq!(check.found, "RUN works for linux/amd64");
        let advice = check.advice.unwrap();
        assert!(
            advice.starts_with("for linux/386, linux/arm64, ") && advice.contains("flag F"),
            "{advice}"
        );
        assert_eq!(told(&PLATFORMS.iter().collect::<Vec<_>>(), &[]).advice, None);
    }
}
