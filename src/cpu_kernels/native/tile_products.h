// Matrix products of one thread on tiles that lie in its caches, for kernels that keep channels last: vectors run over
// the columns of the right matrix, and rows of the left one are read as they lie.

#pragma once

#include <algorithm>
#include <cstdint>

#include "vectors.h"

namespace {

constexpr int64_t kBlock = kLanes * kVectors;  // columns that a product makes at a time

inline int64_t WholeVectors(int64_t columns) { return CeilDiv(columns, kLanes) * kLanes; }

// Element (row, k) of the left matrix is from[row * row_stride + k * stride].
struct LeftTile {
  const float* from;
  int64_t rows, row_stride, stride;
};

// (depth, columns); what fills the last vector of a row may be read.
struct RightTile {
  const float* from;
  int64_t columns, pitch;
};

struct Unchanged {
  Vector operator()(Vector value) const { return value; }
};

// What a sum begins with: nothing, what lies where it is written, or a value per column.
enum class Start { kZero, kThere, kBias };

template <int kWidth, Start kStart, typename Place, typename Finish>
void ProductColumns(const LeftTile& left, const float* panel, int64_t pitch, int64_t depth, const float* bias,
                    Place place, Finish finish) {
  for (int64_t row = 0; row < left.rows; row += kRows) {
    const int64_t last = left.rows - 1, used = std::min<int64_t>(kRows, left.rows - row);
    const float* rows[kRows];  // rows past the end repeat the last one; nobody reads their sums
    Vector acc[kRows][kWidth] = {};
    for (int r = 0; r < kRows; ++r) {
      rows[r] = left.from + std::min(row + r, last) * left.row_stride;
      for (int v = 0; v < kWidth && kStart != Start::kZero; ++v) {
        acc[r][v] = Load((kStart == Start::kBias ? bias : place(std::min(row + r, last))) + v * kLanes);
      }
    }
    for (int64_t k = 0; k < depth; ++k) {
      Vector values[kWidth];
      for (int v = 0; v < kWidth; ++v) values[v] = Load(panel + k * pitch + v * kLanes);
      for (int r = 0; r < kRows; ++r) {
        const float factor = rows[r][k * left.stride];
        for (int v = 0; v < kWidth; ++v) acc[r][v] += values[v] * factor;
      }
    }
    for (int r = 0; r < kRows; ++r) {
      if (r >= used) break;
      float* to = place(row + r);
      for (int v = 0; v < kWidth; ++v) Store(to + v * kLanes, finish(acc[r][v]));
    }
  }
}

// left * right, whole vectors of it, row by row to place(row).
template <Start kStart, typename Place, typename Finish = Unchanged>
void Product(const LeftTile& left, const RightTile& right, int64_t depth, Place place, const float* bias = nullptr,
             Finish finish = {}) {
  for (int64_t column = 0; column < right.columns; column += kBlock) {
    const auto there = [&](int64_t row) { return place(row) + column; };
    const float* panel = right.from + column;
    const float* start = bias + column;
    const int64_t vectors = CeilDiv(std::min(kBlock, right.columns - column), kLanes);
    if (vectors == 1) ProductColumns<1, kStart>(left, panel, right.pitch, depth, start, there, finish);
    if (vectors == 2) ProductColumns<2, kStart>(left, panel, right.pitch, depth, start, there, finish);
    if (vectors == 3) ProductColumns<3, kStart>(left, panel, right.pitch, depth, start, there, finish);
    if (vectors == 4) ProductColumns<kVectors, kStart>(left, panel, right.pitch, depth, start, there, finish);
  }
}

}  // namespace
