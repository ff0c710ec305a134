/* The kernels of a decode step on CUDA, compiled at run time with those template arguments that a model needs. They include no
   header of the toolkit's. */
#include "attention.cuh"

/* A lane's 4 * STEPS numbers of rows g and g + 8 in a block. */
template <class S> __device__ inline void numbers(const Weight &w, int tile, int block, int lane, float out[2][4 * S::STEPS]) {
    const uint4 codes = stream(w.codes + ((size_t)tile * w.blocks + block) * 32 + lane);
    const Levels levels = levels_of<S::KIND>(w);
    for (int j = 0; j < S::STEPS; j++) {
        unsigned a[4];
        unpack<S::KIND>(codes, j, levels, a);
        float scale[2] = {w.factor, w.factor}, zero[2] = {S::EXCESS, S::EXCESS_BELOW};
        if (S::IS_PACKED) {
            const size_t span = S::WHOLE ? tile : ((size_t)tile * w.blocks + block) * S::SPANS + j / S::PER, at = span * 8 + (lane >> 2);
            const unsigned *record = (const unsigned *)w.scale + at * (S::HAS_ZERO ? 2 : 1);
            scale[0] *= low_of<S::IS_BF16_SCALE>(record[0]), scale[1] *= high_of<S::IS_BF16_SCALE>(record[0]);
            if (S::HAS_ZERO) zero[0] = half_low(record[1]), zero[1] = half_high(record[1]);
        }
        for (int i = 0; i < 4; i++) {
            const int row = i & 1, k = 4 * j + (i >> 1) * 2;
            out[row][k] = (low_of<S::IS_BF16>(a[i]) - zero[row]) * scale[row];
            out[row][k + 1] = (high_of<S::IS_BF16>(a[i]) - zero[row]) * scale[row];
        }
    }
}

/* Tokens -> their rows, fp32 [T][width], times Gemma's factor; and the rotations of their positions. grid T. */
template <class S>
__global__ void embed(Weight w, const State *state, float *x, int width, float scale, float *rotation, const float *frequencies,
                      int half, int tables, float scale0, float scale1) {
    wait_for_input();
    release_next();
    const int row = (int)state->tokens[blockIdx.x];
    for (int unit = threadIdx.x; unit < w.blocks * 4; unit += blockDim.x) {
        float found[2][4 * S::STEPS];
        numbers<S>(w, row / 16, unit / 4, (row & 7) * 4 + unit % 4, found);
        for (int i = 0; i < 4 * S::STEPS; i++) {
            const int k = input_at<S::STEPS, S::PER>(unit / 4, i / 4, unit % 4) + i % 4;
            if (k < width) x[(size_t)blockIdx.x * width + k] = found[row >> 3 & 1][i] * scale;
        }
    }
    for (int i = threadIdx.x; i < tables * half; i += blockDim.x) {
        const int rope_index = i / half;
        const float angle = (float)(state->position + blockIdx.x) * frequencies[i], by = rope_index ? scale1 : scale0;
        float *at = rotation + 2 * (((size_t)rope_index * gridDim.x + blockIdx.x) * half + i % half);
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
                const uint2 four = make_uint2(bf16s(found[r][i], found[r][i + 1]), bf16s(found[r][i + 2], found[r][i + 3]));
                if (S::PER == 1 || i % 8 == 4) {
                    if (S::PER > 1 && k < width) {
                        const uint2 before = make_uint2(bf16s(found[r][i - 4], found[r][i - 3]), bf16s(found[r][i - 2], found[r][i - 1]));
                        *(uint4 *)(row + k - 4) = make_uint4(before.x, before.y, four.x, four.y);
                    } else if (k < width) *(uint2 *)(row + k) = four;
                }
            }
        }
    }
}

/* x += norm(branch), for the layers that have a norm behind a branch. One block of threads. */
extern "C" __global__ void __launch_bounds__(1024) join(float *x, const float *branch, const float *norm, int width, float epsilon) {
    __shared__ float sums[32];
    wait_for_input();
    release_next();
    float squares = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) squares += branch[i] * branch[i];
    squares = warp_sum(squares);
    if ((threadIdx.x & 31) == 0) sums[threadIdx.x / 32] = squares;
    __syncthreads();
    squares = 0;
    for (int i = 0; i < blockDim.x / 32; i++) squares += sums[i];
    const float root = rsqrtf(squares / (float)width + epsilon);
    for (int i = threadIdx.x; i < width; i += blockDim.x) x[i] += branch[i] * root * norm[i];
}

/* gate -> activated gate * up, for layers whose two weights differ in their schemes. */
extern "C" __global__ void gate(const float *gate, const float *up, float *out, int width) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    wait_for_input();
    release_next();
    if (i < width) out[i] = activated(gate[i]) * up[i];
}
