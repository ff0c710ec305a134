/* x @ W.T, straight from the codes. A weight lies in tiles of sixteen rows, one row a lane, so that a product needs neither a
   sum across lanes nor a dequantized weight: each number of x meets sixteen weights, and each group's scale, sixteen at once,
   comes last.

   Integer codes meet x as 16-bit integers, one step size a block of 32 or 64 inputs: exact products and sums, and an x that
   errs by 2^-16 of the block's largest, less than bf16 does. All other codes are looked up and multiplied in fp32. One token
   or a prompt of many: the arithmetic of a token is the same, so the answer is. */
#pragma once
#include "lanes.h"
#include "team.h"

enum { HALF, BRAIN, INTEGER4, LEVELS4, LEVELS2, INTEGER8, FLOAT8 };

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

/* What several tokens bring to a product, rows `stride` apart. */
typedef struct {
    float *x;                /* [T][stride] */
    int8_t *high, *low;      /* [T][stride]: x = step * (256 high + low); eights in the order 0 2 4 6 1 3 5 7 */
    float *step, *sum;       /* [T][stride / 32]: of each block its step size and the sum of what its integers stand for */
    int32_t stride, block;
} Inputs;

#define LARGEST 32512.0f  /* 127 * 256: both bytes fit */

/* Fill the integers of one token from its x[0..width). */
static void to_integers(const Inputs *in, int token, int width) {
    const float *x = in->x + (size_t)token * in->stride;
    int8_t *high = in->high + (size_t)token * in->stride, *low = in->low + (size_t)token * in->stride;
    float *step = in->step + (size_t)token * (in->stride / 32), *sum = in->sum + (size_t)token * (in->stride / 32);
    for (int start = 0; start < width; start += in->block) {
        Floats top = {0};
        for (int i = 0; i < in->block; i += LANES) {
            Floats v = load(x + start + i);
            top = larger(top, larger(v, -v));
        }
        float most = largest(top), inverse = most > 0 ? LARGEST / most : 0;
        Ints whole = {0};
        for (int i = 0; i < in->block; i += LANES) {
            Floats v = load(x + start + i) * inverse;
            Ints n = ints(v + as_floats((as_ints(v) & (int32_t)0x80000000) | 0x3f000000)), above = (n + 128) >> 8;
            whole += n;
            Ints below = n - (above << 8);
            /* within each eight the even ones first, as the low and high halves of code bytes come */
            const Ints order = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};
            SignedBytes h = __builtin_convertvector(__builtin_shuffle(above, order), SignedBytes);
            SignedBytes l = __builtin_convertvector(__builtin_shuffle(below, order), SignedBytes);
            memcpy(high + start + i, &h, sizeof h);
            memcpy(low + start + i, &l, sizeof l);
        }
        int32_t added = 0;
        for (int i = 0; i < LANES; i++) added += whole[i];
        step[start / in->block] = most / LARGEST;
        sum[start / in->block] = (float)added * (most / LARGEST);
    }
}

INLINE Floats scale_of(const Weight *w, size_t at) {
    return w->wide_scale ? load((const float *)w->scale + at) : load_halves((const uint16_t *)w->scale + at);
}

INLINE Floats zero_of(const Weight *w, size_t at) { return w->zero ? floats(load_bytes(w->zero + at)) : all(w->middle); }

INLINE int32_t four(const int8_t *bytes) { int32_t v; memcpy(&v, bytes, sizeof v); return v; }

