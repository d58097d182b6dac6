/* Prints what a process of a container is and may do, one fact a line: "name = value".
 *
 * Statically linked, process 1 of a RUN. Facts that a machine decides (inodes of namespaces, limits) are printed as they
 * are: tests/e2e/probe.rs compares them with those outside. System calls are made in children, with arguments that do no
 * harm where they are let through. What is expected: probe.golden. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static const char *name_of(int error)
{
    return error == 0 ? "OK" : strerrorname_np(error);
}

static void fact(const char *name, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("%s = ", name);
    vprintf(format, args);
    printf("\n");
    va_end(args);
}

/* Reads a file of /proc; ends at the last character that is no white space. */
static char *contents(const char *path)
{
    static char text[1 << 18];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = 0, n;
    while (fd >= 0 && (n = read(fd, text + length, sizeof text - 1 - length)) > 0)
        length += n;
    if (fd >= 0)
        close(fd);
    while (length > 0 && strchr(" \t\n", text[length - 1]))
        length--;
    text[length] = 0;
    return text;
}

/* ---- who the process is ---- */

static void identity(void)
{
    static const char *const wanted[] = {"Umask",  "Uid",    "Gid",    "Groups", "CapInh",     "CapPrm",  "CapEff",
                                         "CapBnd", "CapAmb", "SigBlk", "SigIgn", "SigCgt",     "SigPnd",  "ShdPnd",
                                         "NSpid",  "NoNewPrivs", "Seccomp", "Seccomp_filters", "TracerPid", "Threads"};
    char *line = strtok(contents("/proc/self/status"), "\n");
    for (; line; line = strtok(NULL, "\n")) {
        char *value = strchr(line, ':');
        if (!value)
            continue;
        *value++ = 0;
        for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
            if (!strcmp(line, wanted[i])) {
                for (char *c = value; *c; c++)
                    *c = *c == '\t' ? ' ' : *c;
                size_t length = strlen(value);
                while (length > 0 && value[length - 1] == ' ')
                    value[--length] = 0;
                char name[64];
                snprintf(name, sizeof name, "status %s", line);
                value += strspn(value, " ");
                fact(name, "%s", *value ? value : "none");
            }
    }
    fact("securebits", "%#x", prctl(PR_GET_SECUREBITS));
    fact("keep capabilities", "%d", prctl(PR_GET_KEEPCAPS));
    fact("dumpable", "%d", prctl(PR_GET_DUMPABLE));
    fact("child subreaper", "%d", ({ int is = -1; prctl(PR_GET_CHILD_SUBREAPER, &is); is; }));
    fact("personality", "%#lx", syscall(SYS_personality, 0xffffffffL));
    fact("process", "%d of %d, group %d, session %d", getpid(), getppid(), getpgrp(), getsid(0));
    unsigned long total = 0;
    for (char *line = strtok(contents("/proc/self/uid_map"), "\n"); line; line = strtok(NULL, "\n")) {
        unsigned long count = 0;
        sscanf(line, "%*u %*u %lu", &count);
        total += count;
    }
    fact("users", "%s", total == 1 ? "one" : total > 4000000000UL ? "all" : "some");
    fact("setgroups", "%s", contents("/proc/self/setgroups"));
}

static void signals(void)
{
    int others = 0;
    for (int number = 1; number <= 64; number++) {
        struct { void *handler; unsigned long flags; void *restorer; unsigned long mask; } now;
        if (syscall(SYS_rt_sigaction, number, NULL, &now, 8) == 0 && now.handler != SIG_DFL)
            others++;
    }
    fact("signals not at their default", "%d", others);
    unsigned long blocked = ~0UL;
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &blocked, 8);
    fact("signals blocked", "%lx", blocked);
}

static void limits(void)
{
    static const char *const names[] = {"CPU",   "FSIZE", "DATA",       "STACK",    "CORE", "RSS",    "NPROC", "NOFILE",
                                        "MEMLOCK", "AS",  "LOCKS",      "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"};
    for (int i = 0; i < 16; i++) {
        struct rlimit limit;
        getrlimit(i, &limit);
        char name[32];
        snprintf(name, sizeof name, "limit %s", names[i]);
        fact(name, "%lu %lu", (unsigned long)limit.rlim_cur, (unsigned long)limit.rlim_max);
    }
    fact("limit nice", "%d", getpriority(PRIO_PROCESS, 0));
    fact("limit scheduler", "%d", sched_getscheduler(0));
    fact("limit oom_score_adj", "%s", contents("/proc/self/oom_score_adj"));
}

