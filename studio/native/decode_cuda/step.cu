/* A whole step of a Llama-like decoder on CUDA: one block of threads on every multiprocessor, all of which do their share of
   one task after the other and meet in between. Knows neither files nor tokens' texts.

   Compiled at run time with those template arguments that a model needs; includes no header of the toolkit's. */
#include "attention.cuh"

/* x += norm(branch), for the layers that have a norm behind a branch. */
struct Join {
    float *x;
    const float *branch, *norm;
    int width;
    float epsilon;
};

enum { ATTEND = -1, JOIN = -2 };

struct Task {
    int what;   /* which of the model's sorts of weights, ATTEND or JOIN */
    int meets;  /* whether what comes next needs what this one did */
    union {
        Product product;
        Attention attention;
        Join join;
    };
};

/* Wait until all blocks of threads have come here, and see what they wrote. */
__device__ inline void meet(unsigned *meetings, unsigned &goal) {
    __syncthreads();
    goal += gridDim.x;
    if (threadIdx.x == 0) {
        unsigned seen;
        asm volatile("red.release.gpu.global.add.u32 [%0], 1;" :: "l"(meetings) : "memory");
        do asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(meetings) : "memory");
        while (seen < goal);
        asm volatile("fence.acq_rel.gpu;" ::: "memory");  /* once: it empties the first cache */
    }
    __syncthreads();
}

__device__ inline void run_join(const Join &j, unsigned char *memory) {
    float *sums = (float *)memory, squares = 0;
    if (blockIdx.x) return;
    for (int i = threadIdx.x; i < j.width; i += THREADS) squares += __ldcg(j.branch + i) * __ldcg(j.branch + i);
    squares = warp_sum(squares);
    if ((threadIdx.x & 31) == 0) sums[threadIdx.x / 32] = squares;
    __syncthreads();
    squares = 0;
    for (int i = 0; i < WARPS; i++) squares += sums[i];
    const float root = rsqrtf(squares / (float)j.width + j.epsilon);
    for (int i = threadIdx.x; i < j.width; i += THREADS) j.x[i] = __ldcg(j.x + i) + __ldcg(j.branch + i) * root * j.norm[i];
}

template <int INDEX, int BYTES> __device__ inline void dispatch(const Me &, const Task &, Ring &, unsigned char *) {}

template <int INDEX, int BYTES, class S, class... Rest>
__device__ inline void dispatch(const Me &me, const Task &task, Ring &ring, unsigned char *memory) {
    if (task.what == INDEX) run_product<S, BYTES>(me, task.product, ring, memory);
    else dispatch<INDEX + 1, BYTES, Rest...>(me, task, ring, memory);
}

/* `weights`: those of the tasks' products, in their order. Grid: one block of threads a multiprocessor, launched together. */
template <int D, int G, int RECORD_BYTES, class... Sorts>
__global__ void __launch_bounds__(THREADS, 1) step(const Task *tasks, int count, const Weight *weights, int weight_count, unsigned *meetings) {
    extern __shared__ uint4 memory[];
    __shared__ Task here[2];
    constexpr int BYTES = BATCH * (512 + RECORD_BYTES), WORDS = sizeof(Task) / 4;
    unsigned char *behind = (unsigned char *)memory + WARPS * DEPTH * BYTES;
    const Me me;
    Ring ring;
    ring.begin<BYTES>(me, (unsigned char *)memory, weights, weight_count);
    unsigned goal = 0;
    if (threadIdx.x < WORDS) ((unsigned *)here)[threadIdx.x] = ((const unsigned *)tasks)[threadIdx.x];
    __syncthreads();
    for (int i = 0; i < count; i++) {
        const Task &task = here[i & 1];
        unsigned next = 0;  /* what comes after is read while this is done */
        if (threadIdx.x < WORDS && i + 1 < count) next = __ldg((const unsigned *)(tasks + i + 1) + threadIdx.x);
        if (task.what == ATTEND) {
            const unsigned units = task.attention.heads / G;
            for (unsigned unit = blockIdx.x; unit < units * task.attention.splits; unit += gridDim.x) {
                attend_to<D, G, true>(task.attention, unit % units, unit / units, 0, behind);
                __syncthreads();
            }
        } else if (task.what == JOIN) {
            run_join(task.join, behind);
        } else {
            dispatch<0, BYTES, Sorts...>(me, task, ring, behind);
        }
        const int meets = task.meets;
        if (threadIdx.x < WORDS) ((unsigned *)(here + ((i + 1) & 1)))[threadIdx.x] = next;
        if (meets) meet(meetings, goal);
        else __syncthreads();
    }
}

/* The same attention for several tokens, whose keys are there: grid (heads / G, splits, T). */
template <int D, int G> __global__ void __launch_bounds__(THREADS, 1) attend(Attention a) {
    extern __shared__ uint4 memory[];
    attend_to<D, G, false>(a, blockIdx.x, blockIdx.y, blockIdx.z, (unsigned char *)memory);
}

