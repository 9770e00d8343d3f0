#include "resize.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>

namespace infer {
namespace {

constexpr int kOne = 1 << 11;  // OpenCV's fixed point for bilinear weights

// The two source positions of a target position, and the share of the second.
struct Tap {
  int first;
  int second;
  float share;
};

std::vector<Tap> BilinearTaps(int source, int target) {
  std::vector<Tap> taps(static_cast<size_t>(target));
  const double scale = 1.0 / (static_cast<double>(target) / source);
  for (int i = 0; i < target; ++i) {
    const auto position = static_cast<float>((i + 0.5) * scale - 0.5);
    const int first = static_cast<int>(std::floor(position));
    taps[static_cast<size_t>(i)] = {std::clamp(first, 0, source - 1), std::clamp(first + 1, 0, source - 1),
                                    position - static_cast<float>(first)};
  }
  return taps;
}

int Fixed(float weight) { return static_cast<int>(std::lrint(weight * kOne)); }

// A run of source positions that a target position averages.
struct Span {
  int first;
  std::vector<float> weights;
};

std::vector<Span> AreaSpans(int source, int target) {
  std::vector<Span> spans;
  const double scale = static_cast<double>(source) / target;
  constexpr double kNothing = 1e-3;
  for (int i = 0; i < target; ++i) {
    const double begin = i * scale;
    const double end = begin + scale;
    const double cell = std::min(scale, source - begin);
    const int last = std::min(static_cast<int>(std::floor(end)), source - 1);
    const int whole = std::min(static_cast<int>(std::ceil(begin)), last);
    Span span{whole, {}};
    if (whole - begin > kNothing) {
      span.first = whole - 1;
      span.weights.push_back(static_cast<float>((whole - begin) / cell));
    }
    for (int x = whole; x < last; ++x) span.weights.push_back(static_cast<float>(1.0 / cell));
    if (end - last > kNothing) {
      span.weights.push_back(static_cast<float>(std::min(std::min(end - last, 1.0), cell) / cell));
    }
    spans.push_back(span);
  }
  return spans;
}

uint8_t Rounded(float value) { return static_cast<uint8_t>(std::clamp(std::lrint(value), 0L, 255L)); }

void AddRow(const uint8_t* source, const std::vector<Span>& spans, float weight, std::vector<float>* sums) {
  for (size_t x = 0; x < spans.size(); ++x) {
    for (int c = 0; c < kChannels; ++c) {
      float sum = 0;
      const uint8_t* from = source + spans[x].first * kChannels + c;
      for (size_t k = 0; k < spans[x].weights.size(); ++k) sum += spans[x].weights[k] * from[k * kChannels];
      (*sums)[x * kChannels + c] += weight * sum;
    }
  }
}

// OpenCV takes exact halves of both axes as 2x2 means even where bilinear is asked for.
bool IsHalf(const Image& image, int width, int height) {
  return image.width == 2 * width && image.height == 2 * height;
}

Image Halved(const Image& image) {
  Image half(image.width / 2, image.height / 2);
  for (int y = 0; y < half.height; ++y) {
    const uint8_t* upper = image.Row(2 * y);
    const uint8_t* lower = image.Row(2 * y + 1);
    uint8_t* target = half.Row(y);
    for (int i = 0; i < half.width * kChannels; ++i) {
      const int at = i / kChannels * 2 * kChannels + i % kChannels;
      target[i] =
          static_cast<uint8_t>((upper[at] + upper[at + kChannels] + lower[at] + lower[at + kChannels] + 2) >> 2);
    }
  }
  return half;
}

}  // namespace

Image ResizeLinear(const Image& image, int width, int height) {
  if (IsHalf(image, width, height)) return Halved(image);
  Image resized(width, height);
  const std::vector<Tap> columns = BilinearTaps(image.width, width);
  const std::vector<Tap> rows = BilinearTaps(image.height, height);
  const size_t values = static_cast<size_t>(width) * kChannels;
  std::vector<int> upper(values);
  std::vector<int> lower(values);
  const auto horizontal = [&](int y, std::vector<int>* out) {
    const uint8_t* source = image.Row(y);
    for (size_t x = 0; x < columns.size(); ++x) {
      const Tap& tap = columns[x];
      const int second = Fixed(tap.share);
      const int first = Fixed(1.0F - tap.share);
      for (int c = 0; c < kChannels; ++c) {
        (*out)[x * kChannels + c] =
            source[tap.first * kChannels + c] * first + source[tap.second * kChannels + c] * second;
      }
    }
  };
  for (int y = 0; y < height; ++y) {
    const Tap& tap = rows[static_cast<size_t>(y)];
    horizontal(tap.first, &upper);
    horizontal(tap.second, &lower);
    const int first = Fixed(1.0F - tap.share);
    const int second = Fixed(tap.share);
    uint8_t* target = resized.Row(y);
    for (size_t i = 0; i < values; ++i) {
      target[i] =
          static_cast<uint8_t>((((first * (upper[i] >> 4)) >> 16) + ((second * (lower[i] >> 4)) >> 16) + 2) >> 2);
    }
  }
  return resized;
}

Image ResizeArea(const Image& image, int width, int height) {
  if (IsHalf(image, width, height)) return Halved(image);
  Image resized(width, height);
  const std::vector<Span> columns = AreaSpans(image.width, width);
  const std::vector<Span> rows = AreaSpans(image.height, height);
  std::vector<float> sums(static_cast<size_t>(width) * kChannels);
  for (int y = 0; y < height; ++y) {
    const Span& span = rows[static_cast<size_t>(y)];
    std::fill(sums.begin(), sums.end(), 0.0F);
    for (size_t k = 0; k < span.weights.size(); ++k) {
      AddRow(image.Row(span.first + static_cast<int>(k)), columns, span.weights[k], &sums);
    }
    std::transform(sums.begin(), sums.end(), resized.Row(y), Rounded);
  }
  return resized;
}

Image Resize(const Image& image, int width, int height) {
  const bool shrinks = image.height > 2 * height && image.width > 2 * width;
  return shrinks ? ResizeArea(image, width, height) : ResizeLinear(image, width, height);
}

std::vector<float> ResizePlane(const float* plane, int width, int height, int new_width, int new_height) {
  const std::vector<Tap> columns = BilinearTaps(width, new_width);
  const std::vector<Tap> rows = BilinearTaps(height, new_height);
  std::vector<float> resized;
  resized.reserve(static_cast<size_t>(new_width) * new_height);
  for (const Tap& row : rows) {
    const float* upper = plane + static_cast<size_t>(row.first) * width;
    const float* lower = plane + static_cast<size_t>(row.second) * width;
    for (const Tap& column : columns) {
      const float above = upper[column.first] * (1 - column.share) + upper[column.second] * column.share;
      const float below = lower[column.first] * (1 - column.share) + lower[column.second] * column.share;
      resized.push_back(above * (1 - row.share) + below * row.share);
    }
  }
  return resized;
}

}  // namespace infer