static void surroundings(void)
{
    struct utsname uts;
    uname(&uts);
    fact("hostname", "%s", uts.nodename);
    fact("domainname", "%s", uts.domainname);
    char cwd[4096];
    fact("working directory", "%s", getcwd(cwd, sizeof cwd) ? cwd : "?");
    for (int i = 0; environ[i]; i++) {
        char name[32];
        snprintf(name, sizeof name, "env %d", i);
        fact(name, "%s", environ[i]);
    }
    static const char *const namespaces[] = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"};
    for (int i = 0; i < 8; i++) {
        char path[64], target[64], name[32];
        snprintf(path, sizeof path, "/proc/self/ns/%s", namespaces[i]);
        snprintf(name, sizeof name, "namespace %s", namespaces[i]);
        ssize_t n = readlink(path, target, sizeof target - 1);
        target[n < 0 ? 0 : n] = 0;
        fact(name, "%s", target);
    }
    int processes = 0;
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; proc && (entry = readdir(proc));)
        processes += entry->d_name[0] >= '0' && entry->d_name[0] <= '9';
    fact("processes seen", "%d", processes);
    closedir(proc);
}

/* ---- descriptors and terminals ---- */

static int number(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static void descriptors(void)
{
    int found[1024], count = 0;
    DIR *dir = opendir("/proc/self/fd");
    for (struct dirent *entry; (entry = readdir(dir)) && count < 1024;)
        if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(dir))
            found[count++] = atoi(entry->d_name);
    qsort(found, count, sizeof *found, number);
    for (int i = 0; i < count; i++) {
        char path[64], target[512], name[32];
        snprintf(path, sizeof path, "/proc/self/fd/%d", found[i]);
        ssize_t n = readlink(path, target, sizeof target - 1);
        target[n < 0 ? 0 : n] = 0;
        if (strchr(target, ':'))
            *strchr(target, ':') = 0;
        int flags = fcntl(found[i], F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK);
        struct stat stat;
        fstat(found[i], &stat);
        snprintf(name, sizeof name, "descriptor %d", found[i]);
        fact(name, "%s %s%s%s of %d", target, (flags & O_ACCMODE) == O_RDONLY ? "r" : (flags & O_ACCMODE) == O_WRONLY ? "w" : "rw",
             flags & O_APPEND ? " append" : "", flags & O_NONBLOCK ? " nonblock" : "", stat.st_uid);
    }
    closedir(dir);
    char byte;
    ssize_t n = read(0, &byte, 1);
    fact("standard input", "%s", n == 0 ? "empty" : n > 0 ? "has something" : name_of(errno));
    fact("terminals", "%d%d%d", isatty(0), isatty(1), isatty(2));
    /* Twice: what is open for this process is not yet what it could open. */
    int again = open("/proc/self/fd/1", O_WRONLY | O_CLOEXEC);
    fact("standard output opens again", "%s", name_of(again < 0 ? errno : 0));
}

/* ---- files of the kernel ---- */

enum mask { MISSING, HIDDEN, EMPTY, SHOWN };
static const char *const mask_names[] = {"missing", "hidden", "empty", "shown"};

/* What a mask leaves of a path: the null device in place of a file, another and empty file system in place of a directory. */
static enum mask masked(const char *path)
{
    struct stat stat, above;
    char byte, parent[128];
    if (lstat(path, &stat) < 0)
        return MISSING;
    if (S_ISCHR(stat.st_mode) && stat.st_rdev == makedev(1, 3))
        return HIDDEN;
    if (!S_ISDIR(stat.st_mode)) {
        int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        int has_content = fd >= 0 && read(fd, &byte, 1) > 0;
        if (fd >= 0)
            close(fd);
        return has_content ? SHOWN : EMPTY;
    }
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) {
            closedir(dir);
            return SHOWN;
        }
    if (dir)
        closedir(dir);
    snprintf(parent, sizeof parent, "%s/..", path);
    return lstat(parent, &above) == 0 && above.st_dev != stat.st_dev ? HIDDEN : EMPTY;
}

