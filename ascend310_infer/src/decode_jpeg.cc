#include <array>
#include <csetjmp>
#include <cstdio>
#include <optional>
#include <string>

// jpeglib.h needs size_t and FILE to be declared before it.
#include <jpeglib.h>

#include "decode.h"
#include "errors.h"
#include "jpeg_header.h"

namespace infer {
namespace {

struct ErrorManager {
  jpeg_error_mgr base;
  std::jmp_buf on_error;
  std::array<char, JMSG_LENGTH_MAX> text;
};

// libjpeg is C: an exception must not pass through it, so that errors jump.
void Jump(j_common_ptr info) {
  auto* manager = reinterpret_cast<ErrorManager*>(info->err);
  info->err->format_message(info, manager->text.data());
  std::longjmp(manager->on_error, 1);
}

void Silent(j_common_ptr) {}

// As OpenCV does: Adobe's CMYK is stored inverted.
void CmykToRgb(const uint8_t* cmyk, int width, uint8_t* rgb) {
  for (int x = 0; x < width; ++x) {
    const int k = cmyk[4 * x + 3];
    for (int c = 0; c < kChannels; ++c) {
      rgb[kChannels * x + c] = static_cast<uint8_t>(k - ((255 - cmyk[4 * x + c]) * k >> 8));
    }
  }
}

// Fills `image`, whose size is the header's. No object with a destructor may be made here: errors jump out of it.
bool Unpack(const uint8_t* bytes, size_t size, Image* image, uint8_t* line, ErrorManager* manager) {
  jpeg_decompress_struct info;
  info.err = jpeg_std_error(&manager->base);
  manager->base.error_exit = Jump;
  manager->base.output_message = Silent;
  jpeg_create_decompress(&info);
  if (setjmp(manager->on_error) != 0) {
    jpeg_destroy_decompress(&info);
    return false;
  }
  jpeg_mem_src(&info, bytes, static_cast<unsigned long>(size));  // NOLINT: libjpeg's type
  jpeg_read_header(&info, TRUE);
  info.out_color_space = info.num_components == 4 ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(&info);
  while (info.output_scanline < info.output_height) {
    uint8_t* row = image->Row(static_cast<int>(info.output_scanline));
    JSAMPROW target = info.num_components == 4 ? line : row;
    jpeg_read_scanlines(&info, &target, 1);
    if (info.num_components == 4) CmykToRgb(line, image->width, row);
  }
  jpeg_finish_decompress(&info);
  jpeg_destroy_decompress(&info);
  return true;
}

}  // namespace

Image DecodeJpeg(const std::vector<uint8_t>& bytes) {
  const std::optional<JpegHeader> header = ReadJpegHeader(bytes);
  if (!header) throw BadImage("not a JPEG picture, or a truncated one");
  CheckSize(header->width, header->height);
  // Decoders fill up what a truncated file lacks with grey; such files are refused instead.
  if (!header->complete) throw BadImage("truncated JPEG");
  Image image(header->width, header->height);
  std::vector<uint8_t> line(static_cast<size_t>(header->width) * 4);
  ErrorManager manager{};
  if (!Unpack(bytes.data(), bytes.size(), &image, line.data(), &manager)) {
    throw BadImage(std::string("not a JPEG picture: ") + manager.text.data());
  }
  return Upright(std::move(image), header->orientation);
}

}  // namespace infer
