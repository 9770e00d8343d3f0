// Depthwise 3x3 convolution with stride 1 and bias, followed by the exact GELU: (N, C, H, W) -> the same shape.
// Nothing is kept for the backward kernel: nine products are cheaper than another pass over memory.

#include <vector>

#include "common.h"
#include "depthwise.h"

namespace {

// Twice the normal distribution's share above |x|, by formula 7.1.26 of Abramowitz and Stegun (error 1.5e-7);
// bell = exp(-x * x / 2).
inline Vector TwoTails(Vector x, Vector bell) {
  const Vector distance = (x < 0.0f ? -x : x) * 0.70710678f;
  const Vector t = 1.0f / (distance * 0.3275911f + 1.0f);
  Vector y = t * 1.061405429f - 1.453152027f;
  y = y * t + 1.421413741f;
  y = y * t - 0.284496736f;
  y = y * t + 0.254829592f;
  return y * t * bell;
}

inline Vector Bell(Vector x) { return Exp2(x * x * (-0.5f * kLog2E)); }

// The normal distribution's share below x.
inline Vector Share(Vector x, Vector bell) {
  const Vector tail = TwoTails(x, bell) * 0.5f;
  return x < 0.0f ? tail : 1.0f - tail;
}

// Calls work(row, of) for whole vectors of a plane's rows, through a buffer at the end of a row.
template <typename Work>
void ForEachVector(const Layout<1>& layout, Work work) {
  for (int64_t y = 0; y < layout.h; ++y) {
    for (int64_t x = 0; x < layout.w; x += kLanes) work(y, x, std::min<int64_t>(kLanes, layout.w - x));
  }
}

// x, weight (C, 1, 3, 3), bias (C,) -> y
int Forward(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const int64_t n = args.shapes[0][0], c = args.shapes[0][1], h = args.shapes[0][2], w = args.shapes[0][3];
  if (!Matches(args, {{n, c, h, w}, {c, 1, 3, 3}, {c}, {n, c, h, w}})) return kBadArguments;
  const Layout<1> layout(h, w);
#pragma omp parallel
  {
    std::vector<float> plane(layout.phase_size), flat(layout.flat_size + kLanes);
#pragma omp for schedule(static)
    for (int64_t at = 0; at < n * c; ++at) {
      layout.Split(args[0] + at * h * w, plane.data());
      DepthwisePlane(layout, plane.data(), args[1] + at % c * kTaps, flat.data());
      const float bias = args[2][at % c];
      float* out = args[3] + at * h * w;
      ForEachVector(layout, [&](int64_t y, int64_t x, int64_t length) {
        const Vector value = Load(&flat[y * layout.pitch + x]) + bias;
        const Vector result = value * Share(value, Bell(value));
        if (length == kLanes) {
          Store(out + y * w + x, result);
        } else {
          std::memcpy(out + y * w + x, &result, length * sizeof(float));
        }
      });
    }
  }
  return 0;
}

// grad (with the layout's gaps between rows) = dy times GELU's derivative at flat + bias; returns the sum.
double GeluGradient(const Layout<1>& layout, const float* flat, float bias, const float* dy, float* grad) {
  Vector total = {};
  ForEachVector(layout, [&](int64_t y, int64_t x, int64_t length) {
    const Vector value = Load(flat + y * layout.pitch + x) + bias;
    Vector incoming = {};
    if (length == kLanes) {
      incoming = Load(dy + y * layout.w + x);
    } else {
      std::memcpy(&incoming, dy + y * layout.w + x, length * sizeof(float));
    }
    const Vector bell = Bell(value);
    const Vector result = incoming * (Share(value, bell) + value * bell * 0.39894228f);
    if (length == kLanes) {
      total += result;
      Store(grad + y * layout.pitch + x, result);
    } else {
      std::memcpy(grad + y * layout.pitch + x, &result, length * sizeof(float));
      for (int64_t i = 0; i < length; ++i) total[i] += result[i];
    }
  });
  double sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += total[i];
  return sum;
}

// x, weight, bias, dy -> dx, dweight, dbias
int Backward(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const int64_t n = args.shapes[0][0], c = args.shapes[0][1], h = args.shapes[0][2], w = args.shapes[0][3];
  const Shape map = {n, c, h, w}, filter = {c, 1, 3, 3};
  if (!Matches(args, {map, filter, {c}, map, map, filter, {c}})) return kBadArguments;
  const Layout<1> layout(h, w);
#pragma omp parallel
  {
    std::vector<float> plane(layout.phase_size), flat(layout.flat_size + kLanes), grads(layout.phase_size);
    std::vector<float> padded(layout.margin + layout.phase_size);
    float* grad = padded.data() + layout.margin;
#pragma omp for schedule(static)
    for (int64_t channel = 0; channel < c; ++channel) {
      const float* weight = args[1] + channel * kTaps;
      double sums[kTaps] = {}, bias_sum = 0;
      for (int64_t image = 0; image < n; ++image) {
        const int64_t at = (image * c + channel) * h * w;
        layout.Split(args[0] + at, plane.data());
        DepthwisePlane(layout, plane.data(), weight, flat.data());
        bias_sum += GeluGradient(layout, flat.data(), args[2][channel], args[3] + at, grad);
        AccumulateWeightGradient(layout, plane.data(), grad, sums);
        PhaseGradient<1, 0>(layout, grad, weight, grads.data());
        layout.Join(grads.data(), args[4] + at);
      }
      std::copy(sums, sums + kTaps, args[5] + channel * kTaps);
      args[6][channel] = static_cast<float>(bias_sum);
    }
  }
  return 0;
}

}  // namespace

EXPORT(DepthwiseGeluForward, Forward)
EXPORT(DepthwiseGeluBackward, Backward)
