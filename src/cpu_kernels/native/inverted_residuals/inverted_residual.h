// What the passes of an inverted residual block have in common: its normalisations, its weights as the passes want
// them, and the depthwise filter on tiles. Images are (N, H, W, C); kBlock hidden channels are worked on at a time.

#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "convolutions/batch_norm.h"
#include "shares.h"
#include "tile_products.h"

namespace {

constexpr int kFilter = 9;
constexpr int64_t kFlatPixels = 128;    // of a tile without neighbourhoods
constexpr int64_t kImagePixels = 2048;  // of one with them

using Floats = std::vector<float>;

inline Vector Clamped(Vector value) {
  value = value < 0.0f ? Vector{} : value;
  return value > 6.0f ? Vector{} + 6.0f : value;
}

struct ClampAll {
  Vector operator()(Vector value) const { return Clamped(value); }
};

// Where ReLU6 lets a gradient pass, given the value before it.
inline Vector Passed6(Vector grad, Vector value) {
  grad = value > 0.0f ? grad : Vector{};
  return value <= 6.0f ? grad : Vector{};
}

// A batch normalisation as value * scale + shift; filled up to whole vectors with zeros.
struct Folded {
  Floats scale, shift;

  Folded(const float* gamma, const float* beta, const float* mean, const float* inverse_std, int64_t channels)
      : scale(WholeVectors(channels)), shift(WholeVectors(channels)) {
    for (int64_t i = 0; i < channels; ++i) {
      scale[i] = gamma[i] * inverse_std[i];
      shift[i] = beta[i] - mean[i] * scale[i];
    }
  }
};

// (rows, columns) with rows of whole vectors, filled up with zeros.
struct Padded {
  int64_t pitch;
  Floats values;

  Padded(int64_t rows, int64_t columns) : pitch(WholeVectors(columns)), values(rows * pitch) {}
  float* Row(int64_t row) { return values.data() + row * pitch; }
  RightTile<float> Columns(int64_t first, int64_t count, int64_t row = 0) const {
    return {values.data() + row * pitch + first, count, pitch};
  }
};

// A matrix as the right side of products.
template <typename Factors>
class Packed {
 public:
  explicit Packed(Padded matrix)
      : matrix_(std::move(matrix)),
        whole_(Factors::Columns(matrix_.values.data(), matrix_.values.size() / matrix_.pitch, matrix_.pitch,
                                matrix_.pitch, &scratch_)) {}
  Packed(const Packed&) = delete;

  // `count` columns from `first` on, of the rows from `row` on, which is even.
  RightTile<typename Factors::Word> Columns(int64_t first, int64_t count, int64_t row = 0) const {
    return {whole_.from + row / Factors::kTerms * whole_.pitch + first, count, whole_.pitch};
  }

 private:
  Padded matrix_;
  typename Factors::Scratch scratch_;
  RightTile<typename Factors::Word> whole_;
};

// What a kernel's hidden maps are stored in, and multiplied.
template <typename Args>
using FactorsOf = std::conditional_t<std::is_same_v<std::decay_t<decltype(*std::declval<Args>().filtered)>, float>,
                                     Float32, Bfloat16>;

constexpr int64_t kManyWeights = 1 << 14;  // are worth a second thread

// from (rows, columns) -> (columns, rows), each row of `from` multiplied by a factor if there are factors.
inline Padded Transposed(const float* from, int64_t rows, int64_t columns, const float* factors = nullptr) {
  Padded to(columns, rows);
#pragma omp parallel for schedule(static) if (rows * columns > kManyWeights)
  for (int64_t first = 0; first < rows; first += kLanes) {
    for (int64_t column = 0; column < columns; ++column) {
      for (int64_t row = first; row < std::min(first + kLanes, rows); ++row) {
        to.Row(column)[row] = from[row * columns + column] * (factors ? factors[row] : 1.0f);
      }
    }
  }
  return to;
}

inline Padded Copied(const float* from, int64_t rows, int64_t columns, const float* factors = nullptr) {
  Padded to(rows, columns);
#pragma omp parallel for schedule(static) if (rows * columns > kManyWeights)
  for (int64_t row = 0; row < rows; ++row) {
#pragma omp simd
    for (int64_t column = 0; column < columns; ++column) {
      to.Row(row)[column] = from[row * columns + column] * (factors ? factors[row] : 1.0f);
    }
  }
  return to;
}

// `count` sums over pixels: add(pixel, sums) adds what belongs to a pixel. Floats for a tile, doubles beyond.
template <typename Add>
std::vector<double> PixelSums(int64_t pixels, int64_t count, Add add) {
  const int64_t shares = SharesOf(pixels);
  Partial<double> sums(shares, count);
  ForEachShare(shares, [&](int64_t share) {
    double* total = sums.Begin(share);
    Floats part(count);
    ForEachRange(share, shares, pixels, kFlatPixels, [&](int64_t first, int64_t range) {
      std::fill(part.begin(), part.end(), 0.0f);
      for (int64_t pixel = first; pixel < first + range; ++pixel) add(pixel, part.data());
      for (int64_t i = 0; i < count; ++i) total[i] += part[i];
    });
  });
  const double* total = sums.Total();
  return {total, total + count};
}

// Calls work(first hidden channel, channels) for all blocks.
template <typename Work>
void ForEachBlock(int64_t channels, Work work) {
  for (int64_t first = 0; first < channels; first += kBlock) work(first, std::min(kBlock, channels - first));
}

// Where a block of channels, from `first` on, begins in a tensor of hidden channels, at one of its pixels. They are
// stored block by block, each (pixels, channels), so that a pass over a block walks through memory.
template <typename Float>
Float* HiddenAt(Float* hidden, int64_t pixels, int64_t pixel, int64_t first, int64_t channels) {
  return hidden + first * pixels + pixel * channels;
}

// A tile's pixels with a border on every side, kBlock channels each; the border and what was not written are zero.
class BorderedTile {
 public:
  BorderedTile(int64_t images, int64_t rows, int64_t width)
      : rows_(rows), pitch_((width + 2) * kBlock), values_(images * rows * pitch_) {}

