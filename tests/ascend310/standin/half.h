#ifndef STANDIN_HALF_H_
#define STANDIN_HALF_H_

#include <cstdint>

namespace standin {

uint16_t ToHalf(float value);  // to the nearest, ties to even
float FromHalf(uint16_t half);

}  // namespace standin

#endif  // STANDIN_HALF_H_
