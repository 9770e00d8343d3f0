// Fake quantisation on the grid that spans a range, which then moves towards that of the tensor.

#include "grids.h"
#include "operators.h"

namespace {

// The grid spans the range from before.
void Forward(const RangeFakeQuantArgs& args) {
  const Grid grid = GridOverRange(args.least, args.greatest, args.low, args.high, args.symmetric != 0);
  float extremes[2];
  SnapRows(Rows{1, args.c * args.rest}, [&](int64_t) { return grid; }, args.x, args.y, extremes);
  args.new_range[0] = Rounded(args.least * args.decay) + Rounded(extremes[0] * (1.0f - args.decay));
  args.new_range[1] = Rounded(args.greatest * args.decay) + Rounded(extremes[1] * (1.0f - args.decay));
  args.scale[0] = grid.scale;
  args.zero_point[0] = grid.zero_point;
}

// Rounding counts as the identity, the grid as a constant; outside of it dx is 0.
void Backward(const RangeFakeQuantBackwardArgs& args) {
  const Grid grid = {args.scale[0], args.zero_point[0], args.low, args.high};
  Rows{1, args.c * args.rest}.ForEachItem([&](int64_t, int64_t, int64_t offset, int64_t length) {
    const float* x = args.x + offset;
    const float* dy = args.dy + offset;
    float* __restrict dx = args.dx + offset;
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) dx[i] = grid.Holds(grid.Quantised(x[i])) ? dy[i] : 0.0f;
  });
}

}  // namespace

EXPORT(RangeFakeQuant, Forward)
EXPORT(RangeFakeQuantBackward, Backward)
