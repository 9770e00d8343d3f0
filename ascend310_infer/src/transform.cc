#include "transform.h"

#include <algorithm>
#include <cmath>

#include "resize.h"

namespace infer {
namespace {

int RoundHalfEven(double value) { return static_cast<int>(std::nearbyint(value)); }

uint8_t Byte(double value) { return static_cast<uint8_t>(std::clamp(std::lround(value), 0L, 255L)); }

// Copies `from` into `to`; negative offsets leave its first rows or columns out.
void Paste(const Image& from, int left, int top, Image* to) {
  const int x = std::max(left, 0);
  const int end = std::min(left + from.width, to->width);
  for (int y = std::max(top, 0); y < std::min(top + from.height, to->height); ++y) {
    const uint8_t* source = from.Row(y - top);
    std::copy(source + (x - left) * kChannels, source + (end - left) * kChannels, to->Row(y) + x * kChannels);
  }
}

int CropOffset(int length, int wanted) {
  return length < wanted ? -((wanted - length) / 2) : RoundHalfEven((length - wanted) / 2.0);
}

// Size of the image when its shorter side is `ratio` times the input; the longer one is rounded down.
Size ShorterSide(Size image, Size input, double ratio) {
  const int shorter = RoundHalfEven(std::max(input.width, input.height) * ratio);
  const auto longer = [&](int along, int across) {
    return static_cast<int>(static_cast<double>(static_cast<int64_t>(shorter) * along) / across);
  };
  if (image.height <= image.width) return {longer(image.width, image.height), shorter};
  return {shorter, longer(image.height, image.width)};
}

// Limits of the chip's resizer.
constexpr int kMostUp = 16;
constexpr int kLargestOutput = 4096;
constexpr Size kSmallestPart = {10, 6};

// The plan with the sizes from its part to the input, or none where they are beyond the limits.
DvppPlan Steps(DvppPlan plan, Size input) {
  const bool small = plan.part.width < kSmallestPart.width || plan.part.height < kSmallestPart.height;
  if (small || plan.part.width * kMostUp < input.width || plan.part.height * kMostUp < input.height) return {};
  Size step = input;
  std::vector<Size> backwards = {step};
  while (plan.part.width > 2 * step.width || plan.part.height > 2 * step.height) {
    step = {2 * step.width, 2 * step.height};
    if (std::max(step.width, step.height) > kLargestOutput) break;
    backwards.push_back(step);
  }
  plan.steps.assign(backwards.rbegin(), backwards.rend());
  return plan;
}

}  // namespace

Size FittedSize(Size image, Size input) {
  const double factor =
      std::min(static_cast<double>(input.width) / image.width, static_cast<double>(input.height) / image.height);
  return {std::clamp(static_cast<int>(image.width * factor + 0.5), 1, input.width),
          std::clamp(static_cast<int>(image.height * factor + 0.5), 1, input.height)};
}

Image CenterCrop(const Image& image, Size size) {
  Image cropped(size.width, size.height);
  Paste(image, -CropOffset(image.width, size.width), -CropOffset(image.height, size.height), &cropped);
  return cropped;
}

Image ShorterSideAndCrop(const Image& image, Size input, double ratio) {
  const Size size = ShorterSide({image.width, image.height}, input, ratio);
  return CenterCrop(Resize(image, size.width, size.height), input);
}

Fitted FitToInput(const Image& image, Size input, Fit fit, double ratio, std::array<uint8_t, 3> filling) {
  if (fit == Fit::kCrop) return {ShorterSideAndCrop(image, input, ratio), input};
  const Size size = FittedSize({image.width, image.height}, input);
  Image picture(input.width, input.height);
  for (size_t i = 0; i < picture.pixels.size(); ++i) picture.pixels[i] = filling[i % kChannels];
  Paste(Resize(image, size.width, size.height), 0, 0, &picture);
  return {picture, size};
}

void Normalise(const Fitted& fitted, const std::array<double, 3>& mean, const std::array<double, 3>& deviation,
               float* planes) {
  const Image& picture = fitted.picture;
  const size_t plane = static_cast<size_t>(picture.width) * picture.height;
  std::fill(planes, planes + plane * kChannels, 0.0F);
  for (size_t c = 0; c < kChannels; ++c) {
    std::array<float, 256> table;
    for (size_t v = 0; v < table.size(); ++v)
      table[v] = static_cast<float>((static_cast<double>(v) - mean[c]) / deviation[c]);
    for (int y = 0; y < fitted.filled.height; ++y) {
      const uint8_t* row = picture.Row(y) + c;
      float* target = planes + c * plane + static_cast<size_t>(y) * picture.width;
      for (int x = 0; x < fitted.filled.width; ++x) target[x] = table[row[x * kChannels]];
    }
  }
}

std::vector<uint8_t> ToNv12(const Image& image) {
  const size_t pixels = static_cast<size_t>(image.width) * image.height;
  std::vector<uint8_t> nv12(pixels * 3 / 2);
  for (int y = 0; y < image.height; y += 2) {
    for (int x = 0; x < image.width; x += 2) {
      double blue = 0;
      double red = 0;
      for (int k = 0; k < 4; ++k) {
        const int at_x = x + k % 2;
        const int at_y = y + k / 2;
        const uint8_t* rgb = image.Row(at_y) + at_x * kChannels;
        nv12[static_cast<size_t>(at_y) * image.width + at_x] = Byte(0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]);
        blue += -0.168736 * rgb[0] - 0.331264 * rgb[1] + 0.5 * rgb[2];
        red += 0.5 * rgb[0] - 0.418688 * rgb[1] - 0.081312 * rgb[2];
      }
      uint8_t* colour = nv12.data() + pixels + static_cast<size_t>(y / 2) * image.width + x;
      colour[0] = Byte(blue / 4 + 128);
      colour[1] = Byte(red / 4 + 128);
    }
  }
  return nv12;
}

DvppPlan PlanDvpp(Size image, Size input, Fit fit, double ratio) {
  if (fit == Fit::kPad) {
    if (!(FittedSize(image, input) == input)) return {};  // the rest would have to be filled
    return Steps({{}, 0, 0, {image.width & ~1, image.height & ~1}, {}}, input);
  }
  const Size resized = ShorterSide(image, input, ratio);
  const int left = CropOffset(resized.width, input.width);
  const int top = CropOffset(resized.height, input.height);
  if (left < 0 || top < 0) return {};  // the image does not fill the input
  // Everything happens at twice the final size or more: then the part begins at even pixels, as it must, exactly where
  // training's crop begins.
  int factor = 2;
  while (std::min(image.width, image.height) > 2 * factor * std::min(resized.width, resized.height) &&
         2 * factor * std::max(resized.width, resized.height) <= kLargestOutput) {
    factor *= 2;
  }
  DvppPlan plan;
  plan.whole = {factor * resized.width, factor * resized.height};
  if (std::max(plan.whole.width, plan.whole.height) > kLargestOutput) return {};
  if (plan.whole.width > kMostUp * image.width || plan.whole.height > kMostUp * image.height) return {};
  plan.left = factor * left;
  plan.top = factor * top;
  plan.part = {factor * input.width, factor * input.height};
  return Steps(plan, input);
}

}  // namespace infer
