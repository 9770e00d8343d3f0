#include "decode.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "errors.h"
#include "jpeg_header.h"

namespace infer {

void CheckSize(int64_t width, int64_t height) {
  const std::string size = std::to_string(width) + "x" + std::to_string(height) + " pixels";
  if (width < 1 || height < 1) throw BadImage(size);
  if (width * height > kMostPixels)
    throw BadImage(size + ", more than the " + std::to_string(kMostPixels) + " that are read");
  if (std::max(width, height) > kMostAspect * std::min(width, height)) {
    throw BadImage(size + ", one side over " + std::to_string(kMostAspect) + " times the other");
  }
}

Image Upright(Image image, int orientation) {
  if (orientation <= 1 || orientation > 8) return image;
  const bool swapped = orientation >= 5;
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_below = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Image turned(swapped ? image.height : image.width, swapped ? image.width : image.height);
  for (int y = 0; y < turned.height; ++y) {
    for (int x = 0; x < turned.width; ++x) {
      int source_x = swapped ? y : x;
      int source_y = swapped ? x : y;
      if (from_right) source_x = image.width - 1 - source_x;
      if (from_below) source_y = image.height - 1 - source_y;
      std::copy_n(image.Row(source_y) + source_x * kChannels, kChannels, turned.Row(y) + x * kChannels);
    }
  }
  return turned;
}

Image Decode(const std::vector<uint8_t>& bytes) {
  constexpr std::array<uint8_t, 4> kPng = {0x89, 'P', 'N', 'G'};
  if (LooksLikeJpeg(bytes)) return DecodeJpeg(bytes);
  if (bytes.size() > kPng.size() && std::equal(kPng.begin(), kPng.end(), bytes.begin())) return DecodePng(bytes);
  throw BadImage("neither JPEG nor PNG");
}

}  // namespace infer
