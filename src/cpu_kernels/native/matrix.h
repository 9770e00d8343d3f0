// Matrix products for 1x1 convolutions: images (N, channels, H * W) on the right, or on both sides.
// All with the same inner tile: kRows x kColumns sums stay in registers while the depth is walked. The wide operand is
// packed as [depth][kColumns]; a column is a pixel of any image, so small planes waste nothing.

#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "vectors.h"

namespace {

constexpr int kColumns = kLanes * kVectors;
constexpr int64_t kPanelFloats = 1 << 16;  // packed data per thread; fits the second-level cache

// sums[row][column] (+)= sum over k of rows[row][k] * panel[k][column]; successive k are kStep apart in `rows` and
// kWidth vectors in `panel`. kAdd: sums hold earlier terms.
template <int64_t kStep, bool kAdd, int kWidth = kVectors>
inline void Tile(const float* const (&rows)[kRows], const float* panel, int64_t depth, float* sums, int64_t pitch) {
  Vector acc[kRows][kWidth] = {};
  if constexpr (kAdd) {
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kWidth; ++v) acc[r][v] = Load(sums + r * pitch + v * kLanes);
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vector column[kWidth];
    for (int v = 0; v < kWidth; ++v) column[v] = Load(panel + k * kWidth * kLanes + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const float factor = rows[r][k * kStep];
      for (int v = 0; v < kWidth; ++v) acc[r][v] += column[v] * factor;
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kWidth; ++v) Store(sums + r * pitch + v * kLanes, acc[r][v]);
  }
}

// Walks columns [first, last) of all images in runs that lie within one image: visit(image, pixel, length, done).
template <typename Visit>
inline void ForEachRun(int64_t first, int64_t last, int64_t size, Visit visit) {
  for (int64_t at = first; at < last;) {
    const int64_t image = at / size, pixel = at % size, length = std::min(size - pixel, last - at);
    visit(image, pixel, length, at - first);
    at += length;
  }
}

// The constant size lets the compiler copy whole panel rows without a call.
inline void CopyUpToPanel(const float* from, int64_t length, float* to) {
  if (length == kColumns) {
    std::memcpy(to, from, kColumns * sizeof(float));
  } else {
    std::memcpy(to, from, length * sizeof(float));
  }
}

// out (N, rows, size) = matrix (rows, depth) times in (N, depth, size), image by image; the matrix comes packed as
// [row block][depth][kRows], padded with zeros. `finish` is Plain for the bare products; otherwise it writes `out`
// itself: finish(image, row, pixel, length, products).
struct Plain {};

template <typename Finish = Plain>
void Multiply(const float* packed, const float* in, float* out, int64_t n, int64_t rows, int64_t depth, int64_t size,
              Finish finish = {}) {
  constexpr bool kPlain = std::is_same_v<Finish, Plain>;
  const int64_t columns = n * size, group = std::clamp<int64_t>(kPanelFloats / (depth * kColumns), 1, 8);
  const int64_t block = group * kColumns;
#pragma omp parallel
  {
    std::vector<float> panels(depth * block), tile(kRows * kColumns);
#pragma omp for schedule(static)
    for (int64_t first = 0; first < columns; first += block) {
      const int64_t last = std::min(columns, first + block);
      for (int64_t k = 0; k < depth; ++k) {
        ForEachRun(first, last, size, [&](int64_t image, int64_t pixel, int64_t length, int64_t done) {
          const float* from = in + (image * depth + k) * size + pixel;
          for (int64_t moved = 0; moved < length;) {
            const int64_t at = done + moved, within = at % kColumns;
            const int64_t part = std::min(length - moved, kColumns - within);
            CopyUpToPanel(from + moved, part, &panels[(at / kColumns * depth + k) * kColumns + within]);
            moved += part;
          }
        });
      }
      for (int64_t row = 0; row < rows; row += kRows) {
        const int64_t used = std::min<int64_t>(kRows, rows - row);
        const float* pointers[kRows];
        for (int r = 0; r < kRows; ++r) pointers[r] = packed + row * depth + r;
        for (int64_t start = first; start < last; start += kColumns) {
          const float* panel = &panels[(start - first) * depth];
          const int64_t end = std::min(last, start + kColumns), pixel = start % size;
          if (kPlain && used == kRows && end - start == kColumns && pixel + kColumns <= size) {
            float* to = out + (start / size * rows + row) * size + pixel;
            Tile<kRows, false>(pointers, panel, depth, to, size);
            continue;
          }
          Tile<kRows, false>(pointers, panel, depth, tile.data(), kColumns);
          ForEachRun(start, end, size, [&](int64_t image, int64_t pixel, int64_t length, int64_t done) {
            for (int64_t r = 0; r < used; ++r) {
              const float* products = &tile[r * kColumns + done];
              if constexpr (kPlain) {
                std::memcpy(out + (image * rows + row + r) * size + pixel, products, length * sizeof(float));
              } else {
                finish(image, row + r, pixel, length, products);
              }
            }
          });
        }
      }
    }
  }
}

