// Vectors of this machine's width.

#pragma once

#include <cstdint>

namespace {

inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

#if defined(__AVX512F__)
constexpr int kLanes = 16, kRows = 8, kVectors = 3;
#elif defined(__AVX__)
constexpr int kLanes = 8, kRows = 4, kVectors = 3;
#else
constexpr int kLanes = 4, kRows = 4, kVectors = 4;
#endif

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));

inline Vector Load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
inline void Store(float* to, Vector value) { *reinterpret_cast<Vector*>(to) = value; }

// 2 ** x within 2 units in the last place; 0 below 2 ** -126. NaN stays NaN.
inline Vector Exp2(Vector x) {
  typedef int32_t Bits __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));
  constexpr float kRound = 12582912.0f;  // 1.5 * 2 ** 23: adding it leaves the nearest whole number in the low bits
  const Bits small = x < -126.0f;
  x = x > 127.0f ? Vector{} + 127.0f : x;
  x = small ? Vector{} - 126.0f : x;
  const Vector shifted = x + kRound;
  const Vector f = x - (shifted - kRound);  // from -0.5 to 0.5
  // Least squares of the relative error at Chebyshev's points, 2e-9 at most.
  Vector y = f * 1.5337577e-4f + 1.3399860e-3f;
  y = y * f + 9.6185195e-3f;
  y = y * f + 5.5503290e-2f;
  y = y * f + 2.4022647e-1f;
  y = y * f + 6.9314721e-1f;
  y = y * f + 1.0f;
  const Bits power = (reinterpret_cast<const Bits&>(shifted) + (127 - 0x4B400000)) << 23;
  y *= reinterpret_cast<const Vector&>(power);
  return small ? Vector{} : y;
}

constexpr float kLog2E = 1.44269504f;

}  // namespace
