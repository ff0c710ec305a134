/* Attention over a cache whose keys lie in blocks of sixteen positions, one position a lane: a query's score with sixteen
   keys needs no sum across lanes. Values lie one position after the other, sixteen of their dimensions to a vector.

   At 8 and 4 bits each position's 32 dimensions share a step and a lowest value: x = lowest + code * step. */
#pragma once
#include "lanes.h"
#include "team.h"

#define SPAN 32  /* dimensions that share a step */

typedef struct {
    int32_t bits;       /* 16, 8 or 4 */
    int32_t capacity;   /* positions, a multiple of 16 */
    uint8_t *keys;      /* [layers][kv heads][capacity / 16][dimensions][16] codes */
    uint8_t *values;    /* [layers][kv heads][capacity][dimensions] codes */
    uint16_t *key_grid, *value_grid; /* fp16; of keys [...][capacity / 16][spans][2][16], of values [...][capacity][spans][2] */
} Cache;

typedef struct {
    const uint8_t *keys, *values;
    const uint16_t *key_grid, *value_grid;
    int bits, dimensions, spans;
} Head;

/* One layer's keys and values of one kv head. */
static Head head_of(const Cache *c, int index, int dimensions) {
    size_t numbers = (size_t)c->capacity * dimensions, spans = (dimensions + SPAN - 1) / SPAN;
    size_t grid = (size_t)c->capacity * spans * 2;
    return (Head){c->keys + numbers * c->bits / 8 * index, c->values + numbers * c->bits / 8 * index,
                  c->key_grid + grid * index, c->value_grid + grid * index, c->bits, dimensions, (int)spans};
}

static uint16_t half_of(float number) {
    uint16_t halves[LANES];
    store_halves(halves, all(number));
    return halves[0];
}

static float from_half(uint16_t half) {
    uint16_t halves[LANES] = {half};
    return load_halves(halves)[0];
}

