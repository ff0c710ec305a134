/* x @ W.T, straight from the codes. A weight lies in tiles of sixteen rows, one row a lane, so that a product needs neither a
   sum across lanes nor a dequantized weight: each number of x meets sixteen weights, and each group's scale, sixteen at once,
   comes last.

   Integer codes meet x as 16-bit integers (integers.h). All other codes are looked up and multiplied in fp32. One token or a
   prompt of many: the arithmetic of a token is the same, so the answer is. */
#pragma once
#include "integers.h"
#include "threads.h"

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

/* y[T] = the products of codes of 4 bits that are looked up in sixteen levels. */
INLINE void level_tile(const Weight *w, int tile, const Inputs *in, int token, Floats *y, const int T) {
    const int groups = w->width / w->group, stride = in->stride;
    const Floats table = load(w->levels);
    const Ints *codes = (const Ints *)w->codes + (size_t)tile * w->width / 8;
    const float *x = in->x + (size_t)token * stride;
    for (int i = 0; i < T; i++) y[i] = all(0);
    for (int g = 0; g < groups; g++) {
        CHAINS
        for (int i = 0; i < w->group / 8; i++, codes++, x += 8) {
            const Words c = (Words)*codes;
#define CODE(k, chain) MULTIPLY_ADD(look_up(w->levels, table, (Ints)(c >> (4 * (k)))), k, chain)
            CODE(0, 0) CODE(1, 1) CODE(2, 2) CODE(3, 3) CODE(4, 0) CODE(5, 1) CODE(6, 2) CODE(7, 3)
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
        case LEVELS4: level_tile(w, tile, in, token, y, T); break;
        case HALF: float_tile(w, tile, in, token, y, HALF, T); break;
        case BF16: float_tile(w, tile, in, token, y, BF16, T); break;
        case FLOAT8: float_tile(w, tile, in, token, y, FLOAT8, T); break;
    }
}

#define EACH_INTEGER(OF) OF(INTEGER2) OF(INTEGER3) OF(INTEGER4) OF(INTEGER5) OF(INTEGER6) OF(INTEGER8) OF(TABLE4)

/* Four tiles with T tokens, whatever the codes: y[4][T]. A function each: compilers take too long over all in one. */
#define FOUR_TILES(T)                                                                                                  \
    EACH_INTEGER(INTEGER_TILES_##T)                                                                                    \
    static void tiles_4x##T(const Weight *w, int tile, int last, const Inputs *in, int token, Floats *y) {             \
        switch (w->kind) {                                                                                             \
            EACH_INTEGER(CASE_##T)                                                                                     \
            default: for (int r = 0; r < 4 && tile + r <= last; r++) one_tile(w, tile + r, in, token, y + T * r, 4);   \
        }                                                                                                              \
    }
#define INTEGER_TILES(kind, T)                                                                                            \
    static void kind##_4x##T(const Weight *w, int tile, int last, const Inputs *in, int token, Floats *y) {               \
        integer_tiles(w, tile, last, in, token, y, kind, 4, T);                                                           \
    }
#define CASE(kind, T) case kind: kind##_4x##T(w, tile, last, in, token, y); break;
#define INTEGER_TILES_4(kind) INTEGER_TILES(kind, 4)
#define INTEGER_TILES_6(kind) INTEGER_TILES(kind, 6)
#define CASE_4(kind) CASE(kind, 4)
#define CASE_6(kind) CASE(kind, 6)
FOUR_TILES(4)
#if MOST_AT_ONCE == 6
FOUR_TILES(6)
#else
#define tiles_4x6 tiles_4x4
#endif
#undef INTEGER_TILES
#undef CASE

#define KERNEL(kind)                                                                    \
    static void kind##_1x1(const Weight *w, int tile, const Inputs *in, Floats *y) {    \
        integer_tiles(w, tile, tile, in, 0, y, kind, 1, 1);                             \
    }
EACH_INTEGER(KERNEL)
#undef KERNEL

static void tile_1x1(const Weight *w, int tile, const Inputs *in, Floats *y) {
#define CASE(kind) case kind: kind##_1x1(w, tile, in, y); break;
    switch (w->kind) {
        EACH_INTEGER(CASE)
        default: one_tile(w, tile, in, 0, y, 1);
    }
#undef CASE
}

/* How many sixes of T tokens are taken before the others go in fours: with as few as can be done twice. */
static int sixes_of(const Weight *w, int T) {
    const int sixes = T / 6, left = T % 6;
    if (!is_integer(w) || MOST_AT_ONCE < 6) return 0;
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

/* Dequantize one row of the weight: to[0..K), each number rounded once. */
static void row(const Weight *w, int index, float *to) {
    const int at = index / LANES, lane = index % LANES, groups = w->width / w->group, spans = w->width / w->span;
    for (int k = 0; k < w->width; k++) {
        const size_t place = ((size_t)at * w->width + k) * LANES;
        const size_t of_group = ((size_t)at * groups + k / w->group) * LANES;
        const size_t of_span = ((size_t)at * spans + k / w->span) * LANES;
        if (w->kind == HALF || w->kind == BF16 || w->kind == FLOAT8) {
            const float value = weights_at(w, place, w->kind)[lane] * (w->kind == FLOAT8 ? 256.0f : 1.0f);
            to[k] = w->scale ? value * scale_of(w, of_span)[lane] : value;
        } else if (is_integer(w)) {
            const int code = integer_at(w, at, k, lane);
            const float level = w->kind == TABLE4 ? w->levels[code] : (float)code;
            const float scale = grouped(scale_of(w, of_span), w->scale_factor, of_group)[lane];
            if (!w->offset) to[k] = (level - zero_of(w, of_group)[lane]) * scale;
            else to[k] = level * scale + grouped(numbers_of(w, w->offset, of_span), w->offset_factor, of_group)[lane];
        } else {
            const uint32_t word = ((const uint32_t *)w->codes)[((size_t)at * w->width + k) / 8 * LANES + lane];
            to[k] = w->levels[word >> (4 * (k % 8)) & 15] * scale_of(w, of_span)[lane];
        }
    }
}
