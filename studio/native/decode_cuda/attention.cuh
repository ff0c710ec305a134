/* Attention of one token, or several, over a cache in fp16: positions in as many parts as there are blocks of threads for them,
   within a block in streams of a few lanes, each with its own running maximum and sum; whoever comes last joins the parts.

   Queries come as the product left them: here they go through their norm and rotation, and so do the key and the value of a
   single token, which join the cache on the way. */
#pragma once
#include "product.cuh"

#define LEAST 32  /* positions of a part */
#define AT_ONCE 1 /* positions of a stream under way */

/* What differs from step to step, in the device's memory, so that one recorded graph serves all steps and texts. */
struct State {
    long long position;          /* of the first token */
    unsigned short *keys, *values; /* [layers][kv heads][capacity][dimensions] fp16 */
    long long capacity;
    long long tokens[128];
};

struct Attention {
    const State *state;
    const float *qkv;             /* [T][(heads + 2 kv heads) * dimensions] */
    const float *query_norm, *key_norm; /* [dimensions] or none */
    const float *rotation;        /* [T][rotary / 2] cosines and sines, or none */
    float *out;                   /* [T][heads * dimensions] */
    float *parts;                 /* [T][heads / G][splits][G][dimensions + 2] */
    unsigned *arrived;            /* [T][heads / G], zero between steps */
    int layer, heads, kv_heads, rotary, window;
    int slices, splits;           /* of a kv head's heads, in units of G; of the positions, at most */
    float epsilon, scale, cap;
};

