#ifndef ASCEND310_INFER_DECODE_H_
#define ASCEND310_INFER_DECODE_H_

#include <cstdint>
#include <vector>

#include "image.h"

namespace infer {

constexpr int64_t kMostPixels = 64'000'000;  // larger pictures are refused before they are unpacked
constexpr int kMostAspect = 100;             // one side over the other; thinner pictures take gigabytes when enlarged

// Throws BadImage for sizes that are refused.
void CheckSize(int64_t width, int64_t height);

// The encoded bytes of a JPEG or PNG file -> RGB, upright (EXIF orientation applied). Throws BadImage.
Image Decode(const std::vector<uint8_t>& bytes);

// The picture turned as EXIF's `orientation` (1..8) asks.
Image Upright(Image image, int orientation);

// The two formats of Decode.
Image DecodeJpeg(const std::vector<uint8_t>& bytes);
Image DecodePng(const std::vector<uint8_t>& bytes);

// 8-bit grey PNG. Throws std::runtime_error.
std::vector<uint8_t> EncodeGreyPng(const std::vector<uint8_t>& grey, int width, int height);

}  // namespace infer

#endif  // ASCEND310_INFER_DECODE_H_
