// Matrix products for 1x1 convolutions on small planes: images are made matrices (N * H * W, channels), so that vectors
// run over channels and no plane is too small. The functions are called by all threads of a parallel region.

#pragma once

#include <memory>

#include "channel_blocks.h"
#include "matrix.h"

namespace {

// A matrix whose rows are `pitch` floats apart, a whole number of vectors; what lies behind the last column is zero.
// The memory is that of a tensor where the tensor has this form.
struct Rows {
  int64_t n, c, size, pitch;
  bool is_tensor;
  std::unique_ptr<float[]> own;

  // For images (n, c, size).
  Rows(int64_t images, int64_t channels, int64_t pixels)
      : n(images),
        c(channels),
        size(pixels),
        pitch(CeilDiv(c, kLanes) * kLanes),
        is_tensor(size == 1 && pitch == c),
        own(is_tensor ? nullptr : new float[n * size * pitch]) {}

  const float* Read(const float* x) const { return is_tensor ? x : own.get(); }
  float* Write(float* x) const { return is_tensor ? x : own.get(); }

  void Fill(const float* x) const {
    ForEachBlock([&](int64_t used, int64_t planes, float* rows) { LoadPlanes(x + planes, size, used, rows, pitch); });
  }

  void Empty(float* x) const {
    ForEachBlock([&](int64_t used, int64_t planes, float* rows) { StorePlanes(rows, size, used, x + planes, pitch); });
  }

 private:
  // Calls work(channels of a block, where its planes begin in the tensor, its first row); not where the tensor serves.
  template <typename Work>
  void ForEachBlock(Work work) const {
    if (is_tensor) return;
    const int64_t blocks = pitch / kLanes;
#pragma omp for schedule(static)
    for (int64_t item = 0; item < n * blocks; ++item) {
      const ChannelBlock block(c, item % blocks);
      const int64_t image = item / blocks;
      work(block.used, (image * c + block.first) * size, &own[image * size * pitch + block.first]);
    }
  }
};

// The left matrix of a product: element (row, k) is from[row * row_stride + k * stride].
struct Left {
  const float* from;
  int64_t rows, row_stride, stride;
};

// The right one, (depth, columns), or the product.
template <typename Float>
struct Right {
  Float* from;
  int64_t columns, pitch;
};

constexpr int64_t kDepthChunk = 256;  // terms of a sum of floats; longer ones are sums of such sums

// kRows x (kWidth vectors) of the product, written to `to`; kAdd: added to what is there.
template <int kWidth, bool kAdd>
inline void SumTile(const float* const (&rows)[kRows], int64_t stride, const float* panel, int64_t panel_pitch,
                    int64_t depth, float* to, int64_t pitch) {
  Vector acc[kRows][kWidth] = {};
  for (int64_t k = 0; k < depth; ++k) {
    Vector values[kWidth];
    for (int v = 0; v < kWidth; ++v) values[v] = Load(panel + k * panel_pitch + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const float factor = rows[r][k * stride];
      for (int v = 0; v < kWidth; ++v) acc[r][v] += values[v] * factor;
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kWidth; ++v) {
      float* at = to + r * pitch + v * kLanes;
      Store(at, kAdd ? Load(at) + acc[r][v] : acc[r][v]);
    }
  }
}

template <int kWidth>
inline void ProductTile(const Left& left, const Right<const float>& right, int64_t depth, int64_t row, int64_t column,
                        const Right<float>& product) {
  const float* rows[kRows];  // rows past the end repeat the last one; nobody reads their sums
  for (int r = 0; r < kRows; ++r) rows[r] = left.from + std::min(row + r, left.rows - 1) * left.row_stride;
  const float* panel = right.from + column;
  const int64_t used_rows = std::min<int64_t>(kRows, left.rows - row);
  const int64_t used = std::min<int64_t>(kWidth * kLanes, product.columns - column);
  const bool is_whole = used_rows == kRows && used == kWidth * kLanes;
  float tile[kRows * kWidth * kLanes];
  float* to = is_whole ? product.from + row * product.pitch + column : tile;
  const int64_t pitch = is_whole ? product.pitch : kWidth * kLanes;
  SumTile<kWidth, false>(rows, left.stride, panel, right.pitch, std::min(depth, kDepthChunk), to, pitch);
  for (int64_t start = kDepthChunk; start < depth; start += kDepthChunk) {
    for (const float*& at : rows) at += kDepthChunk * left.stride;
    SumTile<kWidth, true>(rows, left.stride, panel + start * right.pitch, right.pitch,
                          std::min(depth - start, kDepthChunk), to, pitch);
  }
  for (int64_t r = 0; !is_whole && r < used_rows; ++r) {
    std::copy(tile + r * pitch, tile + r * pitch + used, product.from + (row + r) * product.pitch + column);
  }
}

// product = left * right.
inline void MultiplyRows(const Left& left, const Right<const float>& right, int64_t depth,
                         const Right<float>& product) {
  const int64_t blocks = CeilDiv(left.rows, kRows), panels = CeilDiv(product.columns, kColumns);
#pragma omp for schedule(static)
  for (int64_t item = 0; item < panels * blocks; ++item) {
    const int64_t column = item / blocks * kColumns, row = item % blocks * kRows;
    const int64_t vectors = CeilDiv(std::min<int64_t>(kColumns, product.columns - column), kLanes);
    if (vectors == 1) ProductTile<1>(left, right, depth, row, column, product);
    if (vectors == 2) ProductTile<2>(left, right, depth, row, column, product);
    if (vectors == 3) ProductTile<3>(left, right, depth, row, column, product);
    if (vectors == 4) ProductTile<kVectors>(left, right, depth, row, column, product);
  }
}

}  // namespace
