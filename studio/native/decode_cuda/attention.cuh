/* Attention of one token, or several, over a cache in fp16: positions in as many parts as there are blocks of threads for them,
   within a block in streams of a few lanes, each with its own running maximum and sum; whoever comes last joins the parts.

   Queries come as the product left them: here they go through their norm and rotation, and so do the key and the value of a
   single token, which join the cache on the way. */
#pragma once
#include "product.cuh"

#define ATTENTION_WARPS 8
#define LEAST 64  /* positions of a part */
#define AT_ONCE 4 /* positions of a stream under way */

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
    float *parts;                 /* [T][kv heads * slices][splits][G][dimensions + 2] */
    unsigned *arrived;            /* [T][kv heads * slices], zero between steps */
    int layer, heads, kv_heads, rotary, window;
    float epsilon, scale, cap;
};

/* A head's vector through its norm and rotation, by one warp, into shared memory. */
template <int D> __device__ inline void turned(const Attention &a, const float *x, const float *norm, int token, float scale,
                                               float *out) {
    const int lane = threadIdx.x & 31;
    float squares = 0;
    for (int i = lane; i < D; i += 32) squares += x[i] * x[i];
    const float root = norm ? rsqrtf(warp_sum(squares) / D + a.epsilon) : 1.0f;
    for (int i = lane; i < D; i += 32) out[i] = x[i] * root * (norm ? norm[i] : 1.0f) * scale;
    __syncwarp();
    const int half = a.rotation ? a.rotary / 2 : 0;
    const float2 *angle = (const float2 *)a.rotation + (size_t)token * half;
    for (int i = lane; i < half; i += 32) {
        const float2 cs = angle[i];
        const float u = out[i], v = out[i + half];
        out[i] = u * cs.x - v * cs.y;
        out[i + half] = v * cs.x + u * cs.y;
    }
    __syncwarp();
}

template <int D> __device__ inline size_t cache_at(const Attention &a, int kv, long long position) {
    return (((size_t)a.layer * a.kv_heads + kv) * a.state->capacity + position) * D;
}

__device__ inline unsigned short to_half(float v) { return (unsigned short)halves(v, 0.0f); }

/* Put a token's key and value of one kv head into the cache, by one warp; `key` is room in shared memory. */
template <int D> __device__ inline void remember(const Attention &a, int kv, int token, float *key) {
    const int lane = threadIdx.x & 31;
    const float *k = a.qkv + (size_t)token * (a.heads + 2 * a.kv_heads) * D + (size_t)(a.heads + kv) * D, *v = k + a.kv_heads * D;
    turned<D>(a, k, a.key_norm, token, 1.0f, key);
    const size_t at = cache_at<D>(a, kv, a.state->position + token);
    for (int i = lane; i < D; i += 32) a.state->keys[at + i] = to_half(key[i]), a.state->values[at + i] = to_half(v[i]);
}

/* All keys and values of several tokens: grid (kv heads, T), one warp each. */
template <int D> __global__ void append(Attention a) {
    __shared__ float key[D];
    wait_for_input();
    remember<D>(a, blockIdx.x, blockIdx.y, key);
}

__device__ inline void widen(const uint4 &v, float *out) {
    const unsigned words[4] = {v.x, v.y, v.z, v.w};
    for (int i = 0; i < 4; i++) out[2 * i] = half_low(words[i]), out[2 * i + 1] = half_high(words[i]);
}

