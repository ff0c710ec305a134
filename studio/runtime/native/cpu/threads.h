/* The threads that do a step together. Everyone meets at a barrier several times a layer, a few microseconds apart. */
#pragma once
#include "turn.h"
#include "waiting.h"

#define MAX_MEMBERS 64
#define MEMBER_BITS 8  /* of a call: the rest counts the steps */

typedef struct { int index, members; } Member;
typedef void (*Work)(void *job, Member me);

static struct {
    int started;                     /* threads beside the caller's */
    Signal call;                     /* the number of a step, and how many work on it */
    Signal barrier;                  /* how often everyone was there */
    _Alignas(64) atomic_uint arrived;
    Work work;                       /* written before a call, read by those it names alone */
    void *job;
} team = {.call = SIGNAL, .barrier = SIGNAL};

/* Wait until every member is here; what each wrote before, all see after. */
static void barrier(Member me) {
    if (me.members == 1) return;
    const unsigned before = atomic_load_explicit(&team.barrier.now, memory_order_acquire);
    if (atomic_fetch_add_explicit(&team.arrived, 1, memory_order_acq_rel) + 1 == (unsigned)me.members) {
        atomic_store_explicit(&team.arrived, 0, memory_order_relaxed);
        change(&team.barrier, before + 1);
    } else {
        static _Thread_local int patience = SPINS;
        changed(&team.barrier, before, &patience);
    }
}

static void *worker_loop(void *start) {
    const int index = (int)((uintptr_t)start & ((1 << MEMBER_BITS) - 1));
    unsigned call = (unsigned)((uintptr_t)start >> MEMBER_BITS);
    for (;;) {
        int patience = SPINS;  /* anew each time: between steps the caller does other things, which says nothing of the machine */
        call = changed(&team.call, call, &patience);
        const Member me = {index, (int)(call & ((1 << MEMBER_BITS) - 1))};
        if (index >= me.members) continue;
        team.work(team.job, me);
        barrier(me);
    }
    return 0;
}

/* Make sure of up to `members` threads, this one among them; return how many there are. In one's turn. */
static int start_threads(int members) {
    if (members > MAX_MEMBERS) members = MAX_MEMBERS;
    for (; team.started < members - 1; team.started++) {
        pthread_t thread;
        const uintptr_t call = atomic_load_explicit(&team.call.now, memory_order_relaxed);
        if (pthread_create(&thread, 0, worker_loop, (void *)(call << MEMBER_BITS | (unsigned)(team.started + 1)))) break;
        pthread_detach(thread);
    }
    return members > team.started + 1 ? team.started + 1 : members < 1 ? 1 : members;
}

/* Let so many of the started members do the work; return when all are done. In one's turn. */
static void run_on_team(Work work, void *job, int members) {
    const Member me = {0, members};
    if (members > 1) {
        team.work = work;
        team.job = job;
        const unsigned step = (atomic_load_explicit(&team.call.now, memory_order_relaxed) >> MEMBER_BITS) + 1;
        change(&team.call, step << MEMBER_BITS | (unsigned)members);
    }
    work(job, me);
    barrier(me);
}

/* This member's part of 0..count: [start, stop). */
static inline void share(Member me, int count, int *start, int *stop) {
    *start = (int)((int64_t)count * me.index / me.members);
    *stop = (int)((int64_t)count * (me.index + 1) / me.members);
}

/* A process that was forked has none of its parent's threads, whatever they were at. */
static void reset_team(void) {
    team.started = 0;
    team.call = team.barrier = (Signal)SIGNAL;
    atomic_store_explicit(&team.arrived, 0, memory_order_relaxed);
    pthread_mutex_init(&turns.own, 0);
}
