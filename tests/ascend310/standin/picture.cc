#include "picture.h"

#include <jpeglib.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <stdexcept>

namespace standin {
namespace {

struct ErrorManager {
  jpeg_error_mgr base;
  std::jmp_buf on_error;
};

void Jump(j_common_ptr info) { std::longjmp(reinterpret_cast<ErrorManager*>(info->err)->on_error, 1); }
void Silent(j_common_ptr) {}

struct Plane {
  int width = 0;
  int height = 0;
  std::vector<uint8_t> values;
};
using Planes = std::array<Plane, 3>;

void Begin(jpeg_decompress_struct* info, ErrorManager* manager) {
  info->err = jpeg_std_error(&manager->base);
  manager->base.error_exit = Jump;
  manager->base.output_message = Silent;
  jpeg_create_decompress(info);
}

// Errors jump out of the next two functions, so that they make no objects with destructors.
bool ReadHeader(const uint8_t* data, size_t size, jpeg_decompress_struct* info, ErrorManager* manager) {
  if (setjmp(manager->on_error) != 0) return false;
  jpeg_mem_src(info, data, size);
  jpeg_read_header(info, TRUE);
  return true;
}

bool ReadPlanes(jpeg_decompress_struct* info, ErrorManager* manager, Planes* planes) {
  if (setjmp(manager->on_error) != 0) return false;
  const int rows_at_once = info->max_v_samp_factor * DCTSIZE;
  while (info->output_scanline < info->output_height) {
    JSAMPROW rows[3][4 * DCTSIZE];
    JSAMPARRAY arrays[3] = {rows[0], rows[1], rows[2]};
    for (int c = 0; c < info->num_components; ++c) {
      Plane& plane = (*planes)[static_cast<size_t>(c)];
      const int factor = info->comp_info[c].v_samp_factor;
      const int first = static_cast<int>(info->output_scanline) / rows_at_once * factor * DCTSIZE;
      for (int r = 0; r < factor * DCTSIZE; ++r) {
        rows[c][r] = plane.values.data() + static_cast<ptrdiff_t>(std::min(first + r, plane.height - 1)) * plane.width;
      }
    }
    jpeg_read_raw_data(info, arrays, static_cast<JDIMENSION>(rows_at_once));
  }
  return true;
}

// Planes as they are stored, whole blocks: wider and higher than the picture.
Planes EmptyPlanes(const jpeg_decompress_struct& info) {
  Planes planes;
  for (int c = 0; c < info.num_components; ++c) {
    const jpeg_component_info& component = info.comp_info[c];
    const int blocks_down =
        component.v_samp_factor * ((static_cast<int>(info.image_height) - 1) / (info.max_v_samp_factor * DCTSIZE) + 1);
    planes[static_cast<size_t>(c)].width = static_cast<int>((component.width_in_blocks + 8) * DCTSIZE);
    planes[static_cast<size_t>(c)].height = blocks_down * DCTSIZE;
    planes[static_cast<size_t>(c)].values.resize(static_cast<size_t>(planes[c].width) * planes[c].height);
  }
  return planes;
}

// One colour value for 2x2 pixels, the mean of what is stored for them.
uint8_t Colour(const Plane& plane, double step_x, double step_y, int x, int y) {
  const int left = static_cast<int>(x * step_x);
  const int top = static_cast<int>(y * step_y);
  const int right = std::max(static_cast<int>((x + 1) * step_x), left + 1);
  const int bottom = std::max(static_cast<int>((y + 1) * step_y), top + 1);
  int sum = 0;
  for (int v = top; v < bottom; ++v) {
    for (int u = left; u < right; ++u) sum += plane.values[static_cast<size_t>(v) * plane.width + u];
  }
  const int count = (right - left) * (bottom - top);
  return static_cast<uint8_t>((sum + count / 2) / count);
}

void Store(const jpeg_decompress_struct& info, const Planes& planes, const Nv12& target) {
  for (int y = 0; y < target.height; ++y) {
    const auto row = planes[0].values.begin() + static_cast<ptrdiff_t>(y) * planes[0].width;
    std::copy(row, row + target.width, target.data + static_cast<ptrdiff_t>(y) * target.stride);
  }
  for (int y = 0; y < target.height / 2; ++y) {
    for (int x = 0; x < target.width; ++x) {
      uint8_t* colour = target.Colours() + static_cast<ptrdiff_t>(y) * target.stride + x;
      if (info.num_components == 1) {
        *colour = 0x80;
        continue;
      }
      const int c = 1 + x % 2;
      const double step_x = 2.0 * info.comp_info[c].h_samp_factor / info.max_h_samp_factor;
      const double step_y = 2.0 * info.comp_info[c].v_samp_factor / info.max_v_samp_factor;
      *colour = Colour(planes[static_cast<size_t>(c)], step_x, step_y, x / 2, y);
    }
  }
}

void ScalePlane(const uint8_t* source, int stride, int pixel, const Part& part, uint8_t* target, int target_stride,
                int width, int height) {
  const double step_x = static_cast<double>(part.width) / width;
  const double step_y = static_cast<double>(part.height) / height;
  for (int y = 0; y < height; ++y) {
    const double at_y = std::clamp((y + 0.5) * step_y - 0.5, 0.0, part.height - 1.0);
    const int top = static_cast<int>(at_y);
    const int bottom = std::min(top + 1, part.height - 1);
    for (int x = 0; x < width; ++x) {
      const double at_x = std::clamp((x + 0.5) * step_x - 0.5, 0.0, part.width - 1.0);
      const int left = static_cast<int>(at_x);
      const int right = std::min(left + 1, part.width - 1);
      const auto value = [&](int u, int v) {
        return source[static_cast<ptrdiff_t>(part.top + v) * stride + (part.left + u) * pixel];
      };
      const double above = value(left, top) * (1 - at_x + left) + value(right, top) * (at_x - left);
      const double below = value(left, bottom) * (1 - at_x + left) + value(right, bottom) * (at_x - left);
      target[static_cast<ptrdiff_t>(y) * target_stride + x * pixel] =
          static_cast<uint8_t>(std::lround(above * (1 - at_y + top) + below * (at_y - top)));
    }
  }
}

// A decompressor that is destroyed whatever happens.
struct Decompressor {
  Decompressor(const uint8_t* data, size_t size) {
    Begin(&info, &manager);
    if (!ReadHeader(data, size, &info, &manager)) {
      jpeg_destroy_decompress(&info);
      throw std::runtime_error("not a JPEG picture");
    }
  }
  Decompressor(const Decompressor&) = delete;
  Decompressor& operator=(const Decompressor&) = delete;
  ~Decompressor() { jpeg_destroy_decompress(&info); }
  jpeg_decompress_struct info{};
  ErrorManager manager{};
};

}  // namespace

JpegSize ReadJpegSize(const uint8_t* data, size_t size) {
  constexpr int kSmallest = 32;
  constexpr int kLargest = 8192;
  const Decompressor jpeg(data, size);
  const int width = static_cast<int>(jpeg.info.image_width);
  const int height = static_cast<int>(jpeg.info.image_height);
  if (jpeg.info.progressive_mode != 0 || jpeg.info.arith_code != 0)
    throw std::runtime_error("progressive or arithmetic JPEG");
  if (jpeg.info.num_components != 1 && jpeg.info.num_components != 3) throw std::runtime_error("JPEG in CMYK");
  if (std::min(width, height) < kSmallest || std::max(width, height) > kLargest) {
    throw std::runtime_error("JPEG of " + std::to_string(width) + "x" + std::to_string(height) + " pixels");
  }
  return {width, height};
}

void DecodeJpeg(const uint8_t* data, size_t size, const Nv12& target) {
  Decompressor jpeg(data, size);
  if (setjmp(jpeg.manager.on_error) != 0) throw std::runtime_error("broken JPEG");
  jpeg.info.raw_data_out = TRUE;
  jpeg.info.do_fancy_upsampling = FALSE;
  jpeg.info.out_color_space = jpeg.info.num_components == 1 ? JCS_GRAYSCALE : JCS_YCbCr;
  jpeg_start_decompress(&jpeg.info);
  Planes planes = EmptyPlanes(jpeg.info);
  if (!ReadPlanes(&jpeg.info, &jpeg.manager, &planes)) throw std::runtime_error("broken JPEG");
  Store(jpeg.info, planes, target);
}

void Scale(const Nv12& source, const Part& part, const Nv12& target) {
  ScalePlane(source.data, source.stride, 1, part, target.data, target.stride, target.width, target.height);
  const Part half = {part.left / 2, part.top / 2, part.width / 2, part.height / 2};
  for (int c = 0; c < 2; ++c) {
    ScalePlane(source.Colours() + c, source.stride, 2, half, target.Colours() + c, target.stride, target.width / 2,
               target.height / 2);
  }
}

}  // namespace standin
