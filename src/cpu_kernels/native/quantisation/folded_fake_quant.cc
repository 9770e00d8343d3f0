// Fake quantisation of a weight as it will be with batch normalisation folded in.

#include "folded_weight.h"
#include "operators.h"

namespace {

// A factor to divide by: 1 for a channel that batch normalisation switched off.
float Divisor(float factor) { return factor == 0 ? 1.0f : factor; }

void Forward(const FoldedFakeQuantArgs& args) {
  float* inverse_std = args.inverse_std;
  for (int64_t channel = 0; channel < args.c; ++channel) {
    inverse_std[channel] = 1.0f / std::sqrt(args.variance[channel] + args.eps);
  }
  const FoldedWeight folded(args, inverse_std);
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < args.c; ++channel) {
    const Grid grid = folded.grids[channel];
    const float divisor = Divisor(args.gamma[channel] * inverse_std[channel]);
    const float* from = &folded.product[channel * folded.size];
    float* __restrict to = args.y + channel * folded.size;
    for (int64_t i = 0; i < folded.size; ++i) to[i] = grid.Snapped(from[i]) / divisor;
  }
}

// Rounding counts as the identity, the grids as constants.
void Backward(const FoldedFakeQuantBackwardArgs& args) {
  const FoldedWeight folded(args, args.inverse_std);
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < args.c; ++channel) {
    const Grid grid = folded.grids[channel];
    const float factor = args.gamma[channel] * args.inverse_std[channel], divisor = Divisor(factor);
    const float ratio = factor / divisor;
    const int64_t offset = channel * folded.size;
    double dfactor = 0;
    for (int64_t i = offset; i < offset + folded.size; ++i) {
      const float product = folded.product[i], dy = args.dy[i];
      const float inside = grid.Holds(grid.Quantised(product)) ? 1.0f : 0.0f;
      args.dweight[i] = inside * ratio * dy;
      // Of (product on its grid) / factor; a factor of 0 is not divided by.
      const float through_divisor = factor == 0 ? 0.0f : grid.Snapped(product) / (divisor * divisor);
      dfactor += dy * (inside * args.weight[i] / divisor - through_divisor);
    }
    args.dgamma[channel] = static_cast<float>(dfactor * args.inverse_std[channel]);
  }
}

}  // namespace

EXPORT(FoldedFakeQuant, Forward)
EXPORT(FoldedFakeQuantBackward, Backward)
