// What the kernels share: vectors of single precision, bf16 in memory, and where a tensor's rows are.
// Compiled once for each instruction set of build.py; needs GCC's or Clang's vector types and nothing else.
#pragma once
#include <cstdint>
#include <cstring>
#include <exception>
#include <type_traits>

#ifdef __AVX512F__
constexpr int W = 16;
#else
constexpr int W = 8;
#endif
typedef float Lanes __attribute__((vector_size(4 * W)));
typedef int32_t Ints __attribute__((vector_size(4 * W)));

using fp32 = float;
struct bf16 { uint16_t bits; };

inline float wide(float x) { return x; }

inline float wide(bf16 x) {
  uint32_t bits = uint32_t(x.bits) << 16;
  float y;
  memcpy(&y, &bits, 4);
  return y;
}

inline void put(float *to, float x) { *to = x; }

inline void put(bf16 *to, float x) {  // to the nearest, ties to even, as torch rounds
  uint32_t bits;
  memcpy(&bits, &x, 4);
  to->bits = x == x ? uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) : 0x7fc0;
}

// e^x for x up to 88, within two units in the last place; below -87 it is e^-87, and NaN stays NaN.
inline Lanes exponential(Lanes x) {
  const float shift = 12582912.0f;  // 1.5 * 2^23: the sum's last bits are x / log(2), rounded
  Lanes clamped = x < -87.0f ? Lanes{} - 87.0f : x;
  Lanes sum = clamped * 1.44269504f + shift;
  Ints power = (Ints)sum << 23;
  Lanes n = sum - shift;
  Lanes r = clamped - n * 0.693359375f + n * 2.12194440e-4f;  // log(2) in two parts
  Lanes p = Lanes{} + 1.9875691500e-4f;  // the polynomial of Cephes' expf
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return x == x ? (Lanes)((Ints)p + power) : x;
}

// A tensor (batch, heads, time, channels) whose channels lie side by side; its strides are in elements.
template <class E> struct Tensor {
  E *data;
  int64_t batch, head, time;
  E *row(int64_t b, int64_t h, int64_t t) const { return data + b * batch + h * head + t * time; }
};

// What a kernel answers (library.py): 0; 1 when memory ran out; 2 when f says that it was not made for that size.
template <class F> int answered(F f) try {
  if constexpr (std::is_void_v<decltype(f())>) return f(), 0;
  else return f() ? 0 : 2;
} catch (const std::exception &) {
  return 1;
}
