// SPDX-License-Identifier: MIT
// Runs the steps of a forward pass (include/clquant_steps.h).
//
//   TOGETHER  1: all groups run at the same time, one launch runs many steps, and groups wait for each other
//             between steps. 0: a launch runs one step
//   KIND      the only kind of step that the program is for; undefined: all kinds
//   PREPARE   1: with the steps that prepare weights
#include "attend.cl"
#include "observe.cl"
#ifndef PREPARE
#define PREPARE 0
#endif
#if PREPARE
#include "scales.cl"
#endif

#ifndef TOGETHER
#define TOGETHER 0
#endif
#ifdef KIND
#define HAS_KIND(k) (KIND == (k))
#else
#define HAS_KIND(k) 1
#endif

inline void run_step(place at, __global const clq_step *s NEAR_PARAM)
{
    switch (s->kind) {
    case CLQ_STEP_EMBED:
        if (HAS_KIND(CLQ_STEP_EMBED)) embed(at, s NEAR_PASS);
        break;
    case CLQ_STEP_NORM:
        if (HAS_KIND(CLQ_STEP_NORM)) norm(at, s NEAR_PASS);
        break;
    case CLQ_STEP_PREP:
        if (HAS_KIND(CLQ_STEP_PREP)) prep(at, s NEAR_PASS);
        break;
    case CLQ_STEP_LINEAR:
        if (!HAS_KIND(CLQ_STEP_LINEAR)) break;
        if (s->mode == CLQ_MODE_I8)
            linear_i8(at, s NEAR_PASS);
        else
            linear(at, s NEAR_PASS);
        break;
    case CLQ_STEP_ROPE:
        if (HAS_KIND(CLQ_STEP_ROPE)) rope(at, s);
        break;
    case CLQ_STEP_STORE:
        if (HAS_KIND(CLQ_STEP_STORE)) store(at, s);
        break;
    case CLQ_STEP_ATTEND:
        if (HAS_KIND(CLQ_STEP_ATTEND)) attend(at, s NEAR_PASS);
        break;
    case CLQ_STEP_ACT:
        if (HAS_KIND(CLQ_STEP_ACT)) act(at, s);
        break;
    case CLQ_STEP_ADD:
        if (HAS_KIND(CLQ_STEP_ADD)) add(at, s);
        break;
    case CLQ_STEP_GATHER:
        if (HAS_KIND(CLQ_STEP_GATHER)) gather(at, s);
        break;
    case CLQ_STEP_SCATTER:
        if (HAS_KIND(CLQ_STEP_SCATTER)) scatter(at, s);
        break;
    case CLQ_STEP_SOFTCAP:
        if (HAS_KIND(CLQ_STEP_SOFTCAP)) softcap(at, s);
        break;
    case CLQ_STEP_RANGE:
        if (HAS_KIND(CLQ_STEP_RANGE)) range(at, s NEAR_PASS);
        break;
    case CLQ_STEP_OBSERVE:
        if (HAS_KIND(CLQ_STEP_OBSERVE)) observe(at, s NEAR_PASS);
        break;
    case CLQ_STEP_GRAM:
        if (HAS_KIND(CLQ_STEP_GRAM)) gram(at, s NEAR_PASS);
        break;
#if PREPARE
    case CLQ_STEP_COLUMNS:
        if (HAS_KIND(CLQ_STEP_COLUMNS)) columns(at, s);
        break;
    case CLQ_STEP_QUANT:
        if (HAS_KIND(CLQ_STEP_QUANT)) quant(at, s NEAR_PASS);
        break;
    case CLQ_STEP_ROUND:
        if (HAS_KIND(CLQ_STEP_ROUND)) round_weight(at, s);
        break;
    case CLQ_STEP_ERROR:
        if (HAS_KIND(CLQ_STEP_ERROR)) error_of_rows(at, s NEAR_PASS);
        break;
    case CLQ_STEP_SCALES:
        if (HAS_KIND(CLQ_STEP_SCALES)) scales(at, s NEAR_PASS);
        break;
    case CLQ_STEP_GPTQ:
        if (HAS_KIND(CLQ_STEP_GPTQ)) gptq(at, s NEAR_PASS);
        break;
#endif
    }
}

#if TOGETHER
// Until all groups have come here. arrived counts up for the whole launch. false: they never did.
inline bool meet(__global uint *arrived, __global uint *failed, uint target, uint spins)
{
    __atomic_fetch_add(arrived, 1u, __ATOMIC_ACQ_REL);
    for (uint i = 0; __atomic_load_n(arrived, __ATOMIC_ACQUIRE) < target; i++) {
        if (i == spins || __atomic_load_n(failed, __ATOMIC_RELAXED)) {
            __atomic_store_n(failed, 1u, __ATOMIC_RELAXED);
            return false;
        }
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#endif
    }
    return true;
}
#endif

// Steps [first, first + count). TOGETHER: sync[counter] is 0, and no other launch has that counter; after so many looks
// the groups give up waiting for each other, and sync[0] is set.
__kernel GROUP void run_steps(__global const clq_step *restrict steps, uint first, uint count,
                              __global const uchar *weights, __global float *state, __global uchar *cache,
                              __global const ulong *tables, __global uint *sync, uint counter, uint spins)
{
#if WG
    __local float near[HAS_KIND(CLQ_STEP_OBSERVE) ? UNITS + NEAR_BINS : NEAR_FLOATS];
#endif
    place at = {weights, state, cache, tables, get_group_id(0), get_num_groups(0)};
#if TOGETHER
    uint met = 0;
    for (uint i = first; i < first + count; i++) {
        if (i > first && !(steps[i].flags & CLQ_STEP_TOGETHER) &&
            !meet(sync + counter, sync, ++met * at.n_groups, spins))
            return;
        run_step(at, steps + i NEAR_PASS);
    }
#else
    run_step(at, steps + first NEAR_PASS);
#endif
}
