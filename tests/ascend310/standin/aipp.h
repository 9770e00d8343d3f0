// The pixel arithmetic at the entry of a model, as ATC's documentation gives it.
#ifndef STANDIN_AIPP_H_
#define STANDIN_AIPP_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

namespace standin {

using Aipp = std::map<std::string, double>;

bool IsYuv(const Aipp& aipp);

// Bytes of one picture of the size of the network's input.
size_t SourceBytes(const Aipp& aipp, int width, int height);

// One picture -> three planes, with the chip's half floats in between.
void ApplyAipp(const Aipp& aipp, const uint8_t* picture, int width, int height, float* planes);

}  // namespace standin

#endif  // STANDIN_AIPP_H_
