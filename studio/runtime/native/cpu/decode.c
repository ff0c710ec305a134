/* A whole step of a Llama-like decoder: tokens in, logits out, keys and values appended to the cache. Knows neither
   files nor tokenizers.

   Every member of the team runs `step`; between two barriers each does its share. For one token the norms are done by every
   member for itself, which is quicker than waiting for another's. */
#include "attention.h"
#include "model.h"
#include "matmul.h"
#include <stdlib.h>

typedef struct {
    const Model *model;
    const Cache *cache;
    const int32_t *tokens;
    int32_t count, position;   /* of the first token */
    float *logits;             /* [vocabulary] of the last token, or [count][vocabulary], or none */
    int32_t all_logits;
    float *states;             /* [count][hidden] behind the final norm, or none */
    /* scratch, all of the step's life */
    float *x, *qkv, *heads, *inner, *branch, *rotation;
    Inputs shared_inputs, own_inputs[MAX_MEMBERS];
    float *scores[MAX_MEMBERS];
} Step;

static int padded(int width) { return (width + 63) / 64 * 64; }

static int widest(const Model *m) {
    int width = m->hidden > m->intermediate_size ? m->hidden : m->intermediate_size, all_heads = m->heads * m->head_dim;
    return padded(width > all_heads ? width : all_heads);
}

/* ---- what stands between the products ---- */

static void rms_norm(const float *x, const float *weight, int width, float epsilon, float *out) {
    Floats squares = all(0);
    int i = 0;
    for (; i + LANES <= width; i += LANES) squares += load(x + i) * load(x + i);
    float sum = total(squares);
    for (; i < width; i++) sum += x[i] * x[i];
    float factor = 1 / sqrtf(sum / (float)width + epsilon);
    for (i = 0; i < width; i++) out[i] = x[i] * factor * weight[i];
}

static void gated(const float *gate, const float *up, int width, int activation, float *out) {
    int i = 0;
    for (; i + LANES <= width; i += LANES) {
        Floats g = load(gate + i), a;
        if (activation == 0) a = g / (1.0f + exponential(-g));
        else if (activation == 1) a = g / (1.0f + exponential(-1.5957691216f * (g + 0.044715f * g * g * g)));
        else for (int j = 0; j < LANES; j++) a[j] = 0.5f * g[j] * (1.0f + erff(g[j] * 0.70710678118654752f));
        store(out + i, a * load(up + i));
    }
    for (; i < width; i++) {
        float g = gate[i];
        float a = activation == 0 ? g / (1 + expf(-g))
                : activation == 1 ? g / (1 + expf(-1.5957691216f * (g + 0.044715f * g * g * g)))
                                  : 0.5f * g * (1 + erff(g * 0.70710678118654752f));
        out[i] = a * up[i];
    }
}

static void rotate(float *x, const float *rotation, int rotary) {
    const int half = rotary / 2;
    for (int i = 0; i < half; i++) {
        float c = rotation[2 * i], s = rotation[2 * i + 1], a = x[i], b = x[i + half];
        x[i] = a * c - b * s;
        x[i + half] = b * c + a * s;
    }
}

/* ---- the step ---- */

/* The tokens whose rows of a product's inputs this member writes, and where: for one token everyone writes its own. */
typedef struct { Inputs inputs; int start, stop; } InputRows;

static InputRows input_rows(const Step *s, Inputs own_inputs, Member me) {
    InputRows mine = {s->count == 1 ? own_inputs : s->shared_inputs, 0, 1};
    if (s->count > 1) share(me, s->count, &mine.start, &mine.stop);
    return mine;
}

static float *row_of(InputRows *mine, int token, int width) {
    float *x = mine->inputs.x + (size_t)token * mine->inputs.stride;
    for (int i = width; i < padded(width); i++) x[i] = 0;
    return x;
}

/* Multiply the inputs with several weights, their outputs concatenated in `out`. */
static void project(const Step *s, InputRows *mine, const Weight *weights, int count, int width, float *out, int stride,
                    int adds, Member me) {
    if (s->count > 1) barrier(me);  /* all rows of x are there */
    int block = 0;
    for (int i = 0; i < count; i++) {
        const Weight *w = weights + i;
        if (is_integer(w) && w->block != block) {
            if (block && s->count > 1) barrier(me);  /* others still read the integers of the other block */
            mine->inputs.block = block = w->block;
            for (int t = mine->start; t < mine->stop; t++) quantize_activations(&mine->inputs, t, padded(width));
            if (s->count > 1) barrier(me);
        }
        multiply(w, &mine->inputs, s->count, out, stride, adds, me);
        out += w->rows;
    }
    barrier(me);
}

