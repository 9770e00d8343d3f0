// Batch normalisation in training, ReLU6 and the depthwise convolution that follows. What lies between is computed a
// plane at a time and never stored: backward computes it again.

#include "batch_norm.h"
#include "depthwise.h"
#include "operators.h"

namespace {

template <int kStride>
void Forward(const NormDepthwiseArgs& args) {
  const Images images(args);
  const int64_t size = images.size;
  const Layout<kStride> layout(args.h, args.w);
#pragma omp parallel
  {
    std::vector<float> plane(size), phases(layout.kPhases * layout.phase_size), flat(layout.flat_size);
#pragma omp for schedule(static)
    for (int64_t channel = 0; channel < args.c; ++channel) {
      const Affine affine = BatchAffine(args, images, channel);
      for (int64_t image = 0; image < args.n; ++image) {
        const int64_t index = image * args.c + channel;
        Normalize<Activation::kReLU6>(affine, args.x + index * size, plane.data(), size);
        layout.Split(plane.data(), phases.data());
        DepthwisePlane(layout, phases.data(), args.weight + channel * kTaps, flat.data());
        layout.CopyRows(flat.data(), layout.pitch, args.y + index * layout.out_size, layout.out_w);
      }
    }
  }
}

template <int kStride>
void Backward(const NormDepthwiseBackwardArgs& args) {
  const Images images(args);
  const int64_t size = images.size;
  const Layout<kStride> layout(args.h, args.w);
#pragma omp parallel
  {
    DepthwiseGradients<kStride> gradients(layout);
    std::vector<float> plane(size);
#pragma omp for schedule(static)
    for (int64_t channel = 0; channel < args.c; ++channel) {
      const Affine affine = {args.mean[channel], args.inverse_std[channel], args.gamma[channel], args.beta[channel]};
      gradients.Begin(args.weight + channel * kTaps);
      for (int64_t image = 0; image < args.n; ++image) {
        const int64_t index = image * args.c + channel;
        Normalize<Activation::kReLU6>(affine, args.x + index * size, plane.data(), size);
        gradients.Add(plane.data(), args.dy + index * layout.out_size, args.dx + index * size);
      }
      gradients.End(args.dweight + channel * kTaps);
      BackwardChannel<Activation::kReLU6, true>(images, channel, affine, args.x, args.dx, args.dx,
                                                args.dgamma + channel, args.dbeta + channel);
    }
  }
}

}  // namespace

EXPORT(NormDepthwiseS1, Forward<1>)
EXPORT(NormDepthwiseS2, Forward<2>)
EXPORT(NormDepthwiseBackwardS1, Backward<1>)
EXPORT(NormDepthwiseBackwardS2, Backward<2>)
