/* x @ W.T, straight from the codes. A weight lies in tiles of sixteen rows, one row a lane, so that a product needs neither a
   sum across lanes nor a dequantized weight: each number of x meets sixteen weights, and each group's scale, sixteen at once,
   comes last.

   Integer codes meet x as 16-bit integers, one step size a block of 32 or 64 inputs: exact products and sums, and an x that
   errs by 2^-16 of the block's largest. All other codes are looked up and multiplied in fp32. One token or a prompt of many:
   the arithmetic of a token is the same, so the answer is. */
#pragma once
#include "simd.h"
#include "threads.h"

enum { HALF, BF16, INTEGER4, LEVELS4, LEVELS2, INTEGER8, FLOAT8, INTEGER5 };

typedef struct {
    int32_t kind;
    int32_t rows;         /* N */
    int32_t width;        /* K, filled up with zeros to a multiple of 64 */
    int32_t group;        /* inputs that share a scale */
    int32_t block;        /* 32 or 64: inputs that share a step size, where codes are integers */
    int32_t wide_scale;   /* fp32 instead of fp16 */
    float middle;         /* the zero point where there is no array of them */
    const void *codes;
    const void *scale;    /* [tiles][groups][16]; none at 16 bits */
    const uint8_t *zero;  /* the same, or none */
    const float *levels;  /* sixteen, of 4-bit and 2-bit codes that are no integers */
    const float *bias;    /* [N] or none */
} Weight;

/* What T tokens bring to a product, rows `stride` apart; there are rows for a multiple of four of them. */
typedef struct {
    float *x;            /* [T][stride] */
    int16_t *n;          /* [T][stride]: x = step * n; eights in the order 0 4 1 5 2 6 3 7, as pairs of codes come */
    float *step, *sum;   /* [T][stride / 32]: of each block its step size and the sum of its integers */
    int32_t stride, block;
} Inputs;

#define LARGEST 32767.0f

INLINE int is_integer(const Weight *w) { return w->kind == INTEGER4 || w->kind == INTEGER5 || w->kind == INTEGER8; }

/* Fill the integers of one token from its x[0..width): the activations quantized, a step size a block. */
static void quantize_activations(const Inputs *in, int token, int width) {
    const float *x = in->x + (size_t)token * in->stride;
    int16_t *to = in->n + (size_t)token * in->stride;
    float *step = in->step + (size_t)token * (in->stride / 32), *sum = in->sum + (size_t)token * (in->stride / 32);
    for (int start = 0; start < width; start += in->block, step++, sum++) {
        Floats top = {0};
        for (int i = 0; i < in->block; i += LANES) {
            Floats v = load(x + start + i);
            top = larger(top, larger(v, -v));
        }
        float most = largest(top), inverse = most > 0 ? LARGEST / most : 0;
        Words whole = {0};  /* inputs that are no numbers make integers that overflow */
        for (int i = 0; i < in->block; i += LANES) {
            Floats v = load(x + start + i) * inverse;
            Ints n = ints(v + as_floats((as_ints(v) & (int32_t)0x80000000) | 0x3f000000));
            whole += (Words)n;
            n = __builtin_shuffle(n, (Ints){0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15});
            store_shorts(to + start + i, n);
        }
        *step = most / LARGEST;
        *sum = (float)total_of_ints(whole);
    }
}

INLINE Floats scale_of(const Weight *w, size_t at) {
    return w->wide_scale ? load((const float *)w->scale + at) : load_halves((const uint16_t *)w->scale + at);
}

INLINE Floats zero_of(const Weight *w, size_t at) { return w->zero ? floats(load_bytes(w->zero + at)) : all(w->middle); }

/* A kernel's sums must stay in registers: compilers keep named variables there, arrays they do not. So the kernels below name
   the sums of four tokens, T = 4, and leave out those that a single one, T = 1, does not need. */

INLINE int32_t pair(const int16_t *n) { int32_t v; memcpy(&v, n, sizeof v); return v; }

/* Codes of sixteen rows as pairs of 16-bit numbers: of the eight inputs `eight` from `codes` on, `j` and `j` + 4. Codes of five
   bits: of each 32 inputs the lower four bits, then the fifth ones, of the first four of each eight in the lower half. */
