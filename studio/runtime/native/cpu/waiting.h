/* A number that threads wait to change, in the process's own memory: first awake, since it is mostly a matter of microseconds,
   then asleep, since on a machine with more to do than cores the one waited for may not run for milliseconds, and whoever
   spins meanwhile takes the core from it. Who was awake in vain is so for half as long the next time, down to a few
   microseconds: beside busy processes that is several times as fast, and after a few waits that were short it is as before. */
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#ifndef SPINS
#define SPINS 8000     /* at most before a thread sleeps: some times what waking one takes, or two would send each other to sleep */
#endif
#ifndef FEWEST_SPINS
#define FEWEST_SPINS 100
#endif

typedef struct {
    _Alignas(64) atomic_uint now;
    atomic_uint asleep;         /* how many wait for a call */
#ifndef __linux__
    pthread_mutex_t lock;
    pthread_cond_t called;
#endif
} Signal;

#ifdef __linux__
#define SIGNAL {0, 0}
#else
#define SIGNAL {0, 0, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER}
#endif

static inline void relax(void) {
#ifdef __x86_64__
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

/* Return what it has become, once it is no longer `seen`; what was written before `change`, the caller sees. `patience` is how
   often it is looked at awake: half as often the next time where that was in vain, twice where it was not. */
static unsigned changed(Signal *s, unsigned seen, int *patience) {
    unsigned now;
    for (int left = *patience; left > 0; left--, relax())
        if ((now = atomic_load_explicit(&s->now, memory_order_acquire)) != seen) {
            *patience = 2 * *patience < SPINS ? 2 * *patience : SPINS;
            return now;
        }
    *patience = *patience > 2 * FEWEST_SPINS ? *patience / 2 : FEWEST_SPINS;
    /* Either the changer sees this one asleep, or this one sees the change: both are in the one order of all such accesses. */
    atomic_fetch_add_explicit(&s->asleep, 1, memory_order_seq_cst);
#ifdef __linux__
    while ((now = atomic_load_explicit(&s->now, memory_order_seq_cst)) == seen)
        syscall(SYS_futex, &s->now, FUTEX_WAIT_PRIVATE, seen, 0, 0, 0);
#else
    pthread_mutex_lock(&s->lock);
    while ((now = atomic_load_explicit(&s->now, memory_order_seq_cst)) == seen) pthread_cond_wait(&s->called, &s->lock);
    pthread_mutex_unlock(&s->lock);
#endif
    atomic_fetch_sub_explicit(&s->asleep, 1, memory_order_relaxed);
    return now;
}

/* Make it `next`, and wake who sleeps. */
static void change(Signal *s, unsigned next) {
    atomic_store_explicit(&s->now, next, memory_order_seq_cst);
    if (!atomic_load_explicit(&s->asleep, memory_order_seq_cst)) return;
#ifdef __linux__
    syscall(SYS_futex, &s->now, FUTEX_WAKE_PRIVATE, INT_MAX, 0, 0, 0);
#else
    pthread_mutex_lock(&s->lock);
    pthread_cond_broadcast(&s->called);
    pthread_mutex_unlock(&s->lock);
#endif
}