/* All keys and values of several tokens: grid (kv heads, T), one warp each. */
template <int D> __global__ void append(Attention a) {
    __shared__ float turn[D];
    __shared__ unsigned short fresh[2][D];
    remember<D>(a, blockIdx.x, blockIdx.y, turn, fresh);
}

/* A lane's 4 * STEPS numbers of rows g and g + 8 in a block. */
template <class S> __device__ inline void numbers(const Weight &w, int tile, int block, int lane, float out[2][4 * S::STEPS]) {
    const uint4 codes = stream(w.codes + ((size_t)tile * w.blocks + block) * 32 + lane);
    const Levels levels = levels_of<S::KIND>(w);
    for (int j = 0; j < S::STEPS; j++) {
        unsigned a[4];
        unpack<S::KIND>(codes, j, levels, a);
        float scale[2] = {w.factor, w.factor}, zero[2] = {S::EXCESS, S::EXCESS_BELOW};
        if (S::KIND > BRAIN) {
            const size_t span = S::WHOLE ? tile : ((size_t)tile * w.blocks + block) * S::SPANS + j / S::PER, at = span * 8 + (lane >> 2);
            const unsigned *record = (const unsigned *)w.scale + at * (S::HAS_ZERO ? 2 : 1);
            scale[0] *= low_of<S::IS_BRAIN_SCALE>(record[0]), scale[1] *= high_of<S::IS_BRAIN_SCALE>(record[0]);
            if (S::HAS_ZERO) zero[0] = half_low(record[1]), zero[1] = half_high(record[1]);
        }
        for (int i = 0; i < 4; i++) {
            const int row = i & 1, k = 4 * j + (i >> 1) * 2;
            out[row][k] = (low_of<S::IS_BRAIN>(a[i]) - zero[row]) * scale[row];
            out[row][k + 1] = (high_of<S::IS_BRAIN>(a[i]) - zero[row]) * scale[row];
        }
    }
}

/* Tokens -> their rows, fp32 [T][width], times Gemma's factor; and the rotations of their positions. grid T. */
template <class S>
__global__ void embed(Weight w, const State *state, float *x, int width, float scale, float *rotation, const float *frequencies,
                      int half, int tables, float scale0, float scale1, unsigned *meetings) {
    const int row = (int)state->tokens[blockIdx.x];
    if (blockIdx.x == 0 && threadIdx.x == 0) *meetings = 0;
    for (int unit = threadIdx.x; unit < w.blocks * 4; unit += blockDim.x) {
        float found[2][4 * S::STEPS];
        numbers<S>(w, row / 16, unit / 4, (row & 7) * 4 + unit % 4, found);
        for (int i = 0; i < 4 * S::STEPS; i++) {
            const int k = input_at<S::STEPS, S::PER>(unit / 4, i / 4, unit % 4) + i % 4;
            if (k < width) x[(size_t)blockIdx.x * width + k] = found[row >> 3 & 1][i] * scale;
        }
    }
    for (int i = threadIdx.x; i < tables * half; i += blockDim.x) {
        const int table = i / half;
        const float angle = (float)(state->position + blockIdx.x) * frequencies[i], by = table ? scale1 : scale0;
        float *at = rotation + 2 * (((size_t)table * gridDim.x + blockIdx.x) * half + i % half);
        at[0] = cosf(angle) * by, at[1] = sinf(angle) * by;
    }
}

/* Some tiles of a weight as bf16 [tiles * 16][width], in the order of their rows here. grid (tiles, any), a warp a block. */
template <class S> __global__ void dequantize(Weight w, int start, int width, unsigned short *out) {
    const int lane = threadIdx.x & 31, warps = blockDim.x / 32 * gridDim.y;
    for (int block = blockIdx.y * (blockDim.x / 32) + threadIdx.x / 32; block < w.blocks; block += warps) {
        float found[2][4 * S::STEPS];
        numbers<S>(w, start + blockIdx.x, block, lane, found);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            unsigned short *row = out + ((size_t)blockIdx.x * 16 + (lane >> 2) + 8 * r) * width;
#pragma unroll
            for (int i = 0; i < 4 * S::STEPS; i += 4) {  /* widths are multiples of 8, four inputs lie side by side */
                const int k = input_at<S::STEPS, S::PER>(block, i / 4, lane & 3);
                const uint2 four = make_uint2(brains(found[r][i], found[r][i + 1]), brains(found[r][i + 2], found[r][i + 3]));
                if (S::PER == 1 || i % 8 == 4) {
                    if (S::PER > 1 && k < width) {
                        const uint2 before = make_uint2(brains(found[r][i - 4], found[r][i - 3]), brains(found[r][i - 2], found[r][i - 1]));
                        *(uint4 *)(row + k - 4) = make_uint4(before.x, before.y, four.x, four.y);
                    } else if (k < width) *(uint2 *)(row + k) = four;
                }
            }
        }
    }
}
