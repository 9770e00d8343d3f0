#include "acl_session.h"

#include <string>

namespace infer {

AclSession::Runtime::Runtime() { Check(aclInit(nullptr), "aclInit"); }
AclSession::Runtime::~Runtime() { CheckRelease(aclFinalize(), "aclFinalize"); }

AclSession::Device::Device(int device) : id(device) {
  uint32_t count = 0;
  Check(aclrtGetDeviceCount(&count), "aclrtGetDeviceCount");
  if (static_cast<uint32_t>(device) >= count) {
    throw AclError("device " + std::to_string(device) + " is asked for, but this machine has " + std::to_string(count) +
                   "; give a number below that");
  }
  Check(aclrtSetDevice(device), "aclrtSetDevice", "device " + std::to_string(device));
}
AclSession::Device::~Device() { CheckRelease(aclrtResetDevice(id), "aclrtResetDevice"); }

AclSession::Context::Context(int device) { Check(aclrtCreateContext(&handle, device), "aclrtCreateContext"); }
AclSession::Context::~Context() { CheckRelease(aclrtDestroyContext(handle), "aclrtDestroyContext"); }

AclSession::AclSession(int device) : device_(device), context_(device) {
  Check(aclrtGetRunMode(&run_mode_), "aclrtGetRunMode");
}

void AclSession::Enter() const { Check(aclrtSetCurrentContext(context_.handle), "aclrtSetCurrentContext"); }

Stream::Stream() { Check(aclrtCreateStream(&handle_), "aclrtCreateStream"); }
Stream::~Stream() { CheckRelease(aclrtDestroyStream(handle_), "aclrtDestroyStream"); }

void Stream::Synchronise() const { Check(aclrtSynchronizeStream(handle_), "aclrtSynchronizeStream"); }

}  // namespace infer
