// Batch normalisation and the activation that follows it.

#include "batch_norm.h"

#include "operators.h"

namespace {

template <Activation kActivation>
void Train(const BatchNormTrainArgs& args) {
  const Images images(args);
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < args.c; ++channel) {
    const Affine affine = BatchAffine(args, images, channel);
    NormalizeChannel<kActivation>(images, channel, affine, args.x, args.y);
  }
}

template <Activation kActivation>
void TrainBackward(const BatchNormTrainBackwardArgs& args) {
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
