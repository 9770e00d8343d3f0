// Fake quantisation, forward and backward.

#include "grids.h"

namespace {

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

// x, range (least, greatest), (low, high, symmetric, decay) -> y, range moved towards that of x, scale, zero point.
// The grid spans the range from before.
int RangeFakeQuantizeForward(const Arguments& args) {
  if (args.count != 7 || !HasSize(args, 1, 2) || !HasSize(args, 2, 4) || SizeOf(args, 0) < 1) return kBadArguments;
  if (!AreAlike(args, 0, 3) || !HasSize(args, 4, 2) || !HasSize(args, 5, 1) || !HasSize(args, 6, 1)) {
    return kBadArguments;
  }
  if (!AreFloats(args)) return kBadArguments;
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

// A factor to divide by: 1 for a channel that batch normalisation switched off.
float Divisor(float factor) { return factor == 0 ? 1.0f : factor; }

// Arguments of both kernels begin with weight (channels, ...), a vector of channels, another one, settings.
bool HasFilters(const Arguments& args, int count) {
  if (args.count != count || args.ndims[0] < 2 || SizeOf(args, 0) < 1 || !AreFloats(args)) return false;
  const int64_t channels = args.shapes[0][0];
  return HasSize(args, 1, channels) && HasSize(args, 2, channels) && HasSize(args, 3, 5);
}

// weight, gamma, moving variance, (low, high, symmetric, per channel, eps) -> (weight * factor on its grid) / factor,
// 1 / std; factor = gamma / std
int FoldedFakeQuantizeForward(const Arguments& args) {
  if (!HasFilters(args, 6) || !AreAlike(args, 0, 4) || !AreAlike(args, 1, 5)) return kBadArguments;
  const int64_t channels = args.shapes[0][0];
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
  if (!HasFilters(args, 7) || !AreAlike(args, 0, 4) || !AreAlike(args, 0, 5) || !AreAlike(args, 1, 6)) {
    return kBadArguments;
  }
  const int64_t channels = args.shapes[0][0];
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

// Arguments of both kernels begin with x, scale (rows), zero point (rows), (low, high, ...); rows is 1 or x's length.
bool ReadRows(const Arguments& args, int count, Rows* rows) {
  if (args.count != count || args.ndims[1] != 1 || args.ndims[3] != 1 || !AreFloats(args)) return false;
  rows->rows = args.shapes[1][0];
  if (!HasSize(args, 2, rows->rows) || args.shapes[3][0] < 2 || SizeOf(args, 0) < 1) return false;
  if (rows->rows != 1 && (args.ndims[0] < 1 || rows->rows != args.shapes[0][0])) return false;
  rows->size = SizeOf(args, 0) / rows->rows;
  return true;
}

Grid GridOf(const Arguments& args, int64_t row) { return {args[1][row], args[2][row], args[3][0], args[3][1]}; }

// x, scale, zero point, (low, high) -> y, (least, greatest x)
int FakeQuantizeForward(const Arguments& args) {
  Rows rows;
  if (!ReadRows(args, 6, &rows) || !HasSize(args, 3, 2)) return kBadArguments;
  if (!AreAlike(args, 0, 4) || !HasSize(args, 5, 2)) return kBadArguments;
  SnapRows(rows, [&](int64_t row) { return GridOf(args, row); }, args[0], args[4], args[5]);
  return 0;
}

// x, scale, zero point, (low, high), dy -> dx, dscale. Rounding counts as the identity; outside of the grid dx is 0.
int FakeQuantizeBackward(const Arguments& args) {
  Rows rows;
  if (!ReadRows(args, 7, &rows)) return kBadArguments;
  if (!AreAlike(args, 0, 4) || !AreAlike(args, 0, 5) || !AreAlike(args, 1, 6)) return kBadArguments;
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

EXPORT(FakeQuantForward, FakeQuantizeForward)
EXPORT(FakeQuantBackward, FakeQuantizeBackward)
EXPORT(RangeFakeQuantForward, RangeFakeQuantizeForward)
EXPORT(FoldedFakeQuantForward, FoldedFakeQuantizeForward)
EXPORT(FoldedFakeQuantBackward, FoldedFakeQuantizeBackward)
