// Training kernels for MobileNet-like networks: depthwise and pointwise convolution, batch normalisation. NCHW.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

#include "common.h"
#include "depthwise.h"
#include "matrix.h"

namespace {

constexpr int64_t kChunk = 4096;  // floats that stay in the first-level cache between two passes

template <int kStride>
int DepthwiseForward(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const int64_t n = args.shapes[0][0], c = args.shapes[0][1], h = args.shapes[0][2], w = args.shapes[0][3];
  const Layout<kStride> layout(h, w);
  if (!Matches(args, {{n, c, h, w}, {c, 1, 3, 3}, {n, c, layout.out_h, layout.out_w}})) return kBadArguments;
  const float* x = args[0];
  const float* weight = args[1];
  float* y = args[2];
#pragma omp parallel
  {
    std::vector<float> phases(layout.kPhases * layout.phase_size), flat(layout.flat_size);
#pragma omp for schedule(static)
    for (int64_t plane = 0; plane < n * c; ++plane) {
      layout.Split(x + plane * h * w, phases.data());
      DepthwisePlane(layout, phases.data(), weight + plane % c * kTaps, flat.data());
      layout.CopyRows(flat.data(), layout.pitch, y + plane * layout.out_h * layout.out_w, layout.out_w);
    }
  }
  return 0;
}

// x, weight, dy -> dx, dweight
template <int kStride>
int DepthwiseBackward(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const int64_t n = args.shapes[0][0], c = args.shapes[0][1], h = args.shapes[0][2], w = args.shapes[0][3];
  const Layout<kStride> layout(h, w);
  const int64_t out_size = layout.out_h * layout.out_w;
  if (!Matches(args, {{n, c, h, w}, {c, 1, 3, 3}, {n, c, layout.out_h, layout.out_w}, {n, c, h, w}, {c, 1, 3, 3}})) {
    return kBadArguments;
  }
#pragma omp parallel
  {
    std::vector<float> phases(layout.kPhases * layout.phase_size), grads(phases.size());
    std::vector<float> padded_dy(layout.margin + layout.phase_size);
    float* dy = padded_dy.data() + layout.margin;
#pragma omp for schedule(static)
    for (int64_t channel = 0; channel < c; ++channel) {
      const float* weight = args[1] + channel * kTaps;
      double sums[kTaps] = {};
      for (int64_t image = 0; image < n; ++image) {
        const int64_t plane = image * c + channel;
        layout.Split(args[0] + plane * h * w, phases.data());
        layout.CopyRows(args[2] + plane * out_size, layout.out_w, dy, layout.pitch);
        AccumulateWeightGradient(layout, phases.data(), dy, sums);
        PhaseGradient<kStride, 0>(layout, dy, weight, grads.data());
        if constexpr (kStride == 2) {
          PhaseGradient<kStride, 1>(layout, dy, weight, grads.data());
          PhaseGradient<kStride, 2>(layout, dy, weight, grads.data());
          PhaseGradient<kStride, 3>(layout, dy, weight, grads.data());
        }
        layout.Join(grads.data(), args[3] + plane * h * w);
      }
      std::copy(sums, sums + kTaps, args[4] + channel * kTaps);
    }
  }
  return 0;
}

// x, weight -> y
int ForwardPointwise(const Arguments& args) {
  if (!HasImages(args) || args.count != 3) return kBadArguments;
  const int64_t n = args.shapes[0][0], c = args.shapes[0][1], h = args.shapes[0][2], w = args.shapes[0][3];
  const int64_t out = args.shapes[1][0];
  if (!Matches(args, {{n, c, h, w}, {out, c, 1, 1}, {n, out, h, w}})) return kBadArguments;
  Multiply(PackMatrix(args[1], out, c, c, 1).data(), args[0], args[2], n, out, c, h * w);
  return 0;
}

// x, weight, dy -> dx, dweight
int BackwardPointwise(const Arguments& args) {
  if (!HasImages(args) || args.count != 5) return kBadArguments;
  const int64_t n = args.shapes[0][0], c = args.shapes[0][1], h = args.shapes[0][2], w = args.shapes[0][3];
  const int64_t out = args.shapes[1][0];
  if (!Matches(args, {{n, c, h, w}, {out, c, 1, 1}, {n, out, h, w}, {n, c, h, w}, {out, c, 1, 1}})) {
    return kBadArguments;
  }
  Multiply(PackMatrix(args[1], c, out, 1, c).data(), args[2], args[3], n, c, out, h * w);
  if (out > c) {
    Products(args[0], args[2], args[4], n, c, out, h * w, 1, c);
  } else {
    Products(args[2], args[0], args[4], n, out, c, h * w, c, 1);
  }
  return 0;
}

// Batch normalisation, optionally followed by ReLU6. Both comparisons are false for NaN, so NaN passes through.
inline float Clamp6(float value) {
  value = value < 0.0f ? 0.0f : value;
  return value > 6.0f ? 6.0f : value;
}

struct Moments {
  double count = 0, mean = 0, squares = 0;  // squares: sum of squared deviations from the mean

