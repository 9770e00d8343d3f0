#include "segmentation.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "resize.h"

namespace infer {
namespace {

// The upper left `size` of a plane that is `width` wide.
std::vector<float> Corner(const std::vector<float>& plane, int width, Size size) {
  std::vector<float> corner;
  corner.reserve(static_cast<size_t>(size.width) * size.height);
  for (int y = 0; y < size.height; ++y) {
    const auto row = plane.begin() + static_cast<std::ptrdiff_t>(y) * width;
    corner.insert(corner.end(), row, row + size.width);
  }
  return corner;
}

}  // namespace

int64_t BestClass(const float* scores, size_t count) { return std::max_element(scores, scores + count) - scores; }

void CheckClasses(int64_t classes) {
  if (classes > kMostClasses) {
    throw std::runtime_error("the model knows " + std::to_string(classes) + " classes, and a label picture holds " +
                             std::to_string(kMostClasses) + "; leave --label_pictures out");
  }
}

std::vector<uint8_t> ClassMap(const float* scores, int classes, Size map, Size input, Size filled, Size picture) {
  CheckClasses(classes);
  std::vector<uint8_t> best_class(static_cast<size_t>(picture.width) * picture.height);
  std::vector<float> best;
  for (int c = 0; c < classes; ++c) {
    const float* plane = scores + static_cast<size_t>(c) * map.width * map.height;
    const std::vector<float> whole = ResizePlane(plane, map.width, map.height, input.width, input.height);
    const std::vector<float> part = Corner(whole, input.width, filled);
    const std::vector<float> full =
        ResizePlane(part.data(), filled.width, filled.height, picture.width, picture.height);
    if (c == 0) {
      best = full;
      continue;
    }
    for (size_t i = 0; i < full.size(); ++i) {
      if (full[i] > best[i]) {
        best[i] = full[i];
        best_class[i] = static_cast<uint8_t>(c);
      }
    }
  }
  return best_class;
}

}  // namespace infer
