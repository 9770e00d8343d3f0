#ifndef ASCEND310_INFER_IMAGE_H_
#define ASCEND310_INFER_IMAGE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace infer {

constexpr int kChannels = 3;

// RGB, 8 bits, row after row without gaps.
struct Image {
  int width = 0;
  int height = 0;
  std::vector<uint8_t> pixels;

  Image() = default;
  Image(int w, int h) : width(w), height(h), pixels(static_cast<size_t>(w) * h * kChannels) {}
  const uint8_t* Row(int y) const { return pixels.data() + static_cast<size_t>(y) * width * kChannels; }
  uint8_t* Row(int y) { return pixels.data() + static_cast<size_t>(y) * width * kChannels; }
};

}  // namespace infer

#endif  // ASCEND310_INFER_IMAGE_H_
