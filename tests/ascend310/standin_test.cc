// Wrong uses of the interface, one per name: standin_test NAME has to end with the stand-in's complaints about it, and
// "clean" without one. It proves that the stand-in sees what the tests of the application rely on. Without a name the
// program prints all of them, each with its complaints: name|complaint|complaint.

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

// The runtime, one card and a context: a case in between is about nothing else.
aclrtContext current = nullptr;  // NOLINT

void Start() {
  aclInit(nullptr);
  aclrtSetDevice(0);
  aclrtCreateContext(&current, 0);
}

void Stop() {
  aclrtDestroyContext(current);
  aclrtResetDevice(0);
  aclFinalize();
}

std::function<void()> Between(const std::function<void()>& call) {
  return [call] {
    Start();
    call();
    Stop();
  };
}

void* Memory() {
  void* memory = nullptr;
  aclrtMalloc(&memory, kBytes, ACL_MEM_MALLOC_HUGE_FIRST);
  return memory;
}

void* DvppMemory() {
  void* memory = nullptr;
  acldvppMalloc(&memory, kBytes);
  return memory;
}

acldvppPicDesc* Picture(void* data) {
  auto* picture = acldvppCreatePicDesc();
  acldvppSetPicDescData(picture, data);
  acldvppSetPicDescSize(picture, kBytes);
  acldvppSetPicDescFormat(picture, PIXEL_FORMAT_YUV_SEMIPLANAR_420);
  return picture;
}

// What decodes into a picture, with the work in its stream.
struct Decoder {
  explicit Decoder(void* data, acldvppPicDesc* picture) {
    aclrtCreateStream(&stream);
    acldvppCreateChannel(channel);
    acldvppJpegDecodeAsync(channel, data, kBytes, picture, stream);
  }
  ~Decoder() {
    aclrtDestroyStream(stream);
    acldvppDestroyChannel(channel);
    acldvppDestroyChannelDesc(channel);
  }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
  aclrtStream stream = nullptr;
  acldvppChannelDesc* channel = acldvppCreateChannelDesc();
};

void Clean() {
  void* memory = Memory();
  std::vector<char> host(kBytes, 1);
  aclrtMemcpy(memory, kBytes, host.data(), kBytes, ACL_MEMCPY_HOST_TO_DEVICE);
  auto* buffer = aclCreateDataBuffer(memory, kBytes);
  auto* dataset = aclmdlCreateDataset();
  aclmdlAddDatasetBuffer(dataset, buffer);
  aclmdlDestroyDataset(dataset);
  aclDestroyDataBuffer(buffer);
  aclrtFree(memory);
  void* data = DvppMemory();
  auto* picture = Picture(data);
  {
    const Decoder decoder(data, picture);
    aclrtSynchronizeStream(decoder.stream);  // the picture says that this is no JPEG
  }
  acldvppGetPicDescData(picture);
  acldvppDestroyPicDesc(picture);
  acldvppFree(data);
}

void Leave(bool with_context) {
  aclInit(nullptr);
  aclrtSetDevice(0);
  if (with_context) aclrtCreateContext(&current, 0);
  if (with_context) aclrtResetDevice(0);
  aclFinalize();
}

// A wrong use, and what the stand-in has to say about it, line by line; nothing where the process has to be killed.
struct Case {
  std::vector<std::string> complaints;
  std::function<void()> call;
};
using Cases = std::map<std::string, Case>;

void AddRuntime(Cases* cases) {
  cases->insert({
      {"before_init", {{"misuse: aclrtMalloc outside of aclInit and aclFinalize"}, [] { Memory(); }}},
      {"init_twice", {{"misuse: aclInit is called twice"}, Between([] { aclInit(nullptr); })}},
      {"finalize_twice",
       {{"misuse: aclFinalize is called twice"},
        [] {
          aclInit(nullptr);
          aclFinalize();
          aclFinalize();
        }}},
      {"no_finalize", {{"aclFinalize was not called"}, [] { aclInit(nullptr); }}},
      {"no_context",
       {{"misuse: memory is wanted in a thread without context"},
        [] {
          aclInit(nullptr);
          aclrtSetDevice(0);
          Memory();
          aclrtResetDevice(0);
          aclFinalize();
        }}},
      {"leaked_device", {{"leak: device not reset"}, [] { Leave(false); }}},
      {"leaked_context",
       {{"misuse: the device is reset before streams and contexts are gone", "leak: context"}, [] { Leave(true); }}},
      {"leaked_memory", {{"leak: 4096 bytes of device memory"}, Between([] { Memory(); })}},
      {"leaked_dvpp_memory", {{"leak: 4096 bytes of DVPP memory"}, Between([] { DvppMemory(); })}},
      {"leaked_buffer", {{"leak: data buffer"}, Between([] { aclCreateDataBuffer(nullptr, 0); })}},
  });
}

