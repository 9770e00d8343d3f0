// Training kernels for MobileNet-like networks: depthwise and pointwise convolution, batch normalisation. NCHW.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "common.h"
#include "depthwise.h"
#include "matrix.h"

namespace {

constexpr int64_t kChunk = 4096;  // floats that stay in the first-level cache between two passes

template <int kStride>
int DepthwiseForward(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const int64_t n = args.shapes[0][0], c = args.shapes[0][1], h = args.shapes[0][2], w = args.shapes[0][3];
  const Layout<kStride> layout(h, w);
  if (!Matches(args, {{n, c, h, w}, {c, 1, 3, 3}, {n, c, layout.out_h, layout.out_w}})) return kBadArguments;
  const float* x = args[0];
  const float* weight = args[1];
  float* y = args[2];
#pragma omp parallel
  {
    std::vector<float> phases(layout.kPhases * layout.phase_size), flat(layout.flat_size);
#pragma omp for schedule(static)
    for (int64_t plane = 0; plane < n * c; ++plane) {
      layout.Split(x + plane * h * w, phases.data());
      DepthwisePlane(layout, phases.data(), weight + plane % c * kTaps, flat.data());
      layout.CopyRows(flat.data(), layout.pitch, y + plane * layout.out_size, layout.out_w);
    }
  }
  return 0;
}

// x, weight, dy -> dx, dweight
template <int kStride>
int DepthwiseBackward(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const int64_t n = args.shapes[0][0], c = args.shapes[0][1], h = args.shapes[0][2], w = args.shapes[0][3];
  const Layout<kStride> layout(h, w);
  if (!Matches(args, {{n, c, h, w}, {c, 1, 3, 3}, {n, c, layout.out_h, layout.out_w}, {n, c, h, w}, {c, 1, 3, 3}})) {
    return kBadArguments;
  }
#pragma omp parallel
  {
    DepthwiseGradients<kStride> gradients(layout);
#pragma omp for schedule(static)
    for (int64_t channel = 0; channel < c; ++channel) {
      gradients.Begin(args[1] + channel * kTaps);
      for (int64_t image = 0; image < n; ++image) {
        const int64_t plane = image * c + channel;
        gradients.Add(args[0] + plane * h * w, args[2] + plane * layout.out_size, args[3] + plane * h * w);
      }
      gradients.End(args[4] + channel * kTaps);
    }
  }
  return 0;
}

// x, weight -> y
int ForwardPointwise(const Arguments& args) {
  if (!HasImages(args) || args.count != 3 || args.ndims[1] != 4) return kBadArguments;
  const int64_t n = args.shapes[0][0], c = args.shapes[0][1], h = args.shapes[0][2], w = args.shapes[0][3];
  const int64_t out = args.shapes[1][0];
  if (!Matches(args, {{n, c, h, w}, {out, c, 1, 1}, {n, out, h, w}})) return kBadArguments;
  Multiply(PackMatrix(args[1], out, c, c, 1).data(), args[0], args[2], n, out, c, h * w);
  return 0;
}

// x, weight, dy -> dx, dweight
int BackwardPointwise(const Arguments& args) {
  if (!HasImages(args) || args.count != 5 || args.ndims[1] != 4) return kBadArguments;
  const int64_t n = args.shapes[0][0], c = args.shapes[0][1], h = args.shapes[0][2], w = args.shapes[0][3];
  const int64_t out = args.shapes[1][0];
  if (!Matches(args, {{n, c, h, w}, {out, c, 1, 1}, {n, out, h, w}, {n, c, h, w}, {out, c, 1, 1}})) {
    return kBadArguments;
  }
  Multiply(PackMatrix(args[1], c, out, 1, c).data(), args[2], args[3], n, c, out, h * w);
  if (out > c) {
    Products(args[0], args[2], args[4], n, c, out, h * w, 1, c);
  } else {
    Products(args[2], args[0], args[4], n, out, c, h * w, c, 1);
  }
  return 0;
}

// Batch normalisation, and what may follow it in the same pass.
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

