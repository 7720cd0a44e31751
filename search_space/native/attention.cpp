// Causal softmax attention, within a window and to sink tokens, forward and backward, in single precision.
// A block of W queries (or keys) lies across the lanes and the others pass by one at a time, so that scores live
// in registers and in a row of the first cache, never in memory. Made for heads small enough for that.
#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>
#include "lanes.h"

namespace {

// ``head`` is P; a window as long as the sequence is none.
struct Sizes { int64_t batch, heads, kv, length, head, window, sink; };

using Rows = std::vector<float>;  // (time, P)

template <int P, class E> void load(Rows &rows, Tensor<E> from, int64_t b, int64_t h, float scale = 1) {
  for (int64_t t = 0; t < int64_t(rows.size()) / P; t++)
    for (int p = 0; p < P; p++) rows[t * P + p] = scale * wide(from.row(b, h, t)[p]);
}

template <int P, class E> void store(const Rows &rows, Tensor<E> to, int64_t b, int64_t h) {
  for (int64_t t = 0; t < int64_t(rows.size()) / P; t++)
    for (int p = 0; p < P; p++) put(to.row(b, h, t) + p, rows[t * P + p]);
}

// Up to W rows from ``first`` on, one to a lane; lanes without a row are zero.
template <int P> void across(Lanes *to, const Rows &rows, int64_t first) {
  float *lane = (float *)to;
  std::fill(lane, lane + P * W, 0.0f);
  const int n = std::min<int64_t>(W, rows.size() / P - first);
  for (int i = 0; i < n; i++)
    for (int p = 0; p < P; p++) lane[p * W + i] = rows[(first + i) * P + p];
}

// The inverse: adds lanes to rows.
template <int P> void back(Rows &rows, const Lanes *lanes, int64_t first) {
  const float *lane = (const float *)lanes;
  const int n = std::min<int64_t>(W, rows.size() / P - first);
  for (int i = 0; i < n; i++)
    for (int p = 0; p < P; p++) rows[(first + i) * P + p] += lane[p * W + i];
}

template <int P> Lanes dot(const Lanes *x, const float *row, Lanes sum) {
  for (int p = 0; p < P; p++) sum += x[p] * row[p];
  return sum;
}

template <int P> void add(Lanes *to, Lanes weight, const float *row) {
  for (int p = 0; p < P; p++) to[p] += weight * row[p];
}

Ints counted(int64_t first) {
  Ints lane;
  for (int i = 0; i < W; i++) lane[i] = first + i;
  return lane;
}

Lanes from(const float *values) {
  Lanes lanes;
  memcpy(&lanes, values, sizeof lanes);
  return lanes;
}

// Which of the queries see which of the keys; one of the two is a vector.
template <class Q, class K> Ints seen(Q query, K key, const Sizes &s) {
  return (query >= key) & ((query - key < int32_t(s.window)) | (key < int32_t(s.sink) ? Ints{} - 1 : Ints{}));
}

// Whether all of the queries from i to i + W - 1 see key j.
bool all_seen(int64_t i, int64_t j, const Sizes &s) { return j <= i && i + W - 1 - j < s.window; }

// Calls f(j) for the keys that any of the queries from i to i + n - 1 sees.
template <class F> void keys_of(int64_t i, int64_t n, const Sizes &s, F f) {
  const int64_t near = std::max<int64_t>(0, i - s.window + 1), end = std::min(i + n, s.length);
  for (int64_t j = 0; j < std::min(s.sink, near); j++) f(j);
  for (int64_t j = near; j < end; j++) f(j);
}

template <int P, class E>
void forward(Tensor<E> q, Tensor<E> k, Tensor<E> v, Tensor<E> o, float *sums, const Sizes &s) {
  const float scale = 1 / std::sqrt(float(P)), never = -1e30f;
  Rows queries(s.length * P), keys(s.length * P), values(s.length * P), outputs(s.length * P);
  std::vector<Lanes> scores(s.length);
  for (int64_t b = 0; b < s.batch; b++)
    for (int64_t h = 0; h < s.heads; h++) {
      const int64_t shared = h / (s.heads / s.kv);
      load<P>(queries, q, b, h, scale), load<P>(keys, k, b, shared), load<P>(values, v, b, shared);
      std::fill(outputs.begin(), outputs.end(), 0.0f);
      for (int64_t i = 0; i < s.length; i += W) {
        Lanes x[P], y[P] = {}, most = Lanes{} + never, sum = {};
        const Ints query = counted(i);
        across<P>(x, queries, i);
        keys_of(i, W, s, [&](int64_t j) {
          Lanes score = dot<P>(x, &keys[j * P], Lanes{});
          if (!all_seen(i, j, s)) score = seen(query, int32_t(j), s) ? score : Lanes{} + never;
          scores[j] = score;
          most = most > score ? most : score;
        });
        keys_of(i, W, s, [&](int64_t j) {
          Lanes weight = exponential(scores[j] - most);
          if (!all_seen(i, j, s)) weight = seen(query, int32_t(j), s) ? weight : Lanes{};
          sum += weight;
          add<P>(y, weight, &values[j * P]);
        });
        for (int p = 0; p < P; p++) y[p] /= sum;
        back<P>(outputs, y, i);
        for (int64_t t = i; t < std::min(i + W, s.length); t++)
          sums[(b * s.heads + h) * s.length + t] = most[t - i] + std::log(sum[t - i]);
      }
      store<P>(outputs, o, b, h);
    }
}

constexpr int BLOCK = 64;    // queries whose gradients of scores are kept at a time
constexpr int TOGETHER = 4;  // of them, sums side by side, since one waits for its own last addition

// What the backward pass knows of a head, rows (time, P) but for the last two, which are one number a query: the
// logarithm of its sum, and o' dy. The gradients of scores are those of a block of queries, (BLOCK, time).
template <int P> struct Head {
  Rows q, k, v, dy, dq, dk, dv, sums, delta;
  std::vector<float> dscores;
  explicit Head(int64_t n)
      : q(n * P), k(n * P), v(n * P), dy(n * P), dq(n * P), dk(n * P), dv(n * P), sums(n), delta(n),
        dscores(BLOCK * (n + W)) {}
};

// The queries from i to end - 1 and the W keys from j on, which lie across the lanes. With S the weights and
// dS = S (dy v' - delta): dk += dS' q and dv += S' dy, and dS is kept for dq.
template <int P> void tile(Head<P> &head, int64_t i, int64_t end, int64_t j, const Sizes &s) {
  Lanes x[P], y[P], weights[BLOCK];
  const Ints key = counted(j);
  const int64_t first = std::max(i, j), width = s.length + W;
  float *dscores = head.dscores.data() + j;  // that of query t is (t - i) rows further on
  across<P>(x, head.k, j), across<P>(y, head.v, j);
  for (int64_t t = first; t < end; t++) {
    Lanes weight = exponential(dot<P>(x, &head.q[t * P], Lanes{} - head.sums[t]));
    if (j + W - 1 > t || t - j >= s.window) weight = seen(int32_t(t), key, s) ? weight : Lanes{};
    const Lanes dscore = weight * dot<P>(y, &head.dy[t * P], Lanes{} - head.delta[t]);
    weights[t - first] = weight;
    memcpy(dscores + (t - i) * width, &dscore, sizeof dscore);
  }
  Lanes dx[P] = {}, dv[P] = {};
  for (int64_t t = first; t < end; t++) {
    add<P>(dx, from(dscores + (t - i) * width), &head.q[t * P]);
    add<P>(dv, weights[t - first], &head.dy[t * P]);
  }
  back<P>(head.dk, dx, j), back<P>(head.dv, dv, j);
}

template <int P> void gradients(Head<P> &head, const Sizes &s) {
  typedef float Row __attribute__((vector_size(4 * P)));
  const float scale = 1 / std::sqrt(float(P));
  for (int64_t i = 0; i < s.length; i += BLOCK) {
    const int64_t end = std::min(i + BLOCK, s.length);
    for (int64_t j = 0; j < end; j += W)
      if (j < s.sink || j + W + s.window > i + 1) tile<P>(head, i, end, j, s);
    for (int64_t t = i; t < end; t += TOGETHER) {
      const int64_t n = std::min<int64_t>(TOGETHER, end - t), width = s.length + W;
      const float *dscores = &head.dscores[(t - i) * width];
      Row sums[TOGETHER] = {};
      keys_of(t, n, s, [&](int64_t j) {
        Row key;
        memcpy(&key, &head.k[j * P], sizeof key);
        for (int r = 0; r < TOGETHER; r++) sums[r] += dscores[r * width + j] * key;
      });
      for (int r = 0; r < n; r++) {
        sums[r] *= scale;
        memcpy(&head.dq[(t + r) * P], &sums[r], sizeof sums[r]);
      }
    }
  }
}

template <int P, class E>
void backward(Tensor<E> q, Tensor<E> k, Tensor<E> v, Tensor<E> o, const float *sums, Tensor<E> dy, Tensor<E> dq,
              Tensor<E> dk, Tensor<E> dv, const Sizes &s) {
  Head<P> head(s.length);
  Rows outputs(s.length * P);
  const int64_t group = s.heads / s.kv;
  for (int64_t b = 0; b < s.batch; b++)
    for (int64_t h = 0; h < s.heads; h++) {
      load<P>(head.q, q, b, h, 1 / std::sqrt(float(P))), load<P>(head.dy, dy, b, h), load<P>(outputs, o, b, h);
      load<P>(head.k, k, b, h / group), load<P>(head.v, v, b, h / group);
      std::copy_n(sums + (b * s.heads + h) * s.length, s.length, head.sums.begin());
      for (int64_t t = 0; t < s.length; t++) {
        head.delta[t] = 0;
        for (int p = 0; p < P; p++) head.delta[t] += outputs[t * P + p] * head.dy[t * P + p];
      }
      if (h % group == 0)
        for (Rows *rows : {&head.dk, &head.dv}) std::fill(rows->begin(), rows->end(), 0.0f);
      gradients(head, s);
      store<P>(head.dq, dq, b, h);
      if (h % group == group - 1) store<P>(head.dk, dk, b, h / group), store<P>(head.dv, dv, b, h / group);
    }
}

// Calls f with the head size as a constant; false for one that was not made.
template <class F> bool sized(int64_t head, F f) {
  switch (head) {
    case 4: f(std::integral_constant<int, 4>{}); return true;
    case 8: f(std::integral_constant<int, 8>{}); return true;
    case 16: f(std::integral_constant<int, 16>{}); return true;
  }
  return false;
}

}  // namespace

#define EXPORT(E)                                                                                                \
  extern "C" int attention_forward_##E(const Sizes *s, Tensor<E> q, Tensor<E> k, Tensor<E> v, Tensor<E> o,        \
                                       float *sums) {                                                            \
    return answered([&] { return sized(s->head, [&](auto P) { forward<P>(q, k, v, o, sums, *s); }); });                                 \
  }                                                                                                              \
  extern "C" int attention_backward_##E(const Sizes *s, Tensor<E> q, Tensor<E> k, Tensor<E> v, Tensor<E> o,       \
                                        float *sums, Tensor<E> dy, Tensor<E> dq, Tensor<E> dk, Tensor<E> dv) {    \
    return answered([&] { return sized(s->head, [&](auto P) { backward<P>(q, k, v, o, sums, dy, dq, dk, dv, *s); }); });                \
  }

EXPORT(fp32)
EXPORT(bf16)