  void Clear() { std::fill(values_.begin(), values_.end(), 0.0f); }
  // Pixel x of a row; x = -1 is the border.
  float* At(int64_t image, int64_t row, int64_t x) {
    return values_.data() + (image * rows_ + row) * pitch_ + (x + 1) * kBlock;
  }
  int64_t RowPitch() const { return pitch_; }

 private:
  int64_t rows_, pitch_;
  Floats values_;
};

// kCount neighbouring results of the filter; `corner` is the upper left neighbour of the first one.
template <int kStride, int kCount>
inline void Filtered(const Vector (&taps)[kFilter], const float* corner, int64_t row_pitch, Vector (&sums)[kCount]) {
  for (int i = 0; i < kCount; ++i) sums[i] = Vector{};
  for (int y = 0; y < 3; ++y) {
    for (int column = 0; column < kStride * (kCount - 1) + 3; ++column) {
      const Vector value = Load(corner + y * row_pitch + column * kBlock);
      for (int i = 0; i < kCount; ++i) {
        const int x = column - kStride * i;
        if (x >= 0 && x < 3) sums[i] += taps[y * 3 + x] * value;
      }
    }
  }
}

// Calls emit(x, value) for the results of a row.
template <int kStride, typename Emit>
inline void FilterRow(const Vector (&taps)[kFilter], const float* corner, int64_t row_pitch, int64_t width, Emit emit) {
  int64_t x = 0;
  for (; x + 4 <= width; x += 4) {
    Vector sums[4];
    Filtered<kStride>(taps, corner + x * kStride * kBlock, row_pitch, sums);
    for (int i = 0; i < 4; ++i) emit(x + i, sums[i]);
  }
  for (; x < width; ++x) {
    Vector sums[1];
    Filtered<kStride>(taps, corner + x * kStride * kBlock, row_pitch, sums);
    emit(x, sums[0]);
  }
}

// What expands, filters and projects, for the passes forward.
template <typename Factors>
struct ForwardWeights {
  Packed<Factors> expand, project;  // (C, E) with the factors of the normalisation; (E, C_out)
  Padded taps;                      // (9, E)
  Floats bias;                      // of the expansion

  // `args`: those of a forward kernel.
  template <typename Args>
  ForwardWeights(const Args& args, const Folded& norm)
      : expand(Transposed(args.expand, args.e, args.c, norm.scale.data())),
        project(Transposed(args.project, args.out, args.e)),
        taps(Transposed(args.filter, args.e, kFilter)),
        bias(norm.shift) {}

  void LoadTaps(int64_t channel, Vector (&to)[kFilter]) const {
    for (int tap = 0; tap < kFilter; ++tap) to[tap] = Load(taps.values.data() + tap * taps.pitch + channel);
  }
};

// Expands a tile of the input, rows around the output rows of `tile`, a block of channels at a time.
template <int kStride, typename Factors, typename Args>
class Expansion {
 public:
  // Buffers for the largest of the tiles.
  Expansion(const Args& args, const ImageTiles& tiles)
      : args_(args), rows_(kStride * (tiles.strip - 1) + 3), z_(tiles.images, rows_, args.w) {}

  // Turns to another tile.
  void Begin(const ImageTile& tile) {
    const int64_t h = args_.h, w = args_.w, above = kStride * tile.row - 1, first = std::max<int64_t>(above, 0);
    const int64_t end = std::min(h, above + kStride * (tile.rows - 1) + 3);
    tile_ = tile;
    z_.Clear();
    places_.clear();
    for (int64_t image = 0; image < tile.images; ++image) {
      for (int64_t row = first; row < (tile.images > 1 ? h : end); ++row) {
        for (int64_t x = 0; x < w; ++x) places_.push_back(z_.At(image, row - above, x));
      }
    }
    input_ = Factors::Rows(args_.x + (tile.image * h + first) * w * args_.c, static_cast<int64_t>(places_.size()),
                           args_.c, args_.c, &scratch_);
  }

  // ReLU6 of the normalised expansion, for hidden channels from `channel` on.
  void Fill(const ForwardWeights<Factors>& weights, int64_t channel, int64_t channels) {
    Product<Factors, Plus::kBias>(
        input_, weights.expand.Columns(channel, channels), [&](int64_t pixel) { return places_[pixel]; },
        weights.bias.data() + channel, ClampAll());
  }

  // Calls emit(pixel of the tile, value) for the filter's results, vector `lane` of a block.
  template <typename Emit>
  void Filter(const Vector (&taps)[kFilter], int64_t lane, Emit emit) {
    for (int64_t image = 0, pixel = 0; image < tile_.images; ++image) {
      for (int64_t row = 0; row < tile_.rows; ++row, pixel += args_.out_w) {
        FilterRow<kStride>(taps, z_.At(image, kStride * row, -1) + lane, z_.RowPitch(), args_.out_w,
                           [&](int64_t x, Vector value) { emit(pixel + x, value); });
      }
    }
  }

 private:
  const Args& args_;
  int64_t rows_;
  BorderedTile z_;
  ImageTile tile_{};
  std::vector<float*> places_;  // of the pixels, in z_
  LeftTile<typename Factors::Word> input_{};
  typename Factors::Scratch scratch_;
};

}  // namespace
