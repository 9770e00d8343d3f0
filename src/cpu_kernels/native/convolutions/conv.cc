// Dense convolution with a filter larger than 1 x 1: patches become the columns of a matrix, image by image.

#include <algorithm>
#include <numeric>
#include <vector>

#include "matrix.h"
#include "operators.h"

namespace {

struct Geometry {
  int64_t n, c, h, w, out, kernel, stride, padding, out_h, out_w;

  template <typename Args>
  explicit Geometry(const Args& args)
      : n(args.n),
        c(args.c),
        h(args.h),
        w(args.w),
        out(args.out),
        kernel(args.kernel),
        stride(args.stride),
        padding(args.padding),
        out_h(args.out_h),
        out_w(args.out_w) {}

  int64_t Depth() const { return c * kernel * kernel; }
  int64_t Size() const { return out_h * out_w; }

  // The first and one past the last output column whose input column, for the filter's column j, is in the image.
  int64_t First(int64_t j) const { return j >= padding ? 0 : CeilDiv(padding - j, stride); }
  int64_t Last(int64_t j) const {
    const int64_t room = w - 1 - j + padding;
    return room < 0 ? 0 : std::min(out_w, room / stride + 1);
  }
};

// patches (C * k * k, out_h * out_w) of one image (C, H, W)
void TakePatches(const Geometry& g, const float* image, float* patches) {
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < g.Depth(); ++row) {
    const int64_t i = row / g.kernel % g.kernel, j = row % g.kernel;
    const float* plane = image + row / (g.kernel * g.kernel) * g.h * g.w;
    const int64_t first = std::min(g.First(j), g.out_w), last = std::max(g.Last(j), first);
    for (int64_t oy = 0; oy < g.out_h; ++oy) {
      float* to = patches + row * g.Size() + oy * g.out_w;
      const int64_t y = oy * g.stride + i - g.padding;
      if (y < 0 || y >= g.h) {
        std::fill(to, to + g.out_w, 0.0f);
        continue;
      }
      const int64_t start = y * g.w + j - g.padding;  // no pointer, as it may lie before the plane
      std::fill(to, to + first, 0.0f);
      for (int64_t x = first; x < last; ++x) to[x] = plane[start + x * g.stride];
      std::fill(to + last, to + g.out_w, 0.0f);
    }
  }
}

// The transpose of TakePatches: image (C, H, W) = what arrives from all patches.
void AddPatches(const Geometry& g, const float* patches, float* image) {
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < g.c; ++channel) {
    float* plane = image + channel * g.h * g.w;
    std::fill(plane, plane + g.h * g.w, 0.0f);
    for (int64_t tap = 0; tap < g.kernel * g.kernel; ++tap) {
      const int64_t i = tap / g.kernel, j = tap % g.kernel;
      const int64_t first = g.First(j), last = g.Last(j);
      const float* rows = patches + (channel * g.kernel * g.kernel + tap) * g.Size();
      for (int64_t oy = 0; oy < g.out_h; ++oy) {
        const int64_t y = oy * g.stride + i - g.padding;
        if (y < 0 || y >= g.h) continue;
        const int64_t start = y * g.w + j - g.padding;
        const float* from = rows + oy * g.out_w;
        for (int64_t x = first; x < last; ++x) plane[start + x * g.stride] += from[x];
      }
    }
  }
}

void Forward(const ConvArgs& args) {
  const Geometry g(args);
  const std::vector<float> packed = PackMatrix(args.weight, g.out, g.Depth(), g.Depth(), 1);
  std::vector<float> patches(g.Depth() * g.Size());
  for (int64_t image = 0; image < g.n; ++image) {
    TakePatches(g, args.x + image * g.c * g.h * g.w, patches.data());
    float* y = args.y + image * g.out * g.Size();
    const float* bias = args.bias;
    Multiply(packed.data(), patches.data(), y, 1, g.out, g.Depth(), g.Size(),
             [=](int64_t, int64_t row, int64_t pixel, int64_t length, const float* products) {
               for (int64_t i = 0; i < length; ++i) y[row * g.Size() + pixel + i] = products[i] + bias[row];
             });
  }
}

void Backward(const ConvBackwardArgs& args) {
  const Geometry g(args);
  const int64_t depth = g.Depth(), size = g.Size();
  const std::vector<float> packed = PackMatrix(args.weight, depth, g.out, 1, depth);
  std::vector<float> patches(depth * size);
  for (int64_t image = 0; image < g.n; ++image) {
    const float* dy = args.dy + image * g.out * size;
    TakePatches(g, args.x + image * g.c * g.h * g.w, patches.data());
    Products(dy, patches.data(), args.dweight, 1, g.out, depth, size, depth, 1, image > 0);
    Multiply(packed.data(), dy, patches.data(), 1, depth, g.out, size);
    AddPatches(g, patches.data(), args.dx + image * g.c * g.h * g.w);
  }
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < g.out; ++row) {
    double sum = 0;
    for (int64_t image = 0; image < g.n; ++image) {
      const float* from = args.dy + (image * g.out + row) * size;
      sum += std::accumulate(from, from + size, 0.0);
    }
    args.dbias[row] = static_cast<float>(sum);
  }
}

}  // namespace

EXPORT(Conv, Forward)
EXPORT(ConvBackward, Backward)
