// The recurrence of linear attention, step by step, forward and backward, in single precision:
//   S_t = diag(exp(g_t)) S_{t-1} + w_t k_t v_t',  o_t = S_t' q_t   (search_space/ops/linear.py has the shapes).
// The state of a head is cut into tiles of ROWS keys by W values. No tile needs another, so each runs over all
// time in registers; what they share (o and the gradients) is added up in tables of one head, in the cache.
#include <immintrin.h>

#include <algorithm>
#include <new>
#include <vector>

#include "lanes.h"

namespace {

constexpr int ROWS = 4;
typedef float Four __attribute__((vector_size(4 * ROWS)));

struct Sizes { int64_t batch, heads, groups, length, keys, values, decays; };  // decays: keys, or 1 for a head

template <class E> struct Tensor {
  E *data;
  View at;
  E *row(int64_t b, int64_t h, int64_t t) const { return data + b * at.batch + h * at.head + t * at.time; }
};

// Rows over time in single precision, of ``used`` numbers, filled up with zeros to whole tiles.
struct Table {
  int64_t length, used, width;
  std::vector<Lanes> memory;
  Table(int64_t length, int64_t used, int64_t tile)
      : length(length), used(used), width((used + tile - 1) / tile * tile), memory(length * width / W + 1) {}
  float *row(int64_t t) { return (float *)memory.data() + t * width; }
  Lanes &lanes(int64_t t, int64_t first) { return *(Lanes *)(row(t) + first); }
  Four &four(int64_t t, int64_t first) { return *(Four *)(row(t) + first); }
  void clear() { std::fill(memory.begin(), memory.end(), Lanes{}); }
};

template <class E> void load(float *to, const E *from, int64_t n) {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4)  // a constant number at a time, for the compiler to make vectors of
    for (int j = 0; j < 4; j++) to[i + j] = wide(from[i + j]);
  for (; i < n; i++) to[i] = wide(from[i]);
}

template <class E> void store(E *to, const float *from, int64_t n) {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (int j = 0; j < 4; j++) put(to + i + j, from[i + j]);
  for (; i < n; i++) put(to + i, from[i]);
}

template <class E> void load(Table &table, Tensor<E> from, int64_t b, int64_t h) {
  for (int64_t t = 0; t < table.length; t++) load(table.row(t), from.row(b, h, t), table.used);
}

template <class E> void store(Table &table, Tensor<E> to, int64_t b, int64_t h) {
  for (int64_t t = 0; t < table.length; t++) store(to.row(b, h, t), table.row(t), table.used);
}

// exp(g) for every key, the last one repeated up to the table's width; exactly 0 where single precision ends.
void load_decays(Table &a, Tensor<const float> g, Sizes n, int64_t b, int64_t h) {
  for (int64_t t = 0; t < n.length; t++) {
    const float *from = g.row(b, h, t);
    for (int64_t i = 0; i < a.width; i++) a.row(t)[i] = from[std::min(i, n.decays - 1)];
  }
  for (Lanes &x : a.memory) x = x < -87.0f ? Lanes{} : x > 88.0f ? Lanes{} + __builtin_inff() : exponential(x);
}

// w v: from here on the weight is nobody else's business.
template <class E>
void load_weighted(Table &u, Tensor<const E> v, Tensor<const float> w, int64_t b, int64_t h) {
  load(u, v, b, h);
  for (int64_t t = 0; t < u.length; t++)
    for (int64_t i = 0; i < u.width; i += W) u.lanes(t, i) *= *w.row(b, h, t);
}

struct Tile {
  Lanes row[ROWS];

  void step(const Four &a, const Four &k, Lanes u) {
    for (int r = 0; r < ROWS; r++) row[r] = row[r] * a[r] + k[r] * u;
  }
  Lanes read(const Four &q) const {
    Lanes o{};
    for (int r = 0; r < ROWS; r++) o += row[r] * q[r];
    return o;
  }
};

// The part of a state (keys, values) that begins at (i, j), zeros beyond its border.
Tile load(const float *state, Sizes n, int64_t i, int64_t j) {
  Tile tile{};
  for (int64_t r = 0; r < std::min<int64_t>(ROWS, n.keys - i); r++)
    for (int64_t c = 0; c < std::min<int64_t>(W, n.values - j); c++)
      tile.row[r][c] = state[(i + r) * n.values + j + c];
  return tile;
}

