// The sum of four maps of different sizes, resized bilinearly to the size of the first: SegFormer's decode head.

#include <vector>

#include "bilinear.h"
#include "common.h"

namespace {

constexpr int kMaps = 4;

struct Axes {
  Taps rows, columns;
};

std::vector<Axes> AxesOf(const Arguments& args, int64_t h, int64_t w) {
  std::vector<Axes> axes;
  for (int map = 1; map < kMaps; ++map) axes.push_back({Taps(args.shapes[map][2], h), Taps(args.shapes[map][3], w)});
  return axes;
}

// True for `count` float32 arguments, first four maps (N, C, h_i, w_i).
bool HasMaps(const Arguments& args, int count) {
  if (args.count != count || !AreFloats(args)) return false;
  for (int map = 0; map < kMaps; ++map) {
    const int64_t* shape = args.shapes[map];
    if (!IsMap(args, map) || shape[0] != args.shapes[0][0] || shape[1] != args.shapes[0][1]) return false;
  }
  return true;
}

// to += the plane `from` (h_i, w_i), resized; `wide` holds its rows at the width of the target.
void AddResized(const float* from, int64_t h, int64_t w, const Axes& axes, std::vector<float>& wide, float* to) {
  const int64_t width = axes.columns.Size();
  wide.resize(std::max<size_t>(wide.size(), h * width));
  for (int64_t y = 0; y < h; ++y) axes.columns.Widen(from + y * w, &wide[y * width]);
  for (int64_t y = 0; y < axes.rows.Size(); ++y) {
    const float *low = &wide[axes.rows.low[y] * width], *high = &wide[axes.rows.high[y] * width];
    const float share = axes.rows.share[y];
    float* __restrict row = to + y * width;
#pragma omp simd
    for (int64_t x = 0; x < width; ++x) row[x] += low[x] + (high[x] - low[x]) * share;
  }
}

// The transpose of AddResized: to (h, w) = the gradient of the plane.
void Gradient(const float* dy, int64_t h, int64_t w, const Axes& axes, std::vector<float>& wide, float* to) {
  const int64_t width = axes.columns.Size();
  wide.assign(h * width, 0.0f);
  for (int64_t y = 0; y < axes.rows.Size(); ++y) {
    float *low = &wide[axes.rows.low[y] * width], *high = &wide[axes.rows.high[y] * width];
    const float upper = axes.rows.share[y], lower = 1.0f - upper, *row = dy + y * width;
    for (int64_t x = 0; x < width; ++x) low[x] += row[x] * lower;
    for (int64_t x = 0; x < width; ++x) high[x] += row[x] * upper;
  }
  std::fill(to, to + h * w, 0.0f);
  for (int64_t y = 0; y < h; ++y) axes.columns.AddNarrowed(&wide[y * width], to + y * w);
}

// four maps -> their sum at the size of the first
int Forward(const Arguments& args) {
  if (!HasMaps(args, kMaps + 1) || !AreAlike(args, 0, kMaps)) return kBadArguments;
  const int64_t n = args.shapes[0][0], c = args.shapes[0][1], h = args.shapes[0][2], w = args.shapes[0][3];
  const std::vector<Axes> axes = AxesOf(args, h, w);
#pragma omp parallel
  {
    std::vector<float> wide;
#pragma omp for schedule(static)
    for (int64_t plane = 0; plane < n * c; ++plane) {
      float* to = args[kMaps] + plane * h * w;
      std::memcpy(to, args[0] + plane * h * w, h * w * sizeof(float));
      for (int map = 1; map < kMaps; ++map) {
        const int64_t rows = args.shapes[map][2], columns = args.shapes[map][3];
        AddResized(args[map] + plane * rows * columns, rows, columns, axes[map - 1], wide, to);
      }
    }
  }
  return 0;
}

// the four maps (for their sizes), dy -> the gradients of the last three; that of the first is dy
int Backward(const Arguments& args) {
  if (!HasMaps(args, 2 * kMaps)) return kBadArguments;
  for (int map = 0; map < kMaps; ++map) {
    if (!AreAlike(args, map, kMaps + map)) return kBadArguments;
  }
  const int64_t n = args.shapes[0][0], c = args.shapes[0][1], h = args.shapes[0][2], w = args.shapes[0][3];
  const std::vector<Axes> axes = AxesOf(args, h, w);
#pragma omp parallel
  {
    std::vector<float> wide;
#pragma omp for schedule(static)
    for (int64_t plane = 0; plane < n * c; ++plane) {
      for (int map = 1; map < kMaps; ++map) {
        const int64_t rows = args.shapes[map][2], columns = args.shapes[map][3];
        Gradient(args[kMaps] + plane * h * w, rows, columns, axes[map - 1], wide,
                 args[kMaps + map] + plane * rows * columns);
      }
    }
  }
  return 0;
}

}  // namespace

EXPORT(ResizeSumForward, Forward)
EXPORT(ResizeSumBackward, Backward)
