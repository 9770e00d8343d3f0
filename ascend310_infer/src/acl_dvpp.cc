#include "acl_dvpp.h"

#include <algorithm>
#include <optional>
#include <string>

namespace infer {
namespace {

constexpr int kSmallest = 32;  // of the JPEG decoder
constexpr int kLargest = 8192;
constexpr int kBaseline = 0xC0;
constexpr int kSequential = 0xC1;
constexpr uint32_t kWidthAlignment = 16;  // of the resizer's rows
constexpr uint32_t kHeightAlignment = 2;
// 0, the default, is a filter of the chip's own; this one is OpenCV's, which training uses.
constexpr uint32_t kBilinear = 1;

uint32_t AlignUp(uint32_t value, uint32_t to) { return (value + to - 1) / to * to; }

uint32_t Nv12Bytes(uint32_t stride, uint32_t rows) { return stride * rows * 3 / 2; }

PicDesc NewPicture() { return PicDesc(CheckMade(acldvppCreatePicDesc(), "acldvppCreatePicDesc")); }

// The description of a picture of `size` in `memory`, with the rows that the resizer writes.
PicDesc Target(Size size, DvppMemory* memory) {
  const auto width = static_cast<uint32_t>(size.width);
  const auto height = static_cast<uint32_t>(size.height);
  const uint32_t stride = AlignUp(width, kWidthAlignment);
  const uint32_t rows = AlignUp(height, kHeightAlignment);
  const uint32_t bytes = Nv12Bytes(stride, rows);
  PicDesc picture = NewPicture();
  Check(acldvppSetPicDescData(picture.get(), memory->Reserve(bytes)), "acldvppSetPicDescData");
  Check(acldvppSetPicDescSize(picture.get(), bytes), "acldvppSetPicDescSize");
  Check(acldvppSetPicDescFormat(picture.get(), PIXEL_FORMAT_YUV_SEMIPLANAR_420), "acldvppSetPicDescFormat");
  Check(acldvppSetPicDescWidth(picture.get(), width), "acldvppSetPicDescWidth");
  Check(acldvppSetPicDescHeight(picture.get(), height), "acldvppSetPicDescHeight");
  Check(acldvppSetPicDescWidthStride(picture.get(), stride), "acldvppSetPicDescWidthStride");
  Check(acldvppSetPicDescHeightStride(picture.get(), rows), "acldvppSetPicDescHeightStride");
  return picture;
}

aclError ReturnCode(const PicDesc& picture) { return static_cast<aclError>(acldvppGetPicDescRetCode(picture.get())); }

// What the decoder says no to is about one file; everything else about the card.
void CheckDecoding(aclError code, const char* call) {
  try {
    Check(code, call);
  } catch (const AclError& error) {
    throw DvppRefused(error.what());
  }
}

}  // namespace

const char* WhyNotDvpp(const std::vector<uint8_t>& bytes) {
  const std::optional<JpegHeader> header = ReadJpegHeader(bytes);
  if (!header) return "no JPEG";
  if (header->frame != kBaseline && header->frame != kSequential) return "progressive or arithmetic JPEG";
  if (header->components != 1 && header->components != kChannels) return "JPEG in CMYK";
  if (header->rgb) return "JPEG in RGB";  // its planes would be taken for YCbCr
  if (header->orientation != 1) return "turned by EXIF";
  const int shorter = std::min(header->width, header->height);
  const int longer = std::max(header->width, header->height);
  if (shorter < kSmallest || longer > kLargest) return "smaller than 32 or larger than 8192 pixels";
  return nullptr;
}

Dvpp::ChannelHandle::ChannelHandle(acldvppChannelDesc* made) : desc(made) {
  Check(acldvppCreateChannel(desc), "acldvppCreateChannel");
}
Dvpp::ChannelHandle::~ChannelHandle() { CheckRelease(acldvppDestroyChannel(desc), "acldvppDestroyChannel"); }

Dvpp::Dvpp(bool on_device)
    : desc_(CheckMade(acldvppCreateChannelDesc(), "acldvppCreateChannelDesc")),
      channel_(desc_.get()),
      bilinear_(CheckMade(acldvppCreateResizeConfig(), "acldvppCreateResizeConfig")),
      encoded_(on_device),
      decoded_(on_device),
      whole_(on_device),
      even_(on_device),
      odd_(on_device) {
  Check(acldvppSetResizeConfigInterpolation(bilinear_.get(), kBilinear), "acldvppSetResizeConfigInterpolation");
}

PicDesc Dvpp::Decode(const std::vector<uint8_t>& jpeg) {
  const auto bytes = static_cast<uint32_t>(jpeg.size());
  const acldvppPixelFormat format = PIXEL_FORMAT_YUV_SEMIPLANAR_420;
  uint32_t needed = 0;
  CheckDecoding(acldvppJpegPredictDecSize(jpeg.data(), bytes, format, &needed), "acldvppJpegPredictDecSize");
  encoded_.Upload(jpeg.data(), jpeg.size());
  PicDesc picture = NewPicture();
  Check(acldvppSetPicDescData(picture.get(), decoded_.Reserve(needed)), "acldvppSetPicDescData");
  Check(acldvppSetPicDescSize(picture.get(), needed), "acldvppSetPicDescSize");
  Check(acldvppSetPicDescFormat(picture.get(), format), "acldvppSetPicDescFormat");
  CheckDecoding(acldvppJpegDecodeAsync(channel_.desc, encoded_.Reserve(bytes), bytes, picture.get(), stream_.get()),
                "acldvppJpegDecodeAsync");
  CheckDecoding(aclrtSynchronizeStream(stream_.get()), "aclrtSynchronizeStream");
  CheckDecoding(ReturnCode(picture), "acldvppJpegDecodeAsync");
  return picture;
}

PicDesc Dvpp::Scale(const PicDesc& source, Size size, acldvppRoiConfig* part, DvppMemory* memory) {
  PicDesc target = Target(size, memory);
  const char* call = part == nullptr ? "acldvppVpcResizeAsync" : "acldvppVpcCropResizeAsync";
  Check(
      part == nullptr
          ? acldvppVpcResizeAsync(channel_.desc, source.get(), target.get(), bilinear_.get(), stream_.get())
          : acldvppVpcCropResizeAsync(channel_.desc, source.get(), target.get(), part, bilinear_.get(), stream_.get()),
      call);
  stream_.Synchronise();
  Check(ReturnCode(target), call, "reported by the picture");
  return target;
}

const void* Dvpp::Prepare(const std::vector<uint8_t>& jpeg, Size input, Fit fit, double ratio) {
  // Width, height and strides come from the decoder: they differ between chips.
  PicDesc source = Decode(jpeg);
  const Size decoded{static_cast<int>(acldvppGetPicDescWidth(source.get())),
                     static_cast<int>(acldvppGetPicDescHeight(source.get()))};
  const DvppPlan plan = PlanDvpp(decoded, input, fit, ratio);
  if (plan.steps.empty()) return nullptr;
  const Roi part(CheckMade(
      acldvppCreateRoiConfig(static_cast<uint32_t>(plan.left), static_cast<uint32_t>(plan.left + plan.part.width - 1),
                             static_cast<uint32_t>(plan.top), static_cast<uint32_t>(plan.top + plan.part.height - 1)),
      "acldvppCreateRoiConfig"));
  if (plan.whole.width > 0) source = Scale(source, plan.whole, nullptr, &whole_);
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    source = Scale(source, plan.steps[i], i == 0 ? part.get() : nullptr, i % 2 == 0 ? &even_ : &odd_);
  }
  return acldvppGetPicDescData(source.get());
}

}  // namespace infer