void store(float *state, const Tile &tile, Sizes n, int64_t i, int64_t j) {
  for (int64_t r = 0; r < std::min<int64_t>(ROWS, n.keys - i); r++)
    for (int64_t c = 0; c < std::min<int64_t>(W, n.values - j); c++)
      state[(i + r) * n.values + j + c] = tile.row[r][c];
}

// The sum of each row over its lanes.
Four sums(const Tile &x) {
#ifdef __AVX512F__
  __m512 a = (__m512)x.row[0], b = (__m512)x.row[1], c = (__m512)x.row[2], d = (__m512)x.row[3];
  __m512 ab = _mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b);
  __m512 cd = _mm512_unpacklo_ps(c, d) + _mm512_unpackhi_ps(c, d);
  __m512 abcd = _mm512_shuffle_ps(ab, cd, 0x44) + _mm512_shuffle_ps(ab, cd, 0xee);
  __m256 half = _mm512_castps512_ps256(abcd) + _mm512_extractf32x8_ps(abcd, 1);
#else
  __m256 a = (__m256)x.row[0], b = (__m256)x.row[1], c = (__m256)x.row[2], d = (__m256)x.row[3];
  __m256 ab = _mm256_unpacklo_ps(a, b) + _mm256_unpackhi_ps(a, b);
  __m256 cd = _mm256_unpacklo_ps(c, d) + _mm256_unpackhi_ps(c, d);
  __m256 half = _mm256_shuffle_ps(ab, cd, 0x44) + _mm256_shuffle_ps(ab, cd, 0xee);
#endif
  return (Four)(_mm256_castps256_ps128(half) + _mm256_extractf128_ps(half, 1));
}

template <class E>
void forward(Sizes n, Tensor<const E> q_, Tensor<const E> k_, Tensor<const E> v_, Tensor<const float> g_,
             Tensor<const float> w_, const float *state, Tensor<E> o_, float *end) {
  Table q(n.length, n.keys, ROWS), k = q, a = q, u(n.length, n.values, W), o = u;
  for (int64_t b = 0; b < n.batch; b++)
    for (int64_t h = 0; h < n.heads; h++) {
      const int64_t shared = n.heads / n.groups, first = (b * n.heads + h) * n.keys * n.values;
      if (h % shared == 0) load(q, q_, b, h / shared), load(k, k_, b, h / shared);
      load_decays(a, g_, n, b, h);
      load_weighted(u, v_, w_, b, h);
      o.clear();
      for (int64_t i = 0; i < k.width; i += ROWS)
        for (int64_t j = 0; j < u.width; j += W) {
          Tile s = load(state + first, n, i, j);
          for (int64_t t = 0; t < n.length; t++) {
            s.step(a.four(t, i), k.four(t, i), u.lanes(t, j));
            o.lanes(t, j) += s.read(q.four(t, i));
          }
          store(end + first, s, n, i, j);
        }
      store(o, o_, b, h);
    }
}

// The tables of one head while its gradients are made: the inputs, then the gradients (of exp(g): da).
struct Head {
  Table q, k, a, u, o, dq, dk, da, du;
  std::vector<Tile> states;  // before each step
  Head(Sizes n) : q(n.length, n.keys, ROWS), k(q), a(q), u(n.length, n.values, W), o(u), dq(q), dk(q), da(q),
                  du(u), states(n.length) {}

