/* One vector times a weight: y = W x, sixteen rows after the other, a block of threads' warps side by side along them.

   Each warp copies what it will need into a ring of its own, without its threads' help, and begins before x is there. One more
   warp adds up what the others found, so that none of them waits for a row's end.

   Tensor cores multiply: their second factor has eight columns, of which the first two hold x, once rounded to 16 bits and once
   what that left over, so that nothing of x is lost but its last bits (2^-22 of the largest in its 64, for bf16 weights 2^-17
   of each). Sums are fp32. */
#pragma once
#include "weight.cuh"

/* Given from outside: WARPS of a block of threads that multiply, BATCH blocks of codes at once, ACTIVATION. */
#define WORKERS (32 * WARPS)
#define THREADS (WORKERS + 32) /* one warp more adds up what the others found, so that none of them waits */
#define CHUNK 64   /* inputs that share a power of two */
#define PAST 80    /* bytes */
#define WIDEST 128 /* inputs of the widest block: x is filled up to a multiple */
#define TURNS 4    /* tiles whose sums are under way */
#define FILLED 1   /* barriers, one of each for every turn */
#define EMPTIED (FILLED + TURNS)

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
template <bool IS_BF16> __device__ inline void multiply(float c[4], const unsigned a[4], unsigned b0, unsigned b1) {
    if (IS_BF16)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Shared memory behind the rings, in this order; see `shared_bytes` in Python, which adds it up. */
struct Shared {
    unsigned char *high, *low;         /* x rounded, and what is left */
    float2 *span;                      /* of each span: its chunk's power of two, and the sum of x without it */
    float *rows;                       /* [TURNS][WARPS][16] */
    float *squares, *total;            /* [WARPS] each */
};

__device__ inline Shared shared_of(unsigned char *memory, int filled, int span) {
    Shared s;
    s.high = memory;
    s.low = s.high + filled * 2 + PAST;  /* other banks than `high` */
    s.span = (float2 *)(s.low + filled * 2 + PAST);
    s.rows = (float *)(s.span + filled / span);
    s.squares = s.rows + TURNS * WARPS * 16;
    s.total = s.squares + WARPS;
    return s;
}

__device__ inline float warp_sum(float v, int lanes = 32) {
    for (int other = 1; other < lanes; other *= 2) v += __shfl_xor_sync(FULL, v, other);
    return v;
}

/* Eight numbers -> 16-bit ones and what they leave over. */
template <bool IS_BF16> __device__ inline void split(const float *v, uint4 *high, uint4 *low) {
    unsigned h[4], l[4];
    for (int i = 0; i < 4; i++) {
        const float a = v[2 * i], b = v[2 * i + 1];
        h[i] = IS_BF16 ? bf16s(a, b) : halves(a, b);
        l[i] = IS_BF16 ? bf16s(a - bf16_low(h[i]), b - bf16_high(h[i])) : halves(a - half_low(h[i]), b - half_high(h[i]));
    }
    *high = make_uint4(h[0], h[1], h[2], h[3]);
    *low = make_uint4(l[0], l[1], l[2], l[3]);
}

/* Eight numbers of a vector from k on, zeros beyond its end. */
__device__ inline void load_eight(const float *from, int k, int width, float *v) {
    if (k + 8 <= width) {
        *(float4 *)v = __ldcg((const float4 *)(from + k));
        *(float4 *)(v + 4) = __ldcg((const float4 *)(from + k + 4));
    } else {
        for (int i = 0; i < 8; i++) v[i] = k + i < width ? __ldcg(from + k + i) : 0.0f;
    }
}

/* Bring x into shared memory, when the kernel before has written it; SPAN inputs share a sum. */
template <bool IS_BF16, bool NORMED, int SPAN, int ROUNDS> __device__ inline void prepare(const Input &in, const Shared &s, int filled) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    float all[ROUNDS][8], norm[NORMED ? ROUNDS : 1][8], squares = 0, total = 0;
    if (NORMED)
        for (int r = 0; r < ROUNDS; r++) load_eight(in.norm, (r * WORKERS + threadIdx.x) * 8, in.width, norm[r]);
    wait_for_input();
    for (int r = 0; r < ROUNDS; r++) load_eight(in.x, (r * WORKERS + threadIdx.x) * 8, in.width, all[r]);
#pragma unroll
    for (int r = 0; r < ROUNDS; r++) {
        const int k = (r * WORKERS + threadIdx.x) * 8;
        float *v = all[r], sum = 0, most = 0;
        for (int i = 0; i < 8; i++) {
            if (NORMED) squares += v[i] * v[i], v[i] *= norm[r][i];
            sum += v[i], most = fmaxf(most, fabsf(v[i]));
        }
        total += sum;
        if (!IS_BF16) {  /* the chunk's largest becomes 2^10 or more, less than 2^11 */
            for (int other = 1; other < CHUNK / 8; other *= 2) most = fmaxf(most, __shfl_xor_sync(FULL, most, other));
            const int exponent = max((int)(__float_as_uint(most) >> 23), 11);
            const float up = __uint_as_float((unsigned)(264 - min(exponent, 254)) << 23);
            for (int i = 0; i < 8; i++) v[i] *= up;
            sum = warp_sum(sum, SPAN / 8) * up;
            if (k < filled && lane % (SPAN / 8) == 0)
                s.span[k / SPAN] = make_float2(__uint_as_float((unsigned)(exponent - 10) << 23), sum);
        }
        if (k < filled) split<IS_BF16>(v, (uint4 *)(s.high + 2 * k), (uint4 *)(s.low + 2 * k));
    }
    if (NORMED) squares = warp_sum(squares);
    total = warp_sum(total);
    if (lane == 0) s.squares[warp] = squares, s.total[warp] = total;
}

