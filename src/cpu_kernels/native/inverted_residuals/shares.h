// How work on pixels is divided among threads: into shares whose number depends on the shapes alone, so that sums, made
// share by share and then in turn, do not depend on the number of threads.

#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "vectors.h"

namespace {

constexpr int64_t kSharePixels = 128, kFewShares = 8, kMostShares = 32, kSharedFloats = 1 << 20;

// A power of two, which any usual number of threads divides. Large `sums` per share make for fewer of them.
inline int64_t SharesOf(int64_t pixels, int64_t sums = 0) {
  const int64_t most = sums == 0 ? kMostShares : std::clamp(kSharedFloats / sums, kFewShares, kMostShares);
  int64_t shares = 1;
  while (shares * 2 <= most && shares * 2 * kSharePixels <= pixels) shares *= 2;
  return shares;
}

// Calls work(share) for all shares, on all threads.
template <typename Work>
void ForEachShare(int64_t shares, Work work) {
#pragma omp parallel for schedule(dynamic, 1) if (shares > 1)
  for (int64_t share = 0; share < shares; ++share) work(share);
}

// Calls work(first, pixels) for the pixels of a share, `most` at a time.
template <typename Work>
void ForEachRange(int64_t share, int64_t shares, int64_t pixels, int64_t most, Work work) {
  const int64_t end = pixels * (share + 1) / shares;
  for (int64_t at = pixels * share / shares; at < end; at += most) work(at, std::min(most, end - at));
}

// Some rows of one image, or all rows of several.
struct ImageTile {
  int64_t image, images, row, rows;
};

// The tiles of `n` images with `rows` of `width` pixels, of about `most` pixels each.
struct ImageTiles {
  int64_t n, rows, images, strip;

  ImageTiles(int64_t count, int64_t rows_of_image, int64_t width, int64_t most, int64_t shares)
      : n(count), rows(rows_of_image) {
    const int64_t fitting = std::max<int64_t>(1, most / width);
    images = std::clamp<int64_t>(fitting / rows, 1, CeilDiv(n, shares));
    strip = CeilDiv(rows, CeilDiv(rows, fitting));
  }

  template <typename Work>
  void ForEach(int64_t share, int64_t shares, Work work) const {
    const int64_t strips = CeilDiv(rows, strip), count = CeilDiv(n, images) * strips;
    for (int64_t tile = count * share / shares; tile < count * (share + 1) / shares; ++tile) {
      const int64_t image = tile / strips * images, row = tile % strips * strip;
      work(ImageTile{image, std::min(images, n - image), row, std::min(strip, rows - row)});
    }
  }
};

// `size` sums per share.
template <typename Number>
class Partial {
 public:
  Partial(int64_t shares, int64_t size) : shares_(shares), size_(size), values_(new Number[shares * size]) {}

  // A share's sums, set to 0; the share's thread calls it, so that the memory is its own.
  Number* Begin(int64_t share) {
    Number* sums = values_.get() + share * size_;
    std::fill(sums, sums + size_, Number{});
    return sums;
  }

  // The sums of all shares, in their order; they are in the first share's place afterwards.
  const Number* Total() {
    constexpr int64_t kPart = 1024;  // stays in the first-level cache
#pragma omp parallel for schedule(static) if (shares_ * size_ > 1 << 14)
    for (int64_t first = 0; first < size_; first += kPart) {
      const int64_t count = std::min(kPart, size_ - first);
      Number* total = values_.get() + first;
      for (int64_t share = 1; share < shares_; ++share) {
        const Number* part = total + share * size_;
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) total[i] += part[i];
      }
    }
    return values_.get();
  }

 private:
  int64_t shares_, size_;
  std::unique_ptr<Number[]> values_;
};

// Mean and squared deviations of channels, share by share, merged by the formula of Chan et al.
class ChannelMoments {
 public:
  ChannelMoments(int64_t shares, int64_t channels)
      : shares_(shares), channels_(channels), values_(shares * 2 * channels), counts_(shares * channels) {}

  // `lanes` channels from `channel` on: sums of deviations from `centre` and of their squares over `pixels`.
  void Add(int64_t share, int64_t channel, int64_t lanes, double pixels, const float* centre, const float* sums,
           const float* squares) {
    for (int64_t lane = 0; lane < lanes; ++lane) {
      Merge(share * channels_ + channel + lane, pixels, centre[lane] + sums[lane] / pixels,
            squares[lane] - static_cast<double>(sums[lane]) * sums[lane] / pixels);
    }
  }

  // Puts all shares' moments into the first one's place.
  void Total() {
    for (int64_t share = 1; share < shares_; ++share) {
      for (int64_t channel = 0; channel < channels_; ++channel) {
        const int64_t at = share * channels_ + channel;
        if (counts_[at] > 0) Merge(channel, counts_[at], values_[2 * at], values_[2 * at + 1]);
      }
    }
  }

  double Mean(int64_t channel) const { return values_[2 * channel]; }
  double Squares(int64_t channel) const { return values_[2 * channel + 1]; }

 private:
  void Merge(int64_t at, double pixels, double mean, double squares) {
    const double count = counts_[at], total = count + pixels, delta = mean - values_[2 * at];
    values_[2 * at] += delta * pixels / total;
    values_[2 * at + 1] += squares + delta * delta * count * pixels / total;
    counts_[at] = total;
  }

  int64_t shares_, channels_;
  std::vector<double> values_, counts_;
};

}  // namespace