static void kernel_files(void)
{
    static const char *const paths[] = {
        "/proc/acpi",      "/proc/asound",     "/proc/interrupts",  "/proc/kcore",       "/proc/keys", "/proc/latency_stats",
        "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",      "/sys/firmware",
        "/sys/devices/virtual/powercap", "/sys/fs/cgroup"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        char name[96];
        snprintf(name, sizeof name, "masked %s", paths[i]);
        fact(name, "%s", mask_names[masked(paths[i])]);
    }
    enum mask worst = MISSING;
    for (int cpu = 0; cpu < 1024; cpu++) {
        char path[96];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/thermal_throttle", cpu);
        enum mask found = masked(path);
        worst = found > worst ? found : worst;
    }
    fact("masked /sys/devices/system/cpu/cpuN/thermal_throttle", "%s", mask_names[worst]);
    static const char *const written[] = {
        "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe",
        "/proc/sysrq-trigger", "/sys", "/sys/kernel", "/etc/hosts", "/etc/resolv.conf", "/dev", "/dev/shm", "/"};
    for (size_t i = 0; i < sizeof written / sizeof *written; i++) {
        char name[96];
        snprintf(name, sizeof name, "writable %s", written[i]);
        fact(name, "%s", name_of(access(written[i], W_OK) < 0 ? errno : 0));
    }
    int n_lines = 0;
    char *line = strtok(contents("/etc/hosts"), "\n");
    for (; line; line = strtok(NULL, "\n")) {
        char name[32];
        snprintf(name, sizeof name, "hosts %d", n_lines++);
        for (char *c = line; *c; c++)
            *c = *c == '\t' ? ' ' : *c;
        fact(name, "%s", line);
    }
}

static const char *option(char *options, const char *name)
{
    static char found[64];
    size_t length = strlen(name);
    for (char *at = options; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, name, length) && at[length] == '=') {
            snprintf(found, sizeof found, " %.*s", (int)strcspn(at, ","), at);
            return found;
        }
    return "";
}

/* The complete list: target, type, attributes, propagation, and those options that are part of the profile. */
static void mounts(void)
{
    char *rest = contents("/proc/self/mountinfo"), *line;
    while ((line = strsep(&rest, "\n"))) {
        char target[1024], attributes[256], type[64], options[4096] = "", *tail = strstr(line, " - ");
        if (!tail || sscanf(line, "%*s %*s %*s %*s %1023s %255s", target, attributes) != 2)
            continue;
        sscanf(tail, " - %63s %*s %4095s", type, options);
        int is_private = !strstr(line, " shared:") && !strstr(line, " master:");
        printf("mount %s = %s %s%s", target, type, attributes, is_private ? "" : " propagates");
        static const char *const shown[] = {"mode", "ptmxmode"};
        for (int i = 0; (!strcmp(type, "tmpfs") || !strcmp(type, "devpts")) && i < 2; i++)
            printf("%s", option(options, shown[i]));
        /* Elsewhere the size is that of the content. */
        if (!strcmp(target, "/dev") || !strcmp(target, "/dev/shm"))
            printf("%s", option(options, "size"));
        printf("\n");
    }
}

