// Dense layer on the channels of a map, with bias, and optionally added to a residual: (N, C, H, W) -> (N, O, H, W).

#include <vector>

#include "common.h"
#include "matrix.h"

namespace {

struct Sizes {
  int64_t n, c, h, w, out, size;

  explicit Sizes(const Arguments& args)
      : n(args.shapes[0][0]),
        c(args.shapes[0][1]),
        h(args.shapes[0][2]),
        w(args.shapes[0][3]),
        out(args.shapes[1][0]),
        size(h * w) {}
};

bool IsDense(const Arguments& args, int count) { return HasImages(args) && args.count == count && args.ndims[1] == 2; }

// x, weight (O, C), bias (O,) -> y = weight x + bias
int Forward(const Arguments& args) {
  if (!IsDense(args, 4)) return kBadArguments;
  const Sizes s(args);
  if (!Matches(args, {{s.n, s.c, s.h, s.w}, {s.out, s.c}, {s.out}, {s.n, s.out, s.h, s.w}})) return kBadArguments;
  const float* bias = args[2];
  float* y = args[3];
  Multiply(PackMatrix(args[1], s.out, s.c, s.c, 1).data(), args[0], y, s.n, s.out, s.c, s.size,
           [=](int64_t image, int64_t row, int64_t pixel, int64_t length, const float* products) {
             float* to = y + (image * s.out + row) * s.size + pixel;
             const float shift = bias[row];
             for (int64_t i = 0; i < length; ++i) to[i] = products[i] + shift;
           });
  return 0;
}

// x, weight (O, C), bias (O,), residual (N, O, H, W), keep (N,) -> y = residual + keep * (weight x + bias)
int ResidualForward(const Arguments& args) {
  if (!IsDense(args, 6)) return kBadArguments;
  const Sizes s(args);
  const Shape y_shape = {s.n, s.out, s.h, s.w};
  if (!Matches(args, {{s.n, s.c, s.h, s.w}, {s.out, s.c}, {s.out}, y_shape, {s.n}, y_shape})) return kBadArguments;
  const float *bias = args[2], *residual = args[3], *keep = args[4];
  float* y = args[5];
  Multiply(PackMatrix(args[1], s.out, s.c, s.c, 1).data(), args[0], y, s.n, s.out, s.c, s.size,
           [=](int64_t image, int64_t row, int64_t pixel, int64_t length, const float* products) {
             const int64_t at = (image * s.out + row) * s.size + pixel;
             const float shift = bias[row], share = keep[image];
             for (int64_t i = 0; i < length; ++i) y[at + i] = residual[at + i] + share * (products[i] + shift);
           });
  return 0;
}

// dx, dweight and dbias for a gradient that has arrived at weight x + bias.
void Gradients(const Sizes& s, const float* x, const float* weight, const float* dy, float* dx, float* dweight,
               float* dbias) {
  Multiply(PackMatrix(weight, s.c, s.out, 1, s.c).data(), dy, dx, s.n, s.c, s.out, s.size);
  if (s.out > s.c) {
    Products(x, dy, dweight, s.n, s.c, s.out, s.size, 1, s.c);
  } else {
    Products(dy, x, dweight, s.n, s.out, s.c, s.size, s.c, 1);
  }
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < s.out; ++row) {
    double sum = 0;
    for (int64_t image = 0; image < s.n; ++image) {
      const float* from = dy + (image * s.out + row) * s.size;
      for (int64_t start = 0; start < s.size; start += 4096) {
        float part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t i = start; i < std::min(s.size, start + 4096); ++i) part += from[i];
        sum += part;
      }
    }
    dbias[row] = static_cast<float>(sum);
  }
}

// x, weight, dy -> dx, dweight, dbias
int Backward(const Arguments& args) {
  if (!IsDense(args, 6)) return kBadArguments;
  const Sizes s(args);
  const Shape x_shape = {s.n, s.c, s.h, s.w};
  if (!Matches(args, {x_shape, {s.out, s.c}, {s.n, s.out, s.h, s.w}, x_shape, {s.out, s.c}, {s.out}})) {
    return kBadArguments;
  }
  Gradients(s, args[0], args[1], args[2], args[3], args[4], args[5]);
  return 0;
}

// x, weight, keep, dy -> dx, dweight, dbias
int ResidualBackward(const Arguments& args) {
  if (!IsDense(args, 7)) return kBadArguments;
  const Sizes s(args);
  const Shape x_shape = {s.n, s.c, s.h, s.w};
  if (!Matches(args, {x_shape, {s.out, s.c}, {s.n}, {s.n, s.out, s.h, s.w}, x_shape, {s.out, s.c}, {s.out}})) {
    return kBadArguments;
  }
  const float *keep = args[2], *dy = args[3];
  std::vector<float> scaled;
  if (!std::all_of(keep, keep + s.n, [](float share) { return share == 1.0f; })) {
    const int64_t image_size = s.out * s.size;
    scaled.resize(s.n * image_size);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < s.n * image_size; ++i) scaled[i] = dy[i] * keep[i / image_size];
    dy = scaled.data();
  }
  Gradients(s, args[0], args[1], dy, args[4], args[5], args[6]);
  return 0;
}

}  // namespace

EXPORT(DenseForward, Forward)
EXPORT(DenseBackward, Backward)
EXPORT(DenseResidualForward, ResidualForward)
EXPORT(DenseResidualBackward, ResidualBackward)
