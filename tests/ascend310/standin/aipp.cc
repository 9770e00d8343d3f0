#include "aipp.h"

#include <algorithm>
#include <array>

#include "acl/acl_mdl.h"
#include "half.h"

namespace standin {
namespace {

constexpr size_t kChannels = 3;
using Pixel = std::array<int, kChannels>;

double Value(const Aipp& aipp, const std::string& key, double otherwise) {
  const auto found = aipp.find(key);
  return found == aipp.end() ? otherwise : found->second;
}

Pixel ReadYuv(const uint8_t* picture, int width, int height, int x, int y) {
  const uint8_t* colours =
      picture + static_cast<ptrdiff_t>(width) * height + static_cast<ptrdiff_t>(y / 2) * width + x / 2 * 2;
  return {picture[static_cast<ptrdiff_t>(y) * width + x], colours[0], colours[1]};
}

struct ColourSpace {
  std::array<std::array<int, kChannels>, kChannels> matrix;
  Pixel input_bias;
  Pixel output_bias;

  explicit ColourSpace(const Aipp& aipp) {
    for (size_t r = 0; r < kChannels; ++r) {
      const std::string row = std::to_string(r);
      for (size_t c = 0; c < kChannels; ++c) {
        matrix[r][c] = static_cast<int>(Value(aipp, "matrix_r" + row + "c" + std::to_string(c), 0));
      }
      input_bias[r] = static_cast<int>(Value(aipp, "input_bias_" + row, 0));
      output_bias[r] = static_cast<int>(Value(aipp, "output_bias_" + row, 0));
    }
  }

  Pixel Convert(const Pixel& from) const {
    Pixel to{};
    for (size_t r = 0; r < kChannels; ++r) {
      int sum = 0;
      for (size_t c = 0; c < kChannels; ++c) sum += matrix[r][c] * (from[c] - input_bias[c]);
      to[r] = std::clamp((sum >> 8) + output_bias[r], 0, 255);
    }
    return to;
  }
};

}  // namespace

bool IsYuv(const Aipp& aipp) { return static_cast<int>(aipp.at("input_format")) == ACL_YUV420SP_U8; }

size_t SourceBytes(const Aipp& aipp, int width, int height) {
  const size_t pixels = static_cast<size_t>(width) * height;
  return IsYuv(aipp) ? pixels * 3 / 2 : pixels * kChannels;
}

void ApplyAipp(const Aipp& aipp, const uint8_t* picture, int width, int height, float* planes) {
  const bool convert = Value(aipp, "csc_switch", 0) != 0;
  const ColourSpace colours(aipp);
  std::array<std::array<float, 256>, kChannels> table;
  for (size_t c = 0; c < kChannels; ++c) {
    const std::string channel = std::to_string(c);
    const double mean = Value(aipp, "mean_chn_" + channel, 0);
    const float least = FromHalf(ToHalf(static_cast<float>(Value(aipp, "min_chn_" + channel, 0))));
    const float factor = FromHalf(ToHalf(static_cast<float>(Value(aipp, "var_reci_chn_" + channel, 1))));
    for (size_t v = 0; v < table[c].size(); ++v) {
      const float centred = static_cast<float>(static_cast<double>(v) - mean) - least;
      table[c][v] = FromHalf(ToHalf(centred * factor));
    }
  }
  const size_t plane = static_cast<size_t>(width) * height;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const size_t at = static_cast<size_t>(y) * width + x;
      Pixel pixel{};
      if (IsYuv(aipp)) {
        pixel = ReadYuv(picture, width, height, x, y);
      } else {
        std::copy_n(picture + at * kChannels, kChannels, pixel.begin());
      }
      if (convert) pixel = colours.Convert(pixel);
      for (size_t c = 0; c < kChannels; ++c) planes[c * plane + at] = table[c][static_cast<size_t>(pixel[c])];
    }
  }
}

}  // namespace standin
