// The picture interface of the stand-in, with the alignments and limits of the chips.

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "acl/ops/acl_dvpp.h"
#include "picture.h"
#include "state.h"

using standin::Enter;
using standin::Fail;
using standin::IsLive;
using standin::Kind;
using standin::Misuse;
using standin::Untrack;
using standin::View;

struct acldvppPicDesc {
  void* data = nullptr;
  uint32_t size = 0;
  acldvppPixelFormat format = PIXEL_FORMAT_YUV_400;
  uint32_t width = 0;
  uint32_t height = 0;
  uint32_t width_stride = 0;
  uint32_t height_stride = 0;
  uint32_t ret_code = 0;
};

struct acldvppChannelDesc {
  bool open = false;
};

struct acldvppRoiConfig {
  uint32_t left;
  uint32_t right;
  uint32_t top;
  uint32_t bottom;
};

struct acldvppResizeConfig {
  uint32_t interpolation = 0;
};

namespace {

constexpr uint32_t kJpegRows = 16;

uint32_t AlignUp(uint32_t value, uint32_t to) { return (value + to - 1) / to * to; }

uint32_t JpegStride(uint32_t width) {
  const bool is_310p = standin::Environment("STANDIN_SOC", "Ascend310").find("310P") != std::string::npos;
  return AlignUp(width, is_310p ? 64 : 128);
}

uint32_t JpegBytes(const standin::JpegSize& size) {
  return JpegStride(static_cast<uint32_t>(size.width)) * AlignUp(static_cast<uint32_t>(size.height), kJpegRows) * 3 / 2;
}

template <typename T>
T* Make(const char* function, Kind kind) {
  if (Enter(function) != ACL_SUCCESS) return nullptr;
  auto* made = new T{};
  standin::Track(made, kind);
  return made;
}

template <typename T>
aclError Destroy(const char* function, T* handle, Kind kind) {
  const aclError injected = Enter(function);
  if (!Untrack(handle, kind)) return ACL_ERROR_RT_INVALID_HANDLE;
  delete handle;
  return injected;
}

template <typename T>
aclError Set(const char* function, acldvppPicDesc* picture, T acldvppPicDesc::* member, T value) {
  if (const aclError code = Enter(function)) return code;
  if (!IsLive(picture, Kind::kPicDesc)) return ACL_ERROR_RT_INVALID_HANDLE;
  picture->*member = value;
  return ACL_SUCCESS;
}

template <typename T>
T Get(const acldvppPicDesc* picture, T acldvppPicDesc::* member) {
  return IsLive(picture, Kind::kPicDesc) ? picture->*member : T{};
}

standin::Nv12 Nv12Of(const acldvppPicDesc& picture) {
  return {static_cast<uint8_t*>(View(picture.data, picture.size)), static_cast<int>(picture.width),
          static_cast<int>(picture.height), static_cast<int>(picture.width_stride),
          static_cast<int>(picture.height_stride)};
}

// What the resizer asks of a picture it reads or writes.
aclError CheckPicture(const acldvppPicDesc* picture, uint32_t largest, const char* which) {
  constexpr uint32_t kSmallestWidth = 10;
  constexpr uint32_t kSmallestHeight = 6;
  constexpr uint32_t kSmallestStride = 32;
  const std::string name = which;
  if (!IsLive(picture, Kind::kPicDesc)) return ACL_ERROR_RT_INVALID_HANDLE;
  if (picture->format != PIXEL_FORMAT_YUV_SEMIPLANAR_420) return Misuse(ACL_ERROR_INVALID_PARAM, name + " is not NV12");
  if (picture->width % 2 != 0 || picture->height % 2 != 0)
    return Misuse(ACL_ERROR_INVALID_PARAM, name + " has an odd size");
  if (picture->width < kSmallestWidth || picture->height < kSmallestHeight || picture->width > largest ||
      picture->height > largest) {
    return Misuse(ACL_ERROR_INVALID_PARAM, name + " is too small or too large");
  }
  const bool aligned = picture->width_stride % 16 == 0 && picture->height_stride % 2 == 0;
  if (!aligned || picture->width_stride < std::max(picture->width, kSmallestStride) ||
      picture->height_stride < picture->height) {
    return Misuse(ACL_ERROR_INVALID_PARAM, name + " has wrong strides");
  }
  if (picture->size < picture->width_stride * picture->height_stride * 3 / 2)
    return Misuse(ACL_ERROR_MEMORY_ADDRESS_UNALIGNED, name + " is smaller than its strides say");
  if (View(picture->data, picture->size) == nullptr || !standin::IsDvppMemory(picture->data)) {
    return Misuse(ACL_ERROR_MEMORY_ADDRESS_UNALIGNED, name + " is not in DVPP's memory");
  }
  return ACL_SUCCESS;
}

bool ScalesTooMuch(int from, int to) { return from > 32 * to || to > 16 * from; }

aclError QueueScaling(acldvppChannelDesc* channel, acldvppPicDesc* input, acldvppPicDesc* output,
                      const standin::Part& part, acldvppResizeConfig* config, aclrtStream stream) {
  if (!IsLive(channel, Kind::kChannelDesc) || !IsLive(config, Kind::kResizeConfig)) return ACL_ERROR_RT_INVALID_HANDLE;
  if (!channel->open) return Misuse(ACL_ERROR_INVALID_PARAM, "the channel is not created");
  if (config->interpolation != 1) return Misuse(ACL_ERROR_INVALID_PARAM, "only interpolation 1 can be reproduced");
  if (const aclError code = CheckPicture(input, 8192, "the resizer's input")) return code;
  if (const aclError code = CheckPicture(output, 4096, "the resizer's output")) return code;
  if (ScalesTooMuch(part.width, static_cast<int>(output->width)) ||
      ScalesTooMuch(part.height, static_cast<int>(output->height))) {
    return Misuse(ACL_ERROR_INVALID_PARAM, "scaled by more than 1/32 to 16");
  }
  return standin::Queue(stream, {channel, input, output, config}, [=] {
    standin::Scale(Nv12Of(*input), part, Nv12Of(*output));
    output->ret_code = 0;
    return ACL_SUCCESS;
  });
}

aclError DecodeInto(const void* data, uint32_t size, acldvppPicDesc* output) {
  const auto* bytes = static_cast<const uint8_t*>(View(data, size));
  try {
    const standin::JpegSize jpeg = standin::ReadJpegSize(bytes, size);
    output->width = static_cast<uint32_t>(jpeg.width) & ~1U;
    output->height = static_cast<uint32_t>(jpeg.height) & ~1U;
    output->width_stride = JpegStride(static_cast<uint32_t>(jpeg.width));
    output->height_stride = AlignUp(static_cast<uint32_t>(jpeg.height), kJpegRows);
    if (output->size < JpegBytes(jpeg)) return Misuse(ACL_ERROR_INVALID_PARAM, "the decoded picture does not fit");
    standin::DecodeJpeg(bytes, size, Nv12Of(*output));
    output->ret_code = 0;
  } catch (const std::runtime_error& error) {
    output->ret_code = ACL_ERROR_UNSUPPORTED_JPEG;
    Fail(ACL_ERROR_UNSUPPORTED_JPEG, error.what());
  }
  return ACL_SUCCESS;
}

}  // namespace

