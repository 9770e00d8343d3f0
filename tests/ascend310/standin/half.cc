#include "half.h"

#include <algorithm>
#include <cmath>

#include "acl/acl_base.h"

namespace standin {
namespace {

constexpr int kFraction = 10;  // bits
constexpr int kBias = 15;
constexpr uint16_t kInfinity = 0x7C00;

}  // namespace

uint16_t ToHalf(float value) {
  const auto sign = static_cast<uint16_t>(std::signbit(value) ? 0x8000 : 0);
  const double size = std::fabs(static_cast<double>(value));
  if (std::isnan(value)) return sign | kInfinity | 1;
  if (size == 0) return sign;
  const int exponent = std::max(std::ilogb(size), 1 - kBias);
  const auto units = static_cast<int>(std::nearbyint(std::ldexp(size, kFraction - exponent)));
  // A fraction that was rounded up to the next power of two carries over into the exponent by this sum.
  const int bits = ((exponent + kBias - 1) << kFraction) + units;
  return sign | static_cast<uint16_t>(std::isinf(value) || bits >= kInfinity ? kInfinity : bits);
}

float FromHalf(uint16_t half) {
  const int exponent = half >> kFraction & 0x1F;
  const int fraction = half & 0x3FF;
  double size = 0;
  if (exponent == 0x1F) {
    size = fraction == 0 ? INFINITY : NAN;
  } else if (exponent == 0) {
    size = std::ldexp(fraction, 1 - kBias - kFraction);
  } else {
    size = std::ldexp(fraction + (1 << kFraction), exponent - kBias - kFraction);
  }
  return static_cast<float>((half & 0x8000) != 0 ? -size : size);
}

}  // namespace standin

float aclFloat16ToFloat(aclFloat16 value) { return standin::FromHalf(value); }
aclFloat16 aclFloatToFloat16(float value) { return standin::ToHalf(value); }