void AddMemory(Cases* cases) {
  cases->insert({
      {"host_memory_as_device",
       {{"misuse: a copy whose addresses are not on the sides that its kind names"}, Between([] {
          char a[8];
          char b[8];
          aclrtMemcpy(a, 8, b, 8, ACL_MEMCPY_HOST_TO_DEVICE);
        })}},
      {"copy_too_much", {{"misuse: a copy of more than fits"}, Between([] {
                           std::vector<char> host(2 * kBytes);
                           void* memory = Memory();
                           aclrtMemcpy(memory, kBytes, host.data(), 2 * kBytes, ACL_MEMCPY_HOST_TO_DEVICE);
                           aclrtFree(memory);
                         })}},
      {"foreign_free", {{"misuse: memory is freed that is not allocated"}, Between([] {
                          char local = 0;
                          aclrtFree(&local);
                        })}},
      {"mixed_free", {{"misuse: DVPP's and other memory are mixed up in a free"}, Between([] {
                        void* memory = Memory();
                        acldvppFree(memory);
                        aclrtFree(memory);
                      })}},
      {"freed_under_buffer",
       {{"misuse: memory is freed that a live data buffer or picture description refers to"}, Between([] {
          void* memory = Memory();
          auto* buffer = aclCreateDataBuffer(static_cast<char*>(memory) + 1, kBytes - 1);
          aclrtFree(memory);
          aclDestroyDataBuffer(buffer);
        })}},
      {"freed_under_picture",
       {{"misuse: memory is freed that a live data buffer or picture description refers to"}, Between([] {
          void* memory = DvppMemory();
          auto* picture = Picture(memory);
          acldvppFree(memory);
          acldvppDestroyPicDesc(picture);
        })}},
      {"touched_by_host",
       {{},
        [] {
          Start();
          std::memset(Memory(), 0, 1);
        }}},
  });
}

void AddHandles(Cases* cases) {
  cases->insert({
      {"double_destroy", {{"misuse: not a live region"}, Between([] {
                            auto* roi = acldvppCreateRoiConfig(0, 1, 0, 1);
                            acldvppDestroyRoiConfig(roi);
                            acldvppDestroyRoiConfig(roi);
                          })}},
      {"wrong_kind", {{"misuse: not a live dataset"}, Between([] {
                        auto* buffer = aclCreateDataBuffer(nullptr, 0);
                        aclmdlDestroyDataset(reinterpret_cast<aclmdlDataset*>(buffer));
                        aclDestroyDataBuffer(buffer);
                      })}},
      {"buffer_of_dataset", {{"misuse: a data buffer is destroyed that a live dataset lists"}, Between([] {
                               auto* dataset = aclmdlCreateDataset();
                               auto* buffer = aclCreateDataBuffer(nullptr, 0);
                               aclmdlAddDatasetBuffer(dataset, buffer);
                               aclDestroyDataBuffer(buffer);
                               aclmdlDestroyDataset(dataset);
                             })}},
      {"unknown_model", {{"misuse: an unknown model is unloaded"}, Between([] { aclmdlUnload(7); })}},
      {"work_left_in_stream", {{"misuse: a stream is destroyed with work left in it"}, Between([] {
                                 void* data = DvppMemory();
                                 auto* picture = Picture(data);
                                 {
                                   const Decoder decoder(data, picture);
                                 }
                                 acldvppDestroyPicDesc(picture);
                                 acldvppFree(data);
                               })}},
      {"picture_of_waiting_work",
       {{"misuse: picture description destroyed while a stream works on it",
         "misuse: a stream is destroyed with work left in it"},
        Between([] {
          void* data = DvppMemory();
          auto* picture = Picture(data);
          {
            const Decoder decoder(data, picture);
            acldvppDestroyPicDesc(picture);
          }
          acldvppFree(data);
        })}},
      {"dead_resize_configuration", {{"misuse: not a live resize configuration"}, Between([] {
                                       auto* config = acldvppCreateResizeConfig();
                                       acldvppDestroyResizeConfig(config);
                                       acldvppSetResizeConfigInterpolation(config, 1);
                                     })}},
  });
}

