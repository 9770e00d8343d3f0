// Depthwise 3x3 convolution, padding 1. A plane is copied into a zero-bordered buffer and then treated as one long row:
// output p is a sum over taps of weight * plane[p + offset], including a few outputs between two rows that nobody
// reads. That keeps the vector units busy for 7 x 7 planes too and needs no border cases. With stride 2 the bordered
// plane is split into four phases (even / odd rows times even / odd columns), after which the offsets are contiguous
// again.

#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int kTaps = 9;

template <int kStride>
struct Layout {
  static constexpr int kPhases = kStride * kStride;
  int64_t h, w, out_h, out_w, out_size, pitch, phase_size, flat_size, margin;

  Layout(int64_t height, int64_t width)
      : h(height),
        w(width),
        out_h((height - 1) / kStride + 1),
        out_w((width - 1) / kStride + 1),
        out_size(out_h * out_w),
        pitch(kStride == 1 ? out_w + 2 : out_w + 1),
        phase_size((kStride == 1 ? out_h + 2 : out_h + 1) * pitch),
        flat_size((out_h - 1) * pitch + out_w),
        margin(Offset(kTaps - 1)) {}

  static constexpr int Phase(int tap) { return (tap / 3 % kStride) * kStride + tap % 3 % kStride; }
  int64_t Offset(int tap) const { return tap / 3 / kStride * pitch + tap % 3 / kStride; }

  // Copies a dense H x W plane into its phases; the borders of `phases` are zero and stay so.
  void Split(const float* plane, float* phases) const {
    for (int64_t y = 0; y < h; ++y) {
      const float* row = plane + y * w;
      float* base = phases + (y + 1) % kStride * kStride * phase_size + (y + 1) / kStride * pitch;
      if constexpr (kStride == 1) {
        std::memcpy(base + 1, row, w * sizeof(float));
      } else {
        float* even = base + 1;
        float* odd = base + phase_size;
        const int64_t pairs = w / 2;
#pragma omp simd
        for (int64_t i = 0; i < pairs; ++i) {
          odd[i] = row[2 * i];
          even[i] = row[2 * i + 1];
        }
        if (w % 2) odd[pairs] = row[w - 1];
      }
    }
  }

  // The inverse of Split.
  void Join(const float* phases, float* plane) const {
    for (int64_t y = 0; y < h; ++y) {
      float* row = plane + y * w;
      const float* base = phases + (y + 1) % kStride * kStride * phase_size + (y + 1) / kStride * pitch;
      if constexpr (kStride == 1) {
        std::memcpy(row, base + 1, w * sizeof(float));
      } else {
        const float* even = base + 1;
        const float* odd = base + phase_size;
        const int64_t pairs = w / 2;
#pragma omp simd
        for (int64_t i = 0; i < pairs; ++i) {
          row[2 * i] = odd[i];
          row[2 * i + 1] = even[i];
        }
        if (w % 2) row[w - 1] = odd[pairs];
      }
    }
  }

  void CopyRows(const float* from, int64_t from_pitch, float* to, int64_t to_pitch) const {
    for (int64_t y = 0; y < out_h; ++y) std::memcpy(to + y * to_pitch, from + y * from_pitch, out_w * sizeof(float));
  }
};

// out[p] = sum over taps of weights[tap] * sources[tap][p]
template <int kCount>
void WeightedSum(const std::array<const float*, kCount>& sources, const std::array<float, kCount>& weights,
                 float* __restrict out, int64_t size) {
#pragma omp simd
  for (int64_t p = 0; p < size; ++p) {
    float sum = weights[0] * sources[0][p];
    for (int tap = 1; tap < kCount; ++tap) sum += weights[tap] * sources[tap][p];
    out[p] = sum;
  }
}

template <int kStride>
void DepthwisePlane(const Layout<kStride>& layout, const float* phases, const float* weight, float* flat) {
  std::array<const float*, kTaps> sources;
  std::array<float, kTaps> weights;
  for (int tap = 0; tap < kTaps; ++tap) {
    sources[tap] = phases + layout.Phase(tap) * layout.phase_size + layout.Offset(tap);
    weights[tap] = weight[tap];
  }
  WeightedSum<kTaps>(sources, weights, flat, layout.flat_size);
}

