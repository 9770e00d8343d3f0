// Batch normalisation in training, ReLU6 and the depthwise convolution that follows. What lies between is computed a
// plane at a time and never stored: backward computes it again.

#include "batch_norm.h"
#include "batch_norm_blocks.h"
#include "depthwise.h"
#include "depthwise_blocks.h"
#include "operators.h"

namespace {

// The tile x normalised, with ReLU6.
void NormalizeInto(const BlockAffine& affine, const float* x, int64_t images, Bordered* z) {
  z->ForEach<1>(images, [&](float* to, int64_t pixel) {
    Store(to, BlockActivated<Activation::kReLU6>(affine.Output(Load(x + pixel * kLanes))));
  });
}

template <int kStride>
void ForwardBlocks(const NormDepthwiseArgs& args) {
  const int64_t size = args.h * args.w, out_size = args.out_h * args.out_w;
  const Groups groups = GroupsOf(args.n, args.h, args.w);
#pragma omp parallel if (IsWorthThreads(args.n * args.c * size))
  {
    std::vector<float> x(groups.images * size * kLanes), y(groups.images * out_size * kLanes);
    Bordered z(args.h, args.w, groups.images);
#pragma omp for schedule(static)
    for (int64_t index = 0; index < CeilDiv(args.c, kLanes); ++index) {
      const ChannelBlock block(args.c, index);
      const BlockAffine affine = BatchAffine(args, block, groups, x.data());
      const BlockFilters filters(args.weight, block);
      groups.ForEach([&](int64_t image, int64_t images) {
        if (!groups.IsOne()) block.LoadImages(args.x, image, images, size, x.data());
        NormalizeInto(affine, x.data(), images, &z);
        z.ForEach<kStride>(
            images, [&](const float* place, int64_t pixel) { Store(&y[pixel * kLanes], filters.At(place, z.pitch)); });
        block.StoreImages(y.data(), image, images, out_size, args.y);
      });
    }
  }
}

template <int kStride>
void BackwardBlocks(const NormDepthwiseBackwardArgs& args) {
  const int64_t size = args.h * args.w, out_size = args.out_h * args.out_w;
  const Groups groups = GroupsOf(args.n, args.h, args.w);
#pragma omp parallel if (IsWorthThreads(args.n * args.c * size))
  {
    std::vector<float> x(groups.images * size * kLanes), grads(x.size()), dy(groups.images * out_size * kLanes);
    Bordered z(args.h, args.w, groups.images);
    BlockDepthwiseGradients<kStride> depthwise(args.h, args.w, groups.images);
#pragma omp for schedule(static)
    for (int64_t index = 0; index < CeilDiv(args.c, kLanes); ++index) {
      const ChannelBlock block(args.c, index);
      const BlockAffine affine = AffineOf(args, block);
      const BlockFilters filters(args.weight, block);
      BlockGradients gradients(affine);
      depthwise.Begin();
      groups.ForEach([&](int64_t image, int64_t images) {
        block.LoadImages(args.x, image, images, size, x.data());
        block.LoadImages(args.dy, image, images, out_size, dy.data());
        NormalizeInto(affine, x.data(), images, &z);
        depthwise.Add(filters, &z, dy.data(), images, grads.data());
        gradients.Add<Activation::kReLU6>(x.data(), grads.data(), images * size);
        if (!groups.IsOne()) block.StoreImages(grads.data(), image, images, size, args.dx);
      });
      depthwise.End(block, args.dweight);
      FinishBlock(args, block, groups, &gradients, x.data(), grads.data());
    }
  }
}

template <int kStride>
void Forward(const NormDepthwiseArgs& args) {
  if (AreBlocksFaster(args.h, args.w)) return ForwardBlocks<kStride>(args);
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
  if (AreBlocksFaster(args.h, args.w)) return BackwardBlocks<kStride>(args);
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
