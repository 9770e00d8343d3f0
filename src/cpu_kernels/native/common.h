// What every kernel needs: the arguments that MindSpore hands over, and vectors of this machine's width.
//
// Kernels take float32 tensors through mindspore.ops.Custom ("aot"). N images, C channels, H x W pixels. They return 0,
// or kBadArguments when a tensor is not as described. Every sum is formed in an order that depends on the shapes alone,
// so results do not depend on the number of threads.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>

namespace {

constexpr int kBadArguments = 1;

struct Arguments {
  int count;
  void** params;
  int* ndims;
  int64_t** shapes;
  const char** dtypes;

  float* operator[](int index) const { return static_cast<float*>(params[index]); }
};

using Shape = std::initializer_list<int64_t>;

inline bool IsFloat(const Arguments& args, int index) { return std::strcmp(args.dtypes[index], "float32") == 0; }

// True if the arguments are float32 tensors of exactly these shapes.
inline bool Matches(const Arguments& args, std::initializer_list<Shape> expected) {
  if (args.count != static_cast<int>(expected.size())) return false;
  int index = 0;
  for (const Shape& shape : expected) {
    if (args.ndims[index] != static_cast<int>(shape.size())) return false;
    if (!IsFloat(args, index)) return false;
    if (!std::equal(shape.begin(), shape.end(), args.shapes[index])) return false;
    ++index;
  }
  return true;
}

inline bool AreFloats(const Arguments& args) {
  for (int index = 0; index < args.count; ++index) {
    if (!IsFloat(args, index)) return false;
  }
  return true;
}

inline bool AreAlike(const Arguments& args, int a, int b) {
  return args.ndims[a] == args.ndims[b] && std::equal(args.shapes[a], args.shapes[a] + args.ndims[a], args.shapes[b]);
}

// True if an argument has four dimensions and holds something.
inline bool IsMap(const Arguments& args, int index) {
  return args.ndims[index] == 4 &&
         std::all_of(args.shapes[index], args.shapes[index] + 4, [](int64_t side) { return side > 0; });
}

inline bool HasImages(const Arguments& args) { return args.count > 0 && IsMap(args, 0); }

// True if an argument is a float32 vector of `size` numbers.
inline bool HasSize(const Arguments& args, int index, int64_t size) {
  return args.ndims[index] == 1 && args.shapes[index][0] == size && IsFloat(args, index);
}

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

// The names MindSpore looks up. Its last two arguments (stream, extra) mean nothing on a CPU.
#define EXPORT(name, kernel)                                                                                        \
  extern "C" int name(int nparam, void** params, int* ndims, int64_t** shapes, const char** dtypes, void*, void*) { \
    return kernel({nparam, params, ndims, shapes, dtypes});                                                         \
  }
