/* The threads that do a step together. One step runs at a time in a process: two would only take turns on the same cores.

   Everyone meets at a barrier several times a layer, a few microseconds apart, so a member spins; on a machine with more
   to do than cores it yields, and between steps it sleeps. */
#pragma once
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

#define MAX_MEMBERS 64
#define SPINS 4000

typedef struct { int index, members; } Member;
typedef void (*Work)(void *job, Member me);

static struct {
    pthread_mutex_t turn, lock;
    pthread_cond_t called;
    int members, started;
    atomic_uint epoch;                     /* of the step that members work on */
    _Alignas(64) atomic_uint arrived;
    _Alignas(64) atomic_uint generation;   /* of the barrier */
    Work work;
    void *job;
} team = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER};

static inline void relax(unsigned *spins) {
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
    if (++*spins % SPINS == 0) sched_yield();
}

/* Wait until every member is here; what each wrote before, all see after. */
static void meet(Member me) {
    if (me.members == 1) return;
    unsigned generation = atomic_load_explicit(&team.generation, memory_order_acquire), spins = 0;
    if (atomic_fetch_add_explicit(&team.arrived, 1, memory_order_acq_rel) + 1 == (unsigned)me.members) {
        atomic_store_explicit(&team.arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team.generation, generation + 1, memory_order_release);
        return;
    }
    while (atomic_load_explicit(&team.generation, memory_order_acquire) == generation) relax(&spins);
}

static void *serve(void *start) {
    Member me = {(int)((intptr_t)start & 0xff), 0};
    unsigned seen = (unsigned)((intptr_t)start >> 8);
    for (;;) {
        unsigned spins = 0;
        while (atomic_load_explicit(&team.epoch, memory_order_acquire) == seen && spins < SPINS - 1) relax(&spins);
        pthread_mutex_lock(&team.lock);
        while (atomic_load_explicit(&team.epoch, memory_order_acquire) == seen) pthread_cond_wait(&team.called, &team.lock);
        seen = atomic_load_explicit(&team.epoch, memory_order_acquire);
        me.members = team.members;
        pthread_mutex_unlock(&team.lock);
        if (me.index >= me.members) continue;
        team.work(team.job, me);
        meet(me);
    }
    return 0;
}

/* Make sure of up to `members` threads, this one among them; return how many there are. Under `team.turn`. */
static int recruit(int members) {
    if (members > MAX_MEMBERS) members = MAX_MEMBERS;
    for (; team.started < members - 1; team.started++) {
        pthread_t thread;
        intptr_t start = (intptr_t)atomic_load(&team.epoch) << 8 | (team.started + 1);
        if (pthread_create(&thread, 0, serve, (void *)start)) break;
        pthread_detach(thread);
    }
    return members > team.started + 1 ? team.started + 1 : members < 1 ? 1 : members;
}

/* Let so many recruited members do the work; return when all are done. Under `team.turn`. */
static void together(Work work, void *job, int members) {
    pthread_mutex_lock(&team.lock);
    team.members = members;
    team.work = work;
    team.job = job;
    atomic_fetch_add_explicit(&team.epoch, 1, memory_order_acq_rel);
    pthread_cond_broadcast(&team.called);
    pthread_mutex_unlock(&team.lock);
    Member me = {0, members};
    work(job, me);
    meet(me);
}

/* This member's part of 0..count: [start, stop). */
static inline void share(Member me, int count, int *start, int *stop) {
    *start = (int)((int64_t)count * me.index / me.members);
    *stop = (int)((int64_t)count * (me.index + 1) / me.members);
}