/* ---- devices ---- */

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static const char *opens(const char *path, int flags)
{
    int fd = open(path, flags | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    const char *answer = name_of(fd < 0 ? errno : 0);
    if (fd >= 0)
        close(fd);
    return answer;
}

static void devices(void)
{
    struct dirent **entries;
    int count = scandir("/dev", &entries, NULL, by_name);
    for (int i = 0; i < count; i++) {
        char path[512], name[600], target[256];
        struct stat stat;
        if (entries[i]->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/dev/%s", entries[i]->d_name);
        snprintf(name, sizeof name, "device %s", path);
        lstat(path, &stat);
        ssize_t n = readlink(path, target, sizeof target - 1);
        if (n >= 0)
            fact(name, "-> %.*s", (int)n, target);
        else if (S_ISDIR(stat.st_mode))
            fact(name, "directory %04o", stat.st_mode & 07777);
        else
            fact(name, "%c %d:%d %04o, opens: %s", S_ISCHR(stat.st_mode) ? 'c' : S_ISBLK(stat.st_mode) ? 'b' : '?',
                 major(stat.st_rdev), minor(stat.st_rdev), stat.st_mode & 07777, opens(path, O_RDWR));
    }
    int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    struct stat other_end;
    if (terminal < 0 || grantpt(terminal) < 0 || unlockpt(terminal) < 0 || stat(ptsname(terminal), &other_end) < 0)
        fact("a new terminal", "%s", name_of(errno));
    else
        fact("a new terminal", "%s %04o, group %d", ptsname(terminal), other_end.st_mode & 07777, other_end.st_gid);
    close(terminal);
    static const struct { const char *name, *path; mode_t mode; int major, minor; } nodes[] = {
        {"a disk", "/probe-disk", S_IFBLK, 8, 0},         {"a disk in /dev", "/dev/probe-disk", S_IFBLK, 8, 0},
        {"a disk in /dev/shm", "/dev/shm/probe-disk", S_IFBLK, 8, 0}, {"memory", "/probe-mem", S_IFCHR, 1, 1},
        {"fuse", "/probe-fuse", S_IFCHR, 10, 229},         {"null anew", "/probe-null", S_IFCHR, 1, 3}};
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
        char name[64];
        int made = mknod(nodes[i].path, nodes[i].mode | 0666, makedev(nodes[i].major, nodes[i].minor));
        snprintf(name, sizeof name, "node of %s", nodes[i].name);
        if (made < 0)
            fact(name, "%s", name_of(errno));
        else
            fact(name, "made, opens: %s", opens(nodes[i].path, O_RDONLY));
        unlink(nodes[i].path);
    }
}

/* ---- network ---- */

static int lines_after_head(const char *path)
{
    int count = 0;
    for (const char *c = contents(path); *c; c++)
        count += *c == '\n';
    return count;
}

static void network(void)
{
    struct if_nameindex *list = if_nameindex();
    int socket_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), others = 0;
    for (struct if_nameindex *at = list; at && at->if_name; at++) {
        struct ifreq request = {0};
        strncpy(request.ifr_name, at->if_name, IFNAMSIZ - 1);
        int is_up = ioctl(socket_fd, SIOCGIFFLAGS, &request) == 0 && request.ifr_flags & IFF_UP;
        if (strcmp(at->if_name, "lo"))
            others++;
        else
            fact("interface lo", "%s", is_up ? "up" : "down");
    }
    fact("other interfaces", "%s", others == 0 ? "none" : others == 1 ? "one" : "several");
    fact("routes", "%s", lines_after_head("/proc/net/route") > 0 ? "some" : "none");
    fact("TCP sockets seen", "%s", lines_after_head("/proc/net/tcp") > 0 ? "some" : "none");
    fact("Unix sockets seen", "%s", lines_after_head("/proc/net/unix") > 0 ? "some" : "none");
    fact("nameservers", "%s", strstr(contents("/etc/resolv.conf"), "nameserver") ? "some" : "none");
}

/* ---- system calls ---- */

/* Makes the call in a child: what it changes ends with it. */
static int answer(long number, const long args[6])
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        long result = syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]);
        _exit(result < 0 ? errno : 0);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

#define CALL(name, number, ...) call(name, number, 0, (const long[6]){__VA_ARGS__})
/* For calls that kernels may lack, or answer in their own way: whether the filter lets them through. */
#define PASSES(name, number, ...) call(name, number, 1, (const long[6]){__VA_ARGS__})

static void call(const char *what, long number, int is_class, const long args[6])
{
    char name[96];
    int error = answer(number, args);
    snprintf(name, sizeof name, "call %s", what);
    if (error < 0)
        fact(name, "signal %d", -error);
    else
        fact(name, "%s", is_class && error != EPERM ? "passes" : name_of(error));
}