aclError acldvppMalloc(void** devPtr, size_t size) {
  if (const aclError code = Enter("acldvppMalloc")) return code;
  return standin::Allocate(devPtr, size, true);
}

aclError acldvppFree(void* devPtr) {
  const aclError injected = Enter("acldvppFree");
  const aclError code = standin::Release(devPtr, true);
  return injected != ACL_SUCCESS ? injected : code;
}

acldvppChannelDesc* acldvppCreateChannelDesc() {
  return Make<acldvppChannelDesc>("acldvppCreateChannelDesc", Kind::kChannelDesc);
}

aclError acldvppDestroyChannelDesc(acldvppChannelDesc* channelDesc) {
  if (IsLive(channelDesc, Kind::kChannelDesc) && channelDesc->open)
    Misuse(ACL_ERROR_INVALID_PARAM, "a channel's description is destroyed before the channel");
  return Destroy("acldvppDestroyChannelDesc", channelDesc, Kind::kChannelDesc);
}

aclError acldvppCreateChannel(acldvppChannelDesc* channelDesc) {
  if (const aclError code = Enter("acldvppCreateChannel")) return code;
  if (!IsLive(channelDesc, Kind::kChannelDesc)) return ACL_ERROR_RT_INVALID_HANDLE;
  channelDesc->open = true;
  return ACL_SUCCESS;
}

aclError acldvppDestroyChannel(acldvppChannelDesc* channelDesc) {
  const aclError injected = Enter("acldvppDestroyChannel");
  if (!IsLive(channelDesc, Kind::kChannelDesc)) return ACL_ERROR_RT_INVALID_HANDLE;
  if (!channelDesc->open) return Misuse(ACL_ERROR_INVALID_PARAM, "a channel is destroyed that is not created");
  channelDesc->open = false;
  return injected;
}

