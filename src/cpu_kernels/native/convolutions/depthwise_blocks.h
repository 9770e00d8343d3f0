// Depthwise 3x3 convolution, padding 1, of kLanes channels at once. A plane lies in a tile with a border of zeros, so
// nothing tests for edges.

#pragma once

#include <vector>

#include "channel_blocks.h"
#include "depthwise.h"

namespace {

// Planes for which that is faster than one channel after the other.
inline bool AreBlocksFaster(int64_t h, int64_t w) { return h * w <= 784; }

// The tiles of some images with their borders; the border stays zero.
struct Bordered {
  int64_t h, w, pitch, plane;
  std::vector<float> values;

  Bordered(int64_t height, int64_t width, int64_t images)
      : h(height), w(width), pitch((width + 2) * kLanes), plane((height + 2) * pitch), values(images * plane) {}

  // Pixel (y, x), whose neighbour to the upper left is At(image, y, x) - pitch - kLanes.
  float* At(int64_t image, int64_t y, int64_t x) {
    return values.data() + image * plane + (y + 1) * pitch + (x + 1) * kLanes;
  }

  // Calls work(place, pixel) for the pixels of `images`, kStride apart; `pixel` counts them.
  template <int kStride, typename Work>
  void ForEach(int64_t images, Work work) {
    int64_t pixel = 0;
    for (int64_t image = 0; image < images; ++image) {
      for (int64_t y = 0; y < h; y += kStride) {
        float* row = At(image, y, 0);
        for (int64_t x = 0; x < w; x += kStride) work(row + x * kLanes, pixel++);
      }
    }
  }

  // The tile x, with borders.
  void Fill(const float* x, int64_t images) {
    ForEach<1>(images, [&](float* to, int64_t pixel) { Store(to, Load(x + pixel * kLanes)); });
  }
};

// The filters of a block: tap by tap, one lane per channel.
struct BlockFilters {
  Vector taps[kTaps];

  BlockFilters(const float* weight, const ChannelBlock& block) {
    float lanes[kTaps * kLanes];
    LoadPlanes(weight + block.first * kTaps, kTaps, block.used, lanes);
    for (int tap = 0; tap < kTaps; ++tap) taps[tap] = Load(lanes + tap * kLanes);
  }

  // Sum over the neighbourhood of a place; kFlipped: with the filter turned by half a turn.
  template <bool kFlipped = false>
  Vector At(const float* place, int64_t pitch) const {
    Vector sum{};
    for (int tap = 0; tap < kTaps; ++tap) {
      const float* from = place + (tap / 3 - 1) * pitch + (tap % 3 - 1) * kLanes;
      sum += taps[kFlipped ? kTaps - 1 - tap : tap] * Load(from);
    }
    return sum;
  }
};

// Gradients of a block's filters and of what they are applied to.
template <int kStride>
class BlockDepthwiseGradients {
 public:
  BlockDepthwiseGradients(int64_t h, int64_t w, int64_t images) : spread_(h, w, images) {}

  void Begin() {
    for (LaneSums& sum : sums_) sum = {};
  }

  // z: what the filters were applied to; dy: the tile of the output's gradient; dz: a tile to write.
  void Add(const BlockFilters& filters, Bordered* z, const float* dy, int64_t images, float* dz) {
    Vector found[kTaps] = {};
    spread_.ForEach<kStride>(images, [&](float* to, int64_t pixel) { Store(to, Load(dy + pixel * kLanes)); });
    z->ForEach<kStride>(images, [&](const float* place, int64_t pixel) {
      const Vector grad = Load(dy + pixel * kLanes);
      for (int tap = 0; tap < kTaps; ++tap) {
        found[tap] += grad * Load(place + (tap / 3 - 1) * z->pitch + (tap % 3 - 1) * kLanes);
      }
    });
    for (int tap = 0; tap < kTaps; ++tap) sums_[tap].Add(found[tap]);
    spread_.ForEach<1>(images, [&](const float* place, int64_t pixel) {
      Store(dz + pixel * kLanes, filters.At<true>(place, spread_.pitch));
    });
  }

  void End(const ChannelBlock& block, float* dweight) const {
    float lanes[kTaps * kLanes];
    for (int tap = 0; tap < kTaps; ++tap) Store(lanes + tap * kLanes, sums_[tap].Over(1.0));
    StorePlanes(lanes, kTaps, block.used, dweight + block.first * kTaps);
  }

 private:
  Bordered spread_;  // dy where the filter stood; zero between for stride 2
  LaneSums sums_[kTaps];
};

// Pixels, with their borders, that are worked on at a time.
constexpr int64_t kBorderedPixels = 512;

inline Groups GroupsOf(int64_t n, int64_t h, int64_t w) { return {n, (h + 2) * (w + 2), kBorderedPixels}; }

}  // namespace
