// What the stand-in for AscendCL knows: who is alive, who was misused, what is to fail. Test only.
//
// It plays the part of the runtime and a card strictly: every handle has to be alive and of the right kind, the card's
// memory cannot be touched by the application, work on a stream happens when the stream is waited for, and whatever is
// left over at aclFinalize is reported. A run with a leak or a misuse ends with status kUncleanStatus.
//
//   STANDIN_FAIL=function:n:code   the n-th call of that function fails (releases are carried out all the same)
//   STANDIN_MEET=f:n,g:m           the n-th call of f and the m-th call of g wait for each other
//   STANDIN_WORKERS=socket         networks are run by the processes of this server (a process of one's own)
//   STANDIN_RUN_MODE=device        as if the application ran on the card
//   STANDIN_DEVICES=n              how many cards there are (1)
//   STANDIN_SOC=Ascend310P3        rows of decoded pictures are aligned as on that chip (Ascend310)
#ifndef STANDIN_STATE_H_
#define STANDIN_STATE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "acl/acl.h"

namespace standin {

constexpr int kUncleanStatus = 86;

enum class Kind {
  kContext,
  kStream,
  kDataBuffer,
  kDataset,
  kModelDesc,
  kModel,
  kChannelDesc,
  kPicDesc,
  kRoi,
  kResizeConfig
};

// Begins a call: 0, or the code with which the call has to end (not initialised, or injected).
aclError Enter(const char* function);

// Ends a call with a message that aclGetRecentErrMsg hands out. Misuse is a bug of the application and is remembered.
aclError Fail(aclError code, const std::string& message);
aclError Misuse(aclError code, const std::string& message);

void Track(const void* handle, Kind kind);
bool IsLive(const void* handle, Kind kind);
// False, and a misuse, where the handle is not alive or not of that kind.
bool Untrack(const void* handle, Kind kind);

// `user` needs `used`, memory or another handle, until it is untracked or forgets what it needs.
void Refer(const void* user, const void* used);
void Forget(const void* user);
bool IsReferredTo(const void* begin, size_t size = 1);

// The thread's context, nullptr without one.
aclrtContext CurrentContext();

// Memory of the card. View is what the card itself sees: nullptr where the range is not within one live block.
aclError Allocate(void** address, size_t size, bool for_dvpp);
aclError Release(void* address, bool for_dvpp);
void* View(const void* address, size_t size);
bool IsDvppMemory(const void* address);
bool OnDevice();

// Work that happens when the stream is waited for; `uses` must stay alive until then.
aclError Queue(aclrtStream stream, const std::vector<const void*>& uses, std::function<aclError()> work);

std::string Environment(const char* name, const std::string& otherwise);

}  // namespace standin

#endif  // STANDIN_STATE_H_
