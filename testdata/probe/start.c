/* Starts a program as nobody should: with descriptors 3 to 128 open on the machine's root, every signal ignored, some
 * blocked, inheritable capabilities, a foreign group, no umask, and variables. None of it may arrive in a container. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int root = open("/", O_RDONLY | O_DIRECTORY);
    for (int fd = 3; fd <= 128; fd++)
        if (fd != root)
            dup2(root, fd);
    for (int number = 1; number <= 64; number++) {
        /* The kernel's own form: libc keeps two signals to itself. */
        struct { void *handler; unsigned long flags; void *restorer; unsigned long mask; } ignore = {SIG_IGN, 0, 0, 0};
        syscall(SYS_rt_sigaction, number, &ignore, NULL, 8);
    }
    unsigned long blocked = 1UL << (SIGHUP - 1) | 1UL << (SIGUSR1 - 1) | 1UL << (SIGPIPE - 1) | 1UL << (SIGRTMAX - 1);
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, &blocked, NULL, 8);
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2];
    if (syscall(SYS_capget, &header, sets) == 0) {
        for (int i = 0; i < 2; i++)
            sets[i].inheritable = sets[i].permitted;
        syscall(SYS_capset, &header, sets);
        for (int capability = 0; capability < 64; capability++)
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0);
    }
    if (geteuid() == 0) {
        gid_t foreign = 4444;
        /* Not possible in a user namespace that lacks it: then there is nothing to leak. */
        (void)!setgroups(1, &foreign);
    }
    umask(0);
    setenv("LEAKED", "from the machine", 1);
    if (argc < 2)
        return 2;
    execvp(argv[1], argv + 1);
    perror(argv[1]);
    return 127;
}
