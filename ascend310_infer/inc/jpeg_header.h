#ifndef ASCEND310_INFER_JPEG_HEADER_H_
#define ASCEND310_INFER_JPEG_HEADER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace infer {

// What the markers in front of a JPEG file's pixels say.
struct JpegHeader {
  int width = 0;
  int height = 0;
  int components = 0;
  bool rgb = false;  // three components that are no YCbCr
  int frame = 0;     // second byte of the start-of-frame marker: 0xC0 baseline, 0xC1 sequential, 0xC2 progressive ...
  int orientation = 1;    // of EXIF, 1..8
  bool complete = false;  // an end mark follows the pixels
};

bool LooksLikeJpeg(const std::vector<uint8_t>& bytes);

// Nothing where the markers do not lead to a frame and its pixels.
std::optional<JpegHeader> ReadJpegHeader(const std::vector<uint8_t>& bytes);

// The orientation in a TIFF block (the content of EXIF), 1 where it has none.
int TiffOrientation(const uint8_t* tiff, size_t size);

}  // namespace infer

#endif  // ASCEND310_INFER_JPEG_HEADER_H_