  // Adds `size` values; two passes over a cached chunk, merged by the formula of Chan et al.
  void Add(const float* x, int64_t size) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < size; ++i) sum += x[i];
    const double chunk_mean = static_cast<double>(sum) / size;
    const float centre = static_cast<float>(chunk_mean);
    float deviation = 0, squared = 0;
#pragma omp simd reduction(+ : deviation, squared)
    for (int64_t i = 0; i < size; ++i) {
      const float distance = x[i] - centre;
      deviation += distance;
      squared += distance * distance;
    }
    // The second pass also corrects the rounding of the first sum.
    const double exact_mean = centre + static_cast<double>(deviation) / size;
    const double exact_squares = squared - static_cast<double>(deviation) * deviation / size;
    const double total = count + size, delta = exact_mean - mean;
    mean += delta * size / total;
    squares += exact_squares + delta * delta * count * size / total;
    count = total;
  }
};

struct Images {
  int64_t n, c, size;  // size = H * W

  explicit Images(const Arguments& args)
      : n(args.shapes[0][0]), c(args.shapes[0][1]), size(args.shapes[0][2] * args.shapes[0][3]) {}

  // Calls work(offset, length) for every chunk of a channel, in memory order.
  template <typename Work>
  void ForEachChunk(int64_t channel, Work work) const {
    for (int64_t image = 0; image < n; ++image) {
      const int64_t first = (image * c + channel) * size;
      for (int64_t at = 0; at < size; at += kChunk) work(first + at, std::min(kChunk, size - at));
    }
  }
};

struct Affine {
  float mean, inverse_std, gamma, beta;

  float Normalized(float x) const { return (x - mean) * inverse_std; }
  float Output(float x) const { return (x - mean) * (inverse_std * gamma) + beta; }
};

template <bool kReLU6>
void NormalizeChannel(const Images& images, int64_t channel, Affine affine, const float* x, float* y) {
  images.ForEachChunk(channel, [=](int64_t offset, int64_t length) {
    const float* from = x + offset;
    float* __restrict to = y + offset;
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) {
      const float value = affine.Output(from[i]);
      to[i] = kReLU6 ? Clamp6(value) : value;
    }
  });
}

// x, gamma, beta, moving mean, moving variance, (eps, momentum)
//   -> y, batch mean, batch inverse standard deviation, new moving mean, new moving variance
template <bool kReLU6>
int BatchNormTrain(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const Images images(args);
  const int64_t n = images.n, c = images.c, h = args.shapes[0][2], w = args.shapes[0][3];
  if (!Matches(args, {{n, c, h, w}, {c}, {c}, {c}, {c}, {2}, {n, c, h, w}, {c}, {c}, {c}, {c}})) return kBadArguments;
  const double eps = args[5][0], momentum = args[5][1];
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < c; ++channel) {
    Moments moments;
    images.ForEachChunk(channel, [&](int64_t offset, int64_t length) { moments.Add(args[0] + offset, length); });
    const double variance = moments.squares / moments.count;
    const Affine affine = {static_cast<float>(moments.mean), static_cast<float>(1.0 / std::sqrt(variance + eps)),
                           args[1][channel], args[2][channel]};
    NormalizeChannel<kReLU6>(images, channel, affine, args[0], args[6]);
    args[7][channel] = affine.mean;
    args[8][channel] = affine.inverse_std;
    args[9][channel] = static_cast<float>(momentum * args[3][channel] + (1.0 - momentum) * moments.mean);
    // The stock operator keeps the unbiased variance. A batch of one value has none; 0 keeps NaN out of the average.
    const double unbiased = moments.squares / std::max(moments.count - 1.0, 1.0);
    args[10][channel] = static_cast<float>(momentum * args[4][channel] + (1.0 - momentum) * unbiased);
  }
  return 0;
}

