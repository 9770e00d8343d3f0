// Bilinear resizing with half-pixel centres (PyTorch's align_corners=False), one axis at a time.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

// For every position of the target the lower of its two sources and the weight of the upper one.
struct Taps {
  std::vector<int32_t> low, high;
  std::vector<float> weight;

  Taps(int64_t source, int64_t target) : low(target), high(target), weight(target) {
    for (int64_t i = 0; i < target; ++i) {
      const double centre = std::max((i + 0.5) * source / target - 0.5, 0.0);
      low[i] = static_cast<int32_t>(std::min<int64_t>(static_cast<int64_t>(centre), source - 1));
      high[i] = static_cast<int32_t>(std::min<int64_t>(low[i] + 1, source - 1));
      weight[i] = static_cast<float>(centre - low[i]);
    }
  }

  int64_t Size() const { return static_cast<int64_t>(low.size()); }

  // A row of the source becomes a row of the target.
  void Widen(const float* from, float* __restrict to) const {
    const int32_t *left = low.data(), *right = high.data();
    const float* upper = weight.data();
    const int64_t size = Size();
#pragma omp simd
    for (int64_t i = 0; i < size; ++i) {
      const float value = from[left[i]];
      to[i] = value + (from[right[i]] - value) * upper[i];
    }
  }

  // The transpose of Widen, added to `to`.
  void AddNarrowed(const float* from, float* to) const {
    for (int64_t i = 0; i < Size(); ++i) {
      const float upper = from[i] * weight[i];
      to[low[i]] += from[i] - upper;
      to[high[i]] += upper;
    }
  }
};

}  // namespace
