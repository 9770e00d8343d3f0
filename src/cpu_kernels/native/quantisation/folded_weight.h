// Weights with batch normalisation folded in.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "grids.h"

namespace {

// A weight (C, ...) times its batch normalisation's factor gamma / std, and the grids that span the product.
struct FoldedWeight {
  int64_t channels, size;
  std::vector<float> product;
  std::vector<Grid> grids;

  template <typename Args>
  FoldedWeight(const Args& args, const float* inverse_std)
      : channels(args.c), size(args.rest), product(channels * size), grids(channels) {
    std::vector<float> least(channels), greatest(channels);
#pragma omp parallel for schedule(static)
    for (int64_t channel = 0; channel < channels; ++channel) {
      const float factor = args.gamma[channel] * inverse_std[channel];
      const float* from = args.weight + channel * size;
      float* to = &product[channel * size];
      for (int64_t i = 0; i < size; ++i) to[i] = from[i] * factor;
      least[channel] = *std::min_element(to, to + size);
      greatest[channel] = *std::max_element(to, to + size);
    }
    const float all_least = *std::min_element(least.begin(), least.end());
    const float all_greatest = *std::max_element(greatest.begin(), greatest.end());
    const bool symmetric = args.symmetric != 0, own = args.per_channel != 0;
    for (int64_t channel = 0; channel < channels; ++channel) {
      grids[channel] = GridOverRange(own ? least[channel] : all_least, own ? greatest[channel] : all_greatest, args.low,
                                     args.high, symmetric);
    }
  }
};

}  // namespace
