// Fake quantisation with given scales.

#include "grids.h"
#include "operators.h"

namespace {

template <typename Args>
Rows RowsOf(const Args& args) {
  return {args.rows, args.c * args.rest / args.rows};
}

template <typename Args>
Grid GridOf(const Args& args, int64_t row) {
  return {args.scale[row], args.zero_point[row], args.low, args.high};
}

void Forward(const FakeQuantArgs& args) {
  SnapRows(RowsOf(args), [&](int64_t row) { return GridOf(args, row); }, args.x, args.y, args.extremes);
}

// Rounding counts as the identity; outside of the grid dx is 0.
void Backward(const FakeQuantBackwardArgs& args) {
  const Rows rows = RowsOf(args);
  const int64_t parts = rows.Parts();
  std::vector<double> sums(rows.rows * parts);
  rows.ForEachItem([&](int64_t item, int64_t row, int64_t offset, int64_t length) {
    const Grid grid = GridOf(args, row);
    const float* x = args.x + offset;
    const float* dy = args.dy + offset;
    float* __restrict dx = args.dx + offset;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < length; ++i) {
      const float q = grid.Quantised(x[i]);
      const bool inside = grid.Holds(q);
      dx[i] = inside ? dy[i] : 0.0f;
      sum += dy[i] * (grid.Clamped(q) - grid.zero_point - (inside ? x[i] / grid.scale : 0.0f));
    }
    sums[item] = sum;
  });
  for (int64_t row = 0; row < rows.rows; ++row) {
    double sum = 0;
    for (int64_t part = 0; part < parts; ++part) sum += sums[row * parts + part];
    args.dscale[row] = static_cast<float>(sum);
  }
}

}  // namespace

EXPORT(FakeQuant, Forward)
EXPORT(FakeQuantBackward, Backward)