// Packs a (rows, depth) matrix with the given strides for Multiply.
inline std::vector<float> PackMatrix(const float* matrix, int64_t rows, int64_t depth, int64_t row_stride,
                                     int64_t stride) {
  std::vector<float> packed(CeilDiv(rows, kRows) * kRows * depth);
  for (int64_t row = 0; row < rows; ++row) {
    float* to = packed.data() + row / kRows * kRows * depth + row % kRows;
    for (int64_t k = 0; k < depth; ++k) to[k * kRows] = matrix[row * row_stride + k * stride];
  }
  return packed;
}

constexpr int64_t kStrip = 16;
constexpr int64_t kDepthBlock = 256;  // pixels that are packed at a time

// Transposes `columns` rows of up to kStrip floats into [k][kColumns]; a strip of the panel stays in the L1 cache.
inline void PackStrip(const float* from, int64_t pitch, int64_t columns, int64_t depth, float* to) {
  if (depth == kStrip) {
    for (int64_t column = 0; column < columns; ++column) {
      for (int64_t k = 0; k < kStrip; ++k) to[k * kColumns + column] = from[column * pitch + k];
    }
    return;
  }
  for (int64_t column = 0; column < columns; ++column) {
    for (int64_t k = 0; k < depth; ++k) to[k * kColumns + column] = from[column * pitch + k];
  }
}

constexpr int64_t kDotSize = 512;  // pixels per plane from which AccumulateDots is faster
constexpr int kDotRows = kRows / 2, kDotColumns = kLanes == 16 ? 6 : 4;

// sums[i * pitch + j] += sum over k of a[i][k] * b[j][k]; vectorised along k, so nothing has to be packed.
inline void DotTile(const float* const (&a)[kDotRows], const float* const (&b)[kDotColumns], int64_t depth, float* sums,
                    int64_t pitch) {
  Vector acc[kDotRows][kDotColumns] = {};
  const int64_t whole = depth / kLanes * kLanes;
  for (int64_t k = 0; k < whole; k += kLanes) {
    Vector left[kDotRows];
    for (int i = 0; i < kDotRows; ++i) left[i] = Load(a[i] + k);
    for (int j = 0; j < kDotColumns; ++j) {
      const Vector right = Load(b[j] + k);
      for (int i = 0; i < kDotRows; ++i) acc[i][j] += left[i] * right;
    }
  }
  for (int i = 0; i < kDotRows; ++i) {
    for (int j = 0; j < kDotColumns; ++j) {
      float lanes[kLanes];
      Store(lanes, acc[i][j]);
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
      for (int64_t k = whole; k < depth; ++k) sum += a[i][k] * b[j][k];
      sums[i * pitch + j] += sum;
    }
  }
}

// Where the sums over pixels may be cut, so that threads share them even for one image.
struct PixelBlocks {
  static constexpr int64_t kPixels = 1024;
  int64_t n, size, per_image = CeilDiv(size, kPixels), count = n * per_image;

  // Calls visit(image, first pixel, pixels) for the blocks [first, last).
  template <typename Visit>
  void ForEach(int64_t first, int64_t last, Visit visit) const {
    for (int64_t block = first; block < last; ++block) {
      const int64_t start = block % per_image * kPixels;
      visit(block / per_image, start, std::min(kPixels, size - start));
    }
  }
};

// products (narrow, wide) += sum over the pixels of the blocks [first, last) of a[narrow] * b[wide], for one panel of
// wide. For planes so large that summing the lanes at the end costs little.
inline void AccumulateDots(const float* a, const float* b, float* products, const PixelBlocks& blocks, int64_t first,
                           int64_t last, int64_t narrow, int64_t wide, int64_t panel) {
  const int64_t pitch = CeilDiv(wide, kColumns) * kColumns, size = blocks.size;
  blocks.ForEach(first, last, [&](int64_t image, int64_t start, int64_t depth) {
    for (int64_t column = panel * kColumns; column < std::min(wide, (panel + 1) * kColumns); column += kDotColumns) {
      // Rows and columns past the end repeat the last one; nobody reads their sums.
      const float* right[kDotColumns];
      for (int j = 0; j < kDotColumns; ++j) {
        right[j] = b + (image * wide + std::min(column + j, wide - 1)) * size + start;
      }
      for (int64_t row = 0; row < narrow; row += kDotRows) {
        const float* left[kDotRows];
        for (int i = 0; i < kDotRows; ++i) {
          left[i] = a + (image * narrow + std::min(row + i, narrow - 1)) * size + start;
        }
        DotTile(left, right, depth, products + row * pitch + column, pitch);
      }
    }
  });
}