INLINE Ints pairs(const Ints *codes, int eight, const int j, const int bits) {
    if (bits == 4) return (Ints)((Words)codes[eight] >> (4 * j) & 0x000f000f);
    if (bits == 8) return (Ints)((Words)codes[2 * eight + j % 2] >> (j / 2 * 8) & 0x00ff00ff);
    const Ints *run = codes + eight / 4 * 5;
    const Words fifth = (Words)run[4] >> (4 * (eight % 4) + j) & 0x00010001;
    return (Ints)(((Words)run[eight % 4] >> (4 * j) & 0x000f000f) | fifth << 4);
}

/* The integer products of one block, of one tile with one token: four sums, so that no product waits for another. */
INLINE Ints block_1x1(const Ints *codes, const int16_t *n, int eights, const int bits) {
    Ints s0 = {0}, s1 = s0, s2 = s0, s3 = s0;
    for (int i = 0; i < eights; i++, n += 8) {
        s0 = dot(s0, pairs(codes, i, 0, bits), pair(n));
        s1 = dot(s1, pairs(codes, i, 1, bits), pair(n + 2));
        s2 = dot(s2, pairs(codes, i, 2, bits), pair(n + 4));
        s3 = dot(s3, pairs(codes, i, 3, bits), pair(n + 6));
    }
    return (s0 + s1) + (s2 + s3);
}

/* The same of four tiles with four or six tokens: each number of either, once loaded, meets all of the other. Six: a code is
   unpacked less often, and 24 sums still find registers. */
#define FOUR(OF) OF(0) OF(1) OF(2) OF(3)
#define SIX(OF) FOUR(OF) OF(4) OF(5)
#define BEGIN(t)                                              \
    Ints a##t = {0}, b##t = {0}, c##t = {0}, d##t = {0};      \
    const int16_t *n##t = n + (t) * stride;