/* Shared memory of attention. */
template <int D, int G> struct Scratch {
    float q[G][D], turn[D], most[WARPS][G], sums[WARPS][G], found[WARPS / 2][G][D];
    __align__(16) unsigned short fresh[2][D];
    bool is_last_here;
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
template <int D> __device__ inline void remember(const Attention &a, int kv, int token, float *turn, unsigned short (*fresh)[D]) {
    const int lane = threadIdx.x & 31;
    const float *k = a.qkv + (size_t)token * (a.heads + 2 * a.kv_heads) * D + (size_t)(a.heads + kv) * D, *v = k + a.kv_heads * D;
    turned<D>(a, k, a.key_norm, token, 1.0f, turn);
    const size_t at = cache_at<D>(a, kv, a.state->position + token);
    for (int i = lane; i < D; i += 32) {
        fresh[0][i] = to_half(turn[i]), fresh[1][i] = to_half(__ldcg(v + i));
        a.state->keys[at + i] = fresh[0][i], a.state->values[at + i] = fresh[1][i];
    }
}

__device__ inline void widen(const uint4 &v, float *out) {
    const unsigned words[4] = {v.x, v.y, v.z, v.w};
    for (int i = 0; i < 4; i++) out[2 * i] = half_low(words[i]), out[2 * i + 1] = half_high(words[i]);
}

/* One of the slices, G of the heads that share a kv head, over one of the parts that the positions are split into. SINGLE: the
   token's key is not in the cache yet. */
template <int D, int G, bool SINGLE>
__device__ inline void attend_to(const Attention &a, unsigned unit, unsigned split, int token, unsigned char *memory) {
    constexpr int SPREAD = D <= 64 ? 8 : D <= 128 ? 16 : 32;  /* lanes of a stream, eight dimensions each */
    constexpr int STREAMS = THREADS / SPREAD, HALF = WARPS / 2;
    Scratch<D, G> &s = *(Scratch<D, G> *)memory;
    const int last = (int)a.state->position + token;
    const int first = a.window && last >= a.window ? last - a.window + 1 : 0;
    const int positions = last - first + 1;
    const int part = max(LEAST, ((int)((float)positions / (float)a.splits) / 16 + 1) * 16);
    const int active = (int)ceilf((float)positions / (float)part);
    if ((int)split >= active) return;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, in_stream = lane % SPREAD, stream = threadIdx.x / SPREAD;
    const int kv = unit / (unsigned)a.slices, head = unit * G;
    const int begin = first + split * part, end = min(begin + part, last + 1), ready = SINGLE ? min(end, last) : end;

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
    fetch(begin);

    for (int i = warp; i <= G; i += WARPS) {
        const float *x = a.qkv + (size_t)token * (a.heads + 2 * a.kv_heads) * D + (size_t)(head + i) * D;
        if (i < G) turned<D>(a, x, a.query_norm, token, a.scale, s.q[i]);
        else if (SINGLE && end == last + 1) remember<D>(a, kv, token, s.turn, s.fresh);
    }
    __syncthreads();

    float query[G][8], sum[G], top[G], out[G][8];
#pragma unroll
    for (int h = 0; h < G; h++) {
        sum[h] = 0, top[h] = NOTHING;
#pragma unroll
        for (int i = 0; i < 8; i++) query[h][i] = has_dimensions ? s.q[h][d + i] : 0.0f, out[h][i] = 0;
    }
    /* All streams of a warp go round equally often: they meet in the shuffles. */
    for (int base = begin; base < end; base += STREAMS * AT_ONCE) {
        float score[AT_ONCE][G];
        uint4 value[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int p = base + i * STREAMS + stream;
            if (SINGLE && p == last && has_dimensions) k[i] = *(const uint4 *)(s.fresh[0] + d), v[i] = *(const uint4 *)(s.fresh[1] + d);
            float x[8];
            widen(k[i], x);
            value[i] = v[i];
#pragma unroll
            for (int h = 0; h < G; h++) {
                float product = 0;
#pragma unroll
                for (int j = 0; j < 8; j++) product += x[j] * query[h][j];
                product = warp_sum(product, SPREAD);
                if (a.cap > 0) product = a.cap * tanhf(product / a.cap);
                score[i][h] = p < end ? product : NOTHING;
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

    /* A warp's streams -> one, then warps -> one: each scales itself to the largest maximum. */
#pragma unroll
    for (int h = 0; h < G; h++) {
        float all = top[h];
        for (int other = SPREAD; other < 32; other *= 2) all = fmaxf(all, __shfl_xor_sync(FULL, all, other));
        if (lane == 0) s.most[warp][h] = all;
    }
    __syncthreads();
#pragma unroll
    for (int h = 0; h < G; h++) {
        float all = NOTHING;
        for (int w = 0; w < WARPS; w++) all = fmaxf(all, s.most[w][h]);
        const float kept = __expf(top[h] - all);
        sum[h] *= kept;
        for (int other = SPREAD; other < 32; other *= 2) sum[h] += __shfl_xor_sync(FULL, sum[h], other);
        if (lane == 0) s.sums[warp][h] = sum[h];
#pragma unroll
        for (int j = 0; j < 8; j++) {
            out[h][j] *= kept;
            for (int other = SPREAD; other < 32; other *= 2) out[h][j] += __shfl_xor_sync(FULL, out[h][j], other);
            if (warp >= HALF && lane < SPREAD && has_dimensions) s.found[warp - HALF][h][d + j] = out[h][j];
        }
    }
    __syncthreads();
    if (warp < HALF && lane < SPREAD && has_dimensions)
#pragma unroll
        for (int h = 0; h < G; h++)
#pragma unroll
            for (int j = 0; j < 8; j++) s.found[warp][h][d + j] += out[h][j];
    __syncthreads();
    const size_t place = (size_t)token * (a.heads / G) + unit;
    float *parts = a.parts + (place * a.splits + split) * G * (D + 2), *heads = a.out + ((size_t)token * a.heads + head) * D;
    for (int i = threadIdx.x; i < G * D; i += THREADS) {
        const int h = i / D;
        float x = 0, share = 0;
        for (int w = 0; w < WARPS; w++) share += s.sums[w][h];
        for (int w = 0; w < HALF; w++) x += s.found[w][h][i % D];
        if (active == 1) heads[i] = x / share;
        else {
            parts[h * (D + 2) + i % D] = x;
            if (i % D == 0) {
                float all = NOTHING;
                for (int w = 0; w < WARPS; w++) all = fmaxf(all, s.most[w][h]);
                parts[h * (D + 2) + D] = all, parts[h * (D + 2) + D + 1] = share;
            }
        }
    }
    if (active == 1) return;

    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) s.is_last_here = atomicAdd(a.arrived + place, 1) == active - 1;
    __syncthreads();
    if (!s.is_last_here) return;
    __threadfence();
    parts = a.parts + place * a.splits * G * (D + 2);
    for (int i = threadIdx.x; i < G * D; i += THREADS) {
        const float *one = parts + i / D * (D + 2);
        float all = NOTHING, x = 0, share = 0;
        for (int p = 0; p < active; p++) all = fmaxf(all, __ldcg(one + (size_t)p * G * (D + 2) + D));
        for (int p = 0; p < active; p++) {
            const float *from = one + (size_t)p * G * (D + 2), kept = __expf(__ldcg(from + D) - all);
            x += __ldcg(from + i % D) * kept, share += __ldcg(from + D + 1) * kept;
        }
        heads[i] = x / share;
    }
    if (threadIdx.x == 0) a.arrived[place] = 0;
}