static void mounting(void)
{
    CALL("mount", SYS_mount, 0, 0, 0, 0, 0);
    CALL("umount2", SYS_umount2, 0, 0);
    CALL("fsopen", 430, 0, 0);
    CALL("fsconfig", 431, -1, 99);
    CALL("fsmount", 432, -1, 0, 0);
    CALL("fspick", 433, -1, 0, 0);
    CALL("move_mount", 429, -1, 0, -1, 0, 0);
    CALL("open_tree", 428, -1, 0, 0);
    CALL("mount_setattr", 442, -1, 0, 0, 0, 0);
    CALL("pivot_root", SYS_pivot_root, 0, 0);
    CALL("chroot", SYS_chroot, (long)"/");
    CALL("unshare mnt", SYS_unshare, CLONE_NEWNS);
    CALL("unshare user", SYS_unshare, CLONE_NEWUSER);
    CALL("unshare user mnt", SYS_unshare, CLONE_NEWUSER | CLONE_NEWNS);
    CALL("setns", SYS_setns, -1, 0);
    CALL("clone newns", SYS_clone, CLONE_NEWNS | SIGCHLD);
    CALL("clone newcgroup", SYS_clone, CLONE_NEWCGROUP | SIGCHLD);
    CALL("clone newuts", SYS_clone, CLONE_NEWUTS | SIGCHLD);
    CALL("clone newipc", SYS_clone, CLONE_NEWIPC | SIGCHLD);
    CALL("clone newuser", SYS_clone, CLONE_NEWUSER | SIGCHLD);
    CALL("clone newpid", SYS_clone, CLONE_NEWPID | SIGCHLD);
    CALL("clone newnet", SYS_clone, CLONE_NEWNET | SIGCHLD);
    CALL("clone", SYS_clone, SIGCHLD);
    CALL("clone3", 435, 0, 0);
}

static void administration(void)
{
    CALL("bpf", SYS_bpf, 0, 0, 0);
    CALL("perf_event_open", SYS_perf_event_open, 0, 0, -1, -1, 0);
    CALL("quotactl", SYS_quotactl, 0, 0, 0, 0);
    CALL("sethostname", SYS_sethostname, (long)"x", 1);
    CALL("setdomainname", SYS_setdomainname, (long)"x", 1);
    CALL("syslog", SYS_syslog, 10, 0, 0);
    CALL("fanotify_init", SYS_fanotify_init, 0, 0);
    CALL("lookup_dcookie", SYS_lookup_dcookie, 0, 0, 0);
    CALL("open_by_handle_at", SYS_open_by_handle_at, -1, 0, 0);
    CALL("name_to_handle_at", SYS_name_to_handle_at, -1, 0, 0, 0, 0);
    CALL("init_module", SYS_init_module, 0, 0, 0);
    CALL("finit_module", SYS_finit_module, -1, 0, 0);
    CALL("delete_module", SYS_delete_module, 0, 0);
    CALL("reboot", SYS_reboot, 0, 0, 0, 0);
    CALL("kexec_load", SYS_kexec_load, 0, 1 << 30, 0, 0xffff);
    CALL("kexec_file_load", SYS_kexec_file_load, -1, -1, 0, 0, 0xffff);
    CALL("swapon", SYS_swapon, 0, 0);
    CALL("swapoff", SYS_swapoff, 0);
    CALL("acct", SYS_acct, -1);
    CALL("nfsservctl", SYS_nfsservctl, 0, 0, 0);
    CALL("kcmp", SYS_kcmp, 1, 1, 99, 0, 0);
    CALL("pidfd_getfd", 438, -1, 0, 0);
    CALL("process_madvise", 440, -1, 0, 0, 0, 0);
    CALL("iopl", SYS_iopl, 3);
    CALL("ioperm", SYS_ioperm, 0x80, 1, 1);
    CALL("settimeofday", SYS_settimeofday, 0, 0);
    CALL("clock_settime", SYS_clock_settime, 0, 0);
    CALL("mbind", SYS_mbind, 0, 0, 0, 0, 0, 0);
    CALL("set_mempolicy", SYS_set_mempolicy, 0, 0, 0);
    CALL("get_mempolicy", SYS_get_mempolicy, 0, 0, 0, 0, 0);
    CALL("set_mempolicy_home_node", 450, 0, 0, 0, 0);
    CALL("keyctl", SYS_keyctl, 0, 0, 0, 0, 0);
    CALL("add_key", SYS_add_key, 0, 0, 0, 0, 0);
    CALL("request_key", SYS_request_key, 0, 0, 0, 0);
    CALL("userfaultfd", SYS_userfaultfd, 0);
    CALL("io_uring_setup", 425, 0, 0);
    CALL("io_uring_enter", 426, -1, 0, 0, 0, 0, 0);
    CALL("io_uring_register", 427, -1, 0, 0, 0);
    CALL("uselib", SYS_uselib, 0);
    CALL("_sysctl", SYS__sysctl, 0);
    CALL("ptrace", SYS_ptrace, PTRACE_TRACEME, 0, 0, 0);
    PASSES("process_vm_readv", SYS_process_vm_readv, 1, 0, 0, 0, 0, 0);
    PASSES("landlock_create_ruleset", 444, 0, 0, 1);
    PASSES("modify_ldt", SYS_modify_ldt, 0, 0, 0);
    PASSES("futex_wake", 454, 0, 0, 0, 0);
    PASSES("statmount", 457, 0, 0, 0, 0);
    PASSES("listmount", 458, 0, 0, 0, 0);
    PASSES("mseal", 462, 0, 0, 0);
}

