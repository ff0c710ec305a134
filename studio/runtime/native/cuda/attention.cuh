/* Attention of one token, or several, over a cache in fp16: positions in as many parts as there are blocks of threads for them,
   within a block in streams of a few lanes, each with its own running maximum and sum; whoever comes last joins the parts.

   Queries come as the product left them: here they go through their norm and rotation, and so do the key and the value of a
   single token, which join the cache on the way. */
#pragma once
#include "matmul.cuh"

#define ATTENTION_WARPS 8
#define ALONE 256 /* positions up to which one block of threads is faster than several whose parts are joined */
#define LEAST 64  /* positions of a part */
#define AT_ONCE 4 /* positions of a stream under way */

/* What differs from step to step, in the device's memory, so that one recorded graph serves all steps and texts. */
struct State {
    long long position;          /* of the first token */
    unsigned short *keys, *values; /* [layers][kv heads][capacity][head_dim] fp16 */
    long long capacity;
    long long tokens[128];
};

struct Attention {
    const State *state;
    const float *qkv;             /* [T][(heads + 2 kv heads) * head_dim] */
    const float *query_norm, *key_norm; /* [head_dim] or none */
    const float *rotation;        /* [T][rotary / 2] cosines and sines, or none */
    float *out;                   /* [T][heads * head_dim] */
    float *parts;                 /* [T][kv heads * slices][splits][G][head_dim + 2] */
    unsigned *arrived;            /* [T][kv heads * slices], zero between steps */
    int layer, heads, kv_heads, rotary, window;
    float epsilon, scale, cap;
};

/* A head's vector through its norm and rotation, by one warp, into shared memory. */
template <int D> __device__ inline void turned(const Attention &a, const float *x, const float *norm, int token, float scale,
                                               float *out) {
    const int lane = threadIdx.x & 31, half = a.rotation ? a.rotary / 2 : 0;
    constexpr int EACH = (D + 31) / 32;
    float v[EACH], squares = 0;
    float2 angle[EACH];  /* asked for together: none waits for another */
    for (int i = 0; i < EACH; i++) {
        const int at = lane + 32 * i;
        v[i] = at < D ? __ldcg(x + at) : 0.0f;
        angle[i] = at < half ? __ldcg((const float2 *)a.rotation + (size_t)token * half + at) : make_float2(1, 0);
        squares += v[i] * v[i];
    }
    const float root = norm ? rsqrtf(warp_sum(squares) / D + a.epsilon) : 1.0f;
    for (int i = 0; i < EACH; i++)
        if (lane + 32 * i < D) out[lane + 32 * i] = v[i] * root * (norm ? norm[lane + 32 * i] : 1.0f) * scale;
    __syncwarp();
    for (int i = 0; i < EACH; i++) {
        const int at = lane + 32 * i;
        if (at >= half) continue;
        const float u = out[at], w = out[at + half];
        out[at] = u * angle[i].x - w * angle[i].y;
        out[at + half] = w * angle[i].x + u * angle[i].y;
    }
    __syncwarp();
}

template <int D> __device__ inline size_t cache_at(const Attention &a, int kv, long long position) {
    return (((size_t)a.layer * a.kv_heads + kv) * a.state->capacity + position) * D;
}

__device__ inline unsigned short to_half(float v) { return (unsigned short)halves(v, 0.0f); }

/* Put a token's key and value of one kv head into the cache, by one warp; `turn` and `fresh`, both of them again, are room in
   shared memory. */
template <int D> __device__ inline void kv_append(const Attention &a, int kv, int token, float *turn, unsigned short (*fresh)[D]) {
    const int lane = threadIdx.x & 31;
    const float *k = a.qkv + (size_t)token * (a.heads + 2 * a.kv_heads) * D + (size_t)(a.heads + kv) * D, *v = k + a.kv_heads * D;
    turned<D>(a, k, a.key_norm, token, 1.0f, turn);
    const size_t at = cache_at<D>(a, kv, a.state->position + token);
    for (int i = lane; i < D; i += 32) {
        fresh[0][i] = to_half(turn[i]), fresh[1][i] = to_half(__ldcg(v + i));
        a.state->keys[at + i] = fresh[0][i], a.state->values[at + i] = fresh[1][i];
    }
}

