// Matrix products of one thread on tiles that lie in its caches, for kernels that keep channels last: vectors run over
// the columns of the right matrix. The factors are floats, or pairs of bfloat16 along the depth; the sums are floats.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "vectors.h"

namespace {

constexpr int64_t kBlock = kLanes * kVectors;  // columns that a product makes at a time

inline int64_t WholeVectors(int64_t columns) { return CeilDiv(columns, kLanes) * kLanes; }

// Element (row, k) of the left matrix is from[row * row_stride + k * stride].
template <typename Word>
struct LeftTile {
  const Word* from;
  int64_t rows, row_stride, stride, depth;
};

// (depth, columns); what fills the last vector of a row may be read.
template <typename Word>
struct RightTile {
  const Word* from;
  int64_t columns, pitch;
};

// Factors as they lie in memory.
struct Float32 {
  using Stored = float;
  using Word = float;
  using Words = Vector;
  using Scratch = std::vector<float>;  // not used
  static constexpr int64_t kTerms = 1;

  static Vector Read(const float* from) { return Load(from); }
  static void Write(float* to, Vector value) { Store(to, value); }
  static Vector Add(Vector sum, Vector values, float factor) { return sum + values * factor; }

  // A left matrix (rows, depth) whose rows are `pitch` apart.
  static LeftTile<float> Rows(const float* from, int64_t rows, int64_t depth, int64_t pitch, Scratch*) {
    return {from, rows, pitch, 1, depth};
  }
  // The left matrix that is the transpose of (depth, rows).
  static LeftTile<float> Turned(const float* from, int64_t rows, int64_t depth, int64_t pitch, Scratch*) {
    return {from, rows, 1, pitch, depth};
  }
  static RightTile<float> Columns(const float* from, int64_t, int64_t columns, int64_t pitch, Scratch*) {
    return {from, columns, pitch};
  }
};

typedef uint32_t Pairs __attribute__((vector_size(kLanes * sizeof(uint32_t)), aligned(sizeof(uint32_t)), may_alias));

// Pairs of numbers of eight bits of mantissa, rounded to nearest.
struct Bfloat16 {
  using Stored = uint16_t;
  using Word = uint32_t;
  using Words = Pairs;
  using Scratch = std::vector<uint32_t>;
  static constexpr int64_t kTerms = 2;

#if defined(__AVX512BF16__)
  static constexpr bool kIsFast = true;

  static __m256i Rounded(Vector value) {
    return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(value)));
  }
  static Vector Read(const uint16_t* from) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return reinterpret_cast<Vector>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  }
  static void Write(uint16_t* to, Vector value) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), Rounded(value)); }
  static Pairs Paired(Vector first, Vector second) {
    const __m512i low = _mm512_cvtepu16_epi32(Rounded(first)), high = _mm512_cvtepu16_epi32(Rounded(second));
    return reinterpret_cast<Pairs>(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }
  static Vector Add(Vector sum, Pairs values, uint32_t factor) {
    return reinterpret_cast<Vector>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(values),
                                                     reinterpret_cast<__m512bh>(_mm512_set1_epi32(factor))));
  }
#else
  // For machines that have no such instructions, and to compare with those that do.
  static constexpr bool kIsFast = false;

  static Pairs Rounded(Vector value) {
    const Pairs bits = reinterpret_cast<const Pairs&>(value);
    const Pairs rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    return value == value ? rounded : (bits >> 16) | 0x40;  // NaN stays NaN
  }
  static Vector Read(const uint16_t* from) {
    Pairs bits;
    for (int lane = 0; lane < kLanes; ++lane) bits[lane] = static_cast<uint32_t>(from[lane]) << 16;
    return reinterpret_cast<const Vector&>(bits);
  }
  static void Write(uint16_t* to, Vector value) {
    const Pairs bits = Rounded(value);
    for (int lane = 0; lane < kLanes; ++lane) to[lane] = static_cast<uint16_t>(bits[lane]);
  }
  static Pairs Paired(Vector first, Vector second) { return Rounded(first) | (Rounded(second) << 16); }
  static Vector Add(Vector sum, Pairs values, uint32_t factor) {
    const Pairs factors = Pairs{} + factor;
    return sum + First(values) * First(factors) + Second(values) * Second(factors);
  }
  static Vector First(Pairs pairs) {
    const Pairs bits = pairs << 16;
    return reinterpret_cast<const Vector&>(bits);
  }
  static Vector Second(Pairs pairs) {
    const Pairs bits = pairs & 0xFFFF0000;
    return reinterpret_cast<const Vector&>(bits);
  }