acldvppPicDesc* acldvppCreatePicDesc() { return Make<acldvppPicDesc>("acldvppCreatePicDesc", Kind::kPicDesc); }
aclError acldvppDestroyPicDesc(acldvppPicDesc* picDesc) {
  return Destroy("acldvppDestroyPicDesc", picDesc, Kind::kPicDesc);
}

aclError acldvppSetPicDescData(acldvppPicDesc* picDesc, void* dataDev) {
  if (const aclError code = Set("acldvppSetPicDescData", picDesc, &acldvppPicDesc::data, dataDev)) return code;
  standin::Forget(picDesc);
  standin::Refer(picDesc, dataDev);
  return ACL_SUCCESS;
}
aclError acldvppSetPicDescSize(acldvppPicDesc* picDesc, uint32_t size) {
  return Set("acldvppSetPicDescSize", picDesc, &acldvppPicDesc::size, size);
}
aclError acldvppSetPicDescFormat(acldvppPicDesc* picDesc, acldvppPixelFormat format) {
  return Set("acldvppSetPicDescFormat", picDesc, &acldvppPicDesc::format, format);
}
aclError acldvppSetPicDescWidth(acldvppPicDesc* picDesc, uint32_t width) {
  return Set("acldvppSetPicDescWidth", picDesc, &acldvppPicDesc::width, width);
}
aclError acldvppSetPicDescHeight(acldvppPicDesc* picDesc, uint32_t height) {
  return Set("acldvppSetPicDescHeight", picDesc, &acldvppPicDesc::height, height);
}
aclError acldvppSetPicDescWidthStride(acldvppPicDesc* picDesc, uint32_t widthStride) {
  return Set("acldvppSetPicDescWidthStride", picDesc, &acldvppPicDesc::width_stride, widthStride);
}
aclError acldvppSetPicDescHeightStride(acldvppPicDesc* picDesc, uint32_t heightStride) {
  return Set("acldvppSetPicDescHeightStride", picDesc, &acldvppPicDesc::height_stride, heightStride);
}

void* acldvppGetPicDescData(const acldvppPicDesc* picDesc) { return Get(picDesc, &acldvppPicDesc::data); }
uint32_t acldvppGetPicDescWidth(const acldvppPicDesc* picDesc) { return Get(picDesc, &acldvppPicDesc::width); }
uint32_t acldvppGetPicDescHeight(const acldvppPicDesc* picDesc) { return Get(picDesc, &acldvppPicDesc::height); }
uint32_t acldvppGetPicDescRetCode(const acldvppPicDesc* picDesc) {
  const aclError injected = Enter("acldvppGetPicDescRetCode");
  return injected != ACL_SUCCESS ? static_cast<uint32_t>(injected) : Get(picDesc, &acldvppPicDesc::ret_code);
}

acldvppRoiConfig* acldvppCreateRoiConfig(uint32_t left, uint32_t right, uint32_t top, uint32_t bottom) {
  auto* roi = Make<acldvppRoiConfig>("acldvppCreateRoiConfig", Kind::kRoi);
  if (roi != nullptr) *roi = {left, right, top, bottom};
  return roi;
}
aclError acldvppDestroyRoiConfig(acldvppRoiConfig* roiConfig) {
  return Destroy("acldvppDestroyRoiConfig", roiConfig, Kind::kRoi);
}

acldvppResizeConfig* acldvppCreateResizeConfig() {
  return Make<acldvppResizeConfig>("acldvppCreateResizeConfig", Kind::kResizeConfig);
}
aclError acldvppDestroyResizeConfig(acldvppResizeConfig* resizeConfig) {
  return Destroy("acldvppDestroyResizeConfig", resizeConfig, Kind::kResizeConfig);
}
aclError acldvppSetResizeConfigInterpolation(acldvppResizeConfig* resizeConfig, uint32_t interpolation) {
  if (const aclError code = Enter("acldvppSetResizeConfigInterpolation")) return code;
  if (!IsLive(resizeConfig, Kind::kResizeConfig)) return ACL_ERROR_RT_INVALID_HANDLE;
  resizeConfig->interpolation = interpolation;
  return ACL_SUCCESS;
}