static void families(void)
{
    CALL("socket unix", SYS_socket, AF_UNIX, SOCK_STREAM, 0);
    CALL("socket inet", SYS_socket, AF_INET, SOCK_STREAM, 0);
    CALL("socket inet raw", SYS_socket, AF_INET, SOCK_RAW, 1);
    CALL("socket netlink", SYS_socket, AF_NETLINK, SOCK_RAW, 0);
    CALL("socket packet", SYS_socket, AF_PACKET, SOCK_RAW, 0);
    CALL("socket alg", SYS_socket, 38, SOCK_SEQPACKET, 0);
    CALL("socket alg with high bits", SYS_socket, (1L << 32) | 38, SOCK_SEQPACKET, 0);
    CALL("socket vsock", SYS_socket, 40, SOCK_STREAM, 0);
    CALL("socket vsock with high bits", SYS_socket, (1L << 32) | 40, SOCK_STREAM, 0);
    static const long values[] = {0, 8, 0x20000, 0x20008, 0xffffffff, 1, 0x40000, 0x20001, 0x400000};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char name[64];
        snprintf(name, sizeof name, "personality %#lx", values[i]);
        CALL(name, SYS_personality, values[i]);
    }
    CALL("number 999", 999, 0);
    CALL("number 4095", 4095, 0);
    CALL("getpid of x32", 0x40000000L | 39, 0);
}

#ifdef __x86_64__
/* The way of 32-bit programs into the kernel, which has numbers of its own. */
static void thirty_two(const char *what, int number, int first)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int result;
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(0), "d"(0), "S"(0), "D"(0) : "memory", "r8", "r9", "r10", "r11");
        _exit(result < 0 ? -result : 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    char name[96];
    snprintf(name, sizeof name, "call %s of 32-bit programs", what);
    fact(name, "%s", WIFEXITED(status) ? name_of(WEXITSTATUS(status)) : "killed");
}
#endif

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    if (argc == 2 && !strcmp(argv[1], "outside")) {
        /* What a container inherits, or must not. */
        limits();
        surroundings();
        return 0;
    }
    /* Some calls would change a machine that they are let through on. */
    if (getpid() != 1) {
        fprintf(stderr, "not process 1 of a container\n");
        return 2;
    }
    identity();
    signals();
    limits();
    surroundings();
    descriptors();
    kernel_files();
    mounts();
    devices();
    network();
    mounting();
    administration();
    families();
#ifdef __x86_64__
    thirty_two("getpid", 20, 0);
    thirty_two("unshare", 310, CLONE_NEWUSER);
    thirty_two("mount", 21, 0);
    thirty_two("clone3", 435, 0);
    thirty_two("number 999", 999, 0);
#endif
    fflush(stdout);
    return 0;
}