// x, gamma, beta, moving mean, moving variance, (eps, momentum) -> y
template <bool kReLU6>
int BatchNormInfer(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const Images images(args);
  const int64_t n = images.n, c = images.c, h = args.shapes[0][2], w = args.shapes[0][3];
  if (!Matches(args, {{n, c, h, w}, {c}, {c}, {c}, {c}, {2}, {n, c, h, w}})) return kBadArguments;
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < c; ++channel) {
    const float inverse_std = 1.0f / std::sqrt(args[4][channel] + args[5][0]);
    const Affine affine = {args[3][channel], inverse_std, args[1][channel], args[2][channel]};
    NormalizeChannel<kReLU6>(images, channel, affine, args[0], args[6]);
  }
  return 0;
}

// dy where ReLU6 lets it pass, with the stock operator's limits (6 itself passes, 0 does not). The value before ReLU6
// is computed again, by the same expression as in the forward kernel, instead of being kept.
template <bool kReLU6>
inline float Passed(float dy, float x, const Affine& affine) {
  if constexpr (!kReLU6) return dy;
  const float value = affine.Output(x);
  return value > 0.0f && value <= 6.0f ? dy : 0.0f;
}

// Gradients of one channel. kBatch: mean and variance were those of the batch, so x acts through them as well.
template <bool kReLU6, bool kBatch>
void BackwardChannel(const Images& images, int64_t channel, Affine affine, const float* x, const float* dy,
                     float* dx, float* dgamma, float* dbeta) {
  double sum = 0, sum_normalized = 0;
  images.ForEachChunk(channel, [&](int64_t offset, int64_t length) {
    const float* value = x + offset;
    const float* grad = dy + offset;
    float part = 0, part_normalized = 0;
#pragma omp simd reduction(+ : part, part_normalized)
    for (int64_t i = 0; i < length; ++i) {
      const float normalized = affine.Normalized(value[i]);
      const float passed = Passed<kReLU6>(grad[i], value[i], affine);
      part += passed;
      part_normalized += passed * normalized;
    }
    sum += part;
    sum_normalized += part_normalized;
  });
  *dbeta = static_cast<float>(sum);
  *dgamma = static_cast<float>(sum_normalized);
  const double count = static_cast<double>(images.n) * images.size;
  const float mean_grad = kBatch ? static_cast<float>(sum / count) : 0.0f;
  const float mean_product = kBatch ? static_cast<float>(sum_normalized / count) : 0.0f;
  const float scale = affine.gamma * affine.inverse_std;
  images.ForEachChunk(channel, [=](int64_t offset, int64_t length) {
    const float* value = x + offset;
    const float* grad = dy + offset;
    float* __restrict out = dx + offset;
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) {
      const float normalized = affine.Normalized(value[i]);
      const float passed = Passed<kReLU6>(grad[i], value[i], affine);
      out[i] = kBatch ? scale * (passed - mean_grad - normalized * mean_product) : scale * passed;
    }
  });
}

// x, gamma, beta, batch mean, batch inverse standard deviation, dy -> dx, dgamma, dbeta
template <bool kReLU6>
int BatchNormTrainBackward(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const Images images(args);
  const int64_t n = images.n, c = images.c, h = args.shapes[0][2], w = args.shapes[0][3];
  if (!Matches(args, {{n, c, h, w}, {c}, {c}, {c}, {c}, {n, c, h, w}, {n, c, h, w}, {c}, {c}})) return kBadArguments;
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < c; ++channel) {
    const Affine affine = {args[3][channel], args[4][channel], args[1][channel], args[2][channel]};
    BackwardChannel<kReLU6, true>(images, channel, affine, args[0], args[5], args[6], args[7] + channel,
                                  args[8] + channel);
  }
  return 0;
}

