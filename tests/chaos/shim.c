/* Preloaded into a command: counts its calls that change files under one folder, and lets one of them go wrong.

CHAOS_FOLDER   the folder; without it nothing is counted
CHAOS_COUNTER  a file of 8 bytes that all processes of the command share: how many such calls there were
CHAOS_AT       the number of the call, from 1
CHAOS_HOW      what happens then: "kill" (SIGKILL, a write half done), "eio" (this call alone fails),
               "enospc" (this call fails, and from then on whatever needs space), "clock" (the time of day jumps)
CHAOS_JUMP     seconds by which it jumps
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

enum { SPACE = 1 }; /* the call needs space on the disk */

static int64_t *counter(void) {
    static int64_t *shared;
    const char *file = getenv("CHAOS_COUNTER");
    if (!shared && file) {
        int handle = REAL(open)(file, O_RDWR | O_CLOEXEC);
        if (handle >= 0) {
            void *place = mmap(NULL, sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
            if (place != MAP_FAILED) shared = place;
            close(handle);
        }
    }
    return shared;
}

static int below(const char *path) {
    const char *folder = getenv("CHAOS_FOLDER");
    size_t length = folder ? strlen(folder) : 0;
    return length && path && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static int of_file(int handle) {
    char link[64], path[PATH_MAX];
    if (!getenv("CHAOS_FOLDER")) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return below(path);
}

static int is(const char *how) {
    const char *wanted = getenv("CHAOS_HOW");
    return wanted && !strcmp(wanted, how);
}

/* Count a call; 1 where the process is to be killed in it, -1 with errno where it is to fail. */
static int fate(int needs) {
    int64_t *shared = counter();
    const char *at = getenv("CHAOS_AT");
    if (!shared) return 0;
    int64_t number = __atomic_add_fetch(shared, 1, __ATOMIC_SEQ_CST), wanted = at ? atoll(at) : 0;
    if (!wanted || number < wanted) return 0;
    if (is("enospc") && needs == SPACE) { errno = ENOSPC; return -1; }
    if (number > wanted) return 0;
    if (is("eio")) { errno = EIO; return -1; }
    return is("kill");
}

static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }

#define GUARD(ours, needs) do { int f_ = (ours) ? fate(needs) : 0; if (f_ < 0) return -1; if (f_ > 0) die(); } while (0)

ssize_t write(int handle, const void *data, size_t size) {
    int f = of_file(handle) ? fate(SPACE) : 0;
    if (f < 0) return -1;
    if (f > 0) { if (size > 1) REAL(write)(handle, data, size / 2); die(); }
    return REAL(write)(handle, data, size);
}
ssize_t writev(int handle, const struct iovec *parts, int count) {
    GUARD(of_file(handle), SPACE);
    return REAL(writev)(handle, parts, count);
}
ssize_t pwrite64(int handle, const void *data, size_t size, off64_t at) {
    GUARD(of_file(handle), SPACE);
    return REAL(pwrite64)(handle, data, size, at);
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t size) {
    GUARD(of_file(to), SPACE);
    return REAL(sendfile64)(to, from, at, size);
}
ssize_t sendfile(int to, int from, off_t *at, size_t size) {
    GUARD(of_file(to), SPACE);
    return REAL(sendfile)(to, from, at, size);
}
ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t size, unsigned flags) {
    GUARD(of_file(to), SPACE);
    return REAL(copy_file_range)(from, a, to, b, size, flags);
}
int fsync(int handle) { GUARD(of_file(handle), 0); return REAL(fsync)(handle); }
int ftruncate64(int handle, off64_t size) { GUARD(of_file(handle), 0); return REAL(ftruncate64)(handle, size); }
int rename(const char *from, const char *to) { GUARD(below(to), 0); return REAL(rename)(from, to); }
int renameat(int a, const char *from, int b, const char *to) { GUARD(below(to), 0); return REAL(renameat)(a, from, b, to); }
int link(const char *from, const char *to) { GUARD(below(to), SPACE); return REAL(link)(from, to); }
int symlink(const char *from, const char *to) { GUARD(below(to), SPACE); return REAL(symlink)(from, to); }
int mkdir(const char *path, mode_t mode) { GUARD(below(path), SPACE); return REAL(mkdir)(path, mode); }
int unlink(const char *path) { GUARD(below(path), 0); return REAL(unlink)(path); }
int rmdir(const char *path) { GUARD(below(path), 0); return REAL(rmdir)(path); }

#define OPEN(name, at, ...)                                                                     \
    {                                                                                           \
        mode_t mode = 0;                                                                        \
        if (flags & (O_CREAT | __O_TMPFILE)) {                                                  \
            va_list more;                                                                       \
            va_start(more, flags);                                                              \
            mode = va_arg(more, mode_t);                                                        \
            va_end(more);                                                                       \
        }                                                                                       \
        GUARD((flags & (O_CREAT | O_TRUNC)) && below(path), flags & O_CREAT ? SPACE : 0);       \
        return REAL(name)(__VA_ARGS__, mode);                                                   \
    }
int open(const char *path, int flags, ...) OPEN(open, 0, path, flags)
int open64(const char *path, int flags, ...) OPEN(open64, 0, path, flags)
int openat(int folder, const char *path, int flags, ...) OPEN(openat, 1, folder, path, flags)
int openat64(int folder, const char *path, int flags, ...) OPEN(openat64, 1, folder, path, flags)

int clock_gettime(clockid_t which, struct timespec *now) {
    int code = REAL(clock_gettime)(which, now);
    if (which == CLOCK_REALTIME && !code && is("clock")) {
        int64_t *shared = counter();
        const char *at = getenv("CHAOS_AT"), *jump = getenv("CHAOS_JUMP");
        if (shared && at && jump && *shared >= atoll(at)) now->tv_sec += atoll(jump);
    }
    return code;
}
