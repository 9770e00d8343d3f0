// From the sums of an integer convolution to the grid of its output, both as float32; to the last bit as onnxruntime's
// QLinearConv.

#include <cmath>

#include "operators.h"

namespace {

void Forward(const IntRequantiseArgs& args) {
  const int64_t planes = args.n * args.c, size = args.rest;
  const float least = args.least, greatest = args.greatest;
#pragma omp parallel for schedule(static)
  for (int64_t plane = 0; plane < planes; ++plane) {
    const float bias = args.bias[plane % args.c], factor = args.factor[plane % args.c];
    const float* from = args.x + plane * size;
    float* __restrict to = args.y + plane * size;
#pragma omp simd
    for (int64_t i = 0; i < size; ++i) {
      float q = std::nearbyint((from[i] + bias) * factor);
      q = q < least ? least : q;  // false for NaN, which passes through
      to[i] = q > greatest ? greatest : q;
    }
  }
}

}  // namespace

EXPORT(IntRequantise, Forward)
