/* One vector times a weight: y = W x, sixteen rows after the other, the warps of a block of threads side by side along them.

   Tensor cores multiply: their second factor has eight columns, of which the first two hold x, once rounded to 16 bits and once
   what that left over, so that nothing of x is lost but its last bits (2^-22 of the largest in its 64, for bf16 weights 2^-17
   of each). Sums are fp32.

   Each warp copies what it will need into a ring of its own, across the ends of tiles and weights: while the blocks of threads
   meet and bring the next vector in, the memory is not idle. */
#pragma once
#include "weight.cuh"

/* Given from outside: WARPS of a block of threads, BATCH blocks of codes that are copied at once, DEPTH batches that a warp has
   under way, ROUNDS of all threads with eight inputs each for the widest vector, ACTIVATION. */
#define THREADS (32 * WARPS)
#define CHUNK 64   /* inputs that share a power of two */
#define PAST 80    /* bytes */
#define WIDEST 128 /* inputs of the widest block: x is filled up to a multiple */

enum Output { STORED, ADDED, GATED };

struct Product {
    Weight weight;
    const float *x;
    const float *up;    /* where x is a gate that still has to be activated: what it opens for; or none */
    const float *norm;  /* weights of the root mean square norm that x goes through, or none */
    float *out;
    float epsilon, cap;
    int width, output;
};

/* What the kernel's template lists: the sorts of weights that a model has. PER steps share a scale; WHOLE: all of a row do. */
template <int KIND_, int PER_, bool WHOLE_, bool HAS_ZERO_, bool IS_BRAIN_SCALE_> struct Sort {
    static constexpr int KIND = KIND_, PER = PER_, STEPS = steps_of(KIND), SPANS = STEPS / PER, SPAN = 16 * PER;
    static constexpr bool WHOLE = WHOLE_, HAS_ZERO = HAS_ZERO_, IS_BRAIN_SCALE = IS_BRAIN_SCALE_;
    static constexpr bool IS_BRAIN = KIND == BRAIN, IS_GROUPED = KIND > BRAIN && !WHOLE;
    static constexpr int RECORD = HAS_ZERO ? 8 : 4, RECORDS = IS_GROUPED ? SPANS * 8 * RECORD : 0; /* bytes; of a block */
};

__device__ inline float activated(float gate) {
#if ACTIVATION == 0
    return gate / (1.0f + __expf(-gate));
#elif ACTIVATION == 1
    return gate / (1.0f + __expf(-1.5957691216f * (gate + 0.044715f * gate * gate * gate)));
#else
    return 0.5f * gate * (1.0f + erff(gate * 0.70710678118654752f));
#endif
}

/* c += a b, of 16 x 16 and 16 x 8. */
template <bool IS_BRAIN> __device__ inline void multiply(float c[4], const unsigned a[4], uint2 b) {
    if (IS_BRAIN)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y));
}

__device__ inline float warp_sum(float v, int lanes = 32) {
    for (int other = 1; other < lanes; other *= 2) v += __shfl_xor_sync(FULL, v, other);
    return v;
}

/* ---- copies under way ---- */

__device__ inline unsigned shared_address(const void *p) { return (unsigned)__cvta_generic_to_shared(p); }

__device__ inline void copy(unsigned to, const void *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(to), "l"(from) : "memory");
}

/* A warp's ring of DEPTH batches, each the codes of BATCH blocks and then their records. */
struct Ring {
    unsigned char *memory;
    const Weight *weight, *end;  /* the weight that is being copied, of all in the order of their use */
    const uint4 *codes;
    const unsigned char *records;
    int bytes, record_bytes;     /* of a batch's room, of the records of a block */
    int tile, left;              /* blocks of the tile */
    int to, from;                /* offsets of the batches that come and go next */

    __device__ static int first(int blocks) { return blocks * (int)(threadIdx.x >> 5) / WARPS; }
    __device__ static int count(int blocks) { return blocks * (int)((threadIdx.x >> 5) + 1) / WARPS - first(blocks); }

