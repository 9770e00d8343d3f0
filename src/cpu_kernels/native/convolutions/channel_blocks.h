// kLanes neighbouring channels at once, for planes so small that one of them does not fill the vectors. A tile holds
// the pixels of one image or of several as [pixel][kLanes]; lanes past the last channel hold zeros.

#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

#include "vectors.h"

namespace {

constexpr int64_t kTilePixels = 256;  // that are worked on at a time: a tile stays in the first-level cache

// Below, starting a second thread costs more than it saves.
inline bool IsWorthThreads(int64_t floats) { return floats > 1 << 14; }

typedef int32_t LaneBits __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));
using EveryLane = std::make_index_sequence<kLanes>;

// Lane i of the result is lane kIndex[i] of a, or of b where the index is kLanes or more.
template <size_t... kIndex>
inline Vector Shuffled(Vector a, Vector b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, kIndex...);
#else
  return __builtin_shuffle(a, b, LaneBits{static_cast<int32_t>(kIndex)...});
#endif
}

// Exchanges the off-diagonal parts of the 2 x 2 blocks, kDistance lanes wide, of two rows of a matrix.
template <size_t kDistance, size_t... kLane>
inline void Exchange(Vector* a, Vector* b, std::index_sequence<kLane...>) {
  const Vector first = Shuffled<(kLane & kDistance ? kLanes + kLane - kDistance : kLane)...>(*a, *b);
  *b = Shuffled<(kLane & kDistance ? kLanes + kLane : kLane + kDistance)...>(*a, *b);
  *a = first;
}

template <size_t kDistance = 1>
inline void Transpose(Vector (&rows)[kLanes]) {
  if constexpr (kDistance < kLanes) {
    for (size_t row = 0; row < kLanes; ++row) {
      if (!(row & kDistance)) Exchange<kDistance>(&rows[row], &rows[row + kDistance], EveryLane());
    }
    Transpose<2 * kDistance>(rows);
  }
}

// (a, b) as one row of 2 kLanes: its even lanes, then its odd ones.
template <size_t... kLane>
inline void Unzip(Vector* a, Vector* b, std::index_sequence<kLane...>) {
  const Vector even = Shuffled<2 * kLane...>(*a, *b);
  *b = Shuffled<(2 * kLane + 1)...>(*a, *b);
  *a = even;
}

// The inverse of Unzip.
template <size_t... kLane>
inline void Zip(Vector* a, Vector* b, std::index_sequence<kLane...>) {
  const Vector low = Shuffled<(kLane % 2 * kLanes + kLane / 2)...>(*a, *b);
  *b = Shuffled<(kLane % 2 * kLanes + (kLanes + kLane) / 2)...>(*a, *b);
  *a = low;
}

// The tile of planes of four pixels, from the channels one after the other.
inline void LoadQuads(const float* from, float* tile, int64_t pitch) {
  Vector v[4];
  for (int i = 0; i < 4; ++i) v[i] = Load(from + i * kLanes);
  Unzip(&v[0], &v[1], EveryLane());
  Unzip(&v[2], &v[3], EveryLane());
  Unzip(&v[0], &v[2], EveryLane());  // pixels 0 and 2
  Unzip(&v[1], &v[3], EveryLane());  // pixels 1 and 3
  for (int i = 0; i < 4; ++i) Store(tile + i * pitch, v[i]);
}

inline void StoreQuads(const float* tile, float* to, int64_t pitch) {
  Vector v[4];
  for (int i = 0; i < 4; ++i) v[i] = Load(tile + i * pitch);
  Zip(&v[0], &v[2], EveryLane());
  Zip(&v[1], &v[3], EveryLane());
  Zip(&v[0], &v[1], EveryLane());
  Zip(&v[2], &v[3], EveryLane());
  for (int i = 0; i < 4; ++i) Store(to + i * kLanes, v[i]);
}

