// The recurrence of linear attention, step by step, forward and backward, in single precision:
//   S_t = diag(exp(g_t)) S_{t-1} + w_t k_t v_t',  o_t = S_t' q_t   (search_space/ops/linear.py has the shapes).
// The state of a head is cut into tiles of ROWS keys by W values. No tile needs another, so each runs over all
// time in registers; what they share (o and the gradients) is added up in tables of one head, in the cache.
#include <immintrin.h>

#include <algorithm>
#include <vector>

#include "lanes.h"

namespace {

constexpr int ROWS = 4;
typedef float Four __attribute__((vector_size(4 * ROWS)));

struct Sizes {
  int64_t batch, heads, groups, length, keys, values, decays;  // decays: keys, or 1 for the whole head
  int64_t shared() const { return heads / groups; }            // heads of a group
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

// Numbers to single precision and back, as many as a vector type holds: compilers leave so short loops scalar.
typedef uint32_t Long4 __attribute__((vector_size(16)));
typedef uint32_t Long8 __attribute__((vector_size(32)));
typedef uint16_t Short4 __attribute__((vector_size(8)));
typedef uint16_t Short8 __attribute__((vector_size(16)));

template <class Short, class Long> void widen(float *to, const bf16 *from) {
  Short half;
  memcpy(&half, from, sizeof half);
  const Long bits = __builtin_convertvector(half, Long) << 16;
  memcpy(to, &bits, sizeof bits);
}

template <class Short, class Long> void narrow(bf16 *to, const float *from) {  // as `put` does
  Long bits;
  memcpy(&bits, from, sizeof bits);
  const Long rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16, nan = Long{} + 0x7fc0;
  const Long kept = (bits & 0x7fffffff) > 0x7f800000 ? nan : rounded;
  const Short half = __builtin_convertvector(kept, Short);
  memcpy(to, &half, sizeof half);
}

template <class, class Long> void widen(float *to, const fp32 *from) { memcpy(to, from, sizeof(Long)); }
template <class, class Long> void narrow(fp32 *to, const float *from) { memcpy(to, from, sizeof(Long)); }

template <class E> void load(float *to, const E *from, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) widen<Short8, Long8>(to + i, from + i);
  for (; i + 4 <= n; i += 4) widen<Short4, Long4>(to + i, from + i);
  for (; i < n; i++) to[i] = wide(from[i]);
}

template <class E> void store(E *to, const float *from, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) narrow<Short8, Long8>(to + i, from + i);
  for (; i + 4 <= n; i += 4) narrow<Short4, Long4>(to + i, from + i);
  for (; i < n; i++) put(to + i, from[i]);
}

template <class E> void load(Table &table, Tensor<E> from, int64_t b, int64_t h) {
  for (int64_t t = 0; t < table.length; t++) load(table.row(t), from.row(b, h, t), table.used);
}

template <class E> void store(Table &table, Tensor<E> to, int64_t b, int64_t h) {
  for (int64_t t = 0; t < table.length; t++) store(to.row(b, h, t), table.row(t), table.used);
}

