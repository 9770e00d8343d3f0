// The sum of two quantised tensors on the grid of a third, all as float32; to the last bit as onnxruntime's
// QLinearAdd.

#include <cmath>

#include "operators.h"

namespace {

// Products are contracted where onnxruntime contracts them.
void Forward(const IntSumArgs& args) {
  const int64_t size = args.c * args.rest;
  const float *a = args.a, *b = args.b;
  const float zero_a = args.zero_a, zero_b = args.zero_b, ratio_a = args.ratio_a, ratio_b = args.ratio_b;
  const float zero = args.zero, low = args.low, high = args.high;
  const float fixed = zero - std::fma(ratio_a, zero_a, ratio_b * zero_b);
  float* __restrict to = args.y;
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < size; ++i) {
    const float sum = std::fma(a[i] + zero_a, ratio_a, std::fma(b[i] + zero_b, ratio_b, fixed));
    float q = std::nearbyint(sum);
    q = q < low ? low : q;
    to[i] = (q > high ? high : q) - zero;
  }
}

}  // namespace

EXPORT(IntSum, Forward)