/* x += the branch, through its norm where the layer has one behind it. */
static void add_residual(const Step *s, const float *norm, Member me) {
    if (!norm) return;  /* the product added itself */
    const Model *m = s->model;
    int start, stop;
    share(me, s->count, &start, &stop);
    for (int t = start; t < stop; t++) {
        float *x = s->x + (size_t)t * m->hidden, *branch = s->branch + (size_t)t * m->hidden;
        rms_norm(branch, norm, m->hidden, m->epsilon, branch);
        for (int i = 0; i < m->hidden; i++) x[i] += branch[i];
    }
    barrier(me);
}

/* Scores of one query: of every position, and of what fills up its first and last sixteen. */
static size_t scores_size(const Step *s) { return ((size_t)s->position + s->count + 3 * LANES) / LANES * LANES; }

static void attention(const Step *s, const Layer *l, int layer, InputRows *mine, float *scores, Member me) {
    const Model *m = s->model;
    const int D = m->head_dim, q_rows = m->heads * D, kv_rows = m->kv_heads * D, rows = q_rows + 2 * kv_rows;
    int start, stop;
    for (int t = mine->start; t < mine->stop; t++)
        rms_norm(s->x + (size_t)t * m->hidden, l->attention_norm, m->hidden, m->epsilon, row_of(mine, t, m->hidden));
    project(s, mine, l->qkv, l->qkv_count, m->hidden, s->qkv, rows, 0, me);

    const int heads = m->heads + m->kv_heads;
    share(me, s->count * heads, &start, &stop);
    for (int unit = start; unit < stop; unit++) {
        int t = unit / heads, head = unit % heads, is_key = head >= m->heads;
        float *x = s->qkv + (size_t)t * rows + (size_t)head * D;
        const float *norm = is_key ? l->key_norm : l->query_norm;
        if (norm) rms_norm(x, norm, D, m->epsilon, x);
        if (l->rope_index >= 0) rotate(x, s->rotation + ((size_t)l->rope_index * s->count + t) * m->rotary, m->rotary);
        if (is_key) {
            Head h = head_of(s->cache, layer * m->kv_heads + head - m->heads, D);
            kv_append(&h, s->position + t, x, x + kv_rows);
        }
    }
    barrier(me);

    const int fours = (s->count + 3) / 4;
    const size_t room = scores_size(s);
    share(me, fours * m->heads, &start, &stop);
    for (int unit = start; unit < stop; unit++) {  /* one head after the other: its keys stay near */
        int t = unit % fours * 4, head = unit / fours, count = s->count - t < 4 ? s->count - t : 4;
        Head h = head_of(s->cache, layer * m->kv_heads + head / (m->heads / m->kv_heads), D);
        attend(&h, s->qkv + (size_t)t * rows + (size_t)head * D, rows, count, l->window, s->position + t, m->attention_scale,
               m->attention_cap, scores, room, s->heads + (size_t)t * q_rows + (size_t)head * D, q_rows);
    }
    barrier(me);

    for (int t = mine->start; t < mine->stop; t++)
        memcpy(row_of(mine, t, q_rows), s->heads + (size_t)t * q_rows, (size_t)q_rows * 4);
    project(s, mine, l->output, 1, q_rows, l->attention_after ? s->branch : s->x, m->hidden, !l->attention_after, me);
    add_residual(s, l->attention_after, me);
}