/* Find the grid of up to 32 numbers; its ends are fp16, as they are kept. */
static void grid_of(const float *x, int count, int bits, float *lowest, float *step) {
    float low = x[0], high = x[0];
    for (int i = 1; i < count; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    *lowest = from_half(half_of(low));
    *step = from_half(half_of((high - *lowest) / (float)((1 << bits) - 1)));
}

static int code_of(float x, float lowest, float step, int bits) {
    float code = step > 0 ? nearbyintf((x - lowest) / step) : 0;
    float top = (float)((1 << bits) - 1);
    return (int)(code < 0 ? 0 : code > top ? top : code);
}

/* Keep a key and a value [dimensions] at a position. */
static void remember(const Head *h, int position, const float *key, const float *value) {
    const int D = h->dimensions, lane = position % LANES;
    uint8_t *keys = (uint8_t *)h->keys, *values = (uint8_t *)h->values;
    if (h->bits == 16) {
        uint16_t *to = (uint16_t *)keys + ((size_t)(position / LANES) * D) * LANES + lane;
        for (int d = 0; d < D; d++) to[(size_t)d * LANES] = half_of(key[d]);
        uint16_t *out = (uint16_t *)values + (size_t)position * D;
        for (int d = 0; d < D; d += LANES) store_halves(out + d, load(value + d));
        return;
    }
    uint16_t *key_grid = (uint16_t *)h->key_grid + (size_t)(position / LANES) * h->spans * 2 * LANES + lane;
    uint16_t *value_grid = (uint16_t *)h->value_grid + (size_t)position * h->spans * 2;
    for (int s = 0; s < h->spans; s++) {
        int from = s * SPAN, count = D - from < SPAN ? D - from : SPAN;
        float low, step;
        grid_of(key + from, count, h->bits, &low, &step);
        key_grid[(size_t)(2 * s) * LANES] = half_of(low);
        key_grid[(size_t)(2 * s + 1) * LANES] = half_of(step);
        for (int d = from; d < from + count; d++) {
            int code = code_of(key[d], low, step, h->bits);
            if (h->bits == 8) keys[((size_t)(position / LANES) * D + d) * LANES + lane] = (uint8_t)code;
            else {  /* two dimensions to a byte */
                uint8_t *at = keys + ((size_t)(position / LANES) * (D / 2) + d / 2) * LANES + lane;
                *at = d % 2 ? (uint8_t)((*at & 0x0f) | code << 4) : (uint8_t)((*at & 0xf0) | code);
            }
        }
        grid_of(value + from, count, h->bits, &low, &step);
        value_grid[2 * s] = half_of(low);
        value_grid[2 * s + 1] = half_of(step);
        for (int d = from; d < from + count; d++) {
            int code = code_of(value[d], low, step, h->bits);
            if (h->bits == 8) values[(size_t)position * D + d] = (uint8_t)code;
            else {  /* dimensions i and i + 16 of each 32 to a byte */
                uint8_t *at = values + (size_t)position * (D / 2) + (d - d % SPAN) / 2 + d % LANES;
                *at = d % SPAN >= LANES ? (uint8_t)((*at & 0x0f) | code << 4) : (uint8_t)((*at & 0xf0) | code);
            }
        }
    }
}

/* q . k of sixteen positions */
INLINE Floats scores_at(const Head *h, int block, const float *q) {
    const int D = h->dimensions;
    Floats found[4] = {all(0), all(0), all(0), all(0)};
    if (h->bits == 16) {
        const uint16_t *keys = (const uint16_t *)h->keys + (size_t)block * D * LANES;
        for (int d = 0; d < D; d += 4)
            for (int j = 0; j < 4; j++) found[j] += load_halves(keys + (size_t)(d + j) * LANES) * q[d + j];
        return (found[0] + found[1]) + (found[2] + found[3]);
    }
    Floats score = all(0);
    for (int s = 0; s < h->spans; s++) {
        int from = s * SPAN, stop = D - from < SPAN ? D : from + SPAN;
        const uint16_t *grid = h->key_grid + ((size_t)block * h->spans + s) * 2 * LANES;
        float sum = 0;
        Floats products = all(0);
        if (h->bits == 8) {
            const uint8_t *keys = h->keys + (size_t)block * D * LANES;
            for (int d = from; d < stop; d++) {
                products += floats(load_bytes(keys + (size_t)d * LANES)) * q[d];
                sum += q[d];
            }
        } else {
            const uint8_t *keys = h->keys + (size_t)block * (D / 2) * LANES;
            for (int d = from; d < stop; d += 2) {
                Ints both = load_bytes(keys + (size_t)(d / 2) * LANES);
                products += floats(both & 15) * q[d] + floats(both >> 4) * q[d + 1];
                sum += q[d] + q[d + 1];
            }
        }
        score += load_halves(grid) * sum + load_halves(grid + LANES) * products;
    }
    return score;
}

/* out += weight * value of one position */
INLINE void add_value(const Head *h, int position, float weight, Floats *out) {
    const int D = h->dimensions;
    if (h->bits == 16) {
        const uint16_t *values = (const uint16_t *)h->values + (size_t)position * D;
        for (int i = 0; i < D / LANES; i++) out[i] += load_halves(values + i * LANES) * weight;
        return;
    }
    const uint16_t *grid = h->value_grid + (size_t)position * h->spans * 2;
    for (int s = 0; s < h->spans; s++) {
        float low = from_half(grid[2 * s]) * weight, step = from_half(grid[2 * s + 1]) * weight;
        for (int i = s * 2; i < s * 2 + 2 && i < D / LANES; i++) {
            Ints codes;
            if (h->bits == 8) codes = load_bytes(h->values + (size_t)position * D + i * LANES);
            else {
                Ints both = load_bytes(h->values + (size_t)position * (D / 2) + s * LANES);
                codes = i % 2 ? both >> 4 : both & 15;
            }
            out[i] += floats(codes) * step + low;
        }
    }
}

#define MAX_DIMENSIONS 512

/* One query [dimensions] over positions first..last -> out [dimensions]. `scores` has room for all of them and sixteen more.
   A positive `cap` bounds the scores as Gemma 2 does. */
static void attend(const Head *h, const float *q, int first, int last, float scale, float cap, float *scores, float *out) {
    const int begin = first / LANES * LANES;
    Floats top = all(-INFINITY);
    for (int p = begin; p <= last; p += LANES) {
        Floats score = scores_at(h, p / LANES, q) * scale;
        if (cap > 0) for (int i = 0; i < LANES; i++) score[i] = cap * tanhf(score[i] / cap);
        if (p < first || p + LANES - 1 > last)
            for (int i = 0; i < LANES; i++) if (p + i < first || p + i > last) score[i] = -INFINITY;
        store(scores + (p - begin), score);
        top = larger(top, score);
    }
    float most = largest(top), sum = 0;
    Floats found[MAX_DIMENSIONS / LANES], shares = all(0);
    const int parts = h->dimensions / LANES;
    for (int i = 0; i < parts; i++) found[i] = all(0);
    for (int p = begin; p <= last; p += LANES) {
        Floats share = exponential(load(scores + (p - begin)) - most);
        if (p < first || p + LANES - 1 > last)
            for (int i = 0; i < LANES; i++) if (p + i < first || p + i > last) share[i] = 0;
        store(scores + (p - begin), share);
        shares += share;
    }
    for (int p = first; p <= last; p++) add_value(h, p, scores[p - begin], found);
    sum = total(shares);
    for (int i = 0; i < parts; i++) store(out + i * LANES, found[i] / sum);
}