/* Add one tile's products with T tokens to y[T]. `bits` 4 or 8. */
INLINE void integer_tile(const Weight *w, int tile, const Inputs *in, int token, Floats *y, const int bits, const int T) {
    const int groups = w->width / w->group, per_group = w->group / in->block, dwords = in->block * bits / 32;
    const int32_t low_halves = 0x0f0f0f0f;
    const Ints *codes = (const Ints *)w->codes + (size_t)tile * w->width * bits / 32;
    for (int g = 0; g < groups; g++) {
        Floats found[T];
        float sums[T];
        for (int t = 0; t < T; t++) found[t] = all(0), sums[t] = 0;
        for (int b = g * per_group; b < (g + 1) * per_group; b++, codes += dwords) {
            Ints high[T][2], low[T][2];  /* two sums each, lest one token's products wait for each other */
            for (int t = 0; t < T; t++) high[t][0] = high[t][1] = low[t][0] = low[t][1] = (Ints){0};
            for (int i = 0; i < in->block / 8; i++) {
                Ints even, odd;
                if (bits == 4) {
                    even = codes[i] & low_halves;
                    odd = (Ints)((Words)codes[i] >> 4) & low_halves;
                } else {
                    even = codes[2 * i];
                    odd = codes[2 * i + 1];
                }
                for (int t = 0; t < T; t++) {
                    size_t at = (size_t)(token + t) * in->stride + (size_t)b * in->block + 8 * i;
                    const int other = T == 1;
                    high[t][0] = dot(high[t][0], even, four(in->high + at));
                    low[t][0] = dot(low[t][0], even, four(in->low + at));
                    high[t][other] = dot(high[t][other], odd, four(in->high + at + 4));
                    low[t][other] = dot(low[t][other], odd, four(in->low + at + 4));
                }
            }
            for (int t = 0; t < T; t++) {
                size_t at = (size_t)(token + t) * (in->stride / 32) + b;
                Ints sum = ((high[t][0] + high[t][1]) << 8) + (low[t][0] + low[t][1]);
                found[t] += floats(sum) * in->step[at];
                sums[t] += in->sum[at];
            }
        }
        size_t at = ((size_t)tile * groups + g) * LANES;
        Floats scale = scale_of(w, at), zero = zero_of(w, at);
        for (int t = 0; t < T; t++) y[t] += scale * (found[t] - zero * sums[t]);
    }
}

/* The same for codes that are looked up: sixteen levels in 4 bits, or four of them, repeated, in 2. */
INLINE void level_tile(const Weight *w, int tile, const Inputs *in, int token, Floats *y, const int bits, const int T) {
    const int groups = w->width / w->group, each = 32 / bits;
    const Floats table = load(w->levels);
    const Ints *codes = (const Ints *)w->codes + (size_t)tile * w->width / each;
    for (int g = 0; g < groups; g++) {
        Floats found[T][4];
        for (int t = 0; t < T; t++) for (int j = 0; j < 4; j++) found[t][j] = all(0);
        for (int i = 0; i < w->group / each; i++, codes++) {
            const float *x = in->x + (size_t)token * in->stride + (size_t)g * w->group + (size_t)i * each;
#pragma GCC unroll 16
            for (int j = 0; j < each; j++) {
                Floats v = look_up(w->levels, table, (Ints)((Words)*codes >> (bits * j)));
                for (int t = 0; t < T; t++) found[t][j % 4] += v * x[(size_t)t * in->stride + j];
            }
        }
        Floats scale = scale_of(w, ((size_t)tile * groups + g) * LANES);
        for (int t = 0; t < T; t++) y[t] += scale * ((found[t][0] + found[t][1]) + (found[t][2] + found[t][3]));
    }
}

INLINE Floats weights_at(const Weight *w, size_t at, const int kind) {
    if (kind == HALF) return load_halves((const uint16_t *)w->codes + at);
    if (kind == BRAIN) return load_brains((const uint16_t *)w->codes + at);
    return load_float8((const uint8_t *)w->codes + at);
}

/* The same for weights that are floats themselves; those of 8 bits have a scale. */
INLINE void float_tile(const Weight *w, int tile, const Inputs *in, int token, Floats *y, const int kind, const int T) {
    for (int g = 0; g < w->width / w->group; g++) {
        Floats found[T][4];
        for (int t = 0; t < T; t++) for (int j = 0; j < 4; j++) found[t][j] = all(0);
        for (int k = g * w->group; k < (g + 1) * w->group; k += 4) {
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                Floats v = weights_at(w, ((size_t)tile * w->width + k + j) * LANES, kind);
                for (int t = 0; t < T; t++) found[t][j] += v * in->x[(size_t)(token + t) * in->stride + k + j];
            }
        }
        Floats scale = kind == FLOAT8 ? scale_of(w, ((size_t)tile * (w->width / w->group) + g) * LANES) * 256.0f : all(1);
        for (int t = 0; t < T; t++) y[t] += scale * ((found[t][0] + found[t][1]) + (found[t][2] + found[t][3]));
    }
}

