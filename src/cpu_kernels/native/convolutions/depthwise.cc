// Depthwise 3x3 convolution, padding 1, stride 1 or 2.

#include "depthwise.h"

#include "depthwise_blocks.h"
#include "operators.h"

namespace {

template <int kStride>
void ForwardBlocks(const DepthwiseArgs& args) {
  const int64_t size = args.h * args.w, out_size = args.out_h * args.out_w;
  const Groups groups = GroupsOf(args.n, args.h, args.w);
#pragma omp parallel if (IsWorthThreads(args.n * args.c * size))
  {
    std::vector<float> x(groups.images * size * kLanes), y(groups.images * out_size * kLanes);
    Bordered bordered(args.h, args.w, groups.images);
#pragma omp for schedule(static)
    for (int64_t index = 0; index < CeilDiv(args.c, kLanes); ++index) {
      const ChannelBlock block(args.c, index);
      const BlockFilters filters(args.weight, block);
      groups.ForEach([&](int64_t image, int64_t images) {
        block.LoadImages(args.x, image, images, size, x.data());
        bordered.Fill(x.data(), images);
        bordered.ForEach<kStride>(images, [&](const float* place, int64_t pixel) {
          Store(&y[pixel * kLanes], filters.At(place, bordered.pitch));
        });
        block.StoreImages(y.data(), image, images, out_size, args.y);
      });
    }
  }
}

template <int kStride>
void BackwardBlocks(const DepthwiseBackwardArgs& args) {
  const int64_t size = args.h * args.w, out_size = args.out_h * args.out_w;
  const Groups groups = GroupsOf(args.n, args.h, args.w);
#pragma omp parallel if (IsWorthThreads(args.n * args.c * size))
  {
    std::vector<float> x(groups.images * size * kLanes), grads(x.size()), dy(groups.images * out_size * kLanes);
    Bordered bordered(args.h, args.w, groups.images);
    BlockDepthwiseGradients<kStride> depthwise(args.h, args.w, groups.images);
#pragma omp for schedule(static)
    for (int64_t index = 0; index < CeilDiv(args.c, kLanes); ++index) {
      const ChannelBlock block(args.c, index);
      const BlockFilters filters(args.weight, block);
      depthwise.Begin();
      groups.ForEach([&](int64_t image, int64_t images) {
        block.LoadImages(args.x, image, images, size, x.data());
        block.LoadImages(args.dy, image, images, out_size, dy.data());
        bordered.Fill(x.data(), images);
        depthwise.Add(filters, &bordered, dy.data(), images, grads.data());
        block.StoreImages(grads.data(), image, images, size, args.dx);
      });
      depthwise.End(block, args.dweight);
    }
  }
}

template <int kStride>
void Forward(const DepthwiseArgs& args) {
  if (AreBlocksFaster(args.h, args.w)) return ForwardBlocks<kStride>(args);
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
  if (AreBlocksFaster(args.h, args.w)) return BackwardBlocks<kStride>(args);
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
