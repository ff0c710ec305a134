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
#define ROWS_OF_TILE (16 * WARPS + 16) /* each warp's sums, and room so that the next tile's lie in other banks */

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
    static constexpr float EXCESS = excess_of(KIND, 0), EXCESS_BELOW = excess_of(KIND, 1);
    static constexpr bool HAS_EXCESS = excess_of(KIND, 0) != 0;
    static constexpr int RECORD = HAS_ZERO ? 8 : 4, RECORDS = IS_GROUPED ? SPANS * 8 * RECORD : 0; /* bytes; of a block */
};

__device__ inline float activated(float gate) {
#if ACTIVATION == 0
    return __fdividef(gate, 1.0f + __expf(-gate));
#elif ACTIVATION == 1
    return __fdividef(gate, 1.0f + __expf(-1.5957691216f * (gate + 0.044715f * gate * gate * gate)));
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

/* Who a thread is, read once: asked for again and again, the answer takes long. */
struct Me {
    int id, lane, warp;
    __device__ Me() {
        asm volatile("mov.u32 %0, %%tid.x;" : "=r"(id));
        lane = id & 31, warp = id >> 5;
    }
};

__device__ inline int first_of(int blocks, int warp) { return blocks * warp / WARPS; }

/* A warp's ring of DEPTH batches, each the codes of BATCH blocks and then their records. */
struct Ring {
    unsigned char *memory;       /* this lane's 16 bytes of the first */
    const Weight *weight, *end;  /* the weight that is being copied, of all in the order of their use */
    const unsigned char *codes, *records;
    int tile, tiles, count, left;  /* of the weight, blocks of a tile that are this warp's, those still to come */
    int record_bytes, code_jump, record_jump;  /* of a block, and what it takes from the end of a tile to the next */
    int to, from;                /* offsets of the batches that come and go next */

    template <int BYTES> __device__ void begin(const Me &me, unsigned char *shared, const Weight *weights, int weight_count) {
        memory = shared + me.warp * DEPTH * BYTES + 16 * me.lane;
        weight = weights - 1, end = weights + weight_count;
        tile = tiles = left = to = from = 0;
        for (int i = 0; i < DEPTH; i++) fetch<BYTES>(me);
    }

    /* Turn to the next weight that this block of threads and this warp have something of. */
    __device__ void turn(const Me &me) {
        while (++weight < end) {
            const int blocks = __ldg(&weight->blocks), first = first_of(blocks, me.warp);
            tiles = __ldg(&weight->tiles), record_bytes = __ldg(&weight->record_bytes);
            count = first_of(blocks, me.warp + 1) - first, tile = blockIdx.x;
            if (tile >= tiles || !count) continue;
            const size_t block = (size_t)tile * blocks + first;
            const int jump = gridDim.x * blocks - (count + BATCH - 1) / BATCH * BATCH;
            codes = (const unsigned char *)__ldg((const unsigned long long *)&weight->codes) + block * 512 + 16 * me.lane;
            records = (const unsigned char *)__ldg((const unsigned long long *)&weight->scale) + block * record_bytes + 16 * me.lane;
            left = count, code_jump = jump * 512, record_jump = jump * record_bytes;
            return;
        }
    }

    template <int BYTES> __device__ inline void fetch(const Me &me) {
        if (left <= 0 && weight < end) {
            tile += gridDim.x;
            if (tile < tiles) left = count, codes += code_jump, records += record_jump;
            else turn(me);
        }
        if (left > 0) {
            const unsigned address = shared_address(memory) + to;
#pragma unroll
            for (int u = 0; u < BATCH; u++)
                if (u < left) copy(address + 512 * u, codes + 512 * u);
            const int wanted = min(left, BATCH) * record_bytes - 16 * me.lane;
#pragma unroll 1
            for (int i = 0; i < wanted; i += 512) copy(address + BATCH * 512 + i, records + i);
            codes += 512 * BATCH, records += BATCH * record_bytes, left -= BATCH;
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
        to = to == (DEPTH - 1) * BYTES ? 0 : to + BYTES;
    }

    /* Wait for the oldest batch. */
    __device__ const unsigned char *landed() const {
        asm volatile("cp.async.wait_group %0;" :: "n"(DEPTH - 1) : "memory");
        __syncwarp();
        return memory + from;
    }

    /* Give its room to a new one. */
    template <int BYTES> __device__ void next(const Me &me) {
        __syncwarp();
        from = from == (DEPTH - 1) * BYTES ? 0 : from + BYTES;
        fetch<BYTES>(me);
    }
};

/* ---- the vector ---- */

/* Shared memory behind the rings, in this order; see `shared_bytes` in Python, which adds it up. */
struct Shared {
    unsigned char *high, *low, *none;  /* x rounded, what is left, zeros for a batch */
    float2 *span;                      /* of each span: its chunk's power of two, and the sum of x without it */
    float *rows;                       /* [2][2][ROWS_OF_TILE]: of two tiles, one round and the next */
    float *squares, *total;            /* [WARPS] each */
};

__device__ inline Shared shared_of(unsigned char *memory, int filled, int span, int batch) {
    Shared s;
    s.high = memory;
    s.low = s.high + filled * 2 + PAST;  /* other banks than `high` */
    s.none = s.low + filled * 2 + PAST;
    s.span = (float2 *)(s.none + batch);
    s.rows = (float *)(s.span + filled / span);
    s.squares = s.rows + 4 * ROWS_OF_TILE;
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
template <bool IS_BRAIN, int SPAN> __device__ inline void prepare(const Me &me, const Product &p, const Shared &s, int filled) {
    const int lane = me.lane, warp = me.warp;
    float all[ROUNDS][8], squares = 0, total = 0;
#pragma unroll
    for (int r = 0; r < ROUNDS; r++)
        if (r * THREADS * 8 < filled) load_eight(p.x, (r * THREADS + me.id) * 8, p.width, all[r]);
#pragma unroll
    for (int r = 0; r < ROUNDS; r++) {
        if (r * THREADS * 8 >= filled) break;
        const int k = (r * THREADS + me.id) * 8;
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

/* ---- the product ---- */

template <class S, int BYTES> __device__ inline void run_product(const Me &me, const Product &p, Ring &ring, unsigned char *memory) {
    constexpr int INPUTS = 32 * S::STEPS; /* bytes of a block's inputs */
    const Weight &w = p.weight;
    const int tiles = w.tiles;
    if ((int)blockIdx.x >= tiles) return;
    const int filled = (p.width + WIDEST - 1) / WIDEST * WIDEST;
    const int lane = me.lane, warp = me.warp, g = lane >> 2, t = lane & 3;
    const Shared s = shared_of(memory, filled, S::SPAN, BATCH * INPUTS);
    const int first = first_of(w.blocks, warp), count = first_of(w.blocks, warp + 1) - first;
    const Levels levels = levels_of<S::KIND>(w);
    for (int i = me.id; i < BATCH * INPUTS / 4; i += THREADS) ((unsigned *)s.none)[i] = 0;
    prepare<S::IS_BRAIN, S::SPAN>(me, p, s, filled);
    const float squares = warp_sum(lane < WARPS ? s.squares[lane] : 0.0f), total = warp_sum(lane < WARPS ? s.total[lane] : 0.0f);
    const float root = p.norm ? rsqrtf(squares / (float)p.width + p.epsilon) : 1.0f;

    /* Where this lane finds its column: x rounded, what that left over, or zeros for the columns that nobody needs. */
    const unsigned char *inputs = (g == 0 ? s.high : g == 1 ? s.low : s.none) + (g < 2 ? t * 8 * S::PER + first * INPUTS : 0);
    const int stride = g < 2 ? INPUTS : 0; /* bytes of a block */
    const float2 *spans = s.span + first * S::SPANS;
    const int record_at = BATCH * 512 + g * S::RECORD - 16 * lane;
    float upper, lower, kept[4];

    /* Block u of a batch, whose lanes' codes are `at`. */
    auto compute = [&](const unsigned char *at, const unsigned char *x_at, const float2 *span_at, int u) {
        const uint4 codes = *(const uint4 *)(at + 512 * u);
#pragma unroll
        for (int i = 0; i < S::SPANS; i++) {
            uint2 x[S::PER];
            if (S::PER == 1) x[0] = *(const uint2 *)(x_at + u * INPUTS + i * 32);
#pragma unroll
            for (int j = 0; j + 1 < S::PER; j += 2) *(uint4 *)(x + j) = *(const uint4 *)(x_at + u * INPUTS + i * 32 * S::PER + 8 * j);
            float fresh[4] = {0, 0, 0, 0}, *c = S::IS_BRAIN ? kept : fresh;
#pragma unroll
            for (int j = 0; j < S::PER; j++) {
                unsigned a[4];
                unpack<S::KIND>(codes, i * S::PER + j, levels, a);
                multiply<S::IS_BRAIN>(c, a, x[j]);
            }
            if (S::IS_BRAIN) continue;
            float above = c[0] + c[1], below = c[2] + c[3];
            const float2 span = span_at[u * S::SPANS + i];
            float more = span.x, less = span.x;
            if (S::IS_GROUPED) {
                const unsigned char *record = at + record_at + u * S::RECORDS + i * 8 * S::RECORD;
                const uint2 both = S::HAS_ZERO ? *(const uint2 *)record : make_uint2(*(const unsigned *)record, 0);
                if (S::HAS_ZERO) above -= half_low(both.y) * span.y, below -= half_high(both.y) * span.y;
                else if (S::HAS_EXCESS) above -= S::EXCESS * span.y, below -= S::EXCESS_BELOW * span.y;
                more *= low_of<S::IS_BRAIN_SCALE>(both.x), less *= high_of<S::IS_BRAIN_SCALE>(both.x);
            }
            upper += above * more, lower += below * less;
        }
    };

    int round = 0;
    for (int tile = blockIdx.x; tile < tiles; round++) {  /* two tiles a round */
        const bool ends = warp == round % WARPS;  /* this warp adds the others' sums up, a lane a row */
        const int my_tile = tile + (lane >> 4) * gridDim.x, row = my_tile * 16 + (lane & 15);
        unsigned row_scale = 0, row_zero = 0;
        float bias = 0;
        if (ends && my_tile < tiles) {
            const unsigned *record = (const unsigned *)(w.scale + ((size_t)my_tile * 8 + (lane & 7)) * S::RECORD);
            if (S::KIND > BRAIN && S::WHOLE) row_scale = __ldg(record);
            if (S::HAS_ZERO && S::WHOLE) row_zero = __ldg(record + 1);
            if (w.bias) bias = __ldg(w.bias + row);
            if (p.output == ADDED && row < w.rows) bias += __ldcg(p.out + row);
        }
        float *rows = s.rows + (round & 1) * 2 * ROWS_OF_TILE;
#pragma unroll 1
        for (int half = 0; half < 2 && tile < tiles; half++, tile += gridDim.x) {
            upper = lower = kept[0] = kept[1] = kept[2] = kept[3] = 0;
            const unsigned char *x_at = inputs;
            const float2 *span_at = spans;
#pragma unroll 1
            for (int left = count; left > 0; left -= BATCH) {
                const unsigned char *at = ring.landed();
                if (left >= BATCH) {
#pragma unroll
                    for (int u = 0; u < BATCH; u++) compute(at, x_at, span_at, u);
                } else {
#pragma unroll 1
                    for (int u = 0; u < left; u++) compute(at, x_at, span_at, u);
                }
                x_at += BATCH * stride, span_at += BATCH * S::SPANS;
                ring.next<BYTES>(me);
            }
            if (S::IS_BRAIN) upper = kept[0] + kept[1], lower = kept[2] + kept[3];
            float *to = rows + half * ROWS_OF_TILE + warp * 16 + g;
            if (t == 0) to[0] = upper, to[8] = lower;
        }
        __syncthreads();
        if (!ends) continue;
        const float *from = rows + (lane >> 4) * ROWS_OF_TILE + (lane & 15);
        float y = 0;
#pragma unroll
        for (int i = 0; i < WARPS; i++) y += from[i * 16];
        const bool is_low = (lane & 15) < 8;
        if (S::WHOLE && S::KIND > BRAIN) {
            const float zero = is_low ? half_low(row_zero) : half_high(row_zero), excess = is_low ? S::EXCESS : S::EXCESS_BELOW;
            if (S::HAS_ZERO || S::HAS_EXCESS) y -= (S::HAS_ZERO ? zero : excess) * total;
            y *= is_low ? low_of<S::IS_BRAIN_SCALE>(row_scale) : high_of<S::IS_BRAIN_SCALE>(row_scale);
        }
        y = y * w.factor * root + bias;
        if (p.output == GATED) {
            const float up = __shfl_down_sync(FULL, y, 8);
            const int i = my_tile * 8 + (lane & 7);
            if (is_low && my_tile < tiles && i < w.rows / 2) p.out[i] = activated(y) * up;
        } else if (my_tile < tiles && row < w.rows) {
            p.out[row] = p.cap > 0 ? p.cap * tanhf(y / p.cap) : y;
        }
    }
    __syncthreads();  /* what x lay in is free again */
}