  // One tile: its states once more, going forward, and then, going backward, the gradient of the state after
  // each step: L_t = q_t do_t' + diag(exp(g_{t+1})) L_{t+1}. Takes the first state and L after the end,
  // returns the gradient of the first state.
  Tile backward(Tile s, Tile l, int64_t i, int64_t j) {
    const int64_t length = q.length;
    for (int64_t t = 0; t < length; t++) {
      states[t] = s;
      s.step(a.four(t, i), k.four(t, i), u.lanes(t, j));
    }
    for (int64_t t = length; t--;) {
      const Tile before = states[t];
      const Lanes value = u.lanes(t, j), out = o.lanes(t, j);
      const Four at = a.four(t, i), kt = k.four(t, i), qt = q.four(t, i);
      Tile read, written, kept;
      for (int r = 0; r < ROWS; r++) {
        l.row[r] += qt[r] * out;
        read.row[r] = s.row[r] * out;
        written.row[r] = l.row[r] * value;
        kept.row[r] = l.row[r] * before.row[r];
      }
      dq.four(t, i) += sums(read);
      dk.four(t, i) += sums(written);
      da.four(t, i) += sums(kept);
      du.lanes(t, j) += l.read(kt);
      for (int r = 0; r < ROWS; r++) l.row[r] *= at[r];
      s = before;
    }
    return l;
  }
};

template <class E>
void backward(Sizes n, Tensor<const E> q, Tensor<const E> k, Tensor<const E> v, Tensor<const float> g,
              Tensor<const float> w, const float *state, Tensor<const E> o, const float *end, Tensor<E> dq,
              Tensor<E> dk, Tensor<E> dv, Tensor<float> dg, Tensor<float> dw, float *dstate) {
  Head head(n);
  const int64_t shared = n.heads / n.groups;
  for (int64_t b = 0; b < n.batch; b++)
    for (int64_t h = 0; h < n.heads; h++) {
      const int64_t group = h / shared, first = (b * n.heads + h) * n.keys * n.values;
      if (h % shared == 0) {
        load(head.q, q, b, group), load(head.k, k, b, group);
        head.dq.clear(), head.dk.clear();
      }
      load_decays(head.a, g, n, b, h);
      load_weighted(head.u, v, w, b, h);
      load(head.o, o, b, h);
      head.da.clear(), head.du.clear();
      for (int64_t i = 0; i < head.k.width; i += ROWS)
        for (int64_t j = 0; j < head.u.width; j += W) {
          Tile s = load(state + first, n, i, j), l = load(end + first, n, i, j);
          store(dstate + first, head.backward(s, l, i, j), n, i, j);
        }
      for (int64_t t = 0; t < n.length; t++) {
        const float *a = head.a.row(t), *da = head.da.row(t), weight = *w.row(b, h, t);
        float *du = head.du.row(t), *decay = dg.row(b, h, t), sum = 0;
        std::fill(decay, decay + n.decays, 0.0f);
        for (int64_t i = 0; i < n.keys; i++) decay[n.decays == 1 ? 0 : i] += a[i] * da[i];
        for (int64_t i = 0; i < n.values; i++) sum += du[i] * wide(v.row(b, h, t)[i]);
        *dw.row(b, h, t) = sum;
        for (int64_t i = 0; i < head.du.width; i++) du[i] *= weight;
      }
      store(head.du, dv, b, h);
      if ((h + 1) % shared == 0) store(head.dq, dq, b, group), store(head.dk, dk, b, group);
    }
}

}  // namespace

// 0; 1 when memory ran out.
template <class F> int answered(F f) try {
  f();
  return 0;
} catch (const std::bad_alloc &) {
  return 1;
}

#define EXPORT(name, E)                                                                                           \
  extern "C" int scan_forward_##name(int64_t, const Sizes *n, Tensor<const E> q, Tensor<const E> k,                \
                                     Tensor<const E> v, Tensor<const float> g, Tensor<const float> w,              \
                                     const float *state, Tensor<E> o, float *end) {                               \
    return answered([&] { forward(*n, q, k, v, g, w, state, o, end); });                                          \
  }                                                                                                               \
  extern "C" int scan_backward_##name(int64_t, const Sizes *n, Tensor<const E> q, Tensor<const E> k,               \
                                      Tensor<const E> v, Tensor<const float> g, Tensor<const float> w,             \
                                      const float *state, Tensor<const E> o, const float *end, Tensor<E> dq,      \
                                      Tensor<E> dk, Tensor<E> dv, Tensor<float> dg, Tensor<float> dw,             \
                                      float *dstate) {                                                            \
    return answered([&] { backward(*n, q, k, v, g, w, state, o, end, dq, dk, dv, dg, dw, dstate); });              \
  }

EXPORT(fp32, float)
EXPORT(bf16, bf16)
