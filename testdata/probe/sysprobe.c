/* Makes system calls that a container must not get, with harmless arguments, and prints "name errno" for each.
 * Statically linked, run as root in a container; 0 means that the call was let through and succeeded. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static void probe(const char *name, long number, long a, long b, long c, long d, long e)
{
    errno = 0;
    long result = syscall(number, a, b, c, d, e, 0L);
    printf("%s %d\n", name, result < 0 ? errno : 0);
}

int main(void)
{
    probe("unshare_user", SYS_unshare, CLONE_NEWUSER | CLONE_NEWNS, 0, 0, 0, 0);
    probe("clone_newuser", SYS_clone, CLONE_NEWUSER | 17, 0, 0, 0, 0);
    probe("clone3", 435, 0, 0, 0, 0, 0);
    probe("mount", SYS_mount, 0, 0, 0, 0, 0);
    probe("fsopen", 430, 0, 0, 0, 0, 0);
    probe("open_tree", 428, -1, 0, 0, 0, 0);
    probe("pivot_root", SYS_pivot_root, 0, 0, 0, 0, 0);
    probe("setns", SYS_setns, -1, 0, 0, 0, 0);
    probe("bpf", SYS_bpf, 0, 0, 0, 0, 0);
    probe("perf_event_open", SYS_perf_event_open, 0, 0, 0, 0, 0);
    probe("keyctl", SYS_keyctl, 0, 0, 0, 0, 0);
    probe("add_key", SYS_add_key, 0, 0, 0, 0, 0);
    probe("userfaultfd", SYS_userfaultfd, 0, 0, 0, 0, 0);
    probe("io_uring_setup", 425, 0, 0, 0, 0, 0);
    probe("open_by_handle_at", SYS_open_by_handle_at, -1, 0, 0, 0, 0);
    probe("kexec_load", SYS_kexec_load, 0, 0, 0, 0, 0);
    probe("init_module", SYS_init_module, 0, 0, 0, 0, 0);
    probe("swapon", SYS_swapon, 0, 0, 0, 0, 0);
    probe("reboot", SYS_reboot, 0, 0, 0, 0, 0);
    probe("settimeofday", SYS_settimeofday, 0, 0, 0, 0, 0);
    probe("sethostname", SYS_sethostname, (long)"x", 1, 0, 0, 0);
    probe("quotactl", SYS_quotactl, 0, 0, 0, 0, 0);
    probe("iopl", SYS_iopl, 3, 0, 0, 0, 0);
    probe("socket_alg", SYS_socket, 38, SOCK_SEQPACKET, 0, 0, 0);
    probe("socket_alg_high_bits", SYS_socket, (1L << 32) | 38, SOCK_SEQPACKET, 0, 0, 0);
    probe("socket_vsock", SYS_socket, 40, SOCK_STREAM, 0, 0, 0);
    probe("personality", SYS_personality, 0x40000, 0, 0, 0, 0);
    probe("newer_than_the_profile", 999, 0, 0, 0, 0, 0);
    probe("x32_getpid", 0x40000000L | 39, 0, 0, 0, 0, 0);
    probe("chroot", SYS_chroot, (long)"/", 0, 0, 0, 0);
    probe("socket_packet", SYS_socket, AF_PACKET, SOCK_RAW, 0, 0, 0);
    return 0;
}
