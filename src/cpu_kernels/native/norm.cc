// Layer normalisation over the channels of a map: (N, C, H, W), each pixel on its own. Pixels fill the vectors, so no
// sum runs across lanes, and nothing has to be transposed to tokens.

#include <cmath>
#include <vector>

#include "common.h"

namespace {

constexpr int64_t kPixels = 256;  // pixels at a time: their channels stay in the second-level cache

struct Map {
  int64_t n, c, size, parts = CeilDiv(size, kPixels), blocks = n * parts;

  int64_t Offset(int64_t block) const { return block / parts * c * size + block % parts * kPixels; }
  int64_t PixelOffset(int64_t block) const { return block / parts * size + block % parts * kPixels; }
  int64_t Length(int64_t block) const { return std::min(kPixels, size - block % parts * kPixels); }
};

// x (N, C, H, W), gamma, beta, (eps) -> y, mean (N, H, W), 1 / std (N, H, W)
int Forward(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const int64_t n = args.shapes[0][0], c = args.shapes[0][1], h = args.shapes[0][2], w = args.shapes[0][3];
  if (!Matches(args, {{n, c, h, w}, {c}, {c}, {1}, {n, c, h, w}, {n, h, w}, {n, h, w}})) return kBadArguments;
  const Map map{n, c, h * w};
  const float *gamma = args[1], *beta = args[2], eps = args[3][0];
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < map.blocks; ++block) {
    const int64_t length = map.Length(block);
    const float* x = args[0] + map.Offset(block);
    float* y = args[4] + map.Offset(block);
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
    std::copy(mean, mean + length, args[5] + map.PixelOffset(block));
    std::copy(scale, scale + length, args[6] + map.PixelOffset(block));
  }
  return 0;
}

// One block's dx, and its share of dgamma and dbeta added to `sums` (2, C).
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

// x, gamma, mean, 1 / std, dy -> dx, dgamma, dbeta
int Backward(const Arguments& args) {
  if (!HasImages(args)) return kBadArguments;
  const int64_t n = args.shapes[0][0], c = args.shapes[0][1], h = args.shapes[0][2], w = args.shapes[0][3];
  if (!Matches(args, {{n, c, h, w}, {c}, {n, h, w}, {n, h, w}, {n, c, h, w}, {n, c, h, w}, {c}, {c}})) {
    return kBadArguments;
  }
  const Map map{n, c, h * w};
  const int64_t slices = std::min<int64_t>(map.blocks, 32);
  std::vector<double> sums(slices * 2 * c);
#pragma omp parallel for schedule(static)
  for (int64_t slice = 0; slice < slices; ++slice) {
    for (int64_t block = slice * map.blocks / slices; block < (slice + 1) * map.blocks / slices; ++block) {
      const int64_t at = map.Offset(block), pixel = map.PixelOffset(block);
      BackwardBlock(args[0] + at, args[1], args[2] + pixel, args[3] + pixel, args[4] + at, args[5] + at, c, map.size,
                    map.Length(block), &sums[slice * 2 * c]);
    }
  }
  for (int64_t k = 0; k < 2 * c; ++k) {
    double sum = 0;
    for (int64_t slice = 0; slice < slices; ++slice) sum += sums[slice * 2 * c + k];
    args[k < c ? 6 : 7][k % c] = static_cast<float>(sum);
  }
  return 0;
}

}  // namespace

EXPORT(ChannelNormForward, Forward)
EXPORT(ChannelNormBackward, Backward)