// grads[q] = sum over the taps of one phase of weight[tap] * dy[q - offset(tap)]
template <int kStride, int kPhase>
void PhaseGradient(const Layout<kStride>& layout, const float* dy, const float* weight, float* grads) {
  constexpr int kRows = kStride == 1 ? 3 : (kPhase / 2 ? 1 : 2);
  constexpr int kColumns = kStride == 1 ? 3 : (kPhase % 2 ? 1 : 2);
  std::array<const float*, kRows * kColumns> sources;
  std::array<float, kRows * kColumns> weights;
  int used = 0;
  for (int tap = 0; tap < kTaps; ++tap) {
    if (layout.Phase(tap) != kPhase) continue;
    sources[used] = dy - layout.Offset(tap);
    weights[used++] = weight[tap];
  }
  WeightedSum<kRows * kColumns>(sources, weights, grads + kPhase * layout.phase_size, layout.phase_size);
}

// sums[tap] += sum over p of dy[p] * plane[p + offset(tap)]; the gaps between the rows of dy are zero.
template <int kStride>
void AccumulateWeightGradient(const Layout<kStride>& layout, const float* phases, const float* dy, double* sums) {
  for (int row = 0; row < 3; ++row) {
    const int tap = 3 * row;
    const float* a = phases + layout.Phase(tap) * layout.phase_size + layout.Offset(tap);
    const float* b = phases + layout.Phase(tap + 1) * layout.phase_size + layout.Offset(tap + 1);
    const float* c = phases + layout.Phase(tap + 2) * layout.phase_size + layout.Offset(tap + 2);
    float sum_a = 0, sum_b = 0, sum_c = 0;
#pragma omp simd reduction(+ : sum_a, sum_b, sum_c)
    for (int64_t p = 0; p < layout.flat_size; ++p) {
      sum_a += dy[p] * a[p];
      sum_b += dy[p] * b[p];
      sum_c += dy[p] * c[p];
    }
    sums[tap] += sum_a;
    sums[tap + 1] += sum_b;
    sums[tap + 2] += sum_c;
  }
}

// Gradients of one channel: Begin with its weight, Add every plane, End with the sum for the weight. Holds the buffers
// of one thread.
template <int kStride>
class DepthwiseGradients {
 public:
  explicit DepthwiseGradients(const Layout<kStride>& layout)
      : layout_(layout),
        phases_(layout.kPhases * layout.phase_size),
        grads_(phases_.size()),
        padded_dy_(layout.margin + layout.phase_size) {}

  void Begin(const float* weight) {
    weight_ = weight;
    sums_.fill(0);
  }

  // x and dx are H x W, dy is as large as the output.
  void Add(const float* x, const float* dy, float* dx) {
    float* rows = padded_dy_.data() + layout_.margin;
    layout_.Split(x, phases_.data());
    layout_.CopyRows(dy, layout_.out_w, rows, layout_.pitch);
    AccumulateWeightGradient(layout_, phases_.data(), rows, sums_.data());
    PhaseGradient<kStride, 0>(layout_, rows, weight_, grads_.data());
    if constexpr (kStride == 2) {
      PhaseGradient<kStride, 1>(layout_, rows, weight_, grads_.data());
      PhaseGradient<kStride, 2>(layout_, rows, weight_, grads_.data());
      PhaseGradient<kStride, 3>(layout_, rows, weight_, grads_.data());
    }
    layout_.Join(grads_.data(), dx);
  }

  void End(float* dweight) const { std::copy(sums_.begin(), sums_.end(), dweight); }

 private:
  const Layout<kStride>& layout_;
  std::vector<float> phases_, grads_, padded_dy_;
  const float* weight_ = nullptr;
  std::array<double, kTaps> sums_{};
};

}  // namespace
