#include "om_file.h"

#include <fstream>
#include <sstream>
#include <stdexcept>

namespace standin {
namespace {

Tensor ReadTensor(std::istringstream* words) {
  Tensor tensor;
  *words >> tensor.name >> tensor.type;
  for (int64_t dim = 0; *words >> dim;) tensor.dims.push_back(dim);
  return tensor;
}

}  // namespace

size_t BytesOf(const Tensor& tensor) {
  size_t bytes = tensor.type == "float16" ? 2 : tensor.type == "int64" ? 8 : 4;
  for (const int64_t dim : tensor.dims) bytes *= static_cast<size_t>(dim);
  return bytes;
}

OmFile ReadOmFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string line;
  if (!std::getline(in, line) || line != kMagic) throw std::runtime_error(path + " is no model of the stand-in atc");
  OmFile om;
  while (std::getline(in, line)) {
    std::istringstream words(line);
    std::string word;
    words >> word;
    if (word == "python") std::getline(words >> std::ws, om.python);
    if (word == "input") om.inputs.push_back(ReadTensor(&words));
    if (word == "output") om.outputs.push_back(ReadTensor(&words));
    if (word == "aipp") {
      std::string key;
      words >> key;
      words >> om.aipp[key];
    }
    if (word == "payload") {
      int64_t expected = 0;
      words >> word >> expected;
      const auto begin = in.tellg();
      in.seekg(0, std::ios::end);
      if (in.tellg() - begin != expected) throw std::runtime_error(path + " is truncated");
      return om;
    }
  }
  throw std::runtime_error(path + " is truncated");
}

}  // namespace standin