// exp(g) for each key, that of a whole head repeated; exactly 0 where single precision ends.
void load_decays(Table &a, Tensor<float> g, Sizes n, int64_t b, int64_t h) {
  for (int64_t t = 0; t < n.length; t++) {
    const float *from = g.row(b, h, t);
    for (int64_t i = 0; i < a.width; i += ROWS) a.four(t, i) = Four{} + (n.decays == 1 ? *from : 0.0f);
    if (n.decays > 1) load(a.row(t), from, n.keys);
  }
  for (Lanes &x : a.memory) x = x < -87.0f ? Lanes{} : x > 88.0f ? Lanes{} + __builtin_inff() : exponential(x);
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

// The inputs of one head and its output or, in the backward pass, the output's gradient.
struct Head {
  Table q, k, a, v, w, o;
  Head(Sizes n)
      : q(n.length, n.keys, ROWS), k(q), a(q), v(n.length, n.values, W), w(n.length, 1, 1), o(v) {}

  template <class E>
  void load(Sizes n, Tensor<E> q_, Tensor<E> k_, Tensor<E> v_, Tensor<float> g,
            Tensor<float> w_, int64_t b, int64_t h) {
    if (h % n.shared() == 0) ::load(q, q_, b, h / n.shared()), ::load(k, k_, b, h / n.shared());
    ::load(v, v_, b, h), ::load(w, w_, b, h), load_decays(a, g, n, b, h);
  }

  template <class F> void each_tile(F f) {
    for (int64_t i = 0; i < k.width; i += ROWS)
      for (int64_t j = 0; j < v.width; j += W) f(i, j);
  }

  Lanes weighted(int64_t t, int64_t j) { return v.lanes(t, j) * w.row(t)[0]; }

  // A tile's part of the outputs, from its state before the first step; returns that after the last.
  Tile forward(Tile s, int64_t i, int64_t j) {
    for (int64_t t = 0; t < v.length; t++) {
      s.step(a.four(t, i), k.four(t, i), weighted(t, j));
      o.lanes(t, j) += s.read(q.four(t, i));
    }
    return s;
  }
};

// The gradients of one head's inputs: a = exp(g) as the decay of each key, g as that of the whole head.
struct Gradients {
  Table q, k, a, v, w, g;
  std::vector<Tile> states;  // before each step
  Gradients(Sizes n)
      : q(n.length, n.keys, ROWS), k(q), a(q), v(n.length, n.values, W), w(n.length, 1, 1), g(w), states(n.length) {}

  // A tile's part: its states once more, going forward, and then, going backward, the gradient of the state after
  // each step, L_t = q_t do_t' + diag(exp(g_{t+1})) L_{t+1}. Takes the state before the first step and L after the
  // last; returns the gradient of the state before the first.
  Tile backward(Head &head, Tile s, Tile l, int64_t i, int64_t j) {
    for (int64_t t = 0; t < q.length; t++) {
      states[t] = s;
      s.step(head.a.four(t, i), head.k.four(t, i), head.weighted(t, j));
    }
    for (int64_t t = q.length; t--;) {
      const Tile before = states[t];
      const Lanes value = head.weighted(t, j), out = head.o.lanes(t, j);
      const Four decay = head.a.four(t, i), query = head.q.four(t, i);
      Tile read, written, kept;
      for (int r = 0; r < ROWS; r++) {
        l.row[r] += query[r] * out;
        read.row[r] = s.row[r] * out;
        written.row[r] = l.row[r] * value;
        kept.row[r] = l.row[r] * before.row[r];
      }
      q.four(t, i) += sums(read);
      k.four(t, i) += sums(written);
      a.four(t, i) += sums(kept);
      v.lanes(t, j) += l.read(head.k.four(t, i));
      for (int r = 0; r < ROWS; r++) l.row[r] *= decay[r];
      s = before;
    }
    return l;
  }

  // From gradients of exp(g) and w v to those of g, w and v.
  void finish(Head &head) {
    for (int64_t t = 0; t < q.length; t++) {
      Tile product{};
      for (int64_t j = 0; j < v.width; j += W) {
        product.row[0] += v.lanes(t, j) * head.v.lanes(t, j);
        v.lanes(t, j) *= head.w.row(t)[0];
      }
      w.row(t)[0] = sums(product)[0];
      Four sum{};
      for (int64_t i = 0; i < a.width; i += ROWS) sum += a.four(t, i) *= head.a.four(t, i);
      g.row(t)[0] = sum[0] + sum[1] + sum[2] + sum[3];
    }
  }
};

template <class E>
void forward(Sizes n, Tensor<E> q, Tensor<E> k, Tensor<E> v, Tensor<float> g,
             Tensor<float> w, const float *state, Tensor<E> o, float *end) {
  Head head(n);
  for (int64_t b = 0; b < n.batch; b++)
    for (int64_t h = 0; h < n.heads; h++) {
      head.load(n, q, k, v, g, w, b, h);
      head.o.clear();
      head.each_tile([&](int64_t i, int64_t j) {
        const int64_t first = (b * n.heads + h) * n.keys * n.values;
        store(end + first, head.forward(load(state + first, n, i, j), i, j), n, i, j);
      });
      store(head.o, o, b, h);
    }
}

template <class E>
void backward(Sizes n, Tensor<E> q, Tensor<E> k, Tensor<E> v, Tensor<float> g,
              Tensor<float> w, const float *state, Tensor<E> o, const float *end, Tensor<E> dq,
              Tensor<E> dk, Tensor<E> dv, Tensor<float> dg, Tensor<float> dw, float *dstate) {
  Head head(n);
  Gradients d(n);
  for (int64_t b = 0; b < n.batch; b++)
    for (int64_t h = 0; h < n.heads; h++) {
      head.load(n, q, k, v, g, w, b, h);
      load(head.o, o, b, h);
      const int64_t group = h / n.shared();
      if (h % n.shared() == 0) d.q.clear(), d.k.clear();
      d.a.clear(), d.v.clear();
      head.each_tile([&](int64_t i, int64_t j) {
        const int64_t first = (b * n.heads + h) * n.keys * n.values;
        const Tile before = load(state + first, n, i, j), after = load(end + first, n, i, j);
        store(dstate + first, d.backward(head, before, after, i, j), n, i, j);
      });
      d.finish(head);
      store(d.v, dv, b, h), store(d.w, dw, b, h), store(n.decays == 1 ? d.g : d.a, dg, b, h);
      if (h % n.shared() == n.shared() - 1) store(d.q, dq, b, group), store(d.k, dk, b, group);
    }
}

}  // namespace

#define EXPORT(E)                                                                                                  \
  extern "C" int scan_forward_##E(const Sizes *n, Tensor<E> q, Tensor<E> k, Tensor<E> v, Tensor<float> g,           \
                                  Tensor<float> w, const float *state, Tensor<E> o, float *end) {                  \
    return answered([&] { forward(*n, q, k, v, g, w, state, o, end); });                                           \
  }                                                                                                                \
  extern "C" int scan_backward_##E(const Sizes *n, Tensor<E> q, Tensor<E> k, Tensor<E> v, Tensor<float> g,          \
                                   Tensor<float> w, const float *state, Tensor<E> o, const float *end,             \
                                   Tensor<E> dq, Tensor<E> dk, Tensor<E> dv, Tensor<float> dg, Tensor<float> dw,   \
                                   float *dstate) {                                                                \
    return answered([&] { backward(*n, q, k, v, g, w, state, o, end, dq, dk, dv, dg, dw, dstate); });              \
  }

EXPORT(fp32)
EXPORT(bf16)
