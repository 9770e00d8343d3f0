#ifndef ASCEND310_INFER_ACL_MEMORY_H_
#define ASCEND310_INFER_ACL_MEMORY_H_

#include <cstddef>

#include "acl_check.h"

namespace infer {

// Memory on the card. Where `on_device` the application runs there too and shares it.
class DeviceMemory {
 public:
  DeviceMemory(size_t size, bool on_device);
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory();

  void* get() const { return data_; }
  size_t size() const { return size_; }

  void Zero();
  // From this machine's memory to `offset`, and back from the start.
  void Upload(size_t offset, const void* source, size_t bytes);
  void Download(void* target, size_t bytes) const;
  // From other memory of the card to `offset`.
  void Copy(size_t offset, const void* source, size_t bytes);

 private:
  void* At(size_t offset) const { return static_cast<char*>(data_) + offset; }

  void* data_ = nullptr;
  size_t size_;
  bool on_device_;
};

// Memory of the card that its DVPP reads and writes. It only grows, so that similar images share it.
class DvppMemory {
 public:
  explicit DvppMemory(bool on_device) : on_device_(on_device) {}
  DvppMemory(const DvppMemory&) = delete;
  DvppMemory& operator=(const DvppMemory&) = delete;
  ~DvppMemory() { Free(); }

  // At least `size` bytes, whose content is unknown.
  void* Reserve(size_t size);
  void Upload(const void* source, size_t bytes);

 private:
  void Free() noexcept;

  void* data_ = nullptr;
  size_t size_ = 0;
  bool on_device_;
};

}  // namespace infer

#endif  // ASCEND310_INFER_ACL_MEMORY_H_
