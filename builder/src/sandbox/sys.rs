//! The system calls that rustix doesn't offer or offers only as unsafe: thin wrappers, one call each.
//!
//! The only file of the workspace with `unsafe` in it. It decides nothing: no policy, no fallback, no logging.

#![allow(
    unsafe_code,
    reason = "the one file where system calls without a safe wrapper may be made"
)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::mount::MountAttrFlags;
use rustix::process::Pid;

/// Which side of [`clone3`] the caller is.
pub(super) enum Side {
    /// The new process, first of its namespaces.
    Child,
    /// The caller; the descriptor refers to the child and becomes readable when it ends.
    Parent(OwnedFd),
}

/// One instruction of a classic BPF program, as the kernel reads it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) jt: u8,
    pub(super) jf: u8,
    pub(super) k: u32,
}

/// `LOOP_CONFIGURE`'s argument. Spec: linux/loop.h.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Forks into new namespaces. The caller must have one thread only: the child goes on in a copy of its memory.
pub(super) fn clone3(namespaces: c_int) -> io::Result<Side> {
    let mut pidfd: c_int = -1;
    // SAFETY: `clone_args` is plain integers; all zero is its documented "nothing asked for".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from((namespaces | libc::CLONE_PIDFD).cast_unsigned());
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: no CLONE_VM, so the child has its own copy of memory and stack; `pidfd` and `args` outlive the call.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Side::Child);
    }
    // SAFETY: the kernel stored a new descriptor, which nobody else owns.
    Ok(Side::Parent(unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// Forks; returns the child's id, or `None` in the child. The caller must have one thread only. Unlike [`clone3`] it
/// works behind the filter.
pub(super) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: with one thread no lock is held, so the child may use its copy of memory as it likes.
    let pid = unsafe { libc::fork() };
    check(pid.into()).map(|_| Pid::from_raw(pid))
}

/// Returns the mount namespace of the process that a descriptor refers to. Linux 6.11.
pub(super) fn mount_namespace(pidfd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    /// Spec: linux/pidfd.h.
    const PIDFD_GET_MNT_NAMESPACE: libc::c_ulong = 0xFF03;
    // SAFETY: the request takes no argument and returns a new descriptor.
    let fd = check(unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_MNT_NAMESPACE, 0) }.into())?;
    // SAFETY: the descriptor was just made and nobody else owns it; it came from a c_int.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// Closes every descriptor from `first` on, whoever owns it: the caller must use and drop none of them any more.
pub(super) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: no memory is passed; that nobody uses the descriptors again is the caller's promise.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Gives the process a mount namespace of its own.
pub(super) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: no memory is passed; CLONE_NEWNS concerns this process's view of mounts only.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into()).map(drop)
}

/// Gives the process a network namespace of its own, which has nothing but a loopback interface that is down.
pub(super) fn unshare_network() -> io::Result<()> {
    // SAFETY: no memory is passed; CLONE_NEWNET concerns this process's view of the network only.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }.into()).map(drop)
}

/// Gives the process a user namespace of its own, without ids yet, and a mount namespace in it. It must have one thread.
pub(super) fn unshare_user_and_mounts() -> io::Result<()> {
    // SAFETY: no memory is passed; the kernel refuses a process with several threads.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) }.into()).map(drop)
}

/// Adds attributes to the mount at `path` relative to `fd` (to `fd` itself when empty).
pub(super) fn mount_setattr(
    fd: BorrowedFd<'_>,
    path: &CStr,
    flags: c_int,
    set: MountAttrFlags,
    propagation: u64,
) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: u64::from(set.bits()),
        attr_clr: 0,
        propagation,
        userns_fd: 0,
    };
    let flags = if path.is_empty() {
        flags | libc::AT_EMPTY_PATH
    } else {
        flags
    };
    // SAFETY: `path` is NUL-terminated, `attr` is of the size given; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result).map(drop)
}

/// Loads a system-call filter for the calling thread, without setting no_new_privs (needs CAP_SYS_ADMIN).
pub(super) fn seccomp_filter(program: &[Instruction]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let fprog = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: `Instruction` has sock_filter's layout; the kernel copies `len` of them and checks the program.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const fprog,
        )
    };
    check(result).map(drop)
}

