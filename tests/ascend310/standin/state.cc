#include "state.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <sstream>

#include "meeting.h"

namespace standin {
namespace {

// The card's memory is mapped twice: for the application without any right, for the card to read and write.
struct Block {
  void* view;
  size_t size;
  size_t mapped;
  bool for_dvpp;
};

struct Stream {
  struct Task {
    std::vector<const void*> uses;
    std::function<aclError()> work;
  };
  std::vector<Task> tasks;
};

struct State {
  std::recursive_mutex mutex;
  bool initialised = false;
  bool finalised = false;
  bool unclean = false;
  std::map<std::string, int> calls;
  std::map<const void*, Kind> handles;
  std::map<const char*, Block> blocks;
  std::set<const void*> in_use;
  std::multimap<const void*, const void*> references;  // who needs what
  int set_devices = 0;
};

// Never destroyed: the report at the end of the process needs it.
State& state() {
  static auto* instance = new State;
  return *instance;
}

thread_local std::string recent_message;  // NOLINT: one per thread is what the interface asks for
thread_local std::string handed_out;      // NOLINT
thread_local aclrtContext current_context = nullptr;

const char* NameOf(Kind kind) {
  switch (kind) {
    case Kind::kContext: return "context";
    case Kind::kStream: return "stream";
    case Kind::kDataBuffer: return "data buffer";
    case Kind::kDataset: return "dataset";
    case Kind::kModelDesc: return "model description";
    case Kind::kModel: return "model";
    case Kind::kChannelDesc: return "channel description";
    case Kind::kPicDesc: return "picture description";
    case Kind::kRoi: return "region";
    case Kind::kResizeConfig: return "resize configuration";
  }
  return "handle";
}

void Complain(const std::string& text) {
  std::fprintf(stderr, "stand-in: %s\n", text.c_str());
  state().unclean = true;
}

void ReportLeaks() {
  for (const auto& [handle, kind] : state().handles) Complain(std::string("leak: ") + NameOf(kind));
  for (const auto& [address, block] : state().blocks) {
    Complain("leak: " + std::to_string(block.size) + " bytes of " + (block.for_dvpp ? "DVPP" : "device") + " memory");
  }
  if (state().set_devices != 0) Complain("leak: device not reset");
}

// Runs when the process ends, after the application's own clean-up.
__attribute__((destructor)) void AtExit() {
  State& s = state();
  if (s.initialised && !s.finalised) {
    Complain("aclFinalize was not called");
    ReportLeaks();
  }
  if (s.unclean) _exit(kUncleanStatus);
}

// Counts a call: 0, or the code that it has to fail with.
aclError Injected(const char* function, int* call) {
  const std::string wish = Environment("STANDIN_FAIL", "");
  std::istringstream parts(wish);
  std::string name;
  std::string number;
  std::string code;
  std::getline(parts, name, ':');
  std::getline(parts, number, ':');
  std::getline(parts, code, ':');
  *call = ++state().calls[function];
  if (name != function || std::atoi(number.c_str()) != *call) return ACL_SUCCESS;
  return Fail(std::atoi(code.c_str()), "injected failure of call " + number + " of " + name);
}

const std::pair<const char* const, Block>* BlockOf(const void* address, size_t size) {
  const auto* wanted = static_cast<const char*>(address);
  auto after = state().blocks.upper_bound(wanted);
  if (after == state().blocks.begin()) return nullptr;
  --after;
  return wanted + size <= after->first + after->second.size ? &*after : nullptr;
}

}  // namespace

std::string Environment(const char* name, const std::string& otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : value;
}

bool OnDevice() { return Environment("STANDIN_RUN_MODE", "host") == "device"; }

aclError Fail(aclError code, const std::string& message) {
  recent_message = "[stand-in] " + message;
  return code;
}

aclError Misuse(aclError code, const std::string& message) {
  const std::lock_guard<std::recursive_mutex> lock(state().mutex);
  Complain("misuse: " + message);
  return Fail(code, message);
}

aclError Enter(const char* function) {
  int call = 0;
  {
    const std::lock_guard<std::recursive_mutex> lock(state().mutex);
    const aclError injected = Injected(function, &call);
    if (injected != ACL_SUCCESS) return injected;
    if (!state().initialised || state().finalised) {
      return Misuse(ACL_ERROR_UNINITIALIZE, std::string(function) + " outside of aclInit and aclFinalize");
    }
  }
  if (!Meet(function, call))
    return Misuse(ACL_ERROR_FAILURE, std::string(function) + " waited in vain for a call of another thread");
  return ACL_SUCCESS;
}

void Track(const void* handle, Kind kind) {
  const std::lock_guard<std::recursive_mutex> lock(state().mutex);
  state().handles[handle] = kind;
}

bool IsLive(const void* handle, Kind kind) {
  const std::lock_guard<std::recursive_mutex> lock(state().mutex);
  const auto found = state().handles.find(handle);
  if (found != state().handles.end() && found->second == kind) return true;
  Misuse(ACL_ERROR_RT_INVALID_HANDLE, std::string("not a live ") + NameOf(kind));
  return false;
}

bool Untrack(const void* handle, Kind kind) {
  const std::lock_guard<std::recursive_mutex> lock(state().mutex);
  if (!IsLive(handle, kind)) return false;
  if (state().in_use.count(handle) != 0)
    Misuse(ACL_ERROR_RT_INVALID_HANDLE, std::string(NameOf(kind)) + " destroyed while a stream works on it");
  state().handles.erase(handle);
  Forget(handle);
  return true;
}

void Refer(const void* user, const void* used) {
  const std::lock_guard<std::recursive_mutex> lock(state().mutex);
  state().references.emplace(user, used);
}

void Forget(const void* user) {
  const std::lock_guard<std::recursive_mutex> lock(state().mutex);
  state().references.erase(user);
}

bool IsReferredTo(const void* begin, size_t size) {
  const std::lock_guard<std::recursive_mutex> lock(state().mutex);
  const auto* first = static_cast<const char*>(begin);
  const auto& references = state().references;
  return std::any_of(references.begin(), references.end(), [=](const auto& reference) {
    const auto* used = static_cast<const char*>(reference.second);
    return used >= first && used < first + size;
  });
}

aclrtContext CurrentContext() { return current_context; }

aclError Allocate(void** address, size_t size, bool for_dvpp) {
  if (address == nullptr || size == 0)
    return Misuse(ACL_ERROR_INVALID_PARAM, "memory of no size or without a place for its address");
  if (current_context == nullptr)
    return Misuse(ACL_ERROR_RT_CONTEXT_NULL, "memory is wanted in a thread without context");
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t mapped = (size + page - 1) / page * page;
  const int file = memfd_create("standin", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, static_cast<off_t>(mapped)) != 0) return Fail(ACL_ERROR_BAD_ALLOC, "no memory");
  void* view = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  void* device = mmap(nullptr, mapped, OnDevice() ? PROT_READ | PROT_WRITE : PROT_NONE, MAP_SHARED, file, 0);
  close(file);
  if (view == MAP_FAILED || device == MAP_FAILED) return Fail(ACL_ERROR_BAD_ALLOC, "no memory");
  std::memset(view, 0xCD, mapped);
  const std::lock_guard<std::recursive_mutex> lock(state().mutex);
  state().blocks[static_cast<const char*>(device)] = {view, size, mapped, for_dvpp};
  *address = device;
  return ACL_SUCCESS;
}

