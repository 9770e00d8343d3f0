// Grids of quantisation, and tensors on them.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "vectors.h"

namespace {

// A product as float32: no sum that follows is contracted with it.
inline float Rounded(float product) {
  volatile float rounded = product;
  return rounded;
}

// Fake quantisation: x is moved to the nearest (q - zero_point) * scale with a whole q from low to high, in float32.
// A row is what shares one scale: a filter of a weight tensor, or the whole tensor.
struct Grid {
  float scale, zero_point, low, high;

  float Quantised(float x) const { return std::nearbyint(x / scale) + zero_point; }
  bool Holds(float q) const { return q >= low && q <= high; }
  // Both comparisons are false for NaN, so NaN passes through.
  float Clamped(float q) const {
    q = q < low ? low : q;
    return q > high ? high : q;
  }
  float Snapped(float x) const { return (Clamped(Quantised(x)) - zero_point) * scale; }
};

// The grid that spans a range and 0, by the arithmetic of grid_over in quantiser.py.
inline Grid GridOverRange(float least, float greatest, float low, float high, bool symmetric) {
  least = std::min(least, 0.0f);
  greatest = std::max(greatest, 0.0f);
  const float steps = high - low, smallest = std::numeric_limits<float>::epsilon();
  if (symmetric) return {std::max(std::max(-least, greatest) * 2.0f / steps, smallest), 0.0f, low, high};
  const float scale = std::max((greatest - least) / steps, smallest);
  return {scale, std::min(std::max(low - std::nearbyint(least / scale), low), high), low, high};
}

// A tensor as rows that share one scale each.
struct Rows {
  int64_t rows, size;

  // Calls work(item, row, offset, length); one item is never shared by threads, and items depend on the shape alone.
  template <typename Work>
  void ForEachItem(Work work) const {
    const int64_t parts = Parts();
#pragma omp parallel for schedule(static)
    for (int64_t item = 0; item < rows * parts; ++item) {
      const int64_t row = item / parts, first = item % parts * kItem;
      work(item, row, row * size + first, std::min(kItem, size - first));
    }
  }
  int64_t Parts() const { return CeilDiv(size, kItem); }

  static constexpr int64_t kItem = 1 << 15;
};

// y = x on the grids grid_of(row); extremes = (least, greatest x).
template <typename GridOfRow>
void SnapRows(const Rows& rows, GridOfRow grid_of, const float* x, float* y, float* extremes) {
  const int64_t items = rows.rows * rows.Parts();
  std::vector<float> least(items), greatest(items);
  rows.ForEachItem([&](int64_t item, int64_t row, int64_t offset, int64_t length) {
    const Grid grid = grid_of(row);
    const float* from = x + offset;
    float* __restrict to = y + offset;
    float low = from[0], high = from[0];
#pragma omp simd reduction(min : low) reduction(max : high)
    for (int64_t i = 0; i < length; ++i) {
      low = std::min(low, from[i]);
      high = std::max(high, from[i]);
      to[i] = grid.Snapped(from[i]);
    }
    least[item] = low;
    greatest[item] = high;
  });
  extremes[0] = *std::min_element(least.begin(), least.end());
  extremes[1] = *std::max_element(greatest.begin(), greatest.end());
}

}  // namespace