__device__ inline unsigned shared_address(const void *p) { return (unsigned)__cvta_generic_to_shared(p); }

/* Copy behind the threads' backs; `landed` waits for all but the last `left` groups. */
template <int BYTES> __device__ inline void copy(unsigned to, const void *from) {
    if (BYTES == 16) asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(to), "l"(from) : "memory");
    else asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" :: "r"(to), "l"(from), "n"(BYTES) : "memory");
}

__device__ inline void end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LEFT> __device__ inline void landed() { asm volatile("cp.async.wait_group %0;" :: "n"(LEFT) : "memory"); }

/* Wait at one of the block's barriers for all warps, or come by there without waiting. */
__device__ inline void barrier(int index) { asm volatile("bar.sync %0, %1;" :: "r"(index), "n"(THREADS) : "memory"); }
__device__ inline void pass(int barrier) { asm volatile("bar.arrive %0, %1;" :: "r"(barrier), "n"(THREADS) : "memory"); }

/* What the last warp does: add up a tile after the other, a lane a row twice, and put it where it belongs. */
template <class S, bool NORMED, int OUTPUT>
__device__ inline void finish(const Weight &w, const Input &in, const Shared &s, int turns, float *out, float cap) {
    const int lane = threadIdx.x & 31;
    const bool is_low = (lane & 15) < 8;
    const float total = warp_sum(lane < WARPS ? s.total[lane] : 0.0f);
    const float root = NORMED ? rsqrtf(warp_sum(lane < WARPS ? s.squares[lane] : 0.0f) / (float)in.width + in.epsilon) : 1.0f;
    for (int turn = 0; turn < turns; turn++) {
        const int tile = blockIdx.x + turn * gridDim.x, row = tile * 16 + (lane & 15);
        unsigned row_scale = 0, row_zero = 0;
        float bias = 0, y = 0;
        const unsigned char *record = w.scale + ((size_t)tile * 8 + (lane & 7)) * S::RECORD;
        if (S::IS_PACKED && S::WHOLE) row_scale = __ldg((const unsigned *)record);
        if (S::HAS_ZERO && S::WHOLE) row_zero = __ldg((const unsigned *)record + 1);
        if (w.bias) bias = __ldg(w.bias + row);
        if (OUTPUT == ADDED && row < w.rows) bias += __ldcg(out + row);
        barrier(FILLED + turn % TURNS);
        const float *rows = s.rows + turn % TURNS * WARPS * 16;
#pragma unroll
        for (int i = 0; i < WARPS / 2; i++) y += rows[i * 32 + lane];
        __syncwarp();
        if (turn + TURNS < turns) pass(EMPTIED + turn % TURNS);
        y += __shfl_xor_sync(FULL, y, 16);
        if (S::IS_PACKED && S::WHOLE) {
            const float excess = is_low ? S::EXCESS : S::EXCESS_BELOW, zero = is_low ? half_low(row_zero) : half_high(row_zero);
            if (S::HAS_ZERO || S::HAS_EXCESS) y -= (S::HAS_ZERO ? zero : excess) * total;
            y *= is_low ? low_of<S::IS_BF16_SCALE>(row_scale) : high_of<S::IS_BF16_SCALE>(row_scale);
        }
        y = y * w.factor * root + bias;
        if (OUTPUT == GATED) {
            const float up = __shfl_down_sync(FULL, y, 8);
            const int i = tile * 8 + lane;
            if (lane < 8 && i < w.rows / 2) out[i] = activated(y) * up;
        } else if (lane < 16 && row < w.rows) {
            out[row] = cap > 0 ? cap * tanhf(y / cap) : y;
        }
    }
}