aclError Release(void* address, bool for_dvpp) {
  const std::lock_guard<std::recursive_mutex> lock(state().mutex);
  const auto found = state().blocks.find(static_cast<const char*>(address));
  if (found == state().blocks.end()) return Misuse(ACL_ERROR_RT_PARAM_INVALID, "memory is freed that is not allocated");
  if (found->second.for_dvpp != for_dvpp)
    return Misuse(ACL_ERROR_RT_PARAM_INVALID, "DVPP's and other memory are mixed up in a free");
  if (IsReferredTo(address, found->second.size))
    Misuse(ACL_ERROR_RT_PARAM_INVALID, "memory is freed that a live data buffer or picture description refers to");
  munmap(found->second.view, found->second.mapped);
  munmap(address, found->second.mapped);
  state().blocks.erase(found);
  return ACL_SUCCESS;
}

void* View(const void* address, size_t size) {
  const std::lock_guard<std::recursive_mutex> lock(state().mutex);
  const auto* found = BlockOf(address, size);
  if (found == nullptr) return nullptr;
  return static_cast<char*>(found->second.view) + (static_cast<const char*>(address) - found->first);
}

bool IsDvppMemory(const void* address) {
  const std::lock_guard<std::recursive_mutex> lock(state().mutex);
  const auto* found = BlockOf(address, 1);
  return found != nullptr && found->second.for_dvpp;
}

