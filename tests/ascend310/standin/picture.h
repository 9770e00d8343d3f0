// What the chip's picture engines do to pixels, without the interface around it.
#ifndef STANDIN_PICTURE_H_
#define STANDIN_PICTURE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace standin {

struct JpegSize {
  int width = 0;
  int height = 0;
};

// Throws std::runtime_error for what the chip does not decode.
JpegSize ReadJpegSize(const uint8_t* data, size_t size);

// NV12 in memory: `rows` rows of `stride` bytes for Y, half as many for Cb and Cr.
struct Nv12 {
  uint8_t* data;
  int width;
  int height;
  int stride;
  int rows;
  uint8_t* Colours() const { return data + static_cast<ptrdiff_t>(stride) * rows; }
};

// Decodes into `target`, whose sizes are even. Throws std::runtime_error.
void DecodeJpeg(const uint8_t* data, size_t size, const Nv12& target);

struct Part {
  int left;
  int top;
  int width;
  int height;
};

// Bilinear with half-pixel centres, each plane on its own.
void Scale(const Nv12& source, const Part& part, const Nv12& target);

}  // namespace standin

#endif  // STANDIN_PICTURE_H_