// Every function that reads a picture's description, with one that is gone.
void AddPictureReaders(Cases* cases) {
  const std::map<std::string, std::function<void(acldvppPicDesc*)>> readers = {
      {"data", acldvppGetPicDescData},
      {"width", acldvppGetPicDescWidth},
      {"height", acldvppGetPicDescHeight},
      {"return_code", acldvppGetPicDescRetCode},
  };
  for (const auto& [name, read] : readers) {
    (*cases)["dead_picture_" + name] = {{"misuse: not a live picture description"}, Between([read = read] {
                                          auto* picture = acldvppCreatePicDesc();
                                          acldvppDestroyPicDesc(picture);
                                          read(picture);
                                        })};
  }
}

// Every function that fills or reads a model's description, with one that is gone or describes no model.
void AddModelReaders(Cases* cases) {
  static aclmdlIODims dims;
  const std::map<std::string, std::function<void(aclmdlDesc*)>> readers = {
      {"inputs", aclmdlGetNumInputs},
      {"outputs", aclmdlGetNumOutputs},
      {"input_size", [](aclmdlDesc* desc) { aclmdlGetInputSizeByIndex(desc, 0); }},
      {"output_size", [](aclmdlDesc* desc) { aclmdlGetOutputSizeByIndex(desc, 0); }},
      {"input_dims", [](aclmdlDesc* desc) { aclmdlGetInputDims(desc, 0, &dims); }},
      {"output_dims", [](aclmdlDesc* desc) { aclmdlGetOutputDims(desc, 0, &dims); }},
      {"output_name", [](aclmdlDesc* desc) { aclmdlGetOutputNameByIndex(desc, 0); }},
      {"input_format", [](aclmdlDesc* desc) { aclmdlGetInputFormat(desc, 0); }},
      {"input_type", [](aclmdlDesc* desc) { aclmdlGetInputDataType(desc, 0); }},
      {"output_type", [](aclmdlDesc* desc) { aclmdlGetOutputDataType(desc, 0); }},
  };
  const auto dead = [](const std::function<void(aclmdlDesc*)>& read) {
    return Case{{"misuse: not a live model description"}, Between([read] {
                  auto* desc = aclmdlCreateDesc();
                  aclmdlDestroyDesc(desc);
                  read(desc);
                })};
  };
  (*cases)["dead_description"] = dead([](aclmdlDesc* desc) { aclmdlGetDesc(desc, 1); });
  for (const auto& [name, read] : readers) {
    (*cases)["dead_description_" + name] = dead(read);
    (*cases)["empty_description_" + name] = {{"misuse: a description is read whose model is not there"},
                                             Between([read = read] {
                                               auto* desc = aclmdlCreateDesc();
                                               read(desc);
                                               aclmdlDestroyDesc(desc);
                                             })};
  }
}

Cases AllCases() {
  Cases cases = {{"clean", {{}, Between(Clean)}}};
  AddRuntime(&cases);
  AddMemory(&cases);
  AddHandles(&cases);
  AddPictureReaders(&cases);
  AddModelReaders(&cases);
  return cases;
}

}  // namespace

int main(int argc, char** argv) {
  const Cases cases = AllCases();
  if (argc == 1) {
    for (const auto& [name, one] : cases) {
      std::cout << name;
      for (const std::string& complaint : one.complaints) std::cout << "|" << complaint;
      std::cout << "\n";
    }
    return 0;
  }
  cases.at(argv[1]).call();
  return 0;
}
