// The sum of four maps of different sizes, resized bilinearly to the size of the first: SegFormer's decode head.

#include <algorithm>
#include <cstring>
#include <vector>

#include "bilinear.h"
#include "operators.h"

namespace {

struct Axes {
  Taps rows, columns;
};

// A map that is resized, with what resizes it.
struct Source {
  const float* data;
  int64_t h, w;
  Axes axes;

  const float* Plane(int64_t plane) const { return data + plane * h * w; }
};

// All maps but the first.
template <typename Args>
std::vector<Source> Sources(const Args& args) {
  const auto source = [&](const float* data, int64_t h, int64_t w) {
    return Source{data, h, w, {Taps(h, args.h), Taps(w, args.w)}};
  };
  return {source(args.second, args.h2, args.w2), source(args.third, args.h3, args.w3),
          source(args.fourth, args.h4, args.w4)};
}

// to += one plane of a map, resized; `wide` holds its rows at the width of the target.
void AddResized(const Source& map, int64_t plane, std::vector<float>& wide, float* to) {
  const Axes& axes = map.axes;
  const float* from = map.Plane(plane);
  const int64_t width = axes.columns.Size();
  wide.resize(std::max<size_t>(wide.size(), map.h * width));
  for (int64_t y = 0; y < map.h; ++y) axes.columns.Widen(from + y * map.w, &wide[y * width]);
  for (int64_t y = 0; y < axes.rows.Size(); ++y) {
    const float *low = &wide[axes.rows.low[y] * width], *high = &wide[axes.rows.high[y] * width];
    const float weight = axes.rows.weight[y];
    float* __restrict row = to + y * width;
#pragma omp simd
    for (int64_t x = 0; x < width; ++x) row[x] += low[x] + (high[x] - low[x]) * weight;
  }
}

// The transpose of AddResized: to (h, w) = the gradient of one plane of a map.
void Gradient(const float* dy, const Source& map, std::vector<float>& wide, float* to) {
  const Axes& axes = map.axes;
  const int64_t width = axes.columns.Size();
  wide.assign(map.h * width, 0.0f);
  for (int64_t y = 0; y < axes.rows.Size(); ++y) {
    float *low = &wide[axes.rows.low[y] * width], *high = &wide[axes.rows.high[y] * width];
    const float upper = axes.rows.weight[y], lower = 1.0f - upper, *row = dy + y * width;
    for (int64_t x = 0; x < width; ++x) low[x] += row[x] * lower;
    for (int64_t x = 0; x < width; ++x) high[x] += row[x] * upper;
  }
  std::fill(to, to + map.h * map.w, 0.0f);
  for (int64_t y = 0; y < map.h; ++y) axes.columns.AddNarrowed(&wide[y * width], to + y * map.w);
}

void Forward(const ResizeSumArgs& args) {
  const std::vector<Source> sources = Sources(args);
  const int64_t size = args.h * args.w;
#pragma omp parallel
  {
    std::vector<float> wide;
#pragma omp for schedule(static)
    for (int64_t plane = 0; plane < args.n * args.c; ++plane) {
      float* to = args.y + plane * size;
      std::memcpy(to, args.first + plane * size, size * sizeof(float));
      for (const Source& map : sources) AddResized(map, plane, wide, to);
    }
  }
}

// The maps are read for their sizes only.
void Backward(const ResizeSumBackwardArgs& args) {
  const std::vector<Source> sources = Sources(args);
  float* const gradients[] = {args.dsecond, args.dthird, args.dfourth};
  const int64_t size = args.h * args.w;
#pragma omp parallel
  {
    std::vector<float> wide;
#pragma omp for schedule(static)
    for (int64_t plane = 0; plane < args.n * args.c; ++plane) {
      for (size_t i = 0; i < sources.size(); ++i) {
        const Source& map = sources[i];
        Gradient(args.dy + plane * size, map, wide, gradients[i] + plane * map.h * map.w);
      }
    }
  }
}

}  // namespace

EXPORT(ResizeSum, Forward)
EXPORT(ResizeSumBackward, Backward)
