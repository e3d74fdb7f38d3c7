/* Makes the disk of one folder fail on request: preloaded into the program under test, it looks
   into the file named by RIG_FAULTS at each call and fails those on files below
   RIG_FAULTS_DIR that are named there: "CALL ERROR" a line. The wall clock is ahead by the
   nanoseconds in the file named by RIG_CLOCK, which can be changed at any time. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int below(int fd) {
    const char *dir = getenv("RIG_FAULTS_DIR");
    char link[64], path[4096];
    if (!dir) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return strncmp(path, dir, strlen(dir)) == 0;
}

static int fault(const char *call) {
    const char *file = getenv("RIG_FAULTS");
    char text[512];
    if (!file) return 0;
    long fd = syscall(SYS_openat, AT_FDCWD, file, O_RDONLY);
    if (fd < 0) return 0;
    long length = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    if (length <= 0) return 0;
    text[length] = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        size_t named = strlen(call);
        if (strncmp(line, call, named) || line[named] != ' ') continue;
        if (!strcmp(line + named + 1, "EIO")) return EIO;
        if (!strcmp(line + named + 1, "ENOSPC")) return ENOSPC;
        if (!strcmp(line + named + 1, "EROFS")) return EROFS;
        if (!strcmp(line + named + 1, "EMFILE")) return EMFILE;
        if (!strcmp(line + named + 1, "SLOW")) usleep(20000);
    }
    return 0;
}

int fdatasync(int fd) {
    int error = below(fd) ? fault("fdatasync") : 0;
    if (error) { errno = error; return -1; }
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd) {
    int error = below(fd) ? fault("fsync") : 0;
    if (error) { errno = error; return -1; }
    return (int)syscall(SYS_fsync, fd);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    int error = below(fd) ? fault("write") : 0;
    if (error) {
        /* A full disk takes a part of it. */
        if (error == ENOSPC && count > 100) return syscall(SYS_write, fd, bytes, count / 2) < 0 ? -1 : (ssize_t)(count / 2);
        errno = error;
        return -1;
    }
    return syscall(SYS_write, fd, bytes, count);
}

ssize_t pread64(int fd, void *bytes, size_t count, off64_t offset) {
    int error = below(fd) ? fault("pread") : 0;
    if (error) { errno = error; return -1; }
    return syscall(SYS_pread64, fd, bytes, count, offset);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
    int error = below(fd) ? fault("write") : 0;
    if (error) { errno = error; return -1; }
    return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
    return fallocate64(fd, mode, offset, length);
}

static int (*real_clock)(clockid_t, struct timespec *);
static volatile long long *ahead;

__attribute__((constructor)) static void open_clock(void) {
    const char *file = getenv("RIG_CLOCK");
    int fd = file ? open(file, O_RDONLY) : -1;
    real_clock = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (fd < 0) return;
    void *map = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED) ahead = map;
    close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = real_clock ? real_clock(clock, time) : (int)syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && clock == CLOCK_REALTIME && ahead) {
        long long step = *ahead;
        time->tv_sec += step / 1000000000;
        time->tv_nsec += step % 1000000000;
        if (time->tv_nsec < 0) { time->tv_nsec += 1000000000; time->tv_sec -= 1; }
        if (time->tv_nsec >= 1000000000) { time->tv_nsec -= 1000000000; time->tv_sec += 1; }
    }
    return result;
}
