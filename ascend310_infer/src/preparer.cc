#include "preparer.h"

#include <cmath>
#include <cstring>
#include <stdexcept>

#include "decode.h"
#include "errors.h"
#include "report.h"

namespace infer {
namespace {

constexpr int kDvppWidth = 16;
constexpr int kDvppHeight = 2;

std::vector<uint8_t> BytesOf(const void* data, size_t bytes) {
  const auto* begin = static_cast<const uint8_t*>(data);
  return {begin, begin + bytes};
}

}  // namespace

void RequireFit(Mode mode, const InputSpec& input) {
  const bool is_nv12 = input.kind == InputKind::kNv12;
  if (mode == Mode::kCpu && is_nv12) {
    throw std::runtime_error(
        "the model's AIPP takes YUV420SP pixels, which mode CPU does not make; use mode DVPP, or convert the model "
        "without AIPP or with src/mobilenetv2/aipp.cfg");
  }
  if (mode == Mode::kDvpp && !is_nv12) {
    throw std::runtime_error(
        "mode DVPP makes YUV420SP pixels, which the model does not take; convert it with "
        "src/mobilenetv2/aipp_yuv.cfg, or use mode CPU");
  }
  if (mode == Mode::kDvpp && (input.size.width % kDvppWidth != 0 || input.size.height % kDvppHeight != 0)) {
    throw std::runtime_error("the model's input is " + std::to_string(input.size.width) + "x" +
                             std::to_string(input.size.height) +
                             "; DVPP needs a width that 16 divides and an even height, so use mode CPU");
  }
}

Preparer::Preparer(const Options& options, Fit fit, const InputSpec& input, bool on_device)
    : options_(options), fit_(fit), input_(input) {
  if (options.mode == Mode::kDvpp) dvpp_.emplace(on_device);
}

void Preparer::Add(const Item& item, Batch* batch) {
  const std::vector<uint8_t> bytes = ReadFile(item.file);
  if (dvpp_ && AddByDvpp(bytes, item, batch)) return;
  AddByHost(bytes, item, batch);
  if (dvpp_) ++on_host_;
}

bool Preparer::AddByDvpp(const std::vector<uint8_t>& bytes, const Item& item, Batch* batch) {
  if (WhyNotDvpp(bytes) != nullptr) return false;
  const JpegHeader header = *ReadJpegHeader(bytes);
  CheckSize(header.width, header.height);
  if (!header.complete) throw BadImage("truncated JPEG");
  try {
    const void* picture = dvpp_->Prepare(bytes, input_.size, fit_, options_.resize_ratio);
    if (picture == nullptr) return false;
    batch->input->memory(0).Copy(batch->images.size() * input_.bytes, picture, input_.bytes);
  } catch (const DvppRefused& refusal) {
    Say("DVPP did not decode " + item.file.string() + " (" + refusal.what() + "); trying on this machine");
    return false;
  }
  batch->images.push_back({item, {header.width, header.height}, input_.size});
  return true;
}

void Preparer::AddByHost(const std::vector<uint8_t>& bytes, const Item& item, Batch* batch) {
  const Image image = Decode(bytes);
  std::array<uint8_t, 3> filling{};
  for (size_t c = 0; c < filling.size(); ++c) filling[c] = static_cast<uint8_t>(std::lround(options_.mean[c]));
  const Fitted fitted = FitToInput(image, input_.size, fit_, options_.resize_ratio, filling);
  const std::vector<uint8_t> input = Convert(fitted);
  batch->input->memory(0).Upload(batch->images.size() * input_.bytes, input.data(), input.size());
  batch->images.push_back({item, {image.width, image.height}, fitted.filled});
}

std::vector<uint8_t> Preparer::Convert(const Fitted& fitted) const {
  if (input_.kind == InputKind::kRgbBytes) return fitted.picture.pixels;
  if (input_.kind == InputKind::kNv12) return ToNv12(fitted.picture);
  std::vector<float> planes(fitted.picture.pixels.size());
  Normalise(fitted, options_.mean, options_.deviation, planes.data());
  if (input_.kind == InputKind::kPlanes) return BytesOf(planes.data(), planes.size() * sizeof(float));
  std::vector<aclFloat16> halves;
  for (const float value : planes) halves.push_back(aclFloatToFloat16(value));
  return BytesOf(halves.data(), halves.size() * sizeof(aclFloat16));
}

}  // namespace infer
