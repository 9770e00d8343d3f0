#include "acl_check.h"

#include <atomic>
#include <iostream>

namespace infer {
namespace {

std::atomic<bool> any_release_failed{false};

// With what the runtime says about it.
std::string WithDetail(const std::string& fact) {
  const char* detail = aclGetRecentErrMsg();
  return detail == nullptr || *detail == '\0' ? fact : fact + ": " + detail;
}

std::string Sentence(aclError code, const char* call, const std::string& about) {
  const std::string fact = std::string(call) + " failed with " + std::to_string(code);
  return WithDetail(about.empty() ? fact : fact + " (" + about + ")");
}

}  // namespace

void Check(aclError code, const char* call, const std::string& about) {
  if (code != ACL_SUCCESS) throw AclError(Sentence(code, call, about));
}

void RefuseNone(const char* call) { throw AclError(WithDetail(std::string(call) + " returned no object")); }

void CheckRelease(aclError code, const char* call) noexcept {
  if (code == ACL_SUCCESS) return;
  any_release_failed = true;
  std::cerr << "error: " << Sentence(code, call, "") << std::endl;
}

bool AnyReleaseFailed() noexcept { return any_release_failed; }

}  // namespace infer