// x, gamma, beta, moving mean, moving variance, (eps, momentum), dy -> dx, dgamma, dbeta
template <bool kReLU6>
int BatchNormInferBackward(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const Images images(args);
  const int64_t n = images.n, c = images.c, h = args.shapes[0][2], w = args.shapes[0][3];
  if (!Matches(args, {{n, c, h, w}, {c}, {c}, {c}, {c}, {2}, {n, c, h, w}, {n, c, h, w}, {c}, {c}})) {
    return kBadArguments;
  }
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < c; ++channel) {
    const float inverse_std = 1.0f / std::sqrt(args[4][channel] + args[5][0]);
    const Affine affine = {args[3][channel], inverse_std, args[1][channel], args[2][channel]};
    BackwardChannel<kReLU6, false>(images, channel, affine, args[0], args[6], args[7], args[8] + channel,
                                   args[9] + channel);
  }
  return 0;
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
Grid GridOverRange(float least, float greatest, float low, float high, bool symmetric) {
  least = std::min(least, 0.0f);
  greatest = std::max(greatest, 0.0f);
  const float steps = high - low, smallest = std::numeric_limits<float>::epsilon();
  if (symmetric) return {std::max(std::max(-least, greatest) * 2.0f / steps, smallest), 0.0f, low, high};
  const float scale = std::max((greatest - least) / steps, smallest);
  return {scale, std::min(std::max(low - std::nearbyint(least / scale), low), high), low, high};
}

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

int64_t SizeOf(const Arguments& args, int index) {
  return std::accumulate(args.shapes[index], args.shapes[index] + args.ndims[index], int64_t{1}, std::multiplies<>());
}

bool HasSize(const Arguments& args, int index, int64_t size) {
  return args.ndims[index] == 1 && SizeOf(args, index) == size;
}

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

// x, range (least, greatest), (low, high, symmetric, decay) -> y, range moved towards that of x, scale, zero point.
// The grid spans the range from before.
int RangeFakeQuantizeForward(const Arguments& args) {
  if (args.count != 7 || !HasSize(args, 1, 2) || !HasSize(args, 2, 4) || SizeOf(args, 0) < 1) return kBadArguments;
  const float *range = args[1], *settings = args[2], decay = settings[3];
  const Grid grid = GridOverRange(range[0], range[1], settings[0], settings[1], settings[2] != 0);
  float extremes[2];
  const float before[2] = {range[0], range[1]};
  SnapRows(Rows{1, SizeOf(args, 0)}, [&](int64_t) { return grid; }, args[0], args[3], extremes);
  for (int side : {0, 1}) args[4][side] = before[side] * decay + extremes[side] * (1.0f - decay);
  args[5][0] = grid.scale;
  args[6][0] = grid.zero_point;
  return 0;
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

// A factor to divide by: 1 for a channel that batch normalisation switched off.
float Divisor(float factor) { return factor == 0 ? 1.0f : factor; }

bool HasFilters(const Arguments& args) { return args.count > 2 && args.ndims[0] > 1 && SizeOf(args, 0) > 0; }

// weight, gamma, moving variance, (low, high, symmetric, per channel, eps) -> (weight * factor on its grid) / factor,
// 1 / std; factor = gamma / std
int FoldedFakeQuantizeForward(const Arguments& args) {
  if (!HasFilters(args) || args.count != 6 || !HasSize(args, 3, 5)) return kBadArguments;
  const int64_t channels = args.shapes[0][0];
  if (!HasSize(args, 1, channels) || !HasSize(args, 2, channels)) return kBadArguments;
  float* inverse_std = args[5];
  for (int64_t channel = 0; channel < channels; ++channel) {
    inverse_std[channel] = 1.0f / std::sqrt(args[2][channel] + args[3][4]);
  }
  const FoldedWeight folded(args, args[1], inverse_std, args[3]);
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < channels; ++channel) {
    const Grid grid = folded.grids[channel];
    const float divisor = Divisor(args[1][channel] * inverse_std[channel]);
    const float* from = &folded.product[channel * folded.size];
    float* __restrict to = args[4] + channel * folded.size;
    for (int64_t i = 0; i < folded.size; ++i) to[i] = grid.Snapped(from[i]) / divisor;
  }
  return 0;
}

// weight, gamma, 1 / std, settings, dy -> dweight, dgamma. Rounding counts as the identity, the grids as constants.
int FoldedFakeQuantizeBackward(const Arguments& args) {
  if (!HasFilters(args) || args.count != 7 || !HasSize(args, 3, 5)) return kBadArguments;
  const int64_t channels = args.shapes[0][0];
  if (!HasSize(args, 1, channels) || !HasSize(args, 2, channels)) return kBadArguments;
  const FoldedWeight folded(args, args[1], args[2], args[3]);
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < channels; ++channel) {
    const Grid grid = folded.grids[channel];
    const float factor = args[1][channel] * args[2][channel], divisor = Divisor(factor), share = factor / divisor;
    const int64_t offset = channel * folded.size;
    double dfactor = 0;
    for (int64_t i = offset; i < offset + folded.size; ++i) {
      const float product = folded.product[i], dy = args[4][i];
      const float inside = grid.Holds(grid.Whole(product)) ? 1.0f : 0.0f;
      args[5][i] = inside * share * dy;
      // Of (product on its grid) / factor; a factor of 0 is not divided by.
      const float through_divisor = factor == 0 ? 0.0f : grid.Snapped(product) / (divisor * divisor);
      dfactor += dy * (inside * args[0][i] / divisor - through_divisor);
    }
    args[6][channel] = static_cast<float>(dfactor * args[2][channel]);
  }
  return 0;
}