INLINE void tile(const Weight *w, int tile, const Inputs *in, int token, Floats *y, const int T) {
    switch (w->kind) {
        case INTEGER4: integer_tile(w, tile, in, token, y, 4, T); break;
        case INTEGER8: integer_tile(w, tile, in, token, y, 8, T); break;
        case LEVELS4: level_tile(w, tile, in, token, y, 4, T); break;
        case LEVELS2: level_tile(w, tile, in, token, y, 2, T); break;
        case HALF: float_tile(w, tile, in, token, y, HALF, T); break;
        case BRAIN: float_tile(w, tile, in, token, y, BRAIN, T); break;
        case FLOAT8: float_tile(w, tile, in, token, y, FLOAT8, T); break;
    }
}

static void tile_of_1(const Weight *w, int at, const Inputs *in, int token, Floats *y) { tile(w, at, in, token, y, 1); }
static void tile_of_4(const Weight *w, int at, const Inputs *in, int token, Floats *y) { tile(w, at, in, token, y, 4); }
static void tile_of_8(const Weight *w, int at, const Inputs *in, int token, Floats *y) { tile(w, at, in, token, y, 8); }

/* out[t][0..N) = x[t] @ W.T + bias, or added to what is there, for T tokens; this member does its share of the tiles. */
static void multiply(const Weight *w, const Inputs *in, int T, float *out, int stride, int adds, Member me) {
    int start, stop;
    share(me, (w->rows + LANES - 1) / LANES, &start, &stop);
    int is_integer = w->kind == INTEGER4 || w->kind == INTEGER8;  /* the others need four times the sums of a token */
    for (int at = start; at < stop; at++) {
        int rows = w->rows - at * LANES < LANES ? w->rows - at * LANES : LANES;
        for (int token = 0; token < T;) {
            Floats y[8];
            int count = T - token >= 8 && is_integer ? 8 : T - token >= 4 ? 4 : 1;
            for (int t = 0; t < count; t++) y[t] = all(0);
            (count == 8 ? tile_of_8 : count == 4 ? tile_of_4 : tile_of_1)(w, at, in, token, y);
            for (int t = 0; t < count; t++, token++) {
                float *to = out + (size_t)token * stride + at * LANES, given[LANES];
                store(given, y[t]);
                for (int i = 0; i < rows; i++) {
                    float number = given[i] + (w->bias ? w->bias[at * LANES + i] : 0);
                    to[i] = adds ? to[i] + number : number;
                }
            }
        }
    }
}

/* Dequantize one row of the weight, of an embedding: to[0..K). */
static void row(const Weight *w, int index, float *to) {
    int at = index / LANES, lane = index % LANES, groups = w->width / w->group;
    for (int k = 0; k < w->width; k++) {
        size_t place = ((size_t)at * w->width + k) * LANES + lane;
        size_t of_group = ((size_t)at * groups + k / w->group) * LANES + lane;
        float value = 0;
        if (w->kind == HALF || w->kind == BRAIN || w->kind == FLOAT8) {
            value = weights_at(w, place - lane, w->kind)[lane] * (w->kind == FLOAT8 ? 256.0f : 1.0f);
        } else {
            const uint8_t *codes = (const uint8_t *)w->codes;
            int code;
            if (w->kind == INTEGER8) {  /* eights: the even ones of sixteen rows, then the odd ones */
                code = codes[(((size_t)at * w->width / 8 + k / 8) * 2 + k % 2) * 64 + lane * 4 + k % 8 / 2];
            } else {
                int bits = w->kind == LEVELS2 ? 2 : 4, each = 32 / bits;
                uint32_t dword;
                memcpy(&dword, codes + (((size_t)at * w->width + k) / each * LANES + lane) * 4, 4);
                code = dword >> (bits * (k % each)) & ((1 << bits) - 1);
            }
            int is_integer = w->kind == INTEGER4 || w->kind == INTEGER8;
            value = is_integer ? code - (w->zero ? w->zero[of_group] : w->middle) : w->levels[code];
        }
        if (w->scale) value *= scale_of(w, of_group - lane)[lane];
        to[k] = value;
    }
}
