/* Whose turn it is. One step runs at a time: two would only take turns on the same cores. In a process that is a lock of its
   own; processes that share memory have one more between them, which outlives whoever dies holding it. */
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

static struct {
    pthread_mutex_t own;
    _Atomic(pthread_mutex_t *) shared;  /* or none */
} turns = {PTHREAD_MUTEX_INITIALIZER, 0};

/* Bytes that processes need in common for a turn. */
int turn_size(void) { return (int)sizeof(pthread_mutex_t); }

/* Make a turn in memory that processes will have in common: once, before any of them uses it. Return 0, or why not. */
int turn_make(void *memory) {
#ifdef __linux__
    pthread_mutexattr_t attributes;
    int failed = pthread_mutexattr_init(&attributes);
    if (failed) return failed;
    failed = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (!failed) failed = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    if (!failed) failed = pthread_mutex_init(memory, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return failed;
#else
    (void)memory;
    return ENOSYS;
#endif
}

/* From the next step on wait for the turn in this memory too, which stays mapped as long as the process lives; 0: for none. */
void turn_share(void *memory) { atomic_store_explicit(&turns.shared, memory, memory_order_release); }

/* Take the turn; return what to give back. A turn that cannot be had is none: the step runs all the same. */
static pthread_mutex_t *take_turn(void) {
    pthread_mutex_lock(&turns.own);
    pthread_mutex_t *shared = atomic_load_explicit(&turns.shared, memory_order_acquire);
    if (!shared) return 0;
    const int failed = pthread_mutex_lock(shared);
#ifdef __linux__
    if (failed == EOWNERDEAD) {  /* it died in its step: nothing but the turn was shared, so nothing is half done */
        pthread_mutex_consistent(shared);
        return shared;
    }
#endif
    return failed ? 0 : shared;
}

static void give_turn(pthread_mutex_t *shared) {
    if (shared) pthread_mutex_unlock(shared);
    pthread_mutex_unlock(&turns.own);
}