  explicit Images(const Arguments& args)
      : n(args.shapes[0][0]), c(args.shapes[0][1]), size(args.shapes[0][2] * args.shapes[0][3]) {}

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

// The batch's statistics of one channel of args[0], as what normalises it. Arguments 1 to 5 are gamma, beta, moving
// mean, moving variance, (eps, momentum); four outputs from `output` on get batch mean, batch inverse standard
// deviation, new moving mean, new moving variance.
Affine BatchAffine(const Arguments& args, const Images& images, int64_t channel, int output) {
  const double eps = args[5][0], momentum = args[5][1];
  Moments moments;
  images.ForEachChunk(channel, [&](int64_t offset, int64_t length) { moments.Add(args[0] + offset, length); });
  const double variance = moments.squares / moments.count;
  const Affine affine = {static_cast<float>(moments.mean), static_cast<float>(1.0 / std::sqrt(variance + eps)),
                         args[1][channel], args[2][channel]};
  args[output][channel] = affine.mean;
  args[output + 1][channel] = affine.inverse_std;
  args[output + 2][channel] = static_cast<float>(momentum * args[3][channel] + (1.0 - momentum) * moments.mean);
  // The stock operator keeps the unbiased variance. A batch of one value has none; 0 keeps NaN out of the average.
  const double unbiased = moments.squares / std::max(moments.count - 1.0, 1.0);
  args[output + 3][channel] = static_cast<float>(momentum * args[4][channel] + (1.0 - momentum) * unbiased);
  return affine;
}

// x, gamma, beta, moving mean, moving variance, (eps, momentum)
//   -> y, batch mean, batch inverse standard deviation, new moving mean, new moving variance
template <Activation kActivation>
int BatchNormTrain(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const Images images(args);
  const int64_t n = images.n, c = images.c, h = args.shapes[0][2], w = args.shapes[0][3];
  if (!Matches(args, {{n, c, h, w}, {c}, {c}, {c}, {c}, {2}, {n, c, h, w}, {c}, {c}, {c}, {c}})) return kBadArguments;
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < c; ++channel) {
    const Affine affine = BatchAffine(args, images, channel, 7);
    NormalizeChannel<kActivation>(images, channel, affine, args[0], args[6]);
  }
  return 0;
}

// x, gamma, beta, moving mean, moving variance, (eps, momentum) -> y
template <Activation kActivation>
int BatchNormInfer(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const Images images(args);
  const int64_t n = images.n, c = images.c, h = args.shapes[0][2], w = args.shapes[0][3];
  if (!Matches(args, {{n, c, h, w}, {c}, {c}, {c}, {c}, {2}, {n, c, h, w}})) return kBadArguments;
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < c; ++channel) {
    const float inverse_std = 1.0f / std::sqrt(args[4][channel] + args[5][0]);
    const Affine affine = {args[3][channel], inverse_std, args[1][channel], args[2][channel]};
    NormalizeChannel<kActivation>(images, channel, affine, args[0], args[6]);
  }
  return 0;
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

// x, gamma, beta, batch mean, batch inverse standard deviation, dy -> dx, dgamma, dbeta
template <Activation kActivation>
int BatchNormTrainBackward(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const Images images(args);
  const int64_t n = images.n, c = images.c, h = args.shapes[0][2], w = args.shapes[0][3];
  if (!Matches(args, {{n, c, h, w}, {c}, {c}, {c}, {c}, {n, c, h, w}, {n, c, h, w}, {c}, {c}})) return kBadArguments;
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < c; ++channel) {
    const Affine affine = {args[3][channel], args[4][channel], args[1][channel], args[2][channel]};
    BackwardChannel<kActivation, true>(images, channel, affine, args[0], args[5], args[6], args[7] + channel,
                                       args[8] + channel);
  }
  return 0;
}

// x, gamma, beta, moving mean, moving variance, (eps, momentum), dy -> dx, dgamma, dbeta
template <Activation kActivation>
int BatchNormInferBackward(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const Images images(args);
  const int64_t n = images.n, c = images.c, h = args.shapes[0][2], w = args.shapes[0][3];
  if (!Matches(args, {{n, c, h, w}, {c}, {c}, {c}, {c}, {2}, {n, c, h, w}, {n, c, h, w}, {c}, {c}})) {
    return kBadArguments;
  }
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < c; ++channel) {
    const float inverse_std = 1.0f / std::sqrt(args[4][channel] + args[5][0]);
    const Affine affine = {args[3][channel], inverse_std, args[1][channel], args[2][channel]};
    BackwardChannel<kActivation, false>(images, channel, affine, args[0], args[6], args[7], args[8] + channel,
                                        args[9] + channel);
  }
  return 0;
}

// Batch normalisation in training, ReLU6 and the depthwise convolution that follows. What lies between is computed a
// plane at a time and never stored: backward computes it again.