/* All keys and values of several tokens: grid (kv heads, T), one warp each. */
template <int D> __global__ void append(Attention a) {
    __shared__ float turn[D];
    __shared__ unsigned short fresh[2][D];
    wait_for_input();
    kv_append<D>(a, blockIdx.x, blockIdx.y, turn, fresh);
}

__device__ inline void widen(const uint4 &v, float *out) {
    const unsigned words[4] = {v.x, v.y, v.z, v.w};
    for (int i = 0; i < 4; i++) out[2 * i] = half_low(words[i]), out[2 * i + 1] = half_high(words[i]);
}

/* grid (kv heads * slices, splits, T); a slice is G of the heads that share a kv head. SINGLE: the token's key is not there yet. */
template <int D, int G, bool SINGLE> __global__ void __launch_bounds__(32 * ATTENTION_WARPS) attend(Attention a) {
    constexpr int SPREAD = D <= 64 ? 8 : D <= 128 ? 16 : 32;  /* lanes of a stream, eight dimensions each */
    constexpr int STREAMS = ATTENTION_WARPS * 32 / SPREAD;
    __shared__ float q[G][D], turn[D], most[ATTENTION_WARPS][G], sums[ATTENTION_WARPS][G], found[ATTENTION_WARPS][G][D];
    __shared__ __align__(16) unsigned short fresh[2][D];
    __shared__ bool is_last_here;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, in_stream = lane % SPREAD, stream = threadIdx.x / SPREAD;
    const int slices = a.heads / a.kv_heads / G, kv = blockIdx.x / slices, token = blockIdx.z;
    const int head = kv * (a.heads / a.kv_heads) + blockIdx.x % slices * G;
    /* The state and older keys were there before the kernel in front of this one began. */
    const int last = (int)a.state->position + token;
    const int first = a.window && last >= a.window ? last - a.window + 1 : 0;
    const int positions = last - first + 1, splits = gridDim.y;
    const int part = positions <= ALONE ? ALONE : max(LEAST, ((positions + splits - 1) / splits + 15) / 16 * 16);
    const int active = (positions + part - 1) / part;
    if (blockIdx.y >= active) return;
    const int begin = first + blockIdx.y * part, end = min(begin + part, last + 1), ready = SINGLE ? min(end, last) : end;

    const int d = in_stream * 8;
    const bool has_dimensions = d < D;
    const unsigned short *keys = a.state->keys + cache_at<D>(a, kv, 0) + d, *values = a.state->values + cache_at<D>(a, kv, 0) + d;
    uint4 k[AT_ONCE], v[AT_ONCE];
    auto fetch = [&](int base) {
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int p = base + i * STREAMS + stream;
            k[i] = v[i] = make_uint4(0, 0, 0, 0);
            if (p < ready && has_dimensions) {
                k[i] = __ldcg((const uint4 *)(keys + (size_t)p * D));
                v[i] = __ldcg((const uint4 *)(values + (size_t)p * D));
            }
        }
    };
    if (SINGLE) fetch(begin);
    wait_for_input();
    release_next();
    if (!SINGLE) fetch(begin);

    for (int i = warp; i <= G; i += ATTENTION_WARPS) {
        const float *x = a.qkv + (size_t)token * (a.heads + 2 * a.kv_heads) * D + (size_t)(head + i) * D;
        if (i < G) turned<D>(a, x, a.query_norm, token, a.scale, q[i]);
        else if (SINGLE && end == last + 1) kv_append<D>(a, kv, token, turn, fresh);
    }
    __syncthreads();

    float query[G][8], sum[G], top[G], out[G][8];
