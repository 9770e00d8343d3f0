// Layer normalisation over the channels of a map: (N, C, H, W), each pixel on its own. Pixels fill the vectors, so no
// sum runs across lanes, and nothing has to be transposed to tokens.

#include <algorithm>
#include <cmath>
#include <vector>

#include "operators.h"
#include "vectors.h"

namespace {

constexpr int64_t kPixels = 256;  // pixels at a time: their channels stay in the second-level cache

struct Map {
  int64_t n, c, size, parts = CeilDiv(size, kPixels), blocks = n * parts;

  int64_t Offset(int64_t block) const { return block / parts * c * size + block % parts * kPixels; }
  int64_t PixelOffset(int64_t block) const { return block / parts * size + block % parts * kPixels; }
  int64_t Length(int64_t block) const { return std::min(kPixels, size - block % parts * kPixels); }
};

void Forward(const ChannelNormArgs& args) {
  const int64_t c = args.c;
  const Map map{args.n, c, args.h * args.w};
  const float *gamma = args.gamma, *beta = args.beta, eps = args.eps;
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < map.blocks; ++block) {
    const int64_t length = map.Length(block);
    const float* x = args.x + map.Offset(block);
    float* y = args.y + map.Offset(block);
    float mean[kPixels] = {}, scale[kPixels] = {};
    for (int64_t k = 0; k < c; ++k) {
#pragma omp simd
      for (int64_t i = 0; i < length; ++i) mean[i] += x[k * map.size + i];
    }
    for (int64_t i = 0; i < length; ++i) mean[i] /= c;
    for (int64_t k = 0; k < c; ++k) {
#pragma omp simd
      for (int64_t i = 0; i < length; ++i) {
        const float distance = x[k * map.size + i] - mean[i];
        scale[i] += distance * distance;
      }
    }
    for (int64_t i = 0; i < length; ++i) scale[i] = 1.0f / std::sqrt(scale[i] / c + eps);
    for (int64_t k = 0; k < c; ++k) {
      const float *from = x + k * map.size, factor = gamma[k], shift = beta[k];
      float* __restrict to = y + k * map.size;
#pragma omp simd
      for (int64_t i = 0; i < length; ++i) to[i] = (from[i] - mean[i]) * scale[i] * factor + shift;
    }
    std::copy(mean, mean + length, args.mean + map.PixelOffset(block));
    std::copy(scale, scale + length, args.inverse_std + map.PixelOffset(block));
  }
}

// One block's dx, and its part of dgamma and dbeta added to `sums` (2, C).
void BackwardBlock(const float* x, const float* gamma, const float* mean, const float* scale, const float* dy,
                   float* dx, int64_t c, int64_t size, int64_t length, double* sums) {
  float total[kPixels] = {}, product[kPixels] = {};
  for (int64_t k = 0; k < c; ++k) {
    const float *value = x + k * size, *grad = dy + k * size, factor = gamma[k];
    float dgamma = 0, dbeta = 0;
#pragma omp simd reduction(+ : dgamma, dbeta)
    for (int64_t i = 0; i < length; ++i) {
      const float normalized = (value[i] - mean[i]) * scale[i];
      dbeta += grad[i];
      dgamma += grad[i] * normalized;
      total[i] += grad[i] * factor;
      product[i] += grad[i] * factor * normalized;
    }
    sums[k] += dgamma;
    sums[c + k] += dbeta;
  }
  for (int64_t i = 0; i < length; ++i) {
    total[i] /= c;
    product[i] /= c;
  }
  for (int64_t k = 0; k < c; ++k) {
    const float *value = x + k * size, *grad = dy + k * size, factor = gamma[k];
    float* __restrict to = dx + k * size;
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) {
      const float normalized = (value[i] - mean[i]) * scale[i];
      to[i] = scale[i] * (grad[i] * factor - total[i] - normalized * product[i]);
    }
  }
}

void Backward(const ChannelNormBackwardArgs& args) {
  const int64_t c = args.c;
  const Map map{args.n, c, args.h * args.w};
  const int64_t slices = std::min<int64_t>(map.blocks, 32);
  std::vector<double> sums(slices * 2 * c);
#pragma omp parallel for schedule(static)
  for (int64_t slice = 0; slice < slices; ++slice) {
    for (int64_t block = slice * map.blocks / slices; block < (slice + 1) * map.blocks / slices; ++block) {
      const int64_t at = map.Offset(block), pixel = map.PixelOffset(block);
      BackwardBlock(args.x + at, args.gamma, args.mean + pixel, args.inverse_std + pixel, args.dy + at, args.dx + at, c,
                    map.size, map.Length(block), &sums[slice * 2 * c]);
    }
  }
  for (int64_t k = 0; k < 2 * c; ++k) {
    double sum = 0;
    for (int64_t slice = 0; slice < slices; ++slice) sum += sums[slice * 2 * c + k];
    float* to = k < c ? args.dgamma : args.dbeta;
    to[k % c] = static_cast<float>(sum);
  }
}

}  // namespace

EXPORT(ChannelNorm, Forward)
EXPORT(ChannelNormBackward, Backward)