#endif

  static LeftTile<uint32_t> Rows(const float* from, int64_t rows, int64_t depth, int64_t pitch, Scratch* scratch) {
    const int64_t words = WholeVectors(CeilDiv(depth, 2));
    scratch->resize(rows * words);
    for (int64_t row = 0; row < rows; ++row) {
      auto* to = reinterpret_cast<uint16_t*>(scratch->data() + row * words);
      const float* values = from + row * pitch;
      int64_t k = 0;
      for (; k + kLanes <= depth; k += kLanes) Write(to + k, Load(values + k));
      if (k < depth || depth % 2 != 0) {
        float rest[kLanes] = {};
        std::copy(values + k, values + depth, rest);
        Write(to + k, Load(rest));
      }
    }
    return {scratch->data(), rows, words, 1, CeilDiv(depth, 2)};
  }

  static LeftTile<uint32_t> Turned(const float* from, int64_t rows, int64_t depth, int64_t pitch, Scratch* scratch) {
    const RightTile<uint32_t> pairs = Columns(from, depth, rows, pitch, scratch);
    return {pairs.from, rows, 1, pairs.pitch, CeilDiv(depth, 2)};
  }

  static RightTile<uint32_t> Columns(const float* from, int64_t depth, int64_t columns, int64_t pitch,
                                     Scratch* scratch) {
    const int64_t width = WholeVectors(columns);
    scratch->resize(CeilDiv(depth, 2) * width);
    for (int64_t k = 0; k < depth; k += 2) {
      const float *first = from + k * pitch, *second = first + pitch;
      auto* to = scratch->data() + k / 2 * width;
      for (int64_t column = 0; column < width; column += kLanes) {
        const Vector high = k + 1 < depth ? Some(second + column, columns - column) : Vector{};
        *reinterpret_cast<Pairs*>(to + column) = Paired(Some(first + column, columns - column), high);
      }
    }
    return {scratch->data(), columns, width};
  }

 private:
  static Vector Some(const float* from, int64_t count) {
    if (count >= kLanes) return Load(from);
    float values[kLanes] = {};
    std::copy(from, from + count, values);
    return Load(values);
  }
};

struct Unchanged {
  Vector operator()(Vector value) const { return value; }
};

// What is added to a product: nothing, what lies where it is written, or a value per column.
enum class Plus { kNothing, kThere, kBias };

template <typename Factors, int kWidth, Plus kPlus, typename Place, typename Finish>
void ProductColumns(const LeftTile<typename Factors::Word>& left, const typename Factors::Word* panel, int64_t pitch,
                    const float* bias, Place place, Finish finish) {
  using Words = typename Factors::Words;
  for (int64_t row = 0; row < left.rows; row += kRows) {
    const int64_t last = left.rows - 1, used = std::min<int64_t>(kRows, left.rows - row);
    const typename Factors::Word* rows[kRows];  // rows past the end repeat the last one; nobody reads their sums
    Vector acc[kRows][kWidth] = {};
    for (int r = 0; r < kRows; ++r) rows[r] = left.from + std::min(row + r, last) * left.row_stride;
    for (int64_t k = 0; k < left.depth; ++k) {
      Words values[kWidth];
      for (int v = 0; v < kWidth; ++v) values[v] = *reinterpret_cast<const Words*>(panel + k * pitch + v * kLanes);
      for (int r = 0; r < kRows; ++r) {
        const auto factor = rows[r][k * left.stride];
        for (int v = 0; v < kWidth; ++v) acc[r][v] = Factors::Add(acc[r][v], values[v], factor);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      if (r >= used) break;
      float* to = place(row + r);
      for (int v = 0; v < kWidth; ++v) {
        if constexpr (kPlus == Plus::kThere) acc[r][v] += Load(to + v * kLanes);
        if constexpr (kPlus == Plus::kBias) acc[r][v] += Load(bias + v * kLanes);
        Store(to + v * kLanes, finish(acc[r][v]));
      }
    }
  }
}

// left * right, whole vectors of it, row by row to place(row).
template <typename Factors, Plus kPlus, typename Place, typename Finish = Unchanged>
void Product(const LeftTile<typename Factors::Word>& left, const RightTile<typename Factors::Word>& right, Place place,
             const float* bias = nullptr, Finish finish = {}) {
  for (int64_t column = 0; column < right.columns; column += kBlock) {
    const auto there = [&](int64_t row) { return place(row) + column; };
    const auto* panel = right.from + column;
    const float* added = bias + column;
    const int64_t vectors = CeilDiv(std::min(kBlock, right.columns - column), kLanes);
    if (vectors == 1) ProductColumns<Factors, 1, kPlus>(left, panel, right.pitch, added, there, finish);
    if (vectors == 2) ProductColumns<Factors, 2, kPlus>(left, panel, right.pitch, added, there, finish);
    if (vectors == 3) ProductColumns<Factors, 3, kPlus>(left, panel, right.pitch, added, there, finish);
    if (vectors == 4) ProductColumns<Factors, kVectors, kPlus>(left, panel, right.pitch, added, there, finish);
  }
}

}  // namespace
