#include "results.h"

#include <fstream>
#include <stdexcept>

namespace infer {
namespace {

void WriteBytes(const std::filesystem::path& file, const void* data, size_t bytes) {
  if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path());
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  out.write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
  out.close();
  if (!out) throw std::runtime_error("cannot write " + file.string() + "; is the disk full or the folder read-only?");
}

}  // namespace

void WriteResult(const std::filesystem::path& folder, const std::string& name, size_t output, const void* data,
                 size_t bytes) {
  WriteBytes(folder / (name + "_" + std::to_string(output) + ".bin"), data, bytes);
}

void WriteText(const std::filesystem::path& file, const std::string& text) {
  WriteBytes(file, text.data(), text.size());
}

}  // namespace infer
