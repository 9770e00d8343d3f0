// Wrong uses of the interface, one per name: standin_test NAME has to end with the stand-in's complaint, and
// "clean" without one. It proves that the stand-in sees what the tests of the application rely on.

#include <cstring>
#include <functional>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "acl/acl.h"
#include "acl/ops/acl_dvpp.h"

namespace {

constexpr size_t kBytes = 4096;

void Start() {
  aclrtContext context = nullptr;
  aclInit(nullptr);
  aclrtSetDevice(0);
  aclrtCreateContext(&context, 0);
}

void Stop() {
  // The context leaks in all cases but "clean": they are about something else, and end with a complaint anyway.
  aclFinalize();
}

void* Memory() {
  void* memory = nullptr;
  aclrtMalloc(&memory, kBytes, ACL_MEM_MALLOC_HUGE_FIRST);
  return memory;
}

void Clean() {
  aclrtContext context = nullptr;
  aclInit(nullptr);
  aclrtSetDevice(0);
  aclrtCreateContext(&context, 0);
  void* memory = Memory();
  std::vector<char> host(kBytes, 1);
  aclrtMemcpy(memory, kBytes, host.data(), kBytes, ACL_MEMCPY_HOST_TO_DEVICE);
  aclrtFree(memory);
  aclrtDestroyContext(context);
  aclrtResetDevice(0);
  aclFinalize();
}

const std::map<std::string, std::function<void()>>& Cases() {
  static const std::map<std::string, std::function<void()>> cases = {
      {"clean", Clean},
      {"before_init", [] { Memory(); }},
      {"init_twice",
       [] {
         Start();
         aclInit(nullptr);
         Stop();
       }},
      {"finalize_twice",
       [] {
         aclInit(nullptr);
         aclFinalize();
         aclFinalize();
       }},
      {"no_finalize", [] { aclInit(nullptr); }},
      {"no_context",
       [] {
         aclInit(nullptr);
         aclrtSetDevice(0);
         Memory();
         aclrtResetDevice(0);
         aclFinalize();
       }},
      {"leaked_memory",
       [] {
         Start();
         Memory();
         Stop();
       }},
      {"leaked_buffer",
       [] {
         Start();
         aclCreateDataBuffer(nullptr, 0);
         Stop();
       }},
      {"host_memory_as_device",
       [] {
         Start();
         char a[8];
         char b[8];
         aclrtMemcpy(a, 8, b, 8, ACL_MEMCPY_HOST_TO_DEVICE);
         Stop();
       }},
      {"copy_too_much",
       [] {
         Start();
         std::vector<char> host(2 * kBytes);
         aclrtMemcpy(Memory(), kBytes, host.data(), 2 * kBytes, ACL_MEMCPY_HOST_TO_DEVICE);
         Stop();
       }},
      {"foreign_free",
       [] {
         Start();
         char local = 0;
         aclrtFree(&local);
         Stop();
       }},
      {"mixed_free",
       [] {
         Start();
         acldvppFree(Memory());
         Stop();
       }},
      {"double_destroy",
       [] {
         Start();
         auto* roi = acldvppCreateRoiConfig(0, 1, 0, 1);
         acldvppDestroyRoiConfig(roi);
         acldvppDestroyRoiConfig(roi);
         Stop();
       }},
      {"wrong_kind",
       [] {
         Start();
         aclmdlDestroyDataset(reinterpret_cast<aclmdlDataset*>(aclCreateDataBuffer(nullptr, 0)));
         Stop();
       }},
      {"unknown_model",
       [] {
         Start();
         aclmdlUnload(7);
         Stop();
       }},
      {"work_left_in_stream",
       [] {
         Start();
         aclrtStream stream = nullptr;
         aclrtCreateStream(&stream);
         auto* channel = acldvppCreateChannelDesc();
         acldvppCreateChannel(channel);
         void* data = nullptr;
         acldvppMalloc(&data, kBytes);
         auto* picture = acldvppCreatePicDesc();
         acldvppSetPicDescData(picture, data);
         acldvppSetPicDescSize(picture, kBytes);
         acldvppSetPicDescFormat(picture, PIXEL_FORMAT_YUV_SEMIPLANAR_420);
         acldvppJpegDecodeAsync(channel, data, kBytes, picture, stream);
         aclrtDestroyStream(stream);
         Stop();
       }},
      {"touched_by_host",
       [] {
         Start();
         std::memset(Memory(), 0, 1);
       }},
  };
  return cases;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 1) {
    for (const auto& [name, call] : Cases()) std::cout << name << "\n";
    return 0;
  }
  Cases().at(argv[1])();
  return 0;
}
