// Grids of quantisation, and weights with batch normalisation folded in.

#pragma once

#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

#include "common.h"

namespace {

inline int64_t SizeOf(const Arguments& args, int index) {
  return std::accumulate(args.shapes[index], args.shapes[index] + args.ndims[index], int64_t{1}, std::multiplies<>());
}

// Fake quantisation: x is moved to the nearest (q - zero_point) * scale with a whole q from low to high, in float32.
// A row is what shares one scale: a filter of a weight tensor, or the whole tensor.
struct Grid {
  float scale, zero_point, low, high;

  float Whole(float x) const { return std::nearbyint(x / scale) + zero_point; }
  bool Holds(float whole) const { return whole >= low && whole <= high; }
  // Both comparisons are false for NaN, so NaN passes through.
  float Nearest(float whole) const {
    whole = whole < low ? low : whole;
    return whole > high ? high : whole;
  }
  float Snapped(float x) const { return (Nearest(Whole(x)) - zero_point) * scale; }
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

// A weight (channels, ...) times its batch normalisation's factor gamma / std, and the grids that span the product.
struct FoldedWeight {
  int64_t channels, size;
  std::vector<float> product;
  std::vector<Grid> grids;

  // settings: low, high, symmetric, per channel, ...
  FoldedWeight(const Arguments& args, const float* gamma, const float* inverse_std, const float* settings)
      : channels(args.shapes[0][0]), size(SizeOf(args, 0) / channels), product(channels * size), grids(channels) {
    std::vector<float> least(channels), greatest(channels);
#pragma omp parallel for schedule(static)
    for (int64_t channel = 0; channel < channels; ++channel) {
      const float factor = gamma[channel] * inverse_std[channel];
      const float* from = args[0] + channel * size;
      float* to = &product[channel * size];
      for (int64_t i = 0; i < size; ++i) to[i] = from[i] * factor;
      least[channel] = *std::min_element(to, to + size);
      greatest[channel] = *std::max_element(to, to + size);
    }
    const float all_least = *std::min_element(least.begin(), least.end());
    const float all_greatest = *std::max_element(greatest.begin(), greatest.end());
    const bool symmetric = settings[2] != 0, own = settings[3] != 0;
    for (int64_t channel = 0; channel < channels; ++channel) {
      grids[channel] = GridOverRange(own ? least[channel] : all_least, own ? greatest[channel] : all_greatest,
                                     settings[0], settings[1], symmetric);
    }
  }
};

}  // namespace
