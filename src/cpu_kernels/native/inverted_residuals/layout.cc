// From (N, C, H, W) to (N, H, W, C) and back.

#include "convolutions/channel_blocks.h"
#include "operators.h"

namespace {

// The pixels of the images x (n, c, size) and of y (n, size, c); whole tiles of kLanes channels.
template <typename Work>
void ForEachTile(int64_t n, int64_t c, int64_t size, Work work) {
  const int64_t blocks = CeilDiv(c, kLanes), parts = CeilDiv(size, kTilePixels);
#pragma omp parallel for schedule(static) if (IsWorthThreads(n * c * size))
  for (int64_t item = 0; item < n * blocks * parts; ++item) {
    const ChannelBlock block(c, item % blocks);
    const int64_t image = item / blocks / parts, pixel = item / blocks % parts * kTilePixels;
    work(block, image, pixel, std::min(kTilePixels, size - pixel));
  }
}

void ToLast(const float* x, int64_t n, int64_t c, int64_t size, float* y) {
  ForEachTile(n, c, size, [=](const ChannelBlock& block, int64_t image, int64_t first, int64_t pixels) {
    for (int64_t lane = 0; lane < block.used; ++lane) {
      const float* from = x + (image * c + block.first + lane) * size + first;
      float* to = y + (image * size + first) * c + block.first + lane;
      for (int64_t pixel = 0; pixel < pixels; ++pixel) to[pixel * c] = from[pixel];
    }
  });
}

void ToFirst(const float* x, int64_t n, int64_t c, int64_t size, float* y) {
  ForEachTile(n, c, size, [=](const ChannelBlock& block, int64_t image, int64_t first, int64_t pixels) {
    for (int64_t lane = 0; lane < block.used; ++lane) {
      const float* from = x + (image * size + first) * c + block.first + lane;
      float* to = y + (image * c + block.first + lane) * size + first;
      for (int64_t pixel = 0; pixel < pixels; ++pixel) to[pixel] = from[pixel * c];
    }
  });
}

void Last(const ChannelsLastArgs& a) { ToLast(a.x, a.n, a.c, a.h * a.w, a.y); }
void LastBackward(const ChannelsLastBackwardArgs& a) { ToFirst(a.dy, a.n, a.c, a.h * a.w, a.dx); }
void First(const ChannelsFirstArgs& a) { ToFirst(a.x, a.n, a.c, a.h * a.w, a.y); }
void FirstBackward(const ChannelsFirstBackwardArgs& a) { ToLast(a.dy, a.n, a.c, a.h * a.w, a.dx); }

}  // namespace

EXPORT(ChannelsLast, Last)
EXPORT(ChannelsLastBackward, LastBackward)
EXPORT(ChannelsFirst, First)
EXPORT(ChannelsFirstBackward, FirstBackward)