// `used` channels of `size` pixels, one after the other, as a tile whose pixels are `pitch` apart.
inline void LoadPlanes(const float* from, int64_t size, int64_t used, float* tile, int64_t pitch = kLanes) {
  if (used == kLanes && size == 1) return Store(tile, Load(from));
  if (used == kLanes && size == 4) return LoadQuads(from, tile, pitch);
  int64_t pixel = 0;
  for (; pixel + kLanes <= size; pixel += kLanes) {
    Vector rows[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) rows[lane] = lane < used ? Load(from + lane * size + pixel) : Vector{};
    Transpose(rows);
    for (int lane = 0; lane < kLanes; ++lane) Store(tile + (pixel + lane) * pitch, rows[lane]);
  }
  for (; pixel < size; ++pixel) {
    for (int lane = 0; lane < kLanes; ++lane) {
      tile[pixel * pitch + lane] = lane < used ? from[lane * size + pixel] : 0.0f;
    }
  }
}

// The inverse of LoadPlanes.
inline void StorePlanes(const float* tile, int64_t size, int64_t used, float* to, int64_t pitch = kLanes) {
  if (used == kLanes && size == 1) return Store(to, Load(tile));
  if (used == kLanes && size == 4) return StoreQuads(tile, to, pitch);
  int64_t pixel = 0;
  for (; pixel + kLanes <= size; pixel += kLanes) {
    Vector rows[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) rows[lane] = Load(tile + (pixel + lane) * pitch);
    Transpose(rows);
    for (int lane = 0; lane < kLanes; ++lane) {
      if (lane < used) Store(to + lane * size + pixel, rows[lane]);
    }
  }
  for (; pixel < size; ++pixel) {
    for (int64_t lane = 0; lane < used; ++lane) to[lane * size + pixel] = tile[pixel * pitch + lane];
  }
}

// One value per channel.
inline Vector LoadSome(const float* from, int64_t used) {
  float values[kLanes] = {};
  std::copy(from, from + used, values);
  return Load(values);
}

inline void StoreSome(Vector vector, int64_t used, float* to) {
  float values[kLanes];
  Store(values, vector);
  std::copy(values, values + used, to);
}

// Some images of a tensor (N, C, size), and kLanes of its channels.
struct ChannelBlock {
  int64_t c, first, used;  // channels of the tensor; the block's first channel, and how many it has

  ChannelBlock(int64_t channels, int64_t block)
      : c(channels), first(block * kLanes), used(std::min<int64_t>(kLanes, channels - first)) {}

  void LoadImages(const float* x, int64_t image, int64_t images, int64_t size, float* tile) const {
    for (int64_t i = 0; i < images; ++i) {
      LoadPlanes(x + ((image + i) * c + first) * size, size, used, tile + i * size * kLanes);
    }
  }

  void StoreImages(const float* tile, int64_t image, int64_t images, int64_t size, float* x) const {
    for (int64_t i = 0; i < images; ++i) {
      StorePlanes(tile + i * size * kLanes, size, used, x + ((image + i) * c + first) * size);
    }
  }
};

// Images of a batch in turn, as many at a time as have `most` pixels together.
struct Groups {
  int64_t n, images;

  Groups(int64_t count, int64_t size, int64_t most = kTilePixels)
      : n(count), images(std::clamp<int64_t>(most / size, 1, count)) {}

  bool IsOne() const { return images == n; }

  // Calls work(first image, images).
  template <typename Work>
  void ForEach(Work work) const {
    for (int64_t image = 0; image < n; image += images) work(image, std::min(images, n - image));
  }
};

// term(pixel, sums) adds what belongs to a pixel to its argument; four partial sums keep the adders busy.
template <int kSums, typename Term>
inline void SumPixels(int64_t pixels, Term term, Vector (&sums)[kSums]) {
  Vector parts[4][kSums] = {};
  int64_t pixel = 0;
  for (; pixel + 4 <= pixels; pixel += 4) {
    for (int part = 0; part < 4; ++part) term(pixel + part, parts[part]);
  }
  for (; pixel < pixels; ++pixel) term(pixel, parts[0]);
  for (int i = 0; i < kSums; ++i) sums[i] = (parts[0][i] + parts[1][i]) + (parts[2][i] + parts[3][i]);
}

// A sum in double precision per lane.
struct LaneSums {
  double values[kLanes] = {};

  void Add(Vector sums) {
    for (int lane = 0; lane < kLanes; ++lane) values[lane] += sums[lane];
  }

  Vector Over(double count) const {
    float means[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) means[lane] = static_cast<float>(values[lane] / count);
    return Load(means);
  }
};

}  // namespace