static void mlp(const Step *s, const Layer *l, InputRows *mine, Member me) {
    const Model *m = s->model;
    for (int t = mine->start; t < mine->stop; t++)
        rms_norm(s->x + (size_t)t * m->hidden, l->mlp_norm, m->hidden, m->epsilon, row_of(mine, t, m->hidden));
    project(s, mine, l->gate_up, l->gate_up_count, m->hidden, s->inner, 2 * m->intermediate_size, 0, me);
    for (int t = mine->start; t < mine->stop; t++) {
        const float *gate = s->inner + (size_t)t * 2 * m->intermediate_size;
        gated(gate, gate + m->intermediate_size, m->intermediate_size, m->activation, row_of(mine, t, m->intermediate_size));
    }
    project(s, mine, l->down, 1, m->intermediate_size, l->mlp_after ? s->branch : s->x, m->hidden, !l->mlp_after, me);
    add_residual(s, l->mlp_after, me);
}

static void step(void *job, Member me) {
    const Step *s = job;
    const Model *m = s->model;
    Inputs own_inputs = s->own_inputs[me.index];
    float *scores = s->scores[me.index];
    InputRows mine = input_rows(s, own_inputs, me);
    int start, stop;
    share(me, s->count, &start, &stop);
    for (int t = start; t < stop; t++) {
        float *x = s->x + (size_t)t * m->hidden;
        row(m->embedding, s->tokens[t], own_inputs.x);
        for (int i = 0; i < m->hidden; i++) x[i] = own_inputs.x[i] * m->embedding_scale;
        for (int rope_index = 0; rope_index < TABLES; rope_index++) {
            if (!m->frequencies[rope_index]) continue;
            float *rotation = s->rotation + ((size_t)rope_index * s->count + t) * m->rotary;
            for (int i = 0; i < m->rotary / 2; i++) {
                float angle = (float)(s->position + t) * m->frequencies[rope_index][i];
                rotation[2 * i] = cosf(angle) * m->rotation_scale[rope_index];
                rotation[2 * i + 1] = sinf(angle) * m->rotation_scale[rope_index];
            }
        }
    }
    barrier(me);
    for (int i = 0; i < m->layers; i++) {
        attention(s, m->layer + i, i, &mine, scores, me);
        mlp(s, m->layer + i, &mine, me);
    }
    for (int t = mine.start; t < mine.stop; t++) {
        float *x = row_of(&mine, t, m->hidden);
        rms_norm(s->x + (size_t)t * m->hidden, m->final_norm, m->hidden, m->epsilon, x);
        if (s->states && (s->count > 1 || me.index == 0))
            memcpy(s->states + (size_t)t * m->hidden, x, (size_t)m->hidden * 4);
    }
    if (s->logits) {
        if (s->count > 1 && !s->all_logits) {  /* the last token's alone */
            barrier(me);
            memcpy(own_inputs.x, mine.inputs.x + (size_t)(s->count - 1) * mine.inputs.stride, (size_t)mine.inputs.stride * 4);
            Step last = *s;
            last.count = 1;
            InputRows only = {own_inputs, 0, 1};
            project(&last, &only, m->head, 1, m->hidden, s->logits, m->vocabulary, 0, me);
        } else {
            project(s, &mine, m->head, 1, m->hidden, s->logits, m->vocabulary, 0, me);
        }
        if (m->logit_cap > 0) {
            const int rows = s->all_logits ? s->count : 1;
            share(me, m->vocabulary, &start, &stop);
            for (int t = 0; t < rows; t++) {
                float *logits = s->logits + (size_t)t * m->vocabulary;
                for (int i = start; i < stop; i++) logits[i] = m->logit_cap * tanhf(logits[i] / m->logit_cap);
            }
            barrier(me);
        }
    }
}

/* Where steps work, kept from one to the next: asking the system for it again takes as long as a layer does. */
static struct { void *memory; size_t size; } scratch;

/* Return whether there is room for so many bytes, taking more where there is not. */
static int reserve(size_t size) {
    if (size > scratch.size) {
        free(scratch.memory);
        scratch.memory = aligned_alloc(64, size);
        scratch.size = scratch.memory ? size : 0;
        if (scratch.memory) memset(scratch.memory, 0, size);  /* any number may be read where rows are filled up to four */
    }
    return scratch.memory != 0;
}

static void begin_alone(void) {
    reset_team();
    scratch.memory = 0, scratch.size = 0;  /* the parent may have been at changing it */
}

__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(0, 0, begin_alone); }

static void *allot(size_t *used, size_t bytes) {
    void *place = (char *)scratch.memory + *used;
    *used += (bytes + 63) / 64 * 64;
    return scratch.memory ? place : 0;
}