/* DEPTH: batches that a warp has under way. ROUNDS: of all threads, eight inputs each, to bring x in. */
template <class S, bool NORMED, int ROUNDS, int OUTPUT, int DEPTH>
__global__ void __launch_bounds__(THREADS, 1) product(Weight w, Input in, float *out, float cap) {
    /* Each warp has a ring of DEPTH batches under way: the codes of some blocks, then the records of their spans. */
    constexpr int SLOT = BATCH * (512 + S::RECORDS), INPUTS = 32 * S::STEPS;
    extern __shared__ uint4 memory[];
    const int filled = (in.width + WIDEST - 1) / WIDEST * WIDEST;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    unsigned char *ring = (unsigned char *)memory + warp * DEPTH * SLOT;
    const Shared s = shared_of((unsigned char *)memory + WARPS * DEPTH * SLOT, filled, S::SPAN);
    const int first = w.blocks * warp / WARPS, count = w.blocks * (warp + 1) / WARPS - first;
    const Levels levels = levels_of<S::KIND>(w);

    /* What comes next into the ring. */
    int tile_ahead = blockIdx.x - gridDim.x, left_ahead = 0, slot_ahead = 0;
    const uint4 *codes_ahead = nullptr;
    const unsigned char *records_ahead = nullptr;
    const unsigned ring_address = shared_address(ring) + 16 * lane;
    auto fetch = [&]() {
        if (left_ahead <= 0) {
            tile_ahead += gridDim.x, left_ahead = count;
            const size_t block = (size_t)tile_ahead * w.blocks + first;
            codes_ahead = w.codes + block * 32 + lane;
            if (S::IS_GROUPED) records_ahead = w.scale + block * S::RECORDS + 16 * lane;
        }
        if (tile_ahead < w.tiles) {
            const unsigned to = ring_address + slot_ahead;
#pragma unroll
            for (int u = 0; u < BATCH; u++)
                if (u < left_ahead) copy<16>(to + 512 * u, codes_ahead + 32 * u);
#pragma unroll
            for (int i = 0; i < BATCH * S::RECORDS; i += 512)
                if (i + 16 * lane < min(left_ahead, BATCH) * S::RECORDS) copy<16>(to + BATCH * 512 + i, records_ahead + i);
            codes_ahead += 32 * BATCH, records_ahead += S::RECORDS * BATCH, left_ahead -= BATCH;
        }
        end_group();
        slot_ahead = slot_ahead == (DEPTH - 1) * SLOT ? 0 : slot_ahead + SLOT;
    };
    const int turns = (w.tiles - (int)blockIdx.x + (int)gridDim.x - 1) / (int)gridDim.x;
    if (warp == WARPS) {
        wait_for_input();
        __syncthreads();
        finish<S, NORMED, OUTPUT>(w, in, s, turns, out, cap);
        return;
    }
    for (int i = 0; i < DEPTH; i++) fetch();
    prepare<S::IS_BF16, NORMED, S::SPAN, ROUNDS>(in, s, filled);
    __syncthreads();

    release_next();
    /* Where this lane finds its column of the inputs: rounded, left over, and these again for the columns that nobody needs. */
    const unsigned char *inputs = (g & 1 ? s.low : s.high) + t * 8 * S::PER + first * INPUTS;
    int slot = 0;
    for (int turn = 0; turn < turns; turn++) {
        float kept[4] = {0, 0, 0, 0}, upper = 0, lower = 0;
        auto compute = [&](const unsigned char *at, const unsigned char *x_at, const float2 *spans, int u) {
            const uint4 codes = *(const uint4 *)(at + 512 * u + 16 * lane);
#pragma unroll
            for (int i = 0; i < S::SPANS; i++) {
                uint2 x[S::PER];
                if (S::PER == 1) x[0] = *(const uint2 *)(x_at + u * INPUTS + i * 32);
#pragma unroll
                for (int j = 0; j + 1 < S::PER; j += 2) *(uint4 *)(x + j) = *(const uint4 *)(x_at + u * INPUTS + i * 32 * S::PER + 8 * j);
                float fresh[4] = {0, 0, 0, 0}, *c = S::IS_BF16 ? kept : fresh;
#pragma unroll
                for (int j = 0; j < S::PER; j++) {
                    unsigned a[4];
                    unpack<S::KIND>(codes, i * S::PER + j, levels, a);
                    multiply<S::IS_BF16>(c, a, x[j].x, x[j].y);
                }
                if (S::IS_BF16) continue;
                float above = c[0] + c[1], below = c[2] + c[3];
                const float2 span = spans[u * S::SPANS + i];
                float more = span.x, less = span.x;
                if (S::IS_GROUPED) {
                    const unsigned char *record = at + BATCH * 512 + u * S::RECORDS + (i * 8 + g) * S::RECORD;
                    const uint2 both = S::HAS_ZERO ? *(const uint2 *)record : make_uint2(*(const unsigned *)record, 0);
                    if (S::HAS_ZERO) above -= half_low(both.y) * span.y, below -= half_high(both.y) * span.y;
                    else if (S::HAS_EXCESS) above -= S::EXCESS * span.y, below -= S::EXCESS_BELOW * span.y;
                    more *= low_of<S::IS_BF16_SCALE>(both.x), less *= high_of<S::IS_BF16_SCALE>(both.x);
                }
                upper += above * more, lower += below * less;
            }
        };
        for (int done = 0; done < count; done += BATCH) {
            landed<DEPTH - 1>();
            __syncwarp();
            const unsigned char *at = ring + slot, *x_at = inputs + done * INPUTS;
            const float2 *spans = s.span + (first + done) * S::SPANS;
            if (count - done >= BATCH) {
#pragma unroll
                for (int u = 0; u < BATCH; u++) compute(at, x_at, spans, u);
            } else {
#pragma unroll 1
                for (int u = 0; u < count - done; u++) compute(at, x_at, spans, u);
            }
            __syncwarp();
            slot = slot == (DEPTH - 1) * SLOT ? 0 : slot + SLOT;
            fetch();
        }
        if (S::IS_BF16) upper = kept[0] + kept[1], lower = kept[2] + kept[3];

        float *rows = s.rows + turn % TURNS * WARPS * 16;
        if (turn >= TURNS) barrier(EMPTIED + turn % TURNS);
        if (t == 0) rows[warp * 16 + g] = upper, rows[warp * 16 + g + 8] = lower;
        __syncwarp();
        pass(FILLED + turn % TURNS);
    }
}
