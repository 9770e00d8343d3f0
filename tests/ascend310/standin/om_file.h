// The file that the stand-in atc writes. It is no offline model and no card takes it; the first line says so.
#ifndef STANDIN_OM_FILE_H_
#define STANDIN_OM_FILE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace standin {

constexpr char kMagic[] = "standin-om 1";

struct Tensor {
  std::string name;
  std::string type;  // float32, float16, int64, ...
  std::vector<int64_t> dims;
};

struct OmFile {
  std::string python;  // interpreter of the worker
  std::vector<Tensor> inputs;
  std::vector<Tensor> outputs;
  std::map<std::string, double> aipp;  // empty without AIPP
};

size_t BytesOf(const Tensor& tensor);

// Throws std::runtime_error for other files and for truncated ones.
OmFile ReadOmFile(const std::string& path);

}  // namespace standin

#endif  // STANDIN_OM_FILE_H_