static Inputs allot_inputs(size_t *used, int tokens, int stride) {
    const size_t numbers = (size_t)((tokens + 3) / 4 * 4) * stride;
    return (Inputs){allot(used, numbers * 4), allot(used, numbers * 2), allot(used, numbers / 4), allot(used, numbers / 4),
                    stride, 64};
}

/* Give a step its places; return how many bytes they take. */
static size_t lay_out(Step *s, int members) {
    const Model *m = s->model;
    const size_t T = (size_t)s->count, D = (size_t)m->head_dim;
    size_t used = 0;
    s->x = allot(&used, T * m->hidden * 4);
    s->qkv = allot(&used, T * (m->heads + 2 * m->kv_heads) * D * 4);
    s->heads = allot(&used, T * m->heads * D * 4);
    s->inner = allot(&used, T * 2 * m->intermediate_size * 4);
    s->branch = allot(&used, T * m->hidden * 4);
    s->rotation = allot(&used, TABLES * T * m->rotary * 4);
    s->shared_inputs = allot_inputs(&used, s->count, widest(m));
    for (int i = 0; i < members; i++) {
        s->own_inputs[i] = allot_inputs(&used, 1, widest(m));
        s->scores[i] = allot(&used, scores_size(s) * 4 * (s->count < 4 ? 1 : 4));
    }
    return used;
}

/* A single product: out[T][N] = x[T][K] @ W.T + bias, x rows K apart. */
typedef struct { const Weight *weight; const float *x; float *out; int count, width; Inputs in; } Product;

static size_t lay_out_product(Product *p) {
    size_t used = 0;
    p->in = allot_inputs(&used, p->count, padded(p->width > p->weight->width ? p->width : p->weight->width));
    return used;
}

static void do_product(void *job, Member me) {
    const Product *p = job;
    Inputs in = p->in;
    int start, stop;
    share(me, p->count, &start, &stop);
    if (p->weight->block) in.block = p->weight->block;
    for (int t = start; t < stop; t++) {
        float *x = in.x + (size_t)t * in.stride;
        memcpy(x, p->x + (size_t)t * p->width, (size_t)p->width * 4);
        for (int i = p->width; i < in.stride; i++) x[i] = 0;
        if (p->weight->block) quantize_activations(&in, t, in.stride);
    }
    barrier(me);
    multiply(p->weight, &in, p->count, p->out, p->weight->rows, 0, me);
}

int product(const Weight *weight, const float *x, int32_t count, int32_t width, float *out, int32_t members) {
    if (count < 1 || width < 1 || width > weight->width || weight->width > padded(width)) return 2;
    pthread_mutex_t *turn = take_turn();
    members = start_threads(members);
    Product p = {.weight = weight, .x = x, .out = out, .count = count, .width = width};
    const int fits = reserve(lay_out_product(&p));
    if (fits) {
        lay_out_product(&p);
        run_on_team(do_product, &p, members);
    }
    give_turn(turn);
    return fits ? 0 : 1;
}

/* Look rows up: out[count][width of the weight], as the weight stands for them. Return 0, 2 for what is not taken. */
int dequantize_rows(const Weight *weight, const int64_t *indices, int32_t count, float *out) {
    for (int i = 0; i < count; i++)
        if (indices[i] < 0 || indices[i] >= weight->rows) return 2;
    for (int i = 0; i < count; i++) row(weight, (int)indices[i], out + (size_t)i * weight->width);
    return 0;
}

/* Run `count` (at most 128) tokens from `position` on. Return 0, 1 when memory is short, 2 for what is not taken. */
int decode(const Model *m, const Cache *cache, const int32_t *tokens, int32_t count, int32_t position, float *logits,
           int32_t all_logits, float *states, int32_t members) {
    if (!is_sound(m, cache, tokens, count, position)) return 2;
    pthread_mutex_t *turn = take_turn();
    members = start_threads(members);
    Step s = {.model = m, .cache = cache, .tokens = tokens, .count = count, .position = position, .logits = logits,
              .all_logits = all_logits, .states = states};
    const int fits = reserve(lay_out(&s, members));
    if (fits) {
        lay_out(&s, members);
        run_on_team(step, &s, members);
    }
    give_turn(turn);
    return fits ? 0 : 1;
}
