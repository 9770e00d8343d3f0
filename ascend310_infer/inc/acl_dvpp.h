#ifndef ASCEND310_INFER_ACL_DVPP_H_
#define ASCEND310_INFER_ACL_DVPP_H_

#include <vector>

#include "acl_memory.h"
#include "acl_session.h"
#include "jpeg_header.h"
#include "transform.h"

namespace infer {

// The decoder does not take this file.
struct DvppRefused : AclError {
  using AclError::AclError;
};

// Why DVPP cannot decode a picture that this machine may be able to; nullptr where it can.
const char* WhyNotDvpp(const std::vector<uint8_t>& bytes);

// The chip's JPEG decoder and resizer. Made and used by one thread.
class Dvpp {
 public:
  explicit Dvpp(bool on_device);

  // Decodes a JPEG file and scales its central part to `input`; the result, NV12 without gaps, stays on the card until
  // the next call. nullptr where the plan for the decoded size is empty.
  const void* Prepare(const std::vector<uint8_t>& jpeg, Size input, Fit fit, double ratio);

 private:
  struct ChannelHandle {
    explicit ChannelHandle(acldvppChannelDesc* made);
    ChannelHandle(const ChannelHandle&) = delete;
    ChannelHandle& operator=(const ChannelHandle&) = delete;
    ~ChannelHandle();
    acldvppChannelDesc* desc;
  };

  PicDesc Decode(const std::vector<uint8_t>& jpeg);
  // The whole picture, or a part of it, in another size.
  PicDesc Scale(const PicDesc& source, Size size, acldvppRoiConfig* part, DvppMemory* memory);

  Stream stream_;
  ChannelDesc desc_;
  ChannelHandle channel_;
  ResizeConfig bilinear_;
  DvppMemory encoded_;
  DvppMemory decoded_;
  DvppMemory whole_;
  DvppMemory even_;  // steps of scaling take turns
  DvppMemory odd_;
};

}  // namespace infer

#endif  // ASCEND310_INFER_ACL_DVPP_H_