#pragma unroll
    for (int h = 0; h < G; h++) {
        sum[h] = 0, top[h] = NOTHING;
#pragma unroll
        for (int i = 0; i < 8; i++) query[h][i] = has_dimensions ? q[h][d + i] : 0.0f, out[h][i] = 0;
    }
    /* All streams of a warp go round equally often: they meet in the shuffles. */
    for (int base = begin; base < end; base += STREAMS * AT_ONCE) {
        float score[AT_ONCE][G];
        uint4 value[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int p = base + i * STREAMS + stream;
            /* Of the part that has it alone: others look past their end too, and their `fresh` holds whatever was there,
               NaN perhaps, which no share of zero takes away. */
            if (SINGLE && p == last && p < end && has_dimensions)
                k[i] = *(const uint4 *)(fresh[0] + d), v[i] = *(const uint4 *)(fresh[1] + d);
            float x[8];
            widen(k[i], x);
            value[i] = v[i];
#pragma unroll
            for (int h = 0; h < G; h++) {
                float s = 0;
#pragma unroll
                for (int j = 0; j < 8; j++) s += x[j] * query[h][j];
                s = warp_sum(s, SPREAD);
                if (a.cap > 0) s = a.cap * tanhf(s / a.cap);
                score[i][h] = p < end ? s : NOTHING;
            }
        }
        fetch(base + STREAMS * AT_ONCE);
#pragma unroll
        for (int h = 0; h < G; h++) {
            float now = top[h];
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) now = fmaxf(now, score[i][h]);
            const float zero = now == NOTHING ? 0.0f : now;  /* where nothing has come this stream's way yet, all are zeros */
            const float kept = __expf(top[h] - zero);
            top[h] = now, sum[h] *= kept;
#pragma unroll
            for (int j = 0; j < 8; j++) out[h][j] *= kept;
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) score[i][h] = __expf(score[i][h] - zero), sum[h] += score[i][h];
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            float x[8];
            widen(value[i], x);
#pragma unroll
            for (int h = 0; h < G; h++) {
#pragma unroll
                for (int j = 0; j < 8; j++) out[h][j] += score[i][h] * x[j];
            }
        }
    }

    /* A warp's streams -> one: each scales itself to the largest maximum. */
#pragma unroll
    for (int h = 0; h < G; h++) {
        float all = top[h];
        for (int other = SPREAD; other < 32; other *= 2) all = fmaxf(all, __shfl_xor_sync(FULL, all, other));
        const float kept = top[h] == NOTHING ? 0.0f : __expf(top[h] - all);
        sum[h] *= kept;
        for (int other = SPREAD; other < 32; other *= 2) sum[h] += __shfl_xor_sync(FULL, sum[h], other);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            out[h][j] *= kept;
            for (int other = SPREAD; other < 32; other *= 2) out[h][j] += __shfl_xor_sync(FULL, out[h][j], other);
            if (lane < SPREAD && has_dimensions) found[warp][h][d + j] = out[h][j];
        }
        if (lane == 0) most[warp][h] = all, sums[warp][h] = sum[h];
    }
    __syncthreads();
    const size_t unit = (size_t)token * gridDim.x + blockIdx.x;
    float *parts = a.parts + (unit * splits + blockIdx.y) * G * (D + 2);
    float *heads = a.out + ((size_t)token * a.heads + head) * D;
    for (int i = threadIdx.x; i < G * D; i += blockDim.x) {
        const int h = i / D;
        float all = NOTHING, x = 0, share = 0;
        for (int w = 0; w < ATTENTION_WARPS; w++) all = fmaxf(all, most[w][h]);
        for (int w = 0; w < ATTENTION_WARPS; w++) {
            const float kept = __expf(most[w][h] - all);
            share += sums[w][h] * kept, x += found[w][h][i % D] * kept;
        }
        if (active == 1) heads[i] = x / share;
        else {
            parts[h * (D + 2) + i % D] = x;
            if (i % D == 0) parts[h * (D + 2) + D] = all, parts[h * (D + 2) + D + 1] = share;
        }
    }
    if (active == 1) return;

    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) is_last_here = atomicAdd(a.arrived + unit, 1) == active - 1;
    __syncthreads();
    if (!is_last_here) return;
    __threadfence();
    parts = a.parts + unit * splits * G * (D + 2);
    for (int i = threadIdx.x; i < G * D; i += blockDim.x) {
        const float *one = parts + i / D * (D + 2);
        float all = NOTHING, x = 0, share = 0;
        for (int s = 0; s < active; s++) all = fmaxf(all, __ldcg(one + (size_t)s * G * (D + 2) + D));
        for (int s = 0; s < active; s++) {
            const float *from = one + (size_t)s * G * (D + 2), kept = __expf(__ldcg(from + D) - all);
            x += __ldcg(from + i % D) * kept, share += __ldcg(from + D + 1) * kept;
        }
        heads[i] = x / share;
    }
    if (threadIdx.x == 0) a.arrived[unit] = 0;
}