// x, gamma, beta, moving mean, moving variance, (eps, momentum), weight
//   -> y, batch mean, batch inverse standard deviation, new moving mean, new moving variance
template <int kStride>
int NormDepthwise(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const Images images(args);
  const int64_t n = images.n, c = images.c, h = args.shapes[0][2], w = args.shapes[0][3];
  const Layout<kStride> layout(h, w);
  if (!Matches(args, {{n, c, h, w},
                      {c},
                      {c},
                      {c},
                      {c},
                      {2},
                      {c, 1, 3, 3},
                      {n, c, layout.out_h, layout.out_w},
                      {c},
                      {c},
                      {c},
                      {c}})) {
    return kBadArguments;
  }
#pragma omp parallel
  {
    std::vector<float> plane(h * w), phases(layout.kPhases * layout.phase_size), flat(layout.flat_size);
#pragma omp for schedule(static)
    for (int64_t channel = 0; channel < c; ++channel) {
      const Affine affine = BatchAffine(args, images, channel, 8);
      for (int64_t image = 0; image < n; ++image) {
        const int64_t index = image * c + channel;
        Normalize<Activation::kReLU6>(affine, args[0] + index * h * w, plane.data(), h * w);
        layout.Split(plane.data(), phases.data());
        DepthwisePlane(layout, phases.data(), args[6] + channel * kTaps, flat.data());
        layout.CopyRows(flat.data(), layout.pitch, args[7] + index * layout.out_size, layout.out_w);
      }
    }
  }
  return 0;
}

// x, gamma, beta, batch mean, batch inverse standard deviation, weight, dy -> dx, dgamma, dbeta, dweight
template <int kStride>
int NormDepthwiseBackward(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const Images images(args);
  const int64_t n = images.n, c = images.c, h = args.shapes[0][2], w = args.shapes[0][3];
  const Layout<kStride> layout(h, w);
  if (!Matches(args, {{n, c, h, w},
                      {c},
                      {c},
                      {c},
                      {c},
                      {c, 1, 3, 3},
                      {n, c, layout.out_h, layout.out_w},
                      {n, c, h, w},
                      {c},
                      {c},
                      {c, 1, 3, 3}})) {
    return kBadArguments;
  }
#pragma omp parallel
  {
    DepthwiseGradients<kStride> gradients(layout);
    std::vector<float> plane(h * w);
#pragma omp for schedule(static)
    for (int64_t channel = 0; channel < c; ++channel) {
      const Affine affine = {args[3][channel], args[4][channel], args[1][channel], args[2][channel]};
      gradients.Begin(args[5] + channel * kTaps);
      for (int64_t image = 0; image < n; ++image) {
        const int64_t index = image * c + channel;
        Normalize<Activation::kReLU6>(affine, args[0] + index * h * w, plane.data(), h * w);
        gradients.Add(plane.data(), args[6] + index * layout.out_size, args[7] + index * h * w);
      }
      gradients.End(args[10] + channel * kTaps);
      BackwardChannel<Activation::kReLU6, true>(images, channel, affine, args[0], args[7], args[7], args[8] + channel,
                                                args[9] + channel);
    }
  }
  return 0;
}

}  // namespace

#define EXPORT_ACTIVATIONS(name)                \
  EXPORT(name##Linear, name<Activation::kNone>) \
  EXPORT(name##ReLU, name<Activation::kReLU>)   \
  EXPORT(name##ReLU6, name<Activation::kReLU6>)

EXPORT(DepthwiseForwardS1, DepthwiseForward<1>)
EXPORT(DepthwiseForwardS2, DepthwiseForward<2>)
EXPORT(DepthwiseBackwardS1, DepthwiseBackward<1>)
EXPORT(DepthwiseBackwardS2, DepthwiseBackward<2>)
EXPORT(PointwiseForward, ForwardPointwise)
EXPORT(PointwiseBackward, BackwardPointwise)
EXPORT_ACTIVATIONS(BatchNormTrain)
EXPORT_ACTIVATIONS(BatchNormTrainBackward)
EXPORT_ACTIVATIONS(BatchNormInfer)
EXPORT_ACTIVATIONS(BatchNormInferBackward)
EXPORT(NormDepthwiseS1, NormDepthwise<1>)
EXPORT(NormDepthwiseS2, NormDepthwise<2>)
EXPORT(NormDepthwiseBackwardS1, NormDepthwiseBackward<1>)
EXPORT(NormDepthwiseBackwardS2, NormDepthwiseBackward<2>)
