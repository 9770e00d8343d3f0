// 1x1 convolution as matrix products.

#include "matrix.h"
#include "operators.h"

namespace {

void Forward(const PointwiseArgs& args) {
  Multiply(PackMatrix(args.weight, args.out, args.c, args.c, 1).data(), args.x, args.y, args.n, args.out, args.c,
           args.h * args.w);
}

void Backward(const PointwiseBackwardArgs& args) {
  const int64_t n = args.n, c = args.c, out = args.out, size = args.h * args.w;
  Multiply(PackMatrix(args.weight, c, out, 1, c).data(), args.dy, args.dx, n, c, out, size);
  // The narrower operand of the product is on the left.
  if (out > c) {
    Products(args.x, args.dy, args.dweight, n, c, out, size, 1, c);
  } else {
    Products(args.dy, args.x, args.dweight, n, out, c, size, c, 1);
  }
}

}  // namespace

EXPORT(Pointwise, Forward)
EXPORT(PointwiseBackward, Backward)
