#include <png.h>

#include <array>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>

#include "decode.h"
#include "errors.h"
#include "jpeg_header.h"

namespace infer {
namespace {

struct Source {
  const uint8_t* next;
  size_t left;
  std::array<char, 200> text;
};

void Read(png_structp png, png_bytep target, size_t size) {
  auto* source = static_cast<Source*>(png_get_io_ptr(png));
  if (size > source->left) png_error(png, "truncated PNG");
  std::memcpy(target, source->next, size);
  source->next += size;
  source->left -= size;
}

void Jump(png_structp png, png_const_charp message) {
  auto* source = static_cast<Source*>(png_get_error_ptr(png));
  std::snprintf(source->text.data(), source->text.size(), "%s", message);
  png_longjmp(png, 1);
}

void Silent(png_structp, png_const_charp) {}

// Whatever the file holds becomes 8-bit RGB; transparency is dropped, as OpenCV does.
void AskForRgb(png_structp png, png_infop info) {
  png_set_strip_16(png);
  png_set_strip_alpha(png);
  png_set_palette_to_rgb(png);
  png_set_expand_gray_1_2_4_to_8(png);
  const int type = png_get_color_type(png, info);
  if (type == PNG_COLOR_TYPE_GRAY || type == PNG_COLOR_TYPE_GRAY_ALPHA) png_set_gray_to_rgb(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
}

// No object with a destructor may be made in these two functions: libpng's errors jump out of them.
bool ReadInfo(png_structp png, png_infop info, Source* source) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  png_set_read_fn(png, source, Read);
  png_read_info(png, info);
  return true;
}

bool Unpack(png_structp png, png_infop info, png_bytepp rows, int width) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  AskForRgb(png, info);
  if (png_get_rowbytes(png, info) != static_cast<size_t>(width) * kChannels) png_error(png, "unknown kind of PNG");
  png_read_image(png, rows);
  png_read_end(png, info);
  return true;
}

int Orientation(png_structp png, png_infop info) {
#ifdef PNG_eXIf_SUPPORTED
  png_bytep exif = nullptr;
  png_uint_32 size = 0;
  if (png_get_eXIf_1(png, info, &size, &exif) != 0) return TiffOrientation(exif, size);
#endif
  return 1;
}

// Both handles of a read, freed together.
struct Reader {
  explicit Reader(Source* source)
      : png(png_create_read_struct(PNG_LIBPNG_VER_STRING, source, Jump, Silent)),
        info(png == nullptr ? nullptr : png_create_info_struct(png)) {
    if (info == nullptr) {
      png_destroy_read_struct(&png, nullptr, nullptr);
      throw std::bad_alloc();
    }
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }
  png_structp png;
  png_infop info;
};

}  // namespace

Image DecodePng(const std::vector<uint8_t>& bytes) {
  Source source{bytes.data(), bytes.size(), {}};
  Reader reader(&source);
  const auto refuse = [&] { throw BadImage(std::string("not a PNG picture: ") + source.text.data()); };
  if (!ReadInfo(reader.png, reader.info, &source)) refuse();
  const int64_t width = png_get_image_width(reader.png, reader.info);
  const int64_t height = png_get_image_height(reader.png, reader.info);
  CheckSize(width, height);
  Image image(static_cast<int>(width), static_cast<int>(height));
  std::vector<png_bytep> rows;
  for (int y = 0; y < image.height; ++y) rows.push_back(image.Row(y));
  if (!Unpack(reader.png, reader.info, rows.data(), image.width)) refuse();
  return Upright(std::move(image), Orientation(reader.png, reader.info));
}

std::vector<uint8_t> EncodeGreyPng(const std::vector<uint8_t>& grey, int width, int height) {
  png_image header{};
  header.version = PNG_IMAGE_VERSION;
  header.width = static_cast<png_uint_32>(width);
  header.height = static_cast<png_uint_32>(height);
  header.format = PNG_FORMAT_GRAY;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(header);
  std::vector<uint8_t> bytes(size);
  if (png_image_write_to_memory(&header, bytes.data(), &size, 0, grey.data(), 0, nullptr) == 0) {
    throw std::runtime_error(std::string("cannot write a PNG: ") + header.message);
  }
  bytes.resize(size);
  return bytes;
}

}  // namespace infer
