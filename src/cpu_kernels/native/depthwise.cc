// Depthwise 3x3 convolution, padding 1, stride 1 or 2.

#include "depthwise.h"

#include "operators.h"

namespace {

template <int kStride>
void Forward(const DepthwiseArgs& args) {
  const Layout<kStride> layout(args.h, args.w);
  const int64_t size = args.h * args.w;
#pragma omp parallel
  {
    std::vector<float> phases(layout.kPhases * layout.phase_size), flat(layout.flat_size);
#pragma omp for schedule(static)
    for (int64_t plane = 0; plane < args.n * args.c; ++plane) {
      layout.Split(args.x + plane * size, phases.data());
      DepthwisePlane(layout, phases.data(), args.weight + plane % args.c * kTaps, flat.data());
      layout.CopyRows(flat.data(), layout.pitch, args.y + plane * layout.out_size, layout.out_w);
    }
  }
}

template <int kStride>
void Backward(const DepthwiseBackwardArgs& args) {
  const Layout<kStride> layout(args.h, args.w);
  const int64_t size = args.h * args.w;
#pragma omp parallel
  {
    DepthwiseGradients<kStride> gradients(layout);
#pragma omp for schedule(static)
    for (int64_t channel = 0; channel < args.c; ++channel) {
      gradients.Begin(args.weight + channel * kTaps);
      for (int64_t image = 0; image < args.n; ++image) {
        const int64_t plane = image * args.c + channel;
        gradients.Add(args.x + plane * size, args.dy + plane * layout.out_size, args.dx + plane * size);
      }
      gradients.End(args.dweight + channel * kTaps);
    }
  }
}

}  // namespace

EXPORT(DepthwiseS1, Forward<1>)
EXPORT(DepthwiseS2, Forward<2>)
EXPORT(DepthwiseBackwardS1, Backward<1>)
EXPORT(DepthwiseBackwardS2, Backward<2>)
