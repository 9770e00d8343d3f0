// Layers on whole numbers, as float32: what lies between the convolutions of a quantised network in evaluation.
//
// Every result has to be that of onnxruntime's integer kernels to the last bit. So the order of operations is theirs,
// and no product and sum may be contracted into one instruction except where theirs are.

#include "grids.h"

namespace {

// The settings of FilterNumbers, in their order.
enum Setting { kLow, kHigh, kSymmetric, kPerChannel, kEps, kLearned, kSettings };

constexpr float kBiasLimit = 1 << 30;  // as BIAS_LIMIT in quantiser.py

// beta - mean * factor, each rounded.
float FoldedBias(float beta, float mean, float factor) {
  volatile float product = mean * factor;
  return beta - product;
}

// Scales (channels) that leave room for the biases, as room_for_bias in quantiser.py.
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

bool HasFilters(const Arguments& args) {
  if (args.count != 12 || args.ndims[0] < 2 || SizeOf(args, 0) < 1 || !AreFloats(args)) return false;
  const int64_t channels = args.shapes[0][0];
  for (int vector : {1, 2, 3, 4, 10, 11}) {
    if (!HasSize(args, vector, channels)) return false;
  }
  if (!HasSize(args, 5, 1) && !HasSize(args, 5, channels)) return false;
  return HasSize(args, 6, 1) && HasSize(args, 7, 1) && HasSize(args, 8, kSettings) && AreAlike(args, 0, 9);
}

// weight (channels, ...), gamma, beta, moving mean, moving variance, learned scales (1 or channels), scale of the
// input, scale of the output, settings -> whole weights less their zero points, whole bias (channels), and by what
// their sum is multiplied for the scale of the output (channels).
int FilterNumbers(const Arguments& args) {
  if (!HasFilters(args)) return kBadArguments;
  const int64_t channels = args.shapes[0][0];
  const float *gamma = args[1], *settings = args[8], source = args[6][0], target = args[7][0];
  std::vector<float> inverse_std(channels), bias(channels);
  for (int64_t channel = 0; channel < channels; ++channel) {
    inverse_std[channel] = 1.0f / std::sqrt(args[4][channel] + settings[kEps]);
    bias[channel] = FoldedBias(args[2][channel], args[3][channel], gamma[channel] * inverse_std[channel]);
  }
  FoldedWeight folded(args, gamma, inverse_std.data(), settings);
  if (settings[kLearned] != 0) {
    const bool own = SizeOf(args, 5) == channels;
    for (int64_t channel = 0; channel < channels; ++channel) {
      folded.grids[channel] = {args[5][own ? channel : 0], 0.0f, settings[kLow], settings[kHigh]};
    }
  }
  LeaveRoom(&folded.grids, bias, source, settings[kPerChannel] != 0);
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < channels; ++channel) {
    const Grid grid = folded.grids[channel];
    const float* from = &folded.product[channel * folded.size];
    float* __restrict to = args[9] + channel * folded.size;
    for (int64_t i = 0; i < folded.size; ++i) to[i] = grid.Nearest(grid.Whole(from[i])) - grid.zero_point;
    const float scale = source * grid.scale;
    args[10][channel] = std::nearbyint(bias[channel] / scale);
    args[11][channel] = scale / target;
  }
  return 0;
}

// x (N, C, ...), bias (C), factor (C), limits (least, greatest) -> (x + bias) * factor as the nearest whole number
// within the limits.
int Requantised(const Arguments& args) {
  if (args.count != 5 || args.ndims[0] < 2 || SizeOf(args, 0) < 1 || !AreFloats(args)) return kBadArguments;
  const int64_t channels = args.shapes[0][1], planes = args.shapes[0][0] * channels, size = SizeOf(args, 0) / planes;
  if (!HasSize(args, 1, channels) || !HasSize(args, 2, channels) || !HasSize(args, 3, 2)) return kBadArguments;
  if (!AreAlike(args, 0, 4)) return kBadArguments;
  const float least = args[3][0], greatest = args[3][1];
#pragma omp parallel for schedule(static)
  for (int64_t plane = 0; plane < planes; ++plane) {
    const float bias = args[1][plane % channels], factor = args[2][plane % channels];
    const float* from = args[0] + plane * size;
    float* __restrict to = args[4] + plane * size;
#pragma omp simd
    for (int64_t i = 0; i < size; ++i) {
      float whole = std::nearbyint((from[i] + bias) * factor);
      whole = whole < least ? least : whole;  // false for NaN, which passes through
      to[i] = whole > greatest ? greatest : whole;
    }
  }
  return 0;
}

// a, b of one shape, (zero a, zero b, ratio a, ratio b, zero point, low, high) -> their sum on its grid, less the zero
// point. A ratio is the scale of a or b over that of the sum. Products are contracted where onnxruntime's QLinearAdd
// contracts them.
int Added(const Arguments& args) {
  if (args.count != 4 || !AreFloats(args) || !HasSize(args, 2, 7)) return kBadArguments;
  if (!AreAlike(args, 0, 1) || !AreAlike(args, 0, 3)) return kBadArguments;
  const int64_t size = SizeOf(args, 0);
  const float *a = args[0], *b = args[1], *numbers = args[2];
  const float zero_a = numbers[0], zero_b = numbers[1], ratio_a = numbers[2], ratio_b = numbers[3];
  const float zero = numbers[4], low = numbers[5], high = numbers[6];
  const float fixed = zero - std::fma(ratio_a, zero_a, ratio_b * zero_b);
  float* __restrict to = args[3];
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < size; ++i) {
    const float sum = std::fma(a[i] + zero_a, ratio_a, std::fma(b[i] + zero_b, ratio_b, fixed));
    float whole = std::nearbyint(sum);
    whole = whole < low ? low : whole;
    to[i] = (whole > high ? high : whole) - zero;
  }
  return 0;
}

}  // namespace

EXPORT(WholeFilters, FilterNumbers)
EXPORT(WholeRequantise, Requantised)
EXPORT(WholeSum, Added)