    __device__ void begin(unsigned char *shared, int bytes_, const Weight *weights, int weight_count) {
        bytes = bytes_, memory = shared + (threadIdx.x >> 5) * DEPTH * bytes;
        weight = weights, end = weights + weight_count;
        tile = (int)blockIdx.x - (int)gridDim.x, left = to = from = 0;
        for (int i = 0; i < DEPTH; i++) fetch();
    }

    __device__ void fetch() {
        const int lane = threadIdx.x & 31;
        while (left <= 0 && weight < end) {
            tile += gridDim.x;
            if (tile >= __ldg(&weight->tiles)) {
                weight++, tile = (int)blockIdx.x - (int)gridDim.x;
                continue;
            }
            const int blocks = __ldg(&weight->blocks);
            const size_t block = (size_t)tile * blocks + first(blocks);
            left = count(blocks), record_bytes = __ldg(&weight->record_bytes);
            codes = (const uint4 *)__ldg((const unsigned long long *)&weight->codes) + block * 32 + lane;
            records = (const unsigned char *)__ldg((const unsigned long long *)&weight->scale) + block * record_bytes + 16 * lane;
        }
        if (left > 0) {
            const unsigned address = shared_address(memory) + to + 16 * lane;
            const int wanted = min(left, BATCH) * record_bytes;
#pragma unroll
            for (int u = 0; u < BATCH; u++)
                if (u < left) copy(address + 512 * u, codes + 32 * u);
            for (int i = 16 * lane; i < wanted; i += 512) copy(address + BATCH * 512 + i - 16 * lane, records + i - 16 * lane);
            codes += 32 * BATCH, records += BATCH * record_bytes, left -= BATCH;
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
        to = to == (DEPTH - 1) * bytes ? 0 : to + bytes;
    }

    /* Wait for the oldest batch. */
    __device__ const unsigned char *landed() const {
        asm volatile("cp.async.wait_group %0;" :: "n"(DEPTH - 1) : "memory");
        __syncwarp();
        return memory + from;
    }

    /* Give its room to a new one. */
    __device__ void next() {
        __syncwarp();
        from = from == (DEPTH - 1) * bytes ? 0 : from + bytes;
        fetch();
    }
};

/* ---- the vector ---- */

/* Shared memory behind the rings, in this order; see `shared_bytes` in Python, which adds it up. */
struct Shared {
    unsigned char *high, *low;  /* x rounded, what is left */
    float2 *span;               /* of each span: its chunk's power of two, and the sum of x without it */
    float *rows;                /* [2][WARPS][16] */
    float *squares, *total;     /* [WARPS] each */
};

__device__ inline Shared shared_of(unsigned char *memory, int filled, int span) {
    Shared s;
    s.high = memory;
    s.low = s.high + filled * 2 + PAST;  /* other banks than `high` */
    s.span = (float2 *)(s.low + filled * 2 + PAST);
    s.rows = (float *)(s.span + filled / span);
    s.squares = s.rows + 2 * WARPS * 16;
    s.total = s.squares + WARPS;
    return s;
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

/* Eight numbers of a vector from k on, zeros beyond its end; widths are multiples of 8. Other blocks of threads wrote them. */
__device__ inline void load_eight(const float *from, int k, int width, float *v) {
    float4 a = make_float4(0, 0, 0, 0), b = a;
    if (k < width) a = __ldcg((const float4 *)(from + k)), b = __ldcg((const float4 *)(from + k + 4));
    *(float4 *)v = a, *(float4 *)(v + 4) = b;
}

/* Bring x into shared memory; SPAN inputs share a sum. */
template <bool IS_BRAIN, int SPAN> __device__ inline void prepare(const Product &p, const Shared &s, int filled) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    float all[ROUNDS][8], squares = 0, total = 0;
#pragma unroll
    for (int r = 0; r < ROUNDS; r++)
        if (r * THREADS * 8 < filled) load_eight(p.x, (r * THREADS + threadIdx.x) * 8, p.width, all[r]);
#pragma unroll
    for (int r = 0; r < ROUNDS; r++) {
        if (r * THREADS * 8 >= filled) break;
        const int k = (r * THREADS + threadIdx.x) * 8;
        float *v = all[r], other[8], sum = 0, most = 0;
        if (p.norm || p.up) load_eight(p.norm ? p.norm : p.up, k, p.width, other);
        for (int i = 0; i < 8; i++) {
            squares += v[i] * v[i];
            if (p.norm) v[i] *= other[i];
            else if (p.up) v[i] = activated(v[i]) * other[i];
            sum += v[i], most = fmaxf(most, fabsf(v[i]));
        }
        total += sum;
        if (!IS_BRAIN) {  /* the chunk's largest becomes 2^10 or more, less than 2^11 */
            for (int next = 1; next < CHUNK / 8; next *= 2) most = fmaxf(most, __shfl_xor_sync(FULL, most, next));
            const int exponent = max((int)(__float_as_uint(most) >> 23), 11);
            const float up = __uint_as_float((unsigned)(264 - min(exponent, 254)) << 23);
            for (int i = 0; i < 8; i++) v[i] *= up;
            sum = warp_sum(sum, SPAN / 8) * up;
            if (k < filled && lane % (SPAN / 8) == 0)
                s.span[k / SPAN] = make_float2(__uint_as_float((unsigned)(exponent - 10) << 23), sum);
        }
        if (k < filled) split<IS_BRAIN>(v, (uint4 *)(s.high + 2 * k), (uint4 *)(s.low + 2 * k));
    }
    squares = warp_sum(squares), total = warp_sum(total);
    if (lane == 0) s.squares[warp] = squares, s.total[warp] = total;
    __syncthreads();
}

/* A span's inputs for this lane's column, if it has one: registers of the others stay zero. */
template <int PER> __device__ inline void load_inputs(uint2 (&x)[PER], unsigned at, int has_column) {
    if (PER == 1)
        asm volatile("{.reg .pred p; setp.ne.s32 p, %3, 0; @p ld.shared.v2.u32 {%0, %1}, [%2];}"
                     : "+r"(x[0].x), "+r"(x[0].y) : "r"(at), "r"(has_column));
    else
#pragma unroll
        for (int j = 0; j + 1 < PER; j += 2)
            asm volatile("{.reg .pred p; setp.ne.s32 p, %5, 0; @p ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];}"
                         : "+r"(x[j].x), "+r"(x[j].y), "+r"(x[j + 1].x), "+r"(x[j + 1].y) : "r"(at + 8 * j), "r"(has_column));
}

/* ---- the product ---- */

template <class S> __device__ inline void run_product(const Product &p, Ring &ring, unsigned char *memory) {
    const Weight &w = p.weight;
    if ((int)blockIdx.x >= w.tiles) return;
    const int filled = (p.width + WIDEST - 1) / WIDEST * WIDEST;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    const Shared s = shared_of(memory, filled, S::SPAN);
    const int first = Ring::first(w.blocks), count = Ring::count(w.blocks);
    const Levels levels = levels_of<S::KIND>(w);
    prepare<S::IS_BRAIN, S::SPAN>(p, s, filled);
    const float squares = warp_sum(lane < WARPS ? s.squares[lane] : 0.0f), total = warp_sum(lane < WARPS ? s.total[lane] : 0.0f);
    const float root = p.norm ? rsqrtf(squares / (float)p.width + p.epsilon) : 1.0f;

    const int has_column = g < 2;  /* x rounded, or what that left over */
    const unsigned inputs = shared_address(g == 0 ? s.high : s.low) + t * 8 * S::PER + first * 32 * S::STEPS;
    uint2 x[BATCH][S::SPANS][S::PER] = {};
    int round = 0;
    for (int tile = blockIdx.x; tile < w.tiles; tile += gridDim.x, round++) {
        const bool ends = warp == round % WARPS;  /* this warp adds the others' sums up */
        const int row = tile * 16 + (lane & 15);
        unsigned row_scale = 0, row_zero = 0;
        float bias = 0;
        if (ends) {
            const unsigned *record = (const unsigned *)(w.scale + ((size_t)tile * 8 + (lane & 7)) * S::RECORD);
            if (S::KIND > BRAIN && S::WHOLE) row_scale = __ldg(record);
            if (S::HAS_ZERO && S::WHOLE) row_zero = __ldg(record + 1);
            if (w.bias) bias = __ldg(w.bias + row);
            if (p.output == ADDED && row < w.rows) bias += __ldcg(p.out + row);
        }
        float kept[4] = {0, 0, 0, 0}, upper = 0, lower = 0;
        /* Block u of a batch, with registers for its inputs. */
        auto compute = [&](const unsigned char *at, int done, int u, uint2 (&x)[S::SPANS][S::PER]) {
            const uint4 codes = *(const uint4 *)(at + 512 * u + 16 * lane);
#pragma unroll
            for (int i = 0; i < S::SPANS; i++) {
                load_inputs<S::PER>(x[i], inputs + ((done + u) * S::STEPS + i * S::PER) * 32, has_column);
                float fresh[4] = {0, 0, 0, 0}, *c = S::IS_BRAIN ? kept : fresh;
#pragma unroll
                for (int j = 0; j < S::PER; j++) {
                    unsigned a[4];
                    unpack<S::KIND>(codes, i * S::PER + j, levels, a);
                    multiply<S::IS_BRAIN>(c, a, x[i][j]);
                }
                if (S::IS_BRAIN) continue;
                float above = c[0] + c[1], below = c[2] + c[3];
                const float2 span = s.span[(first + done + u) * S::SPANS + i];
                const unsigned *record = (const unsigned *)(at + BATCH * 512 + u * S::RECORDS + (i * 8 + g) * S::RECORD);
                float more = span.x, less = span.x;
                if (S::IS_GROUPED && S::HAS_ZERO) {
                    const uint2 both = *(const uint2 *)record;
                    above -= half_low(both.y) * span.y, below -= half_high(both.y) * span.y;
                    more *= low_of<S::IS_BRAIN_SCALE>(both.x), less *= high_of<S::IS_BRAIN_SCALE>(both.x);
                } else if (S::IS_GROUPED) {
                    more *= low_of<S::IS_BRAIN_SCALE>(*record), less *= high_of<S::IS_BRAIN_SCALE>(*record);
                }
                upper += above * more, lower += below * less;
            }
        };
        for (int done = 0; done < count; done += BATCH) {
            const unsigned char *at = ring.landed();
            if (count - done >= BATCH) {
#pragma unroll
                for (int u = 0; u < BATCH; u++) compute(at, done, u, x[u]);
            } else {
#pragma unroll 1
                for (int u = 0; u < count - done; u++) compute(at, done, u, x[0]);
            }
            ring.next();
        }
        if (S::IS_BRAIN) upper = kept[0] + kept[1], lower = kept[2] + kept[3];
        float *rows = s.rows + (round & 1) * WARPS * 16;
        if (t == 0) rows[warp * 16 + g] = upper, rows[warp * 16 + g + 8] = lower;
        __syncthreads();
        if (!ends) continue;
        float y = 0;
#pragma unroll
        for (int i = 0; i < WARPS / 2; i++) y += rows[((lane >> 4) * (WARPS / 2) + i) * 16 + (lane & 15)];
        y += __shfl_xor_sync(FULL, y, 16);
        const bool is_low = (lane & 15) < 8;
        if (S::WHOLE && S::KIND > BRAIN) {
            if (S::HAS_ZERO) y -= (is_low ? half_low(row_zero) : half_high(row_zero)) * total;
            y *= is_low ? low_of<S::IS_BRAIN_SCALE>(row_scale) : high_of<S::IS_BRAIN_SCALE>(row_scale);
        }
        y = y * w.factor * root + bias;
        if (p.output == GATED) {
            const float up = __shfl_down_sync(FULL, y, 8);
            if (lane < 8 && tile * 8 + lane < w.rows / 2) p.out[tile * 8 + lane] = activated(y) * up;
        } else if (lane < 16 && row < w.rows) {
            p.out[row] = p.cap > 0 ? p.cap * tanhf(y / p.cap) : y;
        }
    }
    __syncthreads();  /* what x lay in is free again */
}
