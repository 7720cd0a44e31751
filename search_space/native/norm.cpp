// RMSNorm of rows, and its gradient, each in one pass over memory.
#include <cmath>
#include <vector>
#include "lanes.h"

namespace {

struct Sizes { int64_t rows, width; };
constexpr float EPSILON = 1e-6f;  // primitives/norm.py's

using Row = std::vector<Lanes>;

template <class E> void read(Row &row, const E *from, int64_t width) {
  row.back() = Lanes{};  // what is beyond the width counts for nothing, also after a row that was not a number
  float *to = (float *)row.data();
  for (int64_t i = 0; i < width; i++) to[i] = wide(from[i]);
}

template <class E> void write(E *to, const Row &row, int64_t width) {
  const float *from = (const float *)row.data();
  for (int64_t i = 0; i < width; i++) put(to + i, from[i]);
}

float total(Lanes x) {
  float sum = 0;
  for (int i = 0; i < W; i++) sum += x[i];
  return sum;
}

template <class E> void forward(const Sizes &s, const E *x, const float *weight, E *y, float *scales) {
  Row row((s.width + W - 1) / W), w(row.size());
  read(w, weight, s.width);
  for (int64_t t = 0; t < s.rows; t++, x += s.width, y += s.width) {
    read(row, x, s.width);
    Lanes squares = {};
    for (Lanes v : row) squares += v * v;
    const float scale = scales[t] = 1 / std::sqrt(total(squares) / s.width + EPSILON);
    for (size_t i = 0; i < row.size(); i++) row[i] *= scale * w[i];
    write(y, row, s.width);
  }
}

// With n = x r and dn = w dy: dx = r (dn - n mean(n dn)) and dw = sum of dy n.
template <class E>
void backward(const Sizes &s, const E *x, const float *weight, const float *scales, const E *dy, E *dx, float *dw) {
  Row n((s.width + W - 1) / W), w(n.size()), dn(n.size()), sums(n.size());
  read(w, weight, s.width);
  for (int64_t t = 0; t < s.rows; t++, x += s.width, dy += s.width, dx += s.width) {
    read(n, x, s.width), read(dn, dy, s.width);
    Lanes products = {};
    for (size_t i = 0; i < n.size(); i++) {
      n[i] *= scales[t];
      sums[i] += dn[i] * n[i];
      dn[i] *= w[i];
      products += dn[i] * n[i];
    }
    const float mean = total(products) / s.width;
    for (size_t i = 0; i < n.size(); i++) dn[i] = scales[t] * (dn[i] - n[i] * mean);
    write(dx, dn, s.width);
  }
  write(dw, sums, s.width);
}

}  // namespace

#define EXPORT(E)                                                                                                \
  extern "C" int norm_forward_##E(const Sizes *s, E *x, float *weight, E *y, float *scales) {                     \
    return answered([&] { forward(*s, x, weight, y, scales); });                                                 \
  }                                                                                                              \
  extern "C" int norm_backward_##E(const Sizes *s, E *x, float *weight, float *scales, E *dy, E *dx, float *dw) { \
    return answered([&] { backward(*s, x, weight, scales, dy, dx, dw); });                                       \
  }

EXPORT(fp32)
EXPORT(bf16)
