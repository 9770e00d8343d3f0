// Whole weights, biases and factors of a quantised convolution, as float32.
//
// Every result has to be that of onnxruntime's integer kernels to the last bit. So the order of operations is theirs,
// and no product and sum may be contracted into one instruction except where theirs are.

#include <cmath>

#include "folded_weight.h"
#include "operators.h"

namespace {

constexpr float kBiasLimit = 1 << 30;  // as BIAS_LIMIT in quantisation/grid.py

// Scales (channels) that leave room for the biases, as FoldedOnGrid.with_room_for_bias in quantisation/weights.py.
void LeaveRoom(std::vector<Grid>* grids, const std::vector<float>& bias, float source, bool per_channel) {
  std::vector<float> needed(bias.size());
  for (size_t channel = 0; channel < bias.size(); ++channel) {
    needed[channel] = std::fabs(bias[channel]) / (source * kBiasLimit);
  }
  const float most = *std::max_element(needed.begin(), needed.end());
  for (size_t channel = 0; channel < bias.size(); ++channel) {
    Grid& grid = (*grids)[channel];
    grid.scale = std::max(grid.scale, per_channel ? needed[channel] : most);
  }
}

void Forward(const IntFiltersArgs& args) {
  const int64_t channels = args.c;
  std::vector<float> inverse_std(channels), bias(channels);
  for (int64_t channel = 0; channel < channels; ++channel) {
    inverse_std[channel] = 1.0f / std::sqrt(args.moving_variance[channel] + args.eps);
    const float factor = args.gamma[channel] * inverse_std[channel];
    bias[channel] = args.beta[channel] - Rounded(args.moving_mean[channel] * factor);
  }
  FoldedWeight folded(args, inverse_std.data());
  if (args.learned != 0) {
    for (int64_t channel = 0; channel < channels; ++channel) {
      folded.grids[channel] = {args.learned_scale[args.rows == channels ? channel : 0], 0.0f, args.low, args.high};
    }
  }
  LeaveRoom(&folded.grids, bias, args.source_scale, args.per_channel != 0);
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < channels; ++channel) {
    const Grid grid = folded.grids[channel];
    const float* from = &folded.product[channel * folded.size];
    float* __restrict to = args.int_weight + channel * folded.size;
    for (int64_t i = 0; i < folded.size; ++i) to[i] = grid.Clamped(grid.Quantised(from[i])) - grid.zero_point;
    const float scale = args.source_scale * grid.scale;
    args.int_bias[channel] = std::nearbyint(bias[channel] / scale);
    args.factor[channel] = scale / args.target_scale;
  }
}

}  // namespace

EXPORT(IntFilters, Forward)
