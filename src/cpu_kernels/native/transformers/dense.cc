// Dense layer on the channels of a map, with bias, and optionally added to a residual: (N, C, H, W) -> (N, O, H, W).

#include <algorithm>
#include <vector>

#include "matrix.h"
#include "operators.h"

namespace {

void Forward(const DenseArgs& args) {
  const int64_t out = args.out, size = args.h * args.w;
  const float* bias = args.bias;
  float* y = args.y;
  Multiply(PackMatrix(args.weight, out, args.c, args.c, 1).data(), args.x, y, args.n, out, args.c, size,
           [=](int64_t image, int64_t row, int64_t pixel, int64_t length, const float* products) {
             float* to = y + (image * out + row) * size + pixel;
             const float shift = bias[row];
             for (int64_t i = 0; i < length; ++i) to[i] = products[i] + shift;
           });
}

void ResidualForward(const DenseResidualArgs& args) {
  const int64_t out = args.out, size = args.h * args.w;
  const float *bias = args.bias, *residual = args.residual, *keep = args.keep;
  float* y = args.y;
  Multiply(PackMatrix(args.weight, out, args.c, args.c, 1).data(), args.x, y, args.n, out, args.c, size,
           [=](int64_t image, int64_t row, int64_t pixel, int64_t length, const float* products) {
             const int64_t at = (image * out + row) * size + pixel;
             const float shift = bias[row], factor = keep[image];
             for (int64_t i = 0; i < length; ++i) y[at + i] = residual[at + i] + factor * (products[i] + shift);
           });
}

// dx, dweight and dbias for a gradient that has arrived at weight x + bias.
template <typename Args>
void Gradients(const Args& args, const float* dy) {
  const int64_t n = args.n, c = args.c, out = args.out, size = args.h * args.w;
  Multiply(PackMatrix(args.weight, c, out, 1, c).data(), dy, args.dx, n, c, out, size);
  if (out > c) {
    Products(args.x, dy, args.dweight, n, c, out, size, 1, c);
  } else {
    Products(dy, args.x, args.dweight, n, out, c, size, c, 1);
  }
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < out; ++row) {
    double sum = 0;
    for (int64_t image = 0; image < n; ++image) {
      const float* from = dy + (image * out + row) * size;
      for (int64_t start = 0; start < size; start += 4096) {
        float part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t i = start; i < std::min(size, start + 4096); ++i) part += from[i];
        sum += part;
      }
    }
    args.dbias[row] = static_cast<float>(sum);
  }
}

void Backward(const DenseBackwardArgs& args) { Gradients(args, args.dy); }

void ResidualBackward(const DenseResidualBackwardArgs& args) {
  const int64_t n = args.n, image_size = args.out * args.h * args.w;
  const float *keep = args.keep, *dy = args.dy;
  std::vector<float> scaled;
  if (!std::all_of(keep, keep + n, [](float factor) { return factor == 1.0f; })) {
    scaled.resize(n * image_size);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n * image_size; ++i) scaled[i] = dy[i] * keep[i / image_size];
    dy = scaled.data();
  }
  Gradients(args, dy);
}

}  // namespace

EXPORT(Dense, Forward)
EXPORT(DenseBackward, Backward)
EXPORT(DenseResidual, ResidualForward)
EXPORT(DenseResidualBackward, ResidualBackward)
