// Rotary positions of all heads of a token at once: forward from a projection's two halves (batch, time, 2, heads *
// half) to heads (batch, time, heads, 2 * half), backward from these to those.
#include <vector>
#include "lanes.h"

namespace {

struct Sizes { int64_t batch, length, heads, half; };

template <class E>
void rotate(const Sizes &s, Tensor<E> x, Tensor<E> y, const float *cos, const float *sin) {
  const int64_t n = s.heads * s.half;
  std::vector<float> turned(2 * n);
  float *a = turned.data(), *b = a + n;
  for (int64_t i = 0; i < s.batch; i++)
    for (int64_t t = 0; t < s.length; t++) {
      const E *one = x.row(i, t, 0), *two = x.row(i, t, 1);
      const float *c = cos + t * n, *d = sin + t * n;
      for (int64_t j = 0; j < n; j++) a[j] = wide(one[j]) * c[j] - wide(two[j]) * d[j];
      for (int64_t j = 0; j < n; j++) b[j] = wide(one[j]) * d[j] + wide(two[j]) * c[j];
      for (int64_t h = 0; h < s.heads; h++)
        for (int64_t p = 0; p < s.half; p++) {
          put(y.row(i, t, h) + p, a[h * s.half + p]);
          put(y.row(i, t, h) + s.half + p, b[h * s.half + p]);
        }
    }
}

template <class E>
void unrotate(const Sizes &s, Tensor<E> dy, Tensor<E> dx, const float *cos, const float *sin) {
  const int64_t n = s.heads * s.half;
  std::vector<float> rows(2 * n);
  float *a = rows.data(), *b = a + n;
  for (int64_t i = 0; i < s.batch; i++)
    for (int64_t t = 0; t < s.length; t++) {
      for (int64_t h = 0; h < s.heads; h++)
        for (int64_t p = 0; p < s.half; p++) {
          a[h * s.half + p] = wide(dy.row(i, t, h)[p]);
          b[h * s.half + p] = wide(dy.row(i, t, h)[s.half + p]);
        }
      E *one = dx.row(i, t, 0), *two = dx.row(i, t, 1);
      const float *c = cos + t * n, *d = sin + t * n;
      for (int64_t j = 0; j < n; j++) put(one + j, a[j] * c[j] + b[j] * d[j]);
      for (int64_t j = 0; j < n; j++) put(two + j, b[j] * c[j] - a[j] * d[j]);
    }
}

}  // namespace

#define EXPORT(E)                                                                                             \
  extern "C" int rotary_forward_##E(const Sizes *s, Tensor<E> x, Tensor<E> y, float *cos, float *sin) {        \
    return answered([&] { rotate(*s, x, y, cos, sin); });                                                     \
  }                                                                                                           \
  extern "C" int rotary_backward_##E(const Sizes *s, Tensor<E> dy, Tensor<E> dx, float *cos, float *sin) {     \
    return answered([&] { unrotate(*s, dy, dx, cos, sin); });                                                 \
  }

EXPORT(fp32)
EXPORT(bf16)
