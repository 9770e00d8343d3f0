// Depthwise 3x3 convolution with stride 1 and bias, followed by the exact GELU: (N, C, H, W) -> the same shape.
// Nothing is kept for the backward kernel: nine products are cheaper than another pass over memory.

#include <vector>

#include "convolutions/depthwise.h"
#include "operators.h"
#include "vectors.h"

namespace {

// exp(-x * x / 2)
inline Vector GaussianExp(Vector x) { return Exp2(x * x * (-0.5f * kLog2E)); }

// The complementary error function of |x| / sqrt(2), by formula 7.1.26 of Abramowitz and Stegun (error 1.5e-7);
// gaussian = GaussianExp(x).
inline Vector Erfc(Vector x, Vector gaussian) {
  const Vector distance = (x < 0.0f ? -x : x) * 0.70710678f;
  const Vector t = 1.0f / (distance * 0.3275911f + 1.0f);
  Vector y = t * 1.061405429f - 1.453152027f;
  y = y * t + 1.421413741f;
  y = y * t - 0.284496736f;
  y = y * t + 0.254829592f;
  return y * t * gaussian;
}

// The normal distribution's cumulative probability at x; gaussian = GaussianExp(x).
inline Vector NormalCdf(Vector x, Vector gaussian) {
  const Vector tail = Erfc(x, gaussian) * 0.5f;
  return x < 0.0f ? tail : 1.0f - tail;
}

// Calls work(y, x, length) for a plane's rows in vectors; the last one of a row holds fewer than kLanes pixels.
template <typename Work>
void ForEachVector(const Layout<1>& layout, Work work) {
  for (int64_t y = 0; y < layout.h; ++y) {
    for (int64_t x = 0; x < layout.w; x += kLanes) work(y, x, std::min<int64_t>(kLanes, layout.w - x));
  }
}

void Forward(const DepthwiseGeluArgs& args) {
  const int64_t n = args.n, c = args.c, h = args.h, w = args.w;
  const Layout<1> layout(h, w);
#pragma omp parallel
  {
    std::vector<float> plane(layout.phase_size), flat(layout.flat_size + kLanes);
#pragma omp for schedule(static)
    for (int64_t at = 0; at < n * c; ++at) {
      layout.Split(args.x + at * h * w, plane.data());
      DepthwisePlane(layout, plane.data(), args.weight + at % c * kTaps, flat.data());
      const float bias = args.bias[at % c];
      float* out = args.y + at * h * w;
      ForEachVector(layout, [&](int64_t y, int64_t x, int64_t length) {
        const Vector value = Load(&flat[y * layout.pitch + x]) + bias;
        const Vector result = value * NormalCdf(value, GaussianExp(value));
        if (length == kLanes) {
          Store(out + y * w + x, result);
        } else {
          std::memcpy(out + y * w + x, &result, length * sizeof(float));
        }
      });
    }
  }
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
    const Vector gaussian = GaussianExp(value);
    const Vector result = incoming * (NormalCdf(value, gaussian) + value * gaussian * 0.39894228f);
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

void Backward(const DepthwiseGeluBackwardArgs& args) {
  const int64_t n = args.n, c = args.c, h = args.h, w = args.w;
  const Layout<1> layout(h, w);
#pragma omp parallel
  {
    std::vector<float> plane(layout.phase_size), flat(layout.flat_size + kLanes), grads(layout.phase_size);
    std::vector<float> padded(layout.margin + layout.phase_size);
    float* grad = padded.data() + layout.margin;
#pragma omp for schedule(static)
    for (int64_t channel = 0; channel < c; ++channel) {
      const float* weight = args.weight + channel * kTaps;
      double sums[kTaps] = {}, bias_sum = 0;
      for (int64_t image = 0; image < n; ++image) {
        const int64_t at = (image * c + channel) * h * w;
        layout.Split(args.x + at, plane.data());
        DepthwisePlane(layout, plane.data(), weight, flat.data());
        bias_sum += GeluGradient(layout, flat.data(), args.bias[channel], args.dy + at, grad);
        AccumulateWeightGradient(layout, plane.data(), grad, sums);
        PhaseGradient<1, 0>(layout, grad, weight, grads.data());
        layout.Join(grads.data(), args.dx + at);
      }
      std::copy(sums, sums + kTaps, args.dweight + channel * kTaps);
      args.dbias[channel] = static_cast<float>(bias_sum);
    }
  }
}

}  // namespace

EXPORT(DepthwiseGelu, Forward)
EXPORT(DepthwiseGeluBackward, Backward)
