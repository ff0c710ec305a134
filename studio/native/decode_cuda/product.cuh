/* One vector times a weight: y = W x, sixteen rows after the other, a block of threads' warps side by side along them.

   Tensor cores multiply: their second factor has eight columns, of which the first two hold x, once rounded to 16 bits and once
   what that left over, so that nothing of x is lost but its last bits (2^-22 of the largest in its 64, for bf16 weights 2^-17
   of each). Sums are fp32. */
#pragma once
#include "weight.cuh"

#ifndef WARPS
#define WARPS 8
#endif
#ifndef RESIDENT
#define RESIDENT 2
#endif
#define THREADS (32 * WARPS)
#define CHUNK 64   /* inputs that share a power of two */
#define PAST 80    /* bytes */
#define WIDEST 128 /* inputs of the widest block: x is filled up to a multiple */

enum Output { STORED, ADDED, GATED };

struct Input {
    const float *x, *norm;  /* norm: weights of the root mean square norm that x goes through, or none */
    float epsilon;
    int width;
};

/* Wait until what the kernel before wrote can be read, then let the next one begin with what does not need ours. */
__device__ inline void wait_for_input() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ inline void release_next() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ inline float activated(float gate) {
#if ACTIVATION == 0
    return gate / (1.0f + expf(-gate));
#elif ACTIVATION == 1
    return gate / (1.0f + expf(-1.5957691216f * (gate + 0.044715f * gate * gate * gate)));
#else
    return 0.5f * gate * (1.0f + erff(gate * 0.70710678118654752f));
#endif
}

/* c += a b, of 16 x 16 and 16 x 8. */
template <bool IS_BRAIN> __device__ inline void multiply(float c[4], const unsigned a[4], unsigned b0, unsigned b1) {
    if (IS_BRAIN)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Shared memory, in this order; see `shared_bytes` in Python, which adds it up. */
struct Shared {
    unsigned char *high, *low, *none;  /* x rounded, what is left, 64 bytes of zeros */
    float *power, *sum;                /* of each chunk: its power of two; of each span: sum of x without it */
    float *rows;                       /* [2][WARPS][16] */
    float *squares, *total;            /* [WARPS] each */
};

__device__ inline Shared shared_of(unsigned char *memory, int filled, int span) {
    Shared s;
    s.high = memory;
    s.low = s.high + filled * 2 + PAST;  /* other banks than `high` */
    s.none = s.low + filled * 2 + PAST;
    s.power = (float *)(s.none + 64);
    s.sum = s.power + filled / CHUNK;
    s.rows = s.sum + filled / span;
    s.squares = s.rows + 2 * WARPS * 16;
    s.total = s.squares + WARPS;
    return s;
}

__device__ inline float warp_sum(float v, int lanes = 32) {
    for (int other = 1; other < lanes; other *= 2) v += __shfl_xor_sync(FULL, v, other);
    return v;
}

/* Eight numbers -> 16-bit ones and what they leave over. */
template <bool IS_BRAIN> __device__ inline void split(const float *v, uint4 *high, uint4 *low) {
    unsigned h[4], l[4];
    for (int i = 0; i < 4; i++) {
        const float a = v[2 * i], b = v[2 * i + 1];
        h[i] = IS_BRAIN ? brains(a, b) : halves(a, b);
        l[i] = IS_BRAIN ? brains(a - brain_low(h[i]), b - brain_high(h[i])) : halves(a - half_low(h[i]), b - half_high(h[i]));
    }
    *high = make_uint4(h[0], h[1], h[2], h[3]);
    *low = make_uint4(l[0], l[1], l[2], l[3]);
}

/* Bring x into shared memory; SPAN inputs share a sum. */
template <bool IS_BRAIN, int SPAN> __device__ inline void prepare(const Input &in, const Shared &s, int filled) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    float squares = 0, total = 0;
    for (int start = 0; start < filled; start += THREADS * 8) {
        const int k = start + threadIdx.x * 8;
        float v[8];
        if (k + 8 <= in.width) {
            *(float4 *)v = __ldcg((const float4 *)(in.x + k));
            *(float4 *)(v + 4) = __ldcg((const float4 *)(in.x + k + 4));
        } else {
            for (int i = 0; i < 8; i++) v[i] = k + i < in.width ? __ldcg(in.x + k + i) : 0.0f;
        }
        if (in.norm) {
            for (int i = 0; i < 8; i++) squares += v[i] * v[i];
            if (k + 8 <= in.width) {
                const float4 a = __ldg((const float4 *)(in.norm + k)), b = __ldg((const float4 *)(in.norm + k + 4));
                v[0] *= a.x, v[1] *= a.y, v[2] *= a.z, v[3] *= a.w, v[4] *= b.x, v[5] *= b.y, v[6] *= b.z, v[7] *= b.w;
            } else {
                for (int i = 0; i < 8; i++) v[i] *= k + i < in.width ? __ldg(in.norm + k + i) : 0.0f;
            }
        }
        float sum = 0, most = 0;
        for (int i = 0; i < 8; i++) sum += v[i], most = fmaxf(most, fabsf(v[i]));
        total += sum;
        if (!IS_BRAIN) {  /* the chunk's largest becomes 2^10 or more, less than 2^11 */
            for (int other = 1; other < CHUNK / 8; other *= 2) most = fmaxf(most, __shfl_xor_sync(FULL, most, other));
            const int exponent = max((int)(__float_as_uint(most) >> 23), 11);
            const float up = __uint_as_float((unsigned)(264 - min(exponent, 254)) << 23);
            for (int i = 0; i < 8; i++) v[i] *= up;
            sum = warp_sum(sum, SPAN / 8) * up;
            if (k < filled && lane % (CHUNK / 8) == 0) s.power[k / CHUNK] = __uint_as_float((unsigned)(exponent - 10) << 23);
            if (k < filled && lane % (SPAN / 8) == 0) s.sum[k / SPAN] = sum;
        }
        if (k < filled) split<IS_BRAIN>(v, (uint4 *)(s.high + 2 * k), (uint4 *)(s.low + 2 * k));
    }
    if (threadIdx.x < 16) ((unsigned *)s.none)[threadIdx.x] = 0;
    squares = warp_sum(squares), total = warp_sum(total);
    if (lane == 0) s.squares[warp] = squares, s.total[warp] = total;
    __syncthreads();
}