aclError acldvppJpegPredictDecSize(const void* data, uint32_t dataSize, acldvppPixelFormat outputPixelFormat,
                                   uint32_t* decSize) {
  if (const aclError code = Enter("acldvppJpegPredictDecSize")) return code;
  if (View(data, dataSize) != nullptr && !standin::OnDevice())
    return Misuse(ACL_ERROR_INVALID_PARAM, "the header is read from the card's memory");
  if (outputPixelFormat != PIXEL_FORMAT_YUV_SEMIPLANAR_420)
    return Misuse(ACL_ERROR_INVALID_PARAM, "only NV12 is predicted");
  try {
    *decSize = JpegBytes(standin::ReadJpegSize(static_cast<const uint8_t*>(data), dataSize));
  } catch (const std::runtime_error& error) {
    return Fail(ACL_ERROR_UNSUPPORTED_JPEG, error.what());
  }
  return ACL_SUCCESS;
}

aclError acldvppJpegDecodeAsync(acldvppChannelDesc* channelDesc, const void* data, uint32_t size,
                                acldvppPicDesc* outputDesc, aclrtStream stream) {
  if (const aclError code = Enter("acldvppJpegDecodeAsync")) return code;
  if (!IsLive(channelDesc, Kind::kChannelDesc) || !IsLive(outputDesc, Kind::kPicDesc))
    return ACL_ERROR_RT_INVALID_HANDLE;
  if (!channelDesc->open) return Misuse(ACL_ERROR_INVALID_PARAM, "the channel is not created");
  if (View(data, size) == nullptr || !standin::IsDvppMemory(data))
    return Misuse(ACL_ERROR_MEMORY_ADDRESS_UNALIGNED, "the file is not in DVPP's memory");
  if (View(outputDesc->data, outputDesc->size) == nullptr || !standin::IsDvppMemory(outputDesc->data)) {
    return Misuse(ACL_ERROR_MEMORY_ADDRESS_UNALIGNED, "the decoded picture is not in DVPP's memory");
  }
  if (outputDesc->format != PIXEL_FORMAT_YUV_SEMIPLANAR_420)
    return Misuse(ACL_ERROR_INVALID_PARAM, "only NV12 is decoded to");
  return standin::Queue(stream, {channelDesc, outputDesc}, [=] { return DecodeInto(data, size, outputDesc); });
}

aclError acldvppVpcResizeAsync(acldvppChannelDesc* channelDesc, acldvppPicDesc* inputDesc, acldvppPicDesc* outputDesc,
                               acldvppResizeConfig* resizeConfig, aclrtStream stream) {
  if (const aclError code = Enter("acldvppVpcResizeAsync")) return code;
  if (!IsLive(inputDesc, Kind::kPicDesc)) return ACL_ERROR_RT_INVALID_HANDLE;
  const standin::Part whole = {0, 0, static_cast<int>(inputDesc->width), static_cast<int>(inputDesc->height)};
  return QueueScaling(channelDesc, inputDesc, outputDesc, whole, resizeConfig, stream);
}

aclError acldvppVpcCropResizeAsync(acldvppChannelDesc* channelDesc, acldvppPicDesc* inputDesc,
                                   acldvppPicDesc* outputDesc, acldvppRoiConfig* cropArea,
                                   acldvppResizeConfig* resizeConfig, aclrtStream stream) {
  if (const aclError code = Enter("acldvppVpcCropResizeAsync")) return code;
  if (!IsLive(inputDesc, Kind::kPicDesc) || !IsLive(cropArea, Kind::kRoi)) return ACL_ERROR_RT_INVALID_HANDLE;
  if (cropArea->left % 2 != 0 || cropArea->top % 2 != 0 || cropArea->right % 2 != 1 || cropArea->bottom % 2 != 1) {
    return Misuse(ACL_ERROR_INVALID_PARAM, "a region begins at odd or ends at even places");
  }
  if (cropArea->left >= cropArea->right || cropArea->top >= cropArea->bottom || cropArea->right >= inputDesc->width ||
      cropArea->bottom >= inputDesc->height) {
    return Misuse(ACL_ERROR_INVALID_PARAM, "a region is not within the picture");
  }
  const standin::Part part = {static_cast<int>(cropArea->left), static_cast<int>(cropArea->top),
                              static_cast<int>(cropArea->right - cropArea->left + 1),
                              static_cast<int>(cropArea->bottom - cropArea->top + 1)};
  return QueueScaling(channelDesc, inputDesc, outputDesc, part, resizeConfig, stream);
}
