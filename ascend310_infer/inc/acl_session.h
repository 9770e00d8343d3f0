#ifndef ASCEND310_INFER_ACL_SESSION_H_
#define ASCEND310_INFER_ACL_SESSION_H_

#include "acl_check.h"

namespace infer {

// The runtime, one card and a context on it. Its destructor gives all back in reverse order, so that everything made on
// the card has to be gone by then.
class AclSession {
 public:
  explicit AclSession(int device);

  // Makes the context the calling thread's.
  void Enter() const;

  // True where the application runs on the card's own processor and shares its memory.
  bool OnDevice() const { return run_mode_ == ACL_DEVICE; }

 private:
  struct Runtime {
    Runtime();
    Runtime(const Runtime&) = delete;
    Runtime& operator=(const Runtime&) = delete;
    ~Runtime();
  };
  struct Device {
    explicit Device(int device);
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;
    ~Device();
    int id;
  };
  struct Context {
    explicit Context(int device);
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;
    ~Context();
    aclrtContext handle = nullptr;
  };

  Runtime runtime_;
  Device device_;
  Context context_;
  aclrtRunMode run_mode_ = ACL_HOST;
};

// A queue of work on the card, in the calling thread's context.
class Stream {
 public:
  Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream();

  aclrtStream get() const { return handle_; }
  void Synchronise() const;

 private:
  aclrtStream handle_ = nullptr;
};

}  // namespace infer

#endif  // ASCEND310_INFER_ACL_SESSION_H_
