// The short causal depthwise convolution, forward and backward, one row of channels after the other.
#include <algorithm>
#include <vector>
#include "lanes.h"

namespace {

struct Sizes { int64_t batch, length, channels, kernel; };
using Row = std::vector<float>;

// sum += weight * x over the channels.
template <class X> void add(Row &sum, const float *weight, const X *x) {
  float *__restrict to = sum.data();
  for (size_t c = 0; c < sum.size(); c++) to[c] += weight[c] * wide(x[c]);
}

template <class E> void write(E *to, const Row &row) {
  for (size_t c = 0; c < row.size(); c++) put(to + c, row[c]);
}

// y_t = bias + sum over i of w_i x_{t-i}; the last row of ``weights`` (kernel, channels) is w_0.
template <class E>
void forward(const Sizes &s, Tensor<E> x, const float *weights, const float *bias, Tensor<E> y) {
  Row sum(s.channels);
  for (int64_t b = 0; b < s.batch; b++)
    for (int64_t t = 0; t < s.length; t++) {
      std::copy_n(bias, s.channels, sum.begin());
      for (int64_t i = 0; i < std::min(s.kernel, t + 1); i++)
        add(sum, weights + (s.kernel - 1 - i) * s.channels, x.row(b, 0, t - i));
      write(y.row(b, 0, t), sum);
    }
}

// dx_t = sum over i of w_i dy_{t+i}, dw_i = sum over t of dy_t x_{t-i}.
template <class E>
void backward(const Sizes &s, Tensor<E> x, const float *weights, Tensor<E> dy, Tensor<E> dx, float *dweights,
              float *dbias) {
  const int64_t n = s.channels;
  Row sum(n), row(n), ones(n, 1.0f), db(n);
  std::vector<Row> dw(s.kernel, Row(n));
  for (int64_t b = 0; b < s.batch; b++)
    for (int64_t t = 0; t < s.length; t++) {
      std::fill(sum.begin(), sum.end(), 0.0f);
      for (int64_t i = 0; i < std::min(s.kernel, s.length - t); i++)
        add(sum, weights + (s.kernel - 1 - i) * n, dy.row(b, 0, t + i));
      write(dx.row(b, 0, t), sum);
      std::fill(row.begin(), row.end(), 0.0f);
      add(row, ones.data(), dy.row(b, 0, t));
      add(db, ones.data(), row.data());
      for (int64_t i = 0; i < std::min(s.kernel, t + 1); i++)
        add(dw[s.kernel - 1 - i], row.data(), x.row(b, 0, t - i));
    }
  for (int64_t i = 0; i < s.kernel; i++) std::copy_n(dw[i].begin(), n, dweights + i * n);
  std::copy_n(db.begin(), n, dbias);
}

}  // namespace

#define EXPORT(E)                                                                                               \
  extern "C" int convolution_forward_##E(const Sizes *s, Tensor<E> x, float *weights, float *bias,               \
                                         Tensor<E> y) {                                                         \
    return answered([&] { forward(*s, x, weights, bias, y); });                                                 \
  }                                                                                                             \
  extern "C" int convolution_backward_##E(const Sizes *s, Tensor<E> x, float *weights, Tensor<E> dy,             \
                                          Tensor<E> dx, float *dweights, float *dbias) {                        \
    return answered([&] { backward(*s, x, weights, dy, dx, dweights, dbias); });                                \
  }

EXPORT(fp32)
EXPORT(bf16)