aclError Queue(aclrtStream stream, const std::vector<const void*>& uses, std::function<aclError()> work) {
  const std::lock_guard<std::recursive_mutex> lock(state().mutex);
  if (!IsLive(stream, Kind::kStream)) return ACL_ERROR_RT_INVALID_HANDLE;
  state().in_use.insert(uses.begin(), uses.end());
  static_cast<Stream*>(stream)->tasks.push_back({uses, std::move(work)});
  return ACL_SUCCESS;
}

}  // namespace standin

using standin::Enter;
using standin::Fail;
using standin::Kind;
using standin::Misuse;
using standin::state;

aclError aclInit(const char* configPath) {
  const std::lock_guard<std::recursive_mutex> lock(state().mutex);
  int call = 0;
  const aclError injected = standin::Injected("aclInit", &call);
  if (injected != ACL_SUCCESS) return injected;
  if (state().initialised) return Misuse(ACL_ERROR_REPEAT_INITIALIZE, "aclInit is called twice");
  if (configPath != nullptr && access(configPath, R_OK) != 0)
    return Fail(ACL_ERROR_INVALID_FILE, "no file " + std::string(configPath));
  state().initialised = true;
  return ACL_SUCCESS;
}

aclError aclFinalize() {
  const std::lock_guard<std::recursive_mutex> lock(state().mutex);
  if (state().finalised) return Misuse(ACL_ERROR_REPEAT_FINALIZE, "aclFinalize is called twice");
  const aclError injected = Enter("aclFinalize");
  standin::ReportLeaks();
  state().finalised = true;
  return injected;
}

const char* aclGetRecentErrMsg() {
  standin::handed_out.swap(standin::recent_message);
  standin::recent_message.clear();
  return standin::handed_out.empty() ? nullptr : standin::handed_out.c_str();
}

aclError aclrtGetDeviceCount(uint32_t* count) {
  if (const aclError code = Enter("aclrtGetDeviceCount")) return code;
  *count = static_cast<uint32_t>(std::stoul(standin::Environment("STANDIN_DEVICES", "1")));
  return ACL_SUCCESS;
}

aclError aclrtSetDevice(int32_t deviceId) {
  if (const aclError code = Enter("aclrtSetDevice")) return code;
  if (deviceId < 0 || deviceId >= std::stoi(standin::Environment("STANDIN_DEVICES", "1"))) {
    return Fail(ACL_ERROR_RT_INVALID_DEVICEID, "there is no device " + std::to_string(deviceId));
  }
  ++state().set_devices;
  return ACL_SUCCESS;
}

aclError aclrtResetDevice(int32_t) {
  const aclError injected = Enter("aclrtResetDevice");
  for (const auto& [handle, kind] : state().handles) {
    if (kind == Kind::kStream || kind == Kind::kContext)
      Misuse(ACL_ERROR_RT_PARAM_INVALID, "the device is reset before streams and contexts are gone");
  }
  if (--state().set_devices < 0) return Misuse(ACL_ERROR_RT_INVALID_DEVICEID, "a device is reset that is not set");
  return injected;
}

aclError aclrtGetRunMode(aclrtRunMode* runMode) {
  if (const aclError code = Enter("aclrtGetRunMode")) return code;
  *runMode = standin::OnDevice() ? ACL_DEVICE : ACL_HOST;
  return ACL_SUCCESS;
}

aclError aclrtCreateContext(aclrtContext* context, int32_t) {
  if (const aclError code = Enter("aclrtCreateContext")) return code;
  if (state().set_devices == 0)
    return Misuse(ACL_ERROR_RT_INVALID_DEVICEID, "a context is made before the device is set");
  *context = new char;
  standin::Track(*context, Kind::kContext);
  standin::current_context = *context;
  return ACL_SUCCESS;
}

aclError aclrtDestroyContext(aclrtContext context) {
  const aclError injected = Enter("aclrtDestroyContext");
  if (!standin::Untrack(context, Kind::kContext)) return ACL_ERROR_RT_INVALID_HANDLE;
  delete static_cast<char*>(context);
  if (standin::current_context == context) standin::current_context = nullptr;
  return injected;
}

