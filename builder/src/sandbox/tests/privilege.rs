//! What containers may do to the machine: the sandbox, and what `--security=insecure` takes away of it.

use std::path::Path;

use super::*;
use crate::sandbox::{MountPoint, Privilege, Tree};

fn check(privilege: Privilege, script: &str, expected: &str) {
    let settings = Settings {
        privilege,
        ..shell(script)
    };
    let outcome = run_in(busybox().path(), &settings);
    assert_eq!(outcome.output.trim(), expected, "{privilege:?}: {script}");
}

/// case R9, case R10: all capabilities that the build has, or the profile's.
#[test]
fn an_insecure_container_has_all_capabilities_and_no_filter() {
    if skipped() {
        return;
    }
    let own = rustix::thread::capabilities(None).unwrap().permitted.bits();
    let capabilities = "awk '/^Cap(Inh|Eff|Amb)/ { print $2 } /^Seccomp:/ { print $2 }' /proc/self/status";
    let (zero, all) = (format!("{:016x}", 0), format!("{own:016x}"));
    check(
        Privilege::Insecure,
        capabilities,
        &format!("{zero}\n{all}\n{zero}\n0"),
    );
    let profile = "00000000a80425fb";
    check(
        Privilege::Sandbox,
        capabilities,
        &format!("{zero}\n{profile}\n{zero}\n2"),
    );
}

/// hardening T18: what protects the machine is there unless exactly that was asked for.
#[test]
fn an_insecure_container_has_the_kernels_files_as_they_are() {
    if skipped() {
        return;
    }
    let masked = "grep -q . /proc/interrupts && echo shown || echo masked";
    check(Privilege::Insecure, masked, "shown");
    check(Privilege::Sandbox, masked, "masked");
    let mounts = "mount -t tmpfs x /proc/fs 2>/dev/null && echo mounts || echo refused";
    check(Privilege::Insecure, mounts, "mounts");
    check(Privilege::Sandbox, mounts, "refused");
    // In /dev, and nowhere else.
    let node = "for z in /dev/z /z; do mknod $z c 1 5 2>/dev/null; dd if=$z bs=1 count=1 >/dev/null 2>&1 && echo opens || echo refused; done";
    let made = match needs_the_machines_root() {
        true => "refused\nrefused",
        false => "opens\nrefused",
    };
    check(Privilege::Insecure, node, made);
    check(Privilege::Sandbox, node, "refused\nrefused");
}

/// case R52: a device is given as a mount: it can be used, and its node can't be changed.
#[test]
fn a_device_is_given_with_its_node_protected() {
    if skipped() {
        return;
    }
    let root = busybox();
    let lower = Lower::unpacked(open(root.path()).as_fd()).unwrap();
    let point = MountPoint {
        target: "/dev/some/zero".to_owned(),
        stub: "/dev/some/zero".to_owned(),
        tree: Tree::device(Path::new("/dev/zero")).unwrap(),
    };
    let script = "dd if=/dev/some/zero of=/dev/some/zero bs=1 count=1 2>/dev/null && echo works; \
                  busybox chmod 600 /dev/some/zero 2>/dev/null || echo protected";
    let upper = Upper::tmpfs(1 << 20).unwrap();
    let outcome = run_with(&[&lower], upper, &[point], &shell(script));
    assert_eq!(outcome.output.trim(), "works\nprotected");
    let error = Tree::device(Path::new("/etc/passwd")).unwrap_err().to_string();
    assert!(error.contains("/etc/passwd is not a device"), "{error}");
}