/* grid (kv heads * slices, splits, T); a slice is G of the heads that share a kv head. SINGLE: the token's key is not there yet. */
template <int D, int G, bool SINGLE> __global__ void __launch_bounds__(32 * ATTENTION_WARPS) attend(Attention a) {
    constexpr int SPREAD = D <= 64 ? 8 : D <= 128 ? 16 : 32;  /* lanes of a stream, eight dimensions each */
    constexpr int STREAMS = ATTENTION_WARPS * 32 / SPREAD;
    __shared__ float q[G][D], key[D], most[STREAMS][G], sums[STREAMS][G], found[ATTENTION_WARPS][G][D];
    __shared__ bool is_last_here;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, in_stream = lane % SPREAD, stream = threadIdx.x / SPREAD;
    const int slices = a.heads / a.kv_heads / G, kv = blockIdx.x / slices, token = blockIdx.z;
    const int head = kv * (a.heads / a.kv_heads) + blockIdx.x % slices * G;
    wait_for_input();
    release_next();
    const int last = (int)a.state->position + token;
    const int first = a.window && last >= a.window ? last - a.window + 1 : 0;
    const int positions = last - first + 1, splits = gridDim.y;
    const int part = max(LEAST, ((positions + splits - 1) / splits + 15) / 16 * 16);
    const int active = (positions + part - 1) / part;
    if (blockIdx.y >= active) return;
    const int begin = first + blockIdx.y * part, end = min(begin + part, last + 1);

    for (int i = warp; i <= G; i += ATTENTION_WARPS) {
        if (i < G) turned<D>(a, a.qkv + (size_t)token * (a.heads + 2 * a.kv_heads) * D + (size_t)(head + i) * D, a.query_norm, token, a.scale, q[i]);
        else if (SINGLE && end == last + 1) remember<D>(a, kv, token, key);
    }
    __syncthreads();

    const int d = in_stream * 8;
    const bool has_dimensions = d < D;
    float query[G][8], sum[G], top[G], out[G][8];
    for (int h = 0; h < G; h++) {
        sum[h] = 0, top[h] = NOTHING;
        for (int i = 0; i < 8; i++) query[h][i] = has_dimensions ? q[h][d + i] : 0.0f, out[h][i] = 0;
    }
    const unsigned short *keys = a.state->keys + cache_at<D>(a, kv, 0) + d, *values = a.state->values + cache_at<D>(a, kv, 0) + d;
    /* All streams of a warp go round equally often: they meet in the shuffles. */
    for (int base = begin; base < end; base += STREAMS * AT_ONCE) {
        uint4 k[AT_ONCE], v[AT_ONCE];
        bool is_here[AT_ONCE];
        for (int i = 0; i < AT_ONCE; i++) {
            const int p = base + i * STREAMS + stream;
            is_here[i] = p < end;
            k[i] = v[i] = make_uint4(0, 0, 0, 0);
            if (is_here[i] && has_dimensions) {
                k[i] = *(const uint4 *)(keys + (size_t)p * D);
                v[i] = *(const uint4 *)(values + (size_t)p * D);
            }
        }
        float score[AT_ONCE][G];
        for (int i = 0; i < AT_ONCE; i++) {
            float x[8];
            widen(k[i], x);
            for (int h = 0; h < G; h++) {
                float s = 0;
                for (int j = 0; j < 8; j++) s += x[j] * query[h][j];
                s = warp_sum(s, SPREAD);
                if (a.cap > 0) s = a.cap * tanhf(s / a.cap);
                score[i][h] = is_here[i] ? s : NOTHING;
            }
        }
        for (int h = 0; h < G; h++) {
            float now = top[h];
            for (int i = 0; i < AT_ONCE; i++) now = fmaxf(now, score[i][h]);
            if (now == NOTHING) continue;  /* nothing has come this stream's way yet */
            const float kept = expf(top[h] - now);
            top[h] = now, sum[h] *= kept;
            for (int j = 0; j < 8; j++) out[h][j] *= kept;
            for (int i = 0; i < AT_ONCE; i++) score[i][h] = expf(score[i][h] - now), sum[h] += score[i][h];
        }
        for (int i = 0; i < AT_ONCE; i++) {
            float x[8];
            widen(v[i], x);
            for (int h = 0; h < G; h++)
                for (int j = 0; j < 8; j++) out[h][j] += (is_here[i] ? score[i][h] : 0.0f) * x[j];
        }
    }

    /* Streams -> one: each scales itself to the largest maximum of all. */
    if (in_stream == 0)
        for (int h = 0; h < G; h++) most[stream][h] = top[h], sums[stream][h] = sum[h];
    __syncthreads();
    for (int h = 0; h < G; h++) {
        float all = NOTHING;
        for (int i = 0; i < STREAMS; i++) all = fmaxf(all, most[i][h]);
        const float kept = top[h] == NOTHING ? 0.0f : expf(top[h] - all);
        for (int j = 0; j < 8; j++) {
            float x = out[h][j] * kept;
            for (int other = SPREAD; other < 32; other *= 2) x += __shfl_xor_sync(FULL, x, other);
            if (lane < SPREAD && has_dimensions) found[warp][h][d + j] = x;
        }
    }
    __syncthreads();
    const size_t unit = (size_t)token * gridDim.x + blockIdx.x;
    float *parts = a.parts + (unit * splits + blockIdx.y) * G * (D + 2);
    float *heads = a.out + ((size_t)token * a.heads + head) * D;
    for (int i = threadIdx.x; i < G * D; i += blockDim.x) {
        const int h = i / D;
        float all = NOTHING, x = 0, share = 0;
        for (int s = 0; s < STREAMS; s++) all = fmaxf(all, most[s][h]);
        for (int s = 0; s < STREAMS; s++) share += sums[s][h] > 0 ? sums[s][h] * expf(most[s][h] - all) : 0.0f;
        for (int w = 0; w < ATTENTION_WARPS; w++) x += found[w][h][i % D];
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
            const float *from = one + (size_t)s * G * (D + 2), kept = expf(__ldcg(from + D) - all);
            x += __ldcg(from + i % D) * kept, share += __ldcg(from + D + 1) * kept;
        }
        heads[i] = x / share;
    }
    if (threadIdx.x == 0) a.arrived[unit] = 0;
}
