#ifndef ASCEND310_INFER_TRANSFORM_H_
#define ASCEND310_INFER_TRANSFORM_H_

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "image.h"
#include "options.h"

namespace infer {

struct Size {
  int width = 0;
  int height = 0;
  bool operator==(const Size& other) const { return width == other.width && height == other.height; }
};

// The whole image in as much of the network's input as keeps its aspect; the rest is filled.
Size FittedSize(Size image, Size input);

// The crop that evaluation of classifiers takes: the shorter side becomes `ratio` times the input, then its centre.
Image ShorterSideAndCrop(const Image& image, Size input, double ratio);

// The central part, with black around it where the image is smaller.
Image CenterCrop(const Image& image, Size size);

// A picture of the size of the network's input; kPad leaves `filled` as the part that holds the image, in the upper
// left corner, and makes the rest `filling`.
struct Fitted {
  Image picture;
  Size filled;
};
Fitted FitToInput(const Image& image, Size input, Fit fit, double ratio, std::array<uint8_t, 3> filling);

// RGB -> three planes of (value - mean) / deviation; outside of `filled` they are 0. `planes` has 3 * width * height.
void Normalise(const Fitted& fitted, const std::array<double, 3>& mean, const std::array<double, 3>& deviation,
               float* planes);

// RGB -> the JPEG standard's YCbCr with one colour for 2x2 pixels, first all Y, then Cb and Cr in turn. Even sizes
// only.
std::vector<uint8_t> ToNv12(const Image& image);

// The part of a decoded picture that DVPP scales to the input, and the sizes on the way: each step shrinks at most
// twofold, so that the bilinear filter reads every pixel. `steps` is empty where DVPP cannot do what the CPU does.
struct DvppPlan {
  Size whole;  // of the picture when the part is taken; zero: as it was decoded
  int left = 0;
  int top = 0;
  Size part;
  std::vector<Size> steps;
};
DvppPlan PlanDvpp(Size image, Size input, Fit fit, double ratio);

}  // namespace infer

#endif  // ASCEND310_INFER_TRANSFORM_H_
