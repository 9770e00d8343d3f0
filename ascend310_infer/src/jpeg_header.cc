#include "jpeg_header.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace infer {
namespace {

constexpr int kStartOfScan = 0xDA;
constexpr int kApp0 = 0xE0;
constexpr int kApp1 = 0xE1;
constexpr int kApp14 = 0xEE;
constexpr std::array<uint8_t, 2> kEndMark = {0xFF, 0xD9};
constexpr std::array<uint8_t, 6> kExif = {'E', 'x', 'i', 'f', 0, 0};
constexpr std::array<uint8_t, 5> kJfif = {'J', 'F', 'I', 'F', 0};
constexpr std::array<uint8_t, 5> kAdobe = {'A', 'd', 'o', 'b', 'e'};
constexpr size_t kAdobeTransform = 11;  // where Adobe's segment says how colours are stored; 0: as they are

bool IsFrame(int marker) {
  return marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
}

// What the segments say about the meaning of three components.
struct Colour {
  bool jfif = false;
  bool adobe = false;
  int transform = 0;
  std::array<uint8_t, 3> names{};

  void Read(int marker, const uint8_t* content, size_t size) {
    constexpr size_t kName = 6;  // of the first component; each takes three bytes
    if (IsFrame(marker) && size >= kName + 3 * names.size()) {
      for (size_t c = 0; c < names.size(); ++c) names[c] = content[kName + 3 * c];
    } else if (marker == kApp0 && size >= 14 && std::equal(kJfif.begin(), kJfif.end(), content)) {
      jfif = true;
    } else if (marker == kApp14 && size > kAdobeTransform && std::equal(kAdobe.begin(), kAdobe.end(), content)) {
      adobe = true;
      transform = content[kAdobeTransform];
    }
  }

  // libjpeg's rule, which evaluation follows: JFIF is YCbCr, then Adobe's segment counts, then the components' names.
  bool IsRgb() const {
    if (jfif) return false;
    return adobe ? transform == 0 : names == std::array<uint8_t, 3>{'R', 'G', 'B'};
  }
};

int Big16(const uint8_t* at) { return at[0] << 8 | at[1]; }

}  // namespace

bool LooksLikeJpeg(const std::vector<uint8_t>& bytes) {
  return bytes.size() > 3 && bytes[0] == 0xFF && bytes[1] == 0xD8;
}

int TiffOrientation(const uint8_t* tiff, size_t size) {
  if (size < 8 || (tiff[0] != 'I' && tiff[0] != 'M')) return 1;
  const bool little = tiff[0] == 'I';
  const auto u16 = [&](size_t at) { return little ? tiff[at] | tiff[at + 1] << 8 : Big16(tiff + at); };
  const auto u32 = [&](size_t at) {
    return little ? static_cast<size_t>(u16(at)) | static_cast<size_t>(u16(at + 2)) << 16
                  : static_cast<size_t>(u16(at)) << 16 | static_cast<size_t>(u16(at + 2));
  };
  const size_t directory = u32(4);
  if (directory > size - 2) return 1;
  constexpr size_t kEntry = 12;
  constexpr int kOrientationTag = 0x0112;
  for (int i = 0; i < u16(directory); ++i) {
    const size_t entry = directory + 2 + i * kEntry;
    if (entry + kEntry > size) return 1;
    if (u16(entry) == kOrientationTag) {
      const int value = u16(entry + 8);
      return value >= 1 && value <= 8 ? value : 1;
    }
  }
  return 1;
}

std::optional<JpegHeader> ReadJpegHeader(const std::vector<uint8_t>& bytes) {
  if (!LooksLikeJpeg(bytes)) return std::nullopt;
  JpegHeader header;
  Colour colour;
  size_t at = 2;
  while (at + 4 <= bytes.size() && bytes[at] == 0xFF) {
    const int marker = bytes[at + 1];
    if (marker == 0xFF) {  // filling in front of a marker
      ++at;
      continue;
    }
    const size_t length = static_cast<size_t>(Big16(&bytes[at + 2]));
    const uint8_t* content = bytes.data() + at + 4;
    if (marker == kStartOfScan) {
      if (header.components == 0) return std::nullopt;
      header.rgb = header.components == 3 && colour.IsRgb();
      // Segments before the pixels (a thumbnail, say) may hold end marks of their own; within them it is unambiguous.
      header.complete = std::search(bytes.begin() + static_cast<std::ptrdiff_t>(at), bytes.end(), kEndMark.begin(),
                                    kEndMark.end()) != bytes.end();
      return header;
    }
    if (length < 2 || at + 2 + length > bytes.size()) return std::nullopt;
    colour.Read(marker, content, length - 2);
    if (IsFrame(marker) && length >= 8) {
      header.frame = marker;
      header.height = Big16(content + 1);
      header.width = Big16(content + 3);
      header.components = content[5];
    } else if (marker == kApp1 && length > 2 + kExif.size() && std::equal(kExif.begin(), kExif.end(), content)) {
      header.orientation = TiffOrientation(content + kExif.size(), length - 2 - kExif.size());
    }
    at += 2 + length;
  }
  return std::nullopt;
}

}  // namespace infer