/// Replaces the process. Returns only on failure.
pub(super) fn execve(program: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with a null pointer, and their strings live as long as this call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Marks every descriptor from `first` on as closed by exec.
pub(super) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: no memory is passed, and no descriptor is closed now.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    check(result).map(drop)
}

/// Gives one signal its default action.
pub(super) fn default_signal(signal: c_int) {
    /// The kernel's own form of an action; libc keeps two signals to itself, and would leave those ignored.
    const DEFAULT: [u64; 4] = [libc::SIG_DFL as u64, 0, 0, 0];
    // SAFETY: SIG_DFL installs no code, and `DEFAULT` outlives the call, which returns nothing else; the set has eight
    // bytes. A number that isn't a signal, or can't be caught, is refused with EINVAL, which is harmless.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            DEFAULT.as_ptr(),
            ptr::null_mut::<u64>(),
            8,
        )
    };
}

/// Has a signal do nothing here, and what it always does in programs that are executed: it is caught, not ignored.
pub(super) fn catch_signal(signal: c_int) {
    extern "C" fn nothing(_: c_int) {}
    let handler: extern "C" fn(c_int) = nothing;
    // SAFETY: the handler does nothing at all, which is safe at any time.
    unsafe { libc::signal(signal, handler as libc::sighandler_t) };
}

/// Has the kernel reap children: nobody waits for them.
pub(super) fn reap_children() {
    // SAFETY: SIG_IGN installs no code.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Unblocks all signals.
pub(super) fn unblock_signals() -> io::Result<()> {
    // SAFETY: an all-zero sigset_t is the empty set on Linux.
    let empty: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `empty` outlives the call; the old mask isn't asked for.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, ptr::null_mut()) }.into()).map(drop)
}

/// Brings an interface of the process's network namespace up.
pub(super) fn interface_up(socket: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    // SAFETY: `ifreq` is plain old data, for which all zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(15).zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into()).map(drop)
}

/// Opens the other end of a pseudo terminal through its master, so that no path is looked up.
pub(super) fn terminal_peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags by value and returns a new descriptor.
    let fd = check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())?;
    // SAFETY: the descriptor was just made and nobody else owns it; it came from a c_int.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// Returns the number of a free loop device.
pub(super) fn loop_free(control: BorrowedFd<'_>) -> io::Result<i64> {
    // SAFETY: LOOP_CTL_GET_FREE takes no argument.
    check(unsafe { libc::ioctl(control.as_raw_fd(), 0x4C82) }.into())
}

/// Binds `file` to a loop device, read-only, 512-byte blocks, released with its last user.
pub(super) fn loop_configure(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<()> {
    const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
    const READ_ONLY: u32 = 1;
    const AUTOCLEAR: u32 = 4;
    // SAFETY: LoopConfig is integers and arrays of them; all zero is its documented default.
    let mut config: LoopConfig = unsafe { std::mem::zeroed() };
    config.fd = file.as_raw_fd().cast_unsigned();
    config.block_size = 512;
    config.info.flags = READ_ONLY | AUTOCLEAR;
    // SAFETY: the layout is loop_config's; it outlives the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) }.into()).map(drop)
}

/// Lets the test binary be its own helper: runs before the test harness, which would take the process for its own.
/// Tests mount, so the harness gets a mount namespace of its own, where it has the right to one.
#[cfg(test)]
#[used]
// SAFETY: `.init_array` holds functions of this type, called once before main; std reads argv in an earlier one.
#[unsafe(link_section = ".init_array")]
static HELPER_ENTRY: extern "C" fn() = {
    extern "C" fn entry() {
        if let Some(code) = super::helper_entry() {
            std::process::exit(code);
        }
        let _without_rights_they_skip = match std::env::var_os(super::tests::NAMESPACE) {
            Some(_) => super::userns::enter_new(),
            None => super::launch::enter_private_mounts(),
        };
    }
    entry
};
