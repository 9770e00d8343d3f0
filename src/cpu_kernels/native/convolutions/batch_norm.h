// Batch normalisation of one channel, with what may follow it in the same pass: statistics, result, gradients.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace {

constexpr int64_t kChunk = 4096;  // floats that stay in the first-level cache between two passes

enum class Activation { kNone, kReLU, kReLU6 };

// Both comparisons are false for NaN, so NaN passes through.
template <Activation kActivation>
inline float Activated(float value) {
  if constexpr (kActivation == Activation::kNone) return value;
  value = value < 0.0f ? 0.0f : value;
  if constexpr (kActivation == Activation::kReLU) return value;
  return value > 6.0f ? 6.0f : value;
}

struct Moments {
  double count = 0, mean = 0, squares = 0;  // squares: sum of squared deviations from the mean

  // Adds `size` values; two passes over a cached chunk, merged by the formula of Chan et al.
  void Add(const float* x, int64_t size) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < size; ++i) sum += x[i];
    const double chunk_mean = static_cast<double>(sum) / size;
    const float centre = static_cast<float>(chunk_mean);
    float deviation = 0, squared = 0;
#pragma omp simd reduction(+ : deviation, squared)
    for (int64_t i = 0; i < size; ++i) {
      const float distance = x[i] - centre;
      deviation += distance;
      squared += distance * distance;
    }
    // The second pass also corrects the rounding of the first sum.
    const double exact_mean = centre + static_cast<double>(deviation) / size;
    const double exact_squares = squared - static_cast<double>(deviation) * deviation / size;
    const double total = count + size, delta = exact_mean - mean;
    mean += delta * size / total;
    squares += exact_squares + delta * delta * count * size / total;
    count = total;
  }
};

struct Images {
  int64_t n, c, size;  // size = H * W

  template <typename Args>
  explicit Images(const Args& args) : n(args.n), c(args.c), size(args.h * args.w) {}

  // Calls work(offset, length) for every chunk of a channel, in memory order.
  template <typename Work>
  void ForEachChunk(int64_t channel, Work work) const {
    for (int64_t image = 0; image < n; ++image) {
      const int64_t first = (image * c + channel) * size;
      for (int64_t at = 0; at < size; at += kChunk) work(first + at, std::min(kChunk, size - at));
    }
  }
};

struct Affine {
  float mean, inverse_std, gamma, beta;

  float Normalized(float x) const { return (x - mean) * inverse_std; }
  float Output(float x) const { return (x - mean) * (inverse_std * gamma) + beta; }
};

template <Activation kActivation>
void Normalize(Affine affine, const float* from, float* __restrict to, int64_t length) {
#pragma omp simd
  for (int64_t i = 0; i < length; ++i) to[i] = Activated<kActivation>(affine.Output(from[i]));
}

template <Activation kActivation>
void NormalizeChannel(const Images& images, int64_t channel, Affine affine, const float* x, float* y) {
  images.ForEachChunk(
      channel, [=](int64_t offset, int64_t length) { Normalize<kActivation>(affine, x + offset, y + offset, length); });
}

// What normalises one channel by the batch's statistics; written to the kernel's outputs, with the moved averages.
template <typename Args>
Affine WriteStatistics(const Args& args, int64_t channel, const Moments& moments) {
  const double eps = args.eps, momentum = args.momentum;
  const double variance = moments.squares / moments.count;
  const Affine affine = {static_cast<float>(moments.mean), static_cast<float>(1.0 / std::sqrt(variance + eps)),
                         args.gamma[channel], args.beta[channel]};
  args.mean[channel] = affine.mean;
  args.inverse_std[channel] = affine.inverse_std;
  args.new_mean[channel] = static_cast<float>(momentum * args.moving_mean[channel] + (1.0 - momentum) * moments.mean);
  // The stock operator keeps the unbiased variance. A batch of one value has none; 0 keeps NaN out of the average.
  const double unbiased = moments.squares / std::max(moments.count - 1.0, 1.0);
  args.new_variance[channel] =
      static_cast<float>(momentum * args.moving_variance[channel] + (1.0 - momentum) * unbiased);
  return affine;
}

template <typename Args>
Affine BatchAffine(const Args& args, const Images& images, int64_t channel) {
  Moments moments;
  images.ForEachChunk(channel, [&](int64_t offset, int64_t length) { moments.Add(args.x + offset, length); });
  return WriteStatistics(args, channel, moments);
}

// dy where the activation lets it pass, with the stock operators' limits (6 itself passes, 0 does not). The value
// before it is computed again, by the same expression as in the forward kernel, instead of being kept.
template <Activation kActivation>
inline float Passed(float dy, float x, const Affine& affine) {
  if constexpr (kActivation == Activation::kNone) return dy;
  const float value = affine.Output(x);
  return value > 0.0f && (kActivation == Activation::kReLU || value <= 6.0f) ? dy : 0.0f;
}

// Gradients of one channel. kBatch: mean and variance were those of the batch, so x acts through them as well.
template <Activation kActivation, bool kBatch>
void BackwardChannel(const Images& images, int64_t channel, Affine affine, const float* x, const float* dy, float* dx,
                     float* dgamma, float* dbeta) {
  double sum = 0, sum_normalized = 0;
  images.ForEachChunk(channel, [&](int64_t offset, int64_t length) {
    const float* value = x + offset;
    const float* grad = dy + offset;
    float part = 0, part_normalized = 0;
#pragma omp simd reduction(+ : part, part_normalized)
    for (int64_t i = 0; i < length; ++i) {
      const float normalized = affine.Normalized(value[i]);
      const float passed = Passed<kActivation>(grad[i], value[i], affine);
      part += passed;
      part_normalized += passed * normalized;
    }
    sum += part;
    sum_normalized += part_normalized;
  });
  *dbeta = static_cast<float>(sum);
  *dgamma = static_cast<float>(sum_normalized);
  const double count = static_cast<double>(images.n) * images.size;
  const float mean_grad = kBatch ? static_cast<float>(sum / count) : 0.0f;
  const float mean_product = kBatch ? static_cast<float>(sum_normalized / count) : 0.0f;
  const float scale = affine.gamma * affine.inverse_std;
  images.ForEachChunk(channel, [=](int64_t offset, int64_t length) {
    const float* value = x + offset;
    const float* grad = dy + offset;
    float* out = dx + offset;  // may be grad itself
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) {
      const float normalized = affine.Normalized(value[i]);
      const float passed = Passed<kActivation>(grad[i], value[i], affine);
      out[i] = kBatch ? scale * (passed - mean_grad - normalized * mean_product) : scale * passed;
    }
  });
}

}  // namespace
