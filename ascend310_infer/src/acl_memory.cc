#include "acl_memory.h"

#include <cstring>
#include <string>

namespace infer {
namespace {

// The card's own processor reads and writes the card's memory as its own.
void Transfer(void* target, size_t room, const void* source, size_t bytes, bool on_device, aclrtMemcpyKind kind,
              const char* about) {
  if (!on_device) {
    Check(aclrtMemcpy(target, room, source, bytes, kind), "aclrtMemcpy", about);
  } else if (bytes > room) {
    throw AclError("a copy of " + std::to_string(bytes) + " bytes does not fit into " + std::to_string(room));
  } else {
    std::memcpy(target, source, bytes);
  }
}

}  // namespace

DeviceMemory::DeviceMemory(size_t size, bool on_device) : size_(size), on_device_(on_device) {
  Check(aclrtMalloc(&data_, size, ACL_MEM_MALLOC_HUGE_FIRST), "aclrtMalloc", std::to_string(size) + " bytes");
}

DeviceMemory::~DeviceMemory() { CheckRelease(aclrtFree(data_), "aclrtFree"); }

void DeviceMemory::Zero() { Check(aclrtMemset(data_, size_, 0, size_), "aclrtMemset"); }

void DeviceMemory::Upload(size_t offset, const void* source, size_t bytes) {
  Transfer(At(offset), size_ - offset, source, bytes, on_device_, ACL_MEMCPY_HOST_TO_DEVICE, "to the card");
}

void DeviceMemory::Download(void* target, size_t bytes) const {
  Transfer(target, bytes, data_, bytes, on_device_, ACL_MEMCPY_DEVICE_TO_HOST, "from the card");
}

void DeviceMemory::Copy(size_t offset, const void* source, size_t bytes) {
  Check(aclrtMemcpy(At(offset), size_ - offset, source, bytes, ACL_MEMCPY_DEVICE_TO_DEVICE), "aclrtMemcpy",
        "on the card");
}

void* DvppMemory::Reserve(size_t size) {
  if (size > size_) {
    Free();
    Check(acldvppMalloc(&data_, size), "acldvppMalloc", std::to_string(size) + " bytes");
    size_ = size;
  }
  return data_;
}

void DvppMemory::Upload(const void* source, size_t bytes) {
  Reserve(bytes);
  Transfer(data_, size_, source, bytes, on_device_, ACL_MEMCPY_HOST_TO_DEVICE, "to DVPP's memory");
}

void DvppMemory::Free() noexcept {
  if (data_ != nullptr) CheckRelease(acldvppFree(data_), "acldvppFree");
  data_ = nullptr;
  size_ = 0;
}

}  // namespace infer
