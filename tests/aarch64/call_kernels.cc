// Calls the kernels of a library for another process: call_kernels LIBRARY < requests > answers.
//
// A request is a kernel's name, the number of its tensors and of each the type, the rank, the sides and the bytes. An
// answer is the sentence with which the kernel refuses them (empty if it does not) and the bytes of all tensors.
// Numbers are int64 in this machine's order; a text, and the bytes of a tensor, follow their length.

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

namespace {

using Kernel = int(int, void**, int*, int64_t**, const char**, void*, void*);

[[noreturn]] void Fail(const std::string& sentence) {
  std::fprintf(stderr, "call_kernels: %s\n", sentence.c_str());
  std::exit(1);
}

void ReadBytes(void* to, size_t count) {
  if (std::fread(to, 1, count, stdin) != count) Fail("a request ends too early");
}

int64_t ReadNumber() {
  int64_t number = 0;
  ReadBytes(&number, sizeof(number));
  return number;
}

std::string ReadText() {
  std::string text(ReadNumber(), '\0');
  ReadBytes(text.data(), text.size());
  return text;
}

void WriteText(const std::string& text) {
  const auto length = static_cast<int64_t>(text.size());
  std::fwrite(&length, sizeof(length), 1, stdout);
  std::fwrite(text.data(), 1, text.size(), stdout);
}

struct Tensor {
  std::string type;
  std::vector<int64_t> sides;
  std::string data;
};

Tensor ReadTensor() {
  Tensor tensor;
  tensor.type = ReadText();
  tensor.sides.resize(ReadNumber());
  for (int64_t& side : tensor.sides) side = ReadNumber();
  tensor.data = ReadText();
  return tensor;
}

// The arguments as MindSpore hands them over.
int Call(Kernel* kernel, std::vector<Tensor>* tensors) {
  std::vector<void*> data;
  std::vector<int> ranks;
  std::vector<int64_t*> sides;
  std::vector<const char*> types;
  for (Tensor& tensor : *tensors) {
    data.push_back(tensor.data.data());
    ranks.push_back(static_cast<int>(tensor.sides.size()));
    sides.push_back(tensor.sides.data());
    types.push_back(tensor.type.c_str());
  }
  const int count = static_cast<int>(tensors->size());
  return kernel(count, data.data(), ranks.data(), sides.data(), types.data(), nullptr, nullptr);
}

void Answer(void* library, const std::string& name) {
  auto* kernel = reinterpret_cast<Kernel*>(dlsym(library, name.c_str()));
  if (kernel == nullptr) Fail("the library has no kernel " + name);
  std::vector<Tensor> tensors(ReadNumber());
  for (Tensor& tensor : tensors) tensor = ReadTensor();
  std::string refusal;
  try {
    const int status = Call(kernel, &tensors);
    if (status != 0) refusal = name + " returned " + std::to_string(status);
  } catch (const std::exception& failure) {
    refusal = failure.what();
  }
  WriteText(refusal);
  for (const Tensor& tensor : tensors) WriteText(tensor.data);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) Fail("usage: call_kernels LIBRARY");
  void* library = dlopen(argv[1], RTLD_NOW);
  if (library == nullptr) Fail(dlerror());
  int64_t length = 0;
  while (std::fread(&length, sizeof(length), 1, stdin) == 1) {
    std::string name(length, '\0');
    ReadBytes(name.data(), name.size());
    Answer(library, name);
  }
  return 0;
}