// The same for small planes, whose panel of b is transposed first.
inline void AccumulateProducts(const float* a, const float* b, float* products, const PixelBlocks& blocks,
                               int64_t first, int64_t last, int64_t narrow, int64_t wide, int64_t panel,
                               float* packed) {
  const int64_t used = std::min<int64_t>(kColumns, wide - panel * kColumns), pitch = CeilDiv(wide, kColumns) * kColumns;
  const int64_t size = blocks.size;
  blocks.ForEach(first, last, [&](int64_t image, int64_t begin, int64_t pixels) {
    for (int64_t start = begin; start < begin + pixels; start += kDepthBlock) {
      const int64_t depth = std::min(kDepthBlock, begin + pixels - start);
      const float* from = b + (image * wide + panel * kColumns) * size + start;
      for (int64_t k = 0; k < depth; k += kStrip) {
        PackStrip(from + k, size, used, std::min(kStrip, depth - k), packed + k * kColumns);
      }
      for (int64_t row = 0; row < narrow; row += kRows) {
        const float* rows[kRows];  // rows past the end repeat the last one; nobody reads their sums
        for (int r = 0; r < kRows; ++r) rows[r] = a + (image * narrow + std::min(row + r, narrow - 1)) * size + start;
        Tile<1, true>(rows, packed, depth, products + row * pitch + panel * kColumns, pitch);
      }
    }
  });
}

// Planes from which it pays to treat images one by one.
constexpr int64_t kOwnPlane = 64;

// x (N, C, size) as (C, N * size): one wide plane instead of many small ones.
inline std::vector<float> SideBySide(const float* x, int64_t n, int64_t c, int64_t size) {
  std::vector<float> planes(n * c * size);
#pragma omp parallel for schedule(static)
  for (int64_t channel = 0; channel < c; ++channel) {
    for (int64_t image = 0; image < n; ++image) {
      const float* from = x + (image * c + channel) * size;
      std::copy(from, from + size, &planes[(channel * n + image) * size]);
    }
  }
  return planes;
}

// result[narrow * narrow_stride + wide * wide_stride] (+)= sum over images and pixels of a[narrow] * b[wide]. The sum
// is cut into slices whose number depends on the shapes alone, so the result does not depend on threads.
inline void Products(const float* a, const float* b, float* result, int64_t n, int64_t narrow, int64_t wide,
                     int64_t size, int64_t narrow_stride, int64_t wide_stride, bool add = false) {
  if (n > 1 && size < kOwnPlane) {
    Products(SideBySide(a, n, narrow, size).data(), SideBySide(b, n, wide, size).data(), result, 1, narrow, wide,
             n * size, narrow_stride, wide_stride, add);
    return;
  }
  const int64_t panels = CeilDiv(wide, kColumns), pitch = panels * kColumns;
  const PixelBlocks blocks{n, size};
  const int64_t slices = std::min(blocks.count, CeilDiv(32, panels));
  const int64_t slice_floats = CeilDiv(narrow, kRows) * kRows * pitch;
  std::vector<float> products(slices * slice_floats);
#pragma omp parallel
  {
    std::vector<float> packed(kDepthBlock * kColumns);
#pragma omp for schedule(static)
    for (int64_t item = 0; item < slices * panels; ++item) {
      const int64_t slice = item / panels, panel = item % panels;
      const int64_t first = slice * blocks.count / slices, last = (slice + 1) * blocks.count / slices;
      float* sums = products.data() + slice * slice_floats;
      if (size >= kDotSize) {
        AccumulateDots(a, b, sums, blocks, first, last, narrow, wide, panel);
      } else {
        AccumulateProducts(a, b, sums, blocks, first, last, narrow, wide, panel, packed.data());
      }
    }
#pragma omp for schedule(static)
    for (int64_t row = 0; row < narrow; ++row) {
      for (int64_t column = 0; column < wide; ++column) {
        float sum = 0;
        for (int64_t slice = 0; slice < slices; ++slice) sum += products[slice * slice_floats + row * pitch + column];
        float& to = result[row * narrow_stride + column * wide_stride];
        to = add ? to + sum : sum;
      }
    }
  }
}

}  // namespace
