#ifndef ASCEND310_INFER_ACL_CHECK_H_
#define ASCEND310_INFER_ACL_CHECK_H_

#include <memory>
#include <stdexcept>
#include <string>

#include "acl/acl.h"
#include "acl/ops/acl_dvpp.h"

namespace infer {

// A call of AscendCL failed.
struct AclError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throws AclError with the call, the code and what the runtime says about it. `about` names file or object.
void Check(aclError code, const char* call, const std::string& about = "");

// The same for a call that returns an object or none; there is no code then.
[[noreturn]] void RefuseNone(const char* call);

template <typename T>
T* CheckMade(T* handle, const char* call) {
  if (handle == nullptr) RefuseNone(call);
  return handle;
}

// For destructors, which must not throw: prints, and AnyReleaseFailed() is true from then on.
void CheckRelease(aclError code, const char* call) noexcept;
bool AnyReleaseFailed() noexcept;

// Frees an object with `Release` and checks that.
template <auto Release, const char* kName>
struct Releaser {
  template <typename T>
  void operator()(T* handle) const noexcept {
    CheckRelease(Release(handle), kName);
  }
};

namespace names {
inline constexpr char kDestroyDataBuffer[] = "aclDestroyDataBuffer";
inline constexpr char kDestroyDataset[] = "aclmdlDestroyDataset";
inline constexpr char kDestroyModelDesc[] = "aclmdlDestroyDesc";
inline constexpr char kDestroyChannelDesc[] = "acldvppDestroyChannelDesc";
inline constexpr char kDestroyPicDesc[] = "acldvppDestroyPicDesc";
inline constexpr char kDestroyRoi[] = "acldvppDestroyRoiConfig";
inline constexpr char kDestroyResize[] = "acldvppDestroyResizeConfig";
}  // namespace names

using DataBuffer = std::unique_ptr<aclDataBuffer, Releaser<aclDestroyDataBuffer, names::kDestroyDataBuffer>>;
using DatasetHandle = std::unique_ptr<aclmdlDataset, Releaser<aclmdlDestroyDataset, names::kDestroyDataset>>;
using ModelDesc = std::unique_ptr<aclmdlDesc, Releaser<aclmdlDestroyDesc, names::kDestroyModelDesc>>;
using ChannelDesc =
    std::unique_ptr<acldvppChannelDesc, Releaser<acldvppDestroyChannelDesc, names::kDestroyChannelDesc>>;
using PicDesc = std::unique_ptr<acldvppPicDesc, Releaser<acldvppDestroyPicDesc, names::kDestroyPicDesc>>;
using Roi = std::unique_ptr<acldvppRoiConfig, Releaser<acldvppDestroyRoiConfig, names::kDestroyRoi>>;
using ResizeConfig = std::unique_ptr<acldvppResizeConfig, Releaser<acldvppDestroyResizeConfig, names::kDestroyResize>>;

}  // namespace infer

#endif  // ASCEND310_INFER_ACL_CHECK_H_
