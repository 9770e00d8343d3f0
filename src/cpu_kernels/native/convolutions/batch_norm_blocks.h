// Batch normalisation in training of kLanes channels at once, with the formulas of batch_norm.h.

#pragma once

#include <vector>

#include "batch_norm.h"
#include "channel_blocks.h"

namespace {

// Planes up to which kLanes channels at once are faster than one after the other, forward and backward.
constexpr int64_t kForwardBlocks = 64, kBackwardBlocks = 36;

struct BlockAffine {
  Vector mean, inverse_std, gamma, beta;

  Vector Normalized(Vector x) const { return (x - mean) * inverse_std; }
  Vector Output(Vector x) const { return (x - mean) * (inverse_std * gamma) + beta; }
};

// The comparisons are false for NaN, so NaN passes through.
template <Activation kActivation>
inline Vector BlockActivated(Vector value) {
  if constexpr (kActivation == Activation::kNone) return value;
  value = value < 0.0f ? Vector{} : value;
  if constexpr (kActivation == Activation::kReLU) return value;
  return value > 6.0f ? Vector{} + 6.0f : value;
}

template <Activation kActivation>
inline Vector BlockPassed(Vector dy, Vector x, const BlockAffine& affine) {
  if constexpr (kActivation == Activation::kNone) return dy;
  const Vector value = affine.Output(x);
  dy = value > 0.0f ? dy : Vector{};
  if constexpr (kActivation == Activation::kReLU) return dy;
  return value <= 6.0f ? dy : Vector{};
}

struct BlockMoments {
  double count = 0, mean[kLanes] = {}, squares[kLanes] = {};

  // As Moments::Add.
  void Add(const float* tile, int64_t pixels) {
    Vector total[1], second[2];
    SumPixels(pixels, [=](int64_t pixel, Vector* sums) { sums[0] += Load(tile + pixel * kLanes); }, total);
    const Vector centre = total[0] * (1.0f / pixels);
    SumPixels(
        pixels,
        [=](int64_t pixel, Vector* sums) {
          const Vector distance = Load(tile + pixel * kLanes) - centre;
          sums[0] += distance;
          sums[1] += distance * distance;
        },
        second);
    Merge(pixels, centre, second);
  }

 private:
  void Merge(int64_t pixels, Vector centre, const Vector (&second)[2]) {
    const double total = count + pixels, share = pixels / total, part = 1.0 / pixels;
    for (int lane = 0; lane < kLanes; ++lane) {
      const double deviation = second[0][lane], delta = centre[lane] + deviation * part - mean[lane];
      mean[lane] += delta * share;
      squares[lane] += second[1][lane] - deviation * deviation * part + delta * delta * count * share;
    }
    count = total;
  }
};

template <typename Args>
BlockAffine AffineOf(const Args& args, const ChannelBlock& block) {
  return {LoadSome(args.mean + block.first, block.used), LoadSome(args.inverse_std + block.first, block.used),
          LoadSome(args.gamma + block.first, block.used), LoadSome(args.beta + block.first, block.used)};
}

// What normalises a block by the batch's statistics; written to the kernel's outputs, with the moved averages. The tile
// holds the last images then.
template <typename Args>
BlockAffine BatchAffine(const Args& args, const ChannelBlock& block, const Groups& groups, float* tile) {
  const int64_t size = args.h * args.w;
  BlockMoments moments;
  groups.ForEach([&](int64_t image, int64_t images) {
    block.LoadImages(args.x, image, images, size, tile);
    moments.Add(tile, images * size);
  });
  for (int64_t lane = 0; lane < block.used; ++lane) {
    WriteStatistics(args, block.first + lane, Moments{moments.count, moments.mean[lane], moments.squares[lane]});
  }
  return AffineOf(args, block);
}

// The two sums over a batch that the gradients of normalisation consist of.
class BlockGradients {
 public:
  explicit BlockGradients(const BlockAffine& affine) : affine_(affine) {}

  // x and dy of some pixels; what the activation lets pass is left in dy.
  template <Activation kActivation>
  void Add(const float* x, float* dy, int64_t pixels) {
    Vector found[2];
    SumPixels(
        pixels,
        [=](int64_t pixel, Vector* sums) {
          const Vector value = Load(x + pixel * kLanes);
          const Vector passed = BlockPassed<kActivation>(Load(dy + pixel * kLanes), value, affine_);
          Store(dy + pixel * kLanes, passed);
          sums[0] += passed;
          sums[1] += passed * affine_.Normalized(value);
        },
        found);
    passed_.Add(found[0]);
    products_.Add(found[1]);
  }

  // After the last pixel of a batch of `count` per channel.
  void End(double count, const ChannelBlock& block, float* dgamma, float* dbeta) {
    StoreSome(products_.Over(1.0), block.used, dgamma + block.first);
    StoreSome(passed_.Over(1.0), block.used, dbeta + block.first);
    mean_ = passed_.Over(count);
    product_ = products_.Over(count);
  }

  // What Add left in dy becomes the gradient of x.
  void Finish(const float* x, float* dy, int64_t pixels) const {
    const Vector scale = affine_.gamma * affine_.inverse_std;
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
      const Vector normalized = affine_.Normalized(Load(x + pixel * kLanes));
      Store(dy + pixel * kLanes, scale * (Load(dy + pixel * kLanes) - mean_ - normalized * product_));
    }
  }

 private:
  BlockAffine affine_;
  LaneSums passed_, products_;
  Vector mean_{}, product_{};
};

// The gradients of a block, when all images were added and dx holds what passed; if all are one group, `grads` does.
template <typename Args>
void FinishBlock(const Args& args, const ChannelBlock& block, const Groups& groups, BlockGradients* gradients, float* x,
                 float* grads) {
  const int64_t size = args.h * args.w;
  gradients->End(static_cast<double>(args.n) * size, block, args.dgamma, args.dbeta);
  groups.ForEach([&](int64_t image, int64_t images) {
    if (!groups.IsOne()) {
      block.LoadImages(args.x, image, images, size, x);
      block.LoadImages(args.dx, image, images, size, grads);
    }
    gradients->Finish(x, grads, images * size);
    block.StoreImages(grads, image, images, size, args.dx);
  });
}

}  // namespace
