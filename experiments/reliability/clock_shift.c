/* Shifts the date that a process reads, as when a machine's clock is set; not its monotonic clock.

   cc -shared -fPIC -O2 -o clock_shift.so clock_shift.c -ldl
   LD_PRELOAD=./clock_shift.so CLOCK_SHIFT=FILE command

   FILE begins with the shift in nanoseconds, 8 bytes, which may change at any time. Waiting until a
   date is waiting until that date of the shifted clock. (libfaketime 0.9.10 lets clock_nanosleep
   fail after a jump.) */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const volatile int64_t *file;

static __attribute__((constructor)) void open_file(void) {
  const char *path = getenv("CLOCK_SHIFT");
  int descriptor = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (descriptor < 0) return;
  void *mapped = mmap(NULL, sizeof *file, PROT_READ, MAP_SHARED, descriptor, 0);
  if (mapped != MAP_FAILED) file = mapped;
  close(descriptor);
}

static int64_t shift(void) { return file ? *file : 0; }

static struct timespec plus(struct timespec t, int64_t nanoseconds) {
  int64_t all = t.tv_sec * INT64_C(1000000000) + t.tv_nsec + nanoseconds;
  t.tv_sec = all / 1000000000;
  t.tv_nsec = all % 1000000000;
  return t;
}

/* The system's date for a date of the shifted clock; monotonic times, which are small, stay. */
static struct timespec real_date(const struct timespec *t) {
  return t->tv_sec > 500000000 ? plus(*t, -shift()) : *t;
}

static int is_date(clockid_t clock) {
  return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
}

int clock_gettime(clockid_t clock, struct timespec *t) {
  static __typeof__(&clock_gettime) real;
  if (!real) real = REAL(clock_gettime);
  int result = real(clock, t);
  if (!result && is_date(clock)) *t = plus(*t, shift());
  return result;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
  (void)zone;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  t->tv_sec = now.tv_sec;
  t->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *t) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (t) *t = now.tv_sec;
  return now.tv_sec;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *t, struct timespec *left) {
  struct timespec until = *t;
  if (is_date(clock) && (flags & TIMER_ABSTIME)) until = real_date(t);
  return REAL(clock_nanosleep)(clock, flags, &until, left);
}

int pthread_cond_timedwait(
    pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
    const struct timespec *restrict t) {
  static __typeof__(&pthread_cond_timedwait) real;
  if (!real) real = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
  if (!real) real = REAL(pthread_cond_timedwait);
  struct timespec until = real_date(t);
  return real(condition, mutex, &until);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict t) {
  struct timespec until = real_date(t);
  return REAL(sem_timedwait)(semaphore, &until);
}

long syscall(long number, ...) {
  static __typeof__(&syscall) real;
  if (!real) real = REAL(syscall);
  long a[6];
  va_list arguments;
  va_start(arguments, number);
  for (int i = 0; i < 6; i++) a[i] = va_arg(arguments, long);
  va_end(arguments);
  struct timespec until;
  if (number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME) && a[3]) {
    until = real_date((const struct timespec *)a[3]);
    a[3] = (long)&until;
  }
  long result = real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  if (number == SYS_clock_gettime && !result && is_date((clockid_t)a[0])) {
    struct timespec *t = (struct timespec *)a[1];
    *t = plus(*t, shift());
  }
  return result;
}