#define MULTIPLY_ADD(t)                   \
    {                                     \
        const int32_t x = pair(n##t + k); \
        a##t = dot(a##t, p, x);           \
        b##t = dot(b##t, q, x);           \
        c##t = dot(c##t, r, x);           \
        d##t = dot(d##t, s, x);           \
    }
#define MULTIPLY_ADD_PAIRS(j, TOKENS)                                  \
    {                                                                  \
        const Ints p = pairs(a, i, j, bits), q = pairs(b, i, j, bits); \
        const Ints r = pairs(c, i, j, bits), s = pairs(d, i, j, bits); \
        const int k = 8 * i + 2 * (j);                                 \
        TOKENS(MULTIPLY_ADD)                                           \
    }
#define ADD_ONE(r, t, v) y[(r) * T + (t)] = fused(scale[r] * step, fused(zero[r], sum, floats(v)), y[(r) * T + (t)]);
#define ADD(t)                                                                          \
    {                                                                                   \
        const Floats step = all(steps[(t) * blocks]), sum = all(sums[(t) * blocks]);    \
        ADD_ONE(0, t, a##t) ADD_ONE(1, t, b##t) ADD_ONE(2, t, c##t) ADD_ONE(3, t, d##t) \
    }
#define BLOCK(name, TOKENS, TOKEN_COUNT)                                                                                   \
    INLINE void name(const Ints *a, const Ints *b, const Ints *c, const Ints *d, const int16_t *n, int stride, int eights, \
                     const int bits, const Floats *scale, const Floats *zero, const float *steps, const float *sums,       \
                     int blocks, Floats *y) {                                                                              \
        enum { T = TOKEN_COUNT };                                                                                          \
        TOKENS(BEGIN)                                                                                                      \
        for (int i = 0; i < eights; i++) {                                                                                 \
            MULTIPLY_ADD_PAIRS(0, TOKENS) MULTIPLY_ADD_PAIRS(1, TOKENS)                                                    \
            MULTIPLY_ADD_PAIRS(2, TOKENS) MULTIPLY_ADD_PAIRS(3, TOKENS)                                                    \
        }                                                                                                                  \
        TOKENS(ADD)                                                                                                        \
    }
BLOCK(block_4x4, FOUR, 4)
BLOCK(block_4x6, SIX, 6)
#undef BEGIN
#undef MULTIPLY_ADD
#undef MULTIPLY_ADD_PAIRS

/* y[R][T] = the products of integer codes: R tiles with T tokens, one with one or four with four or six. `bits` 4, 5 or 8. Where
   there are no four tiles any more the last one is done again. */
INLINE void integer_tiles(const Weight *w, int tile, int last, const Inputs *in, int token, Floats *y, const int bits,
                          const int R, const int T) {
    const int groups = w->width / w->group, per_group = w->group / in->block, dwords = in->block * bits / 32;
    const int blocks = in->stride / 32, eights = in->block / 8;
    int at[4];
    const Ints *codes[4];
    for (int r = 0; r < R; r++) {
        at[r] = tile + r < last ? tile + r : last;
        codes[r] = (const Ints *)w->codes + (size_t)at[r] * w->width * bits / 32;
    }
    for (int i = 0; i < R * T; i++) y[i] = all(0);
    for (int g = 0; g < groups; g++) {
        Floats scale[4], zero[4];
        for (int r = 0; r < R; r++) {
            const size_t of_group = ((size_t)at[r] * groups + g) * LANES;
            scale[r] = scale_of(w, of_group);
            zero[r] = -zero_of(w, of_group);
        }
        for (int b = g * per_group; b < (g + 1) * per_group; b++) {
            const int16_t *n = in->n + (size_t)token * in->stride + (size_t)b * in->block;
            const float *steps = in->step + (size_t)token * blocks + b, *sums = in->sum + (size_t)token * blocks + b;
            const size_t from = (size_t)b * dwords;
            if (R == 1) {
                const Ints found = block_1x1(codes[0] + from, n, eights, bits);
                const Floats step = all(*steps), sum = all(*sums);
                ADD_ONE(0, 0, found)
            } else if (T == 4) {
                block_4x4(codes[0] + from, codes[1] + from, codes[2] + from, codes[3] + from, n, in->stride, eights, bits, scale,
                          zero, steps, sums, blocks, y);
            } else {
                block_4x6(codes[0] + from, codes[1] + from, codes[2] + from, codes[3] + from, n, in->stride, eights, bits, scale,
                          zero, steps, sums, blocks, y);
            }
        }
    }
}
#undef ADD
#undef ADD_ONE

/* Sums of four chains for each of up to four tokens, and a weight vector's products with inputs k of all of them. */
#define CHAINS Floats a0 = all(0), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0, \
                      c0 = a0, c1 = a0, c2 = a0, c3 = a0, d0 = a0, d1 = a0, d2 = a0, d3 = a0;
#define MULTIPLY_ADD(weights, k, chain)                                                                                  \
    {                                                                                                                    \
        Floats v = weights;                                                                                              \
        a##chain += v * x[k];                                                                                            \
        if (T == 4) b##chain += v * x[stride + k], c##chain += v * x[2 * stride + k], d##chain += v * x[3 * stride + k]; \
    }
#define SUM_UP(y, scale)                                                                              \
    y[0] += scale * ((a0 + a1) + (a2 + a3));                                                          \
    if (T == 4) {                                                                                     \
        y[1] += scale * ((b0 + b1) + (b2 + b3));                                                      \
        y[2] += scale * ((c0 + c1) + (c2 + c3));                                                      \
        y[3] += scale * ((d0 + d1) + (d2 + d3));                                                      \
    }

/* y[T] = the products of codes that are looked up: sixteen levels in 4 bits, or four of them, repeated, in 2. */
INLINE void level_tile(const Weight *w, int tile, const Inputs *in, int token, Floats *y, const int bits, const int T) {
    const int groups = w->width / w->group, each = 32 / bits, stride = in->stride;
    const Floats table = load(w->levels);
    const Ints *codes = (const Ints *)w->codes + (size_t)tile * w->width / each;
    const float *x = in->x + (size_t)token * stride;
    for (int i = 0; i < T; i++) y[i] = all(0);
    for (int g = 0; g < groups; g++) {
        CHAINS
        for (int i = 0; i < w->group / each; i++, codes++, x += each) {
            const Words c = (Words)*codes;
#define CODE(k, chain) MULTIPLY_ADD(look_up(w->levels, table, (Ints)(c >> (bits * (k)))), k, chain)
            CODE(0, 0) CODE(1, 1) CODE(2, 2) CODE(3, 3) CODE(4, 0) CODE(5, 1) CODE(6, 2) CODE(7, 3)
            if (bits == 2) {
                CODE(8, 0) CODE(9, 1) CODE(10, 2) CODE(11, 3) CODE(12, 0) CODE(13, 1) CODE(14, 2) CODE(15, 3)
            }
#undef CODE
        }
        Floats scale = scale_of(w, ((size_t)tile * groups + g) * LANES);
        SUM_UP(y, scale)
    }
}

INLINE Floats weights_at(const Weight *w, size_t at, const int kind) {
    if (kind == HALF) return load_halves((const uint16_t *)w->codes + at);
    if (kind == BF16) return load_bf16((const uint16_t *)w->codes + at);
    return load_float8((const uint8_t *)w->codes + at);
}

/* y[T] = the products of weights that are floats themselves; those of 8 bits have a scale. */
INLINE void float_tile(const Weight *w, int tile, const Inputs *in, int token, Floats *y, const int kind, const int T) {
    const int groups = w->width / w->group, stride = in->stride;
    const float *x = in->x + (size_t)token * stride;
    size_t at = (size_t)tile * w->width * LANES;
    for (int i = 0; i < T; i++) y[i] = all(0);
    for (int g = 0; g < groups; g++) {
        CHAINS
        for (int k = 0; k < w->group; k += 4, at += 4 * LANES, x += 4) {
            MULTIPLY_ADD(weights_at(w, at, kind), 0, 0)
            MULTIPLY_ADD(weights_at(w, at + LANES, kind), 1, 1)
            MULTIPLY_ADD(weights_at(w, at + 2 * LANES, kind), 2, 2)
            MULTIPLY_ADD(weights_at(w, at + 3 * LANES, kind), 3, 3)
        }
        Floats scale = kind == FLOAT8 ? scale_of(w, ((size_t)tile * groups + g) * LANES) * 256.0f : all(1);
        SUM_UP(y, scale)
    }
}

INLINE void one_tile(const Weight *w, int tile, const Inputs *in, int token, Floats *y, const int T) {
    switch (w->kind) {
        case LEVELS4: level_tile(w, tile, in, token, y, 4, T); break;
        case LEVELS2: level_tile(w, tile, in, token, y, 2, T); break;
        case HALF: float_tile(w, tile, in, token, y, HALF, T); break;
        case BF16: float_tile(w, tile, in, token, y, BF16, T); break;
        case FLOAT8: float_tile(w, tile, in, token, y, FLOAT8, T); break;
    }
}

/* Four tiles with T tokens, whatever the codes: y[4][T]. */
INLINE void four_tiles(const Weight *w, int tile, int last, const Inputs *in, int token, Floats *y, const int T) {
    if (w->kind == INTEGER4) integer_tiles(w, tile, last, in, token, y, 4, 4, T);
    else if (w->kind == INTEGER5) integer_tiles(w, tile, last, in, token, y, 5, 4, T);
    else if (w->kind == INTEGER8) integer_tiles(w, tile, last, in, token, y, 8, 4, T);
    else if (T == 4)
        for (int r = 0; r < 4 && tile + r <= last; r++) one_tile(w, tile + r, in, token, y + 4 * r, 4);
}

static void tiles_4x4(const Weight *w, int tile, int last, const Inputs *in, int token, Floats *y) {
    four_tiles(w, tile, last, in, token, y, 4);
}

static void tiles_4x6(const Weight *w, int tile, int last, const Inputs *in, int token, Floats *y) {
    four_tiles(w, tile, last, in, token, y, 6);
}

static void tile_1x1(const Weight *w, int tile, const Inputs *in, Floats *y) {
    if (w->kind == INTEGER4) integer_tiles(w, tile, tile, in, 0, y, 4, 1, 1);
    else if (w->kind == INTEGER5) integer_tiles(w, tile, tile, in, 0, y, 5, 1, 1);
    else if (w->kind == INTEGER8) integer_tiles(w, tile, tile, in, 0, y, 8, 1, 1);
    else one_tile(w, tile, in, 0, y, 1);
}

/* How many sixes of T tokens are taken before the others go in fours: with as few as can be done twice. */
static int sixes_of(const Weight *w, int T) {
    const int sixes = T / 6, left = T % 6;
    if (!is_integer(w)) return 0;
    if (left == 0 || left > 2) return sixes + (left == 5);
    return sixes ? sixes - 1 : 0;
}

/* Write one tile's outputs of a token. */
INLINE void store_tile(const Weight *w, int tile, Floats found, float *out, int adds) {
    const int from = tile * LANES;
    if (from + LANES <= w->rows) {
        if (w->bias) found += load(w->bias + from);
        store(out + from, adds ? found + load(out + from) : found);
        return;
    }
    for (int i = 0; from + i < w->rows; i++) {
        float number = found[i] + (w->bias ? w->bias[from + i] : 0);
        out[from + i] = adds ? out[from + i] + number : number;
    }
}

/* out[t][0..N) = x[t] @ W.T + bias, or added to what is there, for T tokens; this member does its share of the tiles. Each
   has always the same ones, a run of memory: handing out small pieces to who comes first was slower by a quarter. Of several
   tokens it is a share of four tiles times six tokens, or four. */
static void multiply(const Weight *w, const Inputs *in, int T, float *out, int stride, int adds, Member me) {
    const int tiles = (w->rows + LANES - 1) / LANES;
    Floats y[24];
    int start, stop;
    if (T == 1) {
        share(me, tiles, &start, &stop);
        for (int tile = start; tile < stop; tile++) {
            tile_1x1(w, tile, in, y);
            store_tile(w, tile, y[0], out, adds);
        }
        return;
    }
    const int sixes = sixes_of(w, T), pieces = sixes + (6 * sixes < T ? (T - 6 * sixes + 3) / 4 : 0);
    share(me, (tiles + 3) / 4 * pieces, &start, &stop);
    for (int unit = start; unit < stop; unit++) {
        const int tile = unit / pieces * 4, piece = unit % pieces, at_once = piece < sixes ? 6 : 4;
        const int token = piece < sixes ? 6 * piece : 6 * sixes + 4 * (piece - sixes);
        if (at_once == 6) tiles_4x6(w, tile, tiles - 1, in, token, y);
        else tiles_4x4(w, tile, tiles - 1, in, token, y);
        for (int r = 0; r < 4 && tile + r < tiles; r++)
            for (int t = 0; t < at_once && token + t < T; t++)
                store_tile(w, tile + r, y[at_once * r + t], out + (size_t)(token + t) * stride, adds);
    }
}

/* Dequantize one row of the weight, of an embedding: to[0..K). */
static void row(const Weight *w, int index, float *to) {
    int at = index / LANES, lane = index % LANES, groups = w->width / w->group;
    for (int k = 0; k < w->width; k++) {
        size_t place = ((size_t)at * w->width + k) * LANES + lane;
        size_t of_group = ((size_t)at * groups + k / w->group) * LANES + lane;
        float value = 0;
        if (w->kind == HALF || w->kind == BF16 || w->kind == FLOAT8) {
            value = weights_at(w, place - lane, w->kind)[lane] * (w->kind == FLOAT8 ? 256.0f : 1.0f);
        } else {
            const uint8_t *codes = (const uint8_t *)w->codes;
            int code;
            if (w->kind == INTEGER8) {  /* eights: the even ones of sixteen rows, then the odd ones */
                code = codes[(((size_t)at * w->width / 8 + k / 8) * 2 + k % 2) * 64 + lane * 4 + k % 8 / 2];
            } else if (w->kind == INTEGER5) {
                const uint32_t *run = (const uint32_t *)codes + ((size_t)at * w->width + k) / 32 * 5 * LANES + lane;
                const int eight = k % 32 / 8, i = k % 8;
                const uint32_t fifth = run[4 * LANES] >> (16 * (i / 4) + 4 * eight + i % 4) & 1;
                code = (run[eight * LANES] >> (4 * i) & 15) | fifth << 4;
            } else {
                int bits = w->kind == LEVELS2 ? 2 : 4, each = 32 / bits;
                uint32_t dword;
                memcpy(&dword, codes + (((size_t)at * w->width + k) / each * LANES + lane) * 4, 4);
                code = dword >> (bits * (k % each)) & ((1 << bits) - 1);
            }
            value = is_integer(w) ? code - (w->zero ? w->zero[of_group] : w->middle) : w->levels[code];
        }
        if (w->scale) value *= scale_of(w, of_group - lane)[lane];
        to[k] = value;
    }
}