aclError aclrtSetCurrentContext(aclrtContext context) {
  if (const aclError code = Enter("aclrtSetCurrentContext")) return code;
  if (!standin::IsLive(context, Kind::kContext)) return ACL_ERROR_RT_INVALID_HANDLE;
  standin::current_context = context;
  return ACL_SUCCESS;
}

namespace {

// Done or given up: nothing is needed for the tasks any more.
void EndTasks(std::vector<standin::Stream::Task>* tasks) {
  const std::lock_guard<std::recursive_mutex> lock(state().mutex);
  for (const auto& task : *tasks) {
    for (const void* handle : task.uses) state().in_use.erase(handle);
  }
  tasks->clear();
}

}  // namespace

aclError aclrtCreateStream(aclrtStream* stream) {
  if (const aclError code = Enter("aclrtCreateStream")) return code;
  if (standin::current_context == nullptr)
    return Misuse(ACL_ERROR_RT_CONTEXT_NULL, "a stream is made in a thread without context");
  *stream = new standin::Stream;
  standin::Track(*stream, Kind::kStream);
  return ACL_SUCCESS;
}

aclError aclrtDestroyStream(aclrtStream stream) {
  const aclError injected = Enter("aclrtDestroyStream");
  if (!standin::Untrack(stream, Kind::kStream)) return ACL_ERROR_RT_INVALID_HANDLE;
  auto& tasks = static_cast<standin::Stream*>(stream)->tasks;
  if (!tasks.empty()) Misuse(ACL_ERROR_RT_INVALID_HANDLE, "a stream is destroyed with work left in it");
  EndTasks(&tasks);
  delete static_cast<standin::Stream*>(stream);
  return injected;
}

aclError aclrtSynchronizeStream(aclrtStream stream) {
  const aclError injected = Enter("aclrtSynchronizeStream");
  if (!standin::IsLive(stream, Kind::kStream)) return ACL_ERROR_RT_INVALID_HANDLE;
  aclError result = injected;
  auto& tasks = static_cast<standin::Stream*>(stream)->tasks;
  for (auto& task : tasks) {
    if (result == ACL_SUCCESS) result = task.work();
  }
  EndTasks(&tasks);
  return result;
}

aclError aclrtMalloc(void** devPtr, size_t size, aclrtMemMallocPolicy) {
  if (const aclError code = Enter("aclrtMalloc")) return code;
  return standin::Allocate(devPtr, size, false);
}

aclError aclrtFree(void* devPtr) {
  const aclError injected = Enter("aclrtFree");
  const aclError code = standin::Release(devPtr, false);
  return injected != ACL_SUCCESS ? injected : code;
}

aclError aclrtMemset(void* devPtr, size_t maxCount, int32_t value, size_t count) {
  if (const aclError code = Enter("aclrtMemset")) return code;
  void* view = standin::View(devPtr, maxCount);
  if (view == nullptr || count > maxCount)
    return Misuse(ACL_ERROR_RT_PARAM_INVALID, "memset outside of the card's memory");
  std::memset(view, value, count);
  return ACL_SUCCESS;
}

aclError aclrtMemcpy(void* dst, size_t destMax, const void* src, size_t count, aclrtMemcpyKind kind) {
  if (const aclError code = Enter("aclrtMemcpy")) return code;
  if (standin::CurrentContext() == nullptr)
    return Misuse(ACL_ERROR_RT_CONTEXT_NULL, "a copy in a thread without context");
  if (dst == nullptr || src == nullptr || count == 0) return Misuse(ACL_ERROR_INVALID_PARAM, "a copy of nothing");
  if (count > destMax) return Misuse(ACL_ERROR_RT_PARAM_INVALID, "a copy of more than fits");
  const bool to_device = kind == ACL_MEMCPY_HOST_TO_DEVICE || kind == ACL_MEMCPY_DEVICE_TO_DEVICE;
  const bool from_device = kind == ACL_MEMCPY_DEVICE_TO_HOST || kind == ACL_MEMCPY_DEVICE_TO_DEVICE;
  void* target = standin::View(dst, destMax);
  const void* source = standin::View(src, count);
  if ((target != nullptr) != to_device || (source != nullptr) != from_device) {
    return Misuse(ACL_ERROR_RT_PARAM_INVALID, "a copy whose addresses are not on the sides that its kind names");
  }
  std::memcpy(to_device ? target : dst, from_device ? source : src, count);
  return ACL_SUCCESS;
}
