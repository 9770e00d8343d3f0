#ifndef ASCEND310_INFER_ACL_MODEL_H_
#define ASCEND310_INFER_ACL_MODEL_H_

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "acl_memory.h"
#include "transform.h"

namespace infer {

// What a model wants for one image: normalised planes, or what its AIPP (pixel arithmetic at the model's entry) makes
// them from.
enum class InputKind { kPlanes, kHalfPlanes, kRgbBytes, kNv12 };

struct InputSpec {
  InputKind kind = InputKind::kPlanes;
  int64_t batch = 0;
  Size size;
  size_t bytes = 0;  // of one image
};

struct OutputSpec {
  std::string name;
  aclDataType type = ACL_DT_UNDEFINED;
  std::vector<int64_t> dims;  // of the whole batch
  size_t bytes = 0;           // of the whole batch
};

// Buffers that a model reads or writes, with the memory behind them.
class Dataset {
 public:
  Dataset();
  void Add(size_t bytes, bool on_device);
  aclmdlDataset* get() const { return handle_.get(); }
  DeviceMemory& memory(size_t index) const { return *memory_[index]; }

 private:
  // In this order, so that the list goes first, then the descriptions, then what they describe.
  std::vector<std::unique_ptr<DeviceMemory>> memory_;
  std::vector<DataBuffer> buffers_;
  DatasetHandle handle_;
};

// A network on the card. It is loaded, run and unloaded in one context.
class Model {
 public:
  Model(const std::filesystem::path& file, bool on_device);
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  ~Model();

  const InputSpec& input() const { return input_; }
  const std::vector<OutputSpec>& outputs() const { return outputs_; }
  std::string Describe() const;

  std::unique_ptr<Dataset> NewInput() const;
  // Runs the network and leaves each output's bytes in `results`; half floats become floats.
  void Run(const Dataset& input, std::vector<std::vector<uint8_t>>* results);

 private:
  struct Loaded {
    explicit Loaded(const std::filesystem::path& file);
    Loaded(const Loaded&) = delete;
    Loaded& operator=(const Loaded&) = delete;
    ~Loaded();
    uint32_t id = 0;
  };

  void ReadInput();
  void ReadAipp();
  void ReadOutputs();

  bool on_device_;
  Loaded loaded_;
  ModelDesc desc_;
  InputSpec input_;
  std::vector<OutputSpec> outputs_;
  std::unique_ptr<Dataset> output_;
};

}  // namespace infer

#endif  // ASCEND310_INFER_ACL_MODEL_H_
