// 1x1 convolution as matrix products.

#include "channels_last.h"
#include "matrix.h"
#include "operators.h"

namespace {

void ForwardSmall(const PointwiseArgs& args) {
  const int64_t n = args.n, c = args.c, out = args.out, size = args.h * args.w;
  const Rows x(n, c, size), y(n, out, size), turned(1, out, c);
#pragma omp parallel if (IsWorthThreads(n * size * c * out / 16))
  {
    turned.Fill(args.weight);
    x.Fill(args.x);
    MultiplyRows({x.Read(args.x), n * size, x.pitch, 1}, {turned.Read(args.weight), out, turned.pitch}, c,
                 {y.Write(args.y), y.pitch, y.pitch});
    y.Empty(args.y);
  }
}

void Forward(const PointwiseArgs& args) {
  if (args.h * args.w < kOwnPlane) return ForwardSmall(args);
  Multiply(PackMatrix(args.weight, args.out, args.c, args.c, 1).data(), args.x, args.y, args.n, args.out, args.c,
           args.h * args.w);
}

void BackwardSmall(const PointwiseBackwardArgs& args) {
  const int64_t n = args.n, c = args.c, out = args.out, size = args.h * args.w;
  const Rows x(n, c, size), dx(n, c, size), dy(n, out, size), weight(out, c, 1);
#pragma omp parallel if (IsWorthThreads(n * size * c * out / 16))
  {
    weight.Fill(args.weight);
    x.Fill(args.x);
    dy.Fill(args.dy);
    const float* grads = dy.Read(args.dy);
    MultiplyRows({grads, n * size, dy.pitch, 1}, {weight.Read(args.weight), c, weight.pitch}, out,
                 {dx.Write(args.dx), dx.pitch, dx.pitch});
    dx.Empty(args.dx);
    MultiplyRows({grads, out, 1, dy.pitch}, {x.Read(args.x), c, x.pitch}, n * size, {args.dweight, c, c});
  }
}

void Backward(const PointwiseBackwardArgs& args) {
  const int64_t n = args.n, c = args.c, out = args.out, size = args.h * args.w;
  if (size < kOwnPlane) return BackwardSmall(args);
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
