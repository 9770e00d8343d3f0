#ifndef ASCEND310_INFER_SEGMENTATION_H_
#define ASCEND310_INFER_SEGMENTATION_H_

#include <cstdint>
#include <vector>

#include "transform.h"

namespace infer {

constexpr int kMostClasses = 256;  // that the bytes of a label picture tell apart

// Throws std::runtime_error where a label picture cannot hold the classes.
void CheckClasses(int64_t classes);

// Index of the highest of `count` scores, the first one where several are.
int64_t BestClass(const float* scores, size_t count);

// Class of every pixel of the picture, from scores (classes, map height, map width) of a network input whose part
// `filled` holds the picture. Throws as CheckClasses does.
std::vector<uint8_t> ClassMap(const float* scores, int classes, Size map, Size input, Size filled, Size picture);

}  // namespace infer

#endif  // ASCEND310_INFER_SEGMENTATION_H_
