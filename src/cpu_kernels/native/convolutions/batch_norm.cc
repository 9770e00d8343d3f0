// Batch normalisation and the activation that follows it.

#include "batch_norm.h"

#include "batch_norm_blocks.h"
#include "operators.h"

namespace {

template <Activation kActivation>
void TrainBlocks(const BatchNormTrainArgs& args) {
  const int64_t size = args.h * args.w;
  const Groups groups(args.n, size);
#pragma omp parallel if (IsWorthThreads(args.n * args.c * size))
  {
    std::vector<float> tile(groups.images * size * kLanes);
#pragma omp for schedule(static)
    for (int64_t index = 0; index < CeilDiv(args.c, kLanes); ++index) {
      const ChannelBlock block(args.c, index);
      const BlockAffine affine = BatchAffine(args, block, groups, tile.data());
      groups.ForEach([&](int64_t image, int64_t images) {
        if (!groups.IsOne()) block.LoadImages(args.x, image, images, size, tile.data());
        for (float* at = tile.data(); at < tile.data() + images * size * kLanes; at += kLanes) {
          Store(at, BlockActivated<kActivation>(affine.Output(Load(at))));
        }
        block.StoreImages(tile.data(), image, images, size, args.y);
      });
    }
  }
}

template <Activation kActivation>
void Train(const BatchNormTrainArgs& args) {
  if (args.h * args.w <= kForwardBlocks) return TrainBlocks<kActivation>(args);
  const Images images(args);
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < args.c; ++channel) {
    const Affine affine = BatchAffine(args, images, channel);
    NormalizeChannel<kActivation>(images, channel, affine, args.x, args.y);
  }
}

template <Activation kActivation>
void TrainBackwardBlocks(const BatchNormTrainBackwardArgs& args) {
  const int64_t size = args.h * args.w;
  const Groups groups(args.n, size);
#pragma omp parallel if (IsWorthThreads(args.n * args.c * size))
  {
    std::vector<float> x(groups.images * size * kLanes), grads(x.size());
#pragma omp for schedule(static)
    for (int64_t index = 0; index < CeilDiv(args.c, kLanes); ++index) {
      const ChannelBlock block(args.c, index);
      BlockGradients gradients(AffineOf(args, block));
      groups.ForEach([&](int64_t image, int64_t images) {
        block.LoadImages(args.x, image, images, size, x.data());
        block.LoadImages(args.dy, image, images, size, grads.data());
        gradients.Add<kActivation>(x.data(), grads.data(), images * size);
        if (!groups.IsOne()) block.StoreImages(grads.data(), image, images, size, args.dx);
      });
      FinishBlock(args, block, groups, &gradients, x.data(), grads.data());
    }
  }
}

template <Activation kActivation>
void TrainBackward(const BatchNormTrainBackwardArgs& args) {
  if (args.h * args.w <= kBackwardBlocks) return TrainBackwardBlocks<kActivation>(args);
  const Images images(args);
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < args.c; ++channel) {
    const Affine affine = {args.mean[channel], args.inverse_std[channel], args.gamma[channel], args.beta[channel]};
    BackwardChannel<kActivation, true>(images, channel, affine, args.x, args.dy, args.dx, args.dgamma + channel,
                                       args.dbeta + channel);
  }
}

// The moving statistics of one channel, as what normalises it.
template <typename Args>
Affine MovingAffine(const Args& args, int64_t channel) {
  const float inverse_std = 1.0f / std::sqrt(args.moving_variance[channel] + args.eps);
  return {args.moving_mean[channel], inverse_std, args.gamma[channel], args.beta[channel]};
}

template <Activation kActivation>
void Infer(const BatchNormInferArgs& args) {
  const Images images(args);
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < args.c; ++channel) {
    NormalizeChannel<kActivation>(images, channel, MovingAffine(args, channel), args.x, args.y);
  }
}

template <Activation kActivation>
void InferBackward(const BatchNormInferBackwardArgs& args) {
  const Images images(args);
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < args.c; ++channel) {
    BackwardChannel<kActivation, false>(images, channel, MovingAffine(args, channel), args.x, args.dy, args.dx,
                                        args.dgamma + channel, args.dbeta + channel);
  }
}

}  // namespace

#define EXPORT_ACTIVATIONS(name, kernel)          \
  EXPORT(name##Linear, kernel<Activation::kNone>) \
  EXPORT(name##ReLU, kernel<Activation::kReLU>)   \
  EXPORT(name##ReLU6, kernel<Activation::kReLU6>)

EXPORT_ACTIVATIONS(BatchNormTrain, Train)
EXPORT_ACTIVATIONS(BatchNormTrainBackward, TrainBackward)
EXPORT_ACTIVATIONS(BatchNormInfer, Infer)
EXPORT_ACTIVATIONS(BatchNormInferBackward, InferBackward)