/* What a warp has under way: one block of codes, its scales and zero points. */
template <int SPANS> struct Slot { uint4 codes; unsigned scale[SPANS], zero[SPANS]; };

/* PER steps share a scale; WHOLE: all of a row do. DEPTH blocks of each warp are under way. */
template <int KIND, int PER, bool WHOLE, bool HAS_ZERO, bool IS_BRAIN_SCALE, int DEPTH, int OUTPUT>
__global__ void __launch_bounds__(THREADS, RESIDENT) product(Weight w, Input in, float *out, float cap) {
    constexpr int STEPS = steps_of(KIND), SPANS = STEPS / PER, SPAN = 16 * PER;
    constexpr bool IS_BRAIN = KIND == BRAIN;
    extern __shared__ uint4 memory[];
    const int filled = (in.width + WIDEST - 1) / WIDEST * WIDEST;
    const Shared s = shared_of((unsigned char *)memory, filled, SPAN);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    const int first = w.blocks * warp / WARPS, count = w.blocks * (warp + 1) / WARPS - first;
    const int rounds = ((w.blocks + WARPS - 1) / WARPS + DEPTH - 1) / DEPTH;
    const Levels levels = levels_of<KIND>(w);
    Slot<SPANS> slot[DEPTH];

    auto fetch = [&](Slot<SPANS> &into, int tile, int b) {
        if (tile >= w.tiles || b >= count) return;
        const int block = first + b;
        into.codes = stream(w.codes + ((size_t)tile * w.blocks + block) * 32 + lane);
        if (KIND > BRAIN && !WHOLE)
            for (int i = 0; i < SPANS; i++) {
                const unsigned group = ((block * SPANS + i) * w.inverse) >> 20;
                const size_t at = ((size_t)tile * w.groups + group) * 8 + g;
                into.scale[i] = __ldg(w.scale + at);
                if (HAS_ZERO) into.zero[i] = __ldg(w.zero + at);
            }
    };

    for (int u = 0; u < DEPTH; u++) fetch(slot[u], blockIdx.x, u);
    wait_for_input();
    release_next();
    prepare<IS_BRAIN, SPAN>(in, s, filled);

    float root = 1, total = 0;
    for (int i = 0; i < WARPS; i++) root = i ? root + s.squares[i] : s.squares[i], total += s.total[i];
    root = in.norm ? rsqrtf(root / (float)in.width + in.epsilon) : 1.0f;

    /* Where this lane finds its inputs: rounded, left over, or zeros for the columns that nobody needs. */
    const unsigned char *inputs = (g == 0 ? s.high : g == 1 ? s.low : s.none) + (g < 2 ? t * 8 * PER : 0);
    const int stride = g < 2 ? 32 * PER : 0;  /* bytes of a span */
    int parity = 0;
    for (int tile = blockIdx.x; tile < w.tiles; tile += gridDim.x, parity ^= 1) {
        unsigned row_scale = 0, row_zero = 0;
        float bias = 0;
        const int row = tile * 16 + threadIdx.x;
        if (threadIdx.x < 16) {
            const size_t at = (size_t)tile * 8 + (threadIdx.x & 7);
            if (KIND > BRAIN && WHOLE) row_scale = __ldg(w.scale + at);
            if (HAS_ZERO && WHOLE) row_zero = __ldg(w.zero + at);
            if (w.bias) bias = __ldg(w.bias + row);
        }
        float upper = 0, lower = 0;
        for (int round = 0; round < rounds; round++) {
#pragma unroll
            for (int u = 0; u < DEPTH; u++) {
                const int b = round * DEPTH + u;
                if (b < count) {
                    const int block = first + b;
#pragma unroll
                    for (int i = 0; i < SPANS; i++) {
                        const unsigned char *at = inputs + (block * SPANS + i) * stride;
                        uint2 x[PER];
                        if (PER == 1) x[0] = *(const uint2 *)at;
#pragma unroll
                        for (int j = 0; j + 1 < PER; j += 2) *(uint4 *)(x + j) = *(const uint4 *)(at + 8 * j);
                        float c[4] = {0, 0, 0, 0};
#pragma unroll
                        for (int j = 0; j < PER; j++) {
                            unsigned a[4];
                            unpack<KIND>(slot[u].codes, i * PER + j, levels, a);
                            multiply<IS_BRAIN>(c, a, x[j].x, x[j].y);
                        }
                        float above = c[0] + c[1], below = c[2] + c[3];
                        if (!IS_BRAIN) {
                            const float power = s.power[(block * STEPS + i * PER) * 16 / CHUNK];
                            float more = power, less = power;
                            if (KIND > BRAIN && !WHOLE) {
                                if (HAS_ZERO) {
                                    const float sum = s.sum[block * SPANS + i];
                                    above -= zero_low(slot[u].zero[i]) * sum;
                                    below -= zero_high(slot[u].zero[i]) * sum;
                                }
                                more *= low_of<IS_BRAIN_SCALE>(slot[u].scale[i]);
                                less *= high_of<IS_BRAIN_SCALE>(slot[u].scale[i]);
                            }
                            upper += above * more, lower += below * less;
                        } else {
                            upper += above, lower += below;
                        }
                    }
                }
                const bool is_last = round + 1 == rounds;
                fetch(slot[u], is_last ? tile + gridDim.x : tile, is_last ? u : b + DEPTH);
            }
        }
        float *rows = s.rows + parity * WARPS * 16;
        if (t == 0) rows[warp * 16 + g] = upper, rows[warp * 16 + g + 8] = lower;
        __syncthreads();
        if (threadIdx.x < 16) {
            float y = 0;
            for (int i = 0; i < WARPS; i++) y += rows[i * 16 + threadIdx.x];
            if (WHOLE && KIND > BRAIN) {
                const bool is_low = threadIdx.x < 8;
                if (HAS_ZERO) y -= (is_low ? zero_low(row_zero) : zero_high(row_zero)) * total;
                y *= is_low ? low_of<IS_BRAIN_SCALE>(row_scale) : high_of<IS_BRAIN_SCALE>(row_scale);
            }
            y = y * w.factor * root + bias;
            if (OUTPUT == GATED) {
                const float up = __shfl_down_sync(0xffff, y, 8);
                if (threadIdx.x < 8 && tile * 8 + threadIdx.x < w.rows / 2) out[tile * 8 + threadIdx.x] = activated(y) * up;
            } else if (row < w.rows) {
                if (OUTPUT == ADDED) out[row] += y;
                else out[row] = cap > 0 ? cap * tanhf(y / cap) : y;
            }
        }
    }
}
