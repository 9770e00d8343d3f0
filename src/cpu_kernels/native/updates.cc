// What a training step does to all parameters at once, in place.

#include "operators.h"

namespace {

void Momentum(const MomentumUpdateArgs& args) {
  const float rate = *args.learning_rate, momentum = *args.momentum;
#pragma omp parallel
  for (int64_t entry = 0; entry < args.entries; ++entry) {
    float* __restrict weight = args.weight[entry];
    float* __restrict moment = args.moment[entry];
    const float* gradient = args.gradient[entry];
    const float decay = args.decays[entry];
#pragma omp for simd schedule(static) nowait
    for (int64_t i = 0; i < args.sides[entry]; ++i) {
      const float slope = decay == 0.0f ? gradient[i] : gradient[i] + decay * weight[i];
      moment[i] = momentum * moment[i] + slope;
      weight[i] -= rate * moment[i];
    }
  }
  *args.done = 1.0f;
}

void Average(const MovingAverageArgs& args) {
  const float old_share = args.decay, new_share = 1.0f - args.decay;
#pragma omp parallel
  for (int64_t entry = 0; entry < args.entries; ++entry) {
    float* __restrict average = args.average[entry];
    const float* value = args.value[entry];
#pragma omp for simd schedule(static) nowait
    for (int64_t i = 0; i < args.sides[entry]; ++i) average[i] = average[i] * old_share + value[i] * new_share;
  }
  *args.done = 1.0f;
}

}  // namespace

EXPORT(MomentumUpdate, Momentum)
EXPORT(MovingAverage, Average)
