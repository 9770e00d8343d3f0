#include "acl_check.h"

#include <atomic>
#include <iostream>

namespace infer {
namespace {

std::atomic<bool> any_release_failed{false};

std::string Sentence(aclError code, const char* call, const std::string& about) {
  std::string text = std::string(call) + " failed with " + std::to_string(code);
  if (!about.empty()) text += " (" + about + ")";
  const char* detail = aclGetRecentErrMsg();
  if (detail != nullptr && *detail != '\0') text += ": " + std::string(detail);
  return text;
}

}  // namespace

void Check(aclError code, const char* call, const std::string& about) {
  if (code != ACL_SUCCESS) throw AclError(Sentence(code, call, about));
}

void CheckRelease(aclError code, const char* call) noexcept {
  if (code == ACL_SUCCESS) return;
  any_release_failed = true;
  std::cerr << "error: " << Sentence(code, call, "") << std::endl;
}

bool AnyReleaseFailed() noexcept { return any_release_failed; }

}  // namespace infer