// Arguments of both kernels begin with x, scale (rows), zero point (rows), (low, high).
bool ReadRows(const Arguments& args, Rows* rows) {
  if (args.count < 4 || args.ndims[1] != 1 || args.ndims[2] != 1) return false;
  rows->rows = args.shapes[1][0];
  if (rows->rows != args.shapes[2][0] || args.ndims[3] != 1 || args.shapes[3][0] < 2) return false;
  if (rows->rows != 1 && rows->rows != args.shapes[0][0]) return false;
  rows->size = SizeOf(args, 0) / rows->rows;
  return rows->size > 0;
}

Grid GridOf(const Arguments& args, int64_t row) { return {args[1][row], args[2][row], args[3][0], args[3][1]}; }

// x, scale, zero point, (low, high) -> y, (least, greatest x)
int FakeQuantizeForward(const Arguments& args) {
  Rows rows;
  if (!ReadRows(args, &rows) || args.count != 6) return kBadArguments;
  SnapRows(rows, [&](int64_t row) { return GridOf(args, row); }, args[0], args[4], args[5]);
  return 0;
}

// x, scale, zero point, (low, high), dy -> dx, dscale. Rounding counts as the identity; outside of the grid dx is 0.
int FakeQuantizeBackward(const Arguments& args) {
  Rows rows;
  if (!ReadRows(args, &rows) || args.count != 7) return kBadArguments;
  const int64_t parts = rows.Parts();
  std::vector<double> sums(rows.rows * parts);
  rows.ForEachItem([&](int64_t item, int64_t row, int64_t offset, int64_t length) {
    const Grid grid = GridOf(args, row);
    const float* x = args[0] + offset;
    const float* dy = args[4] + offset;
    float* __restrict dx = args[5] + offset;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < length; ++i) {
      const float whole = grid.Whole(x[i]);
      const bool inside = grid.Holds(whole);
      dx[i] = inside ? dy[i] : 0.0f;
      sum += dy[i] * (grid.Nearest(whole) - grid.zero_point - (inside ? x[i] / grid.scale : 0.0f));
    }
    sums[item] = sum;
  });
  for (int64_t row = 0; row < rows.rows; ++row) {
    double sum = 0;
    for (int64_t part = 0; part < parts; ++part) sum += sums[row * parts + part];
    args[6][row] = static_cast<float>(sum);
  }
  return 0;
}

}  // namespace

EXPORT(DepthwiseForwardS1, DepthwiseForward<1>)
EXPORT(DepthwiseForwardS2, DepthwiseForward<2>)
EXPORT(DepthwiseBackwardS1, DepthwiseBackward<1>)
EXPORT(DepthwiseBackwardS2, DepthwiseBackward<2>)
EXPORT(PointwiseForward, ForwardPointwise)
EXPORT(PointwiseBackward, BackwardPointwise)
EXPORT(BatchNormTrainLinear, BatchNormTrain<false>)
EXPORT(BatchNormTrainReLU6, BatchNormTrain<true>)
EXPORT(BatchNormTrainBackwardLinear, BatchNormTrainBackward<false>)
EXPORT(BatchNormTrainBackwardReLU6, BatchNormTrainBackward<true>)
EXPORT(BatchNormInferLinear, BatchNormInfer<false>)
EXPORT(BatchNormInferReLU6, BatchNormInfer<true>)
EXPORT(BatchNormInferBackwardLinear, BatchNormInferBackward<false>)
EXPORT(BatchNormInferBackwardReLU6, BatchNormInferBackward<true>)
EXPORT(FakeQuantForward, FakeQuantizeForward)
EXPORT(FakeQuantBackward, FakeQuantizeBackward)
EXPORT(RangeFakeQuantForward, RangeFakeQuantizeForward)
EXPORT(FoldedFakeQuantForward, FoldedFakeQuantizeForward)
EXPORT(FoldedFakeQuantBackward, FoldedFakeQuantizeBackward)
