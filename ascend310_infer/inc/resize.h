#ifndef ASCEND310_INFER_RESIZE_H_
#define ASCEND310_INFER_RESIZE_H_

#include <vector>

#include "image.h"

namespace infer {

// The two filters of OpenCV's resize that training uses, with its rounding.
Image ResizeLinear(const Image& image, int width, int height);
Image ResizeArea(const Image& image, int width, int height);

// Averages all pixels where both axes shrink more than twofold, bilinear otherwise (src/engine/data/augment.py says
// why).
Image Resize(const Image& image, int width, int height);

// A plane of floats, bilinear with half-pixel centres.
std::vector<float> ResizePlane(const float* plane, int width, int height, int new_width, int new_height);

}  // namespace infer

#endif  // ASCEND310_INFER_RESIZE_H_
