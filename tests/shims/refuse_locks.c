/* Preloaded into the program: every file lock fails with the error number in REFUSED_LOCKS, as on file systems without locks. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/file.h>

static int refused(void) {
    const char *number = getenv("REFUSED_LOCKS");
    errno = number ? atoi(number) : ENOSYS;
    return -1;
}

int flock(int file, int operation) {
    (void)file, (void)operation;
    return refused();
}

int lockf(int file, int command, off_t length) {
    (void)file, (void)command, (void)length;
    return refused();
}

static int is_lock(int command) {
    switch (command) {
    case F_SETLK:
    case F_SETLKW:
    case F_OFD_SETLK:
    case F_OFD_SETLKW:
        return 1;
    default:
        return 0;
    }
}

#define FORWARD(name)                                                        \
    int name(int file, int command, ...) {                                   \
        va_list rest;                                                        \
        va_start(rest, command);                                             \
        void *argument = va_arg(rest, void *);                               \
        va_end(rest);                                                        \
        if (is_lock(command))                                                \
            return refused();                                                \
        int (*next)(int, int, ...) = (int (*)(int, int, ...))dlsym(RTLD_NEXT, #name); \
        return next(file, command, argument);                                \
    }

FORWARD(fcntl)
FORWARD(fcntl64)
