#include "acl_model.h"

#include <cstring>

namespace infer {
namespace {

constexpr char kConvertAgain[] = "; scripts/run_infer_310.sh converts models as this application needs them";

[[noreturn]] void Refuse(const std::string& fact) { throw std::runtime_error("the model " + fact + kConvertAgain); }

std::string Shape(const std::vector<int64_t>& dims) {
  std::string text;
  for (const int64_t dim : dims) text += (text.empty() ? "" : "x") + std::to_string(dim);
  return text;
}

std::vector<int64_t> DimsOf(const aclmdlIODims& dims) { return {dims.dims, dims.dims + dims.dimCount}; }

std::string TypeName(aclDataType type) {
  switch (type) {
    case ACL_FLOAT: return "float32";
    case ACL_FLOAT16: return "float16";
    case ACL_UINT8: return "uint8";
    case ACL_INT8: return "int8";
    case ACL_INT32: return "int32";
    case ACL_INT64: return "int64";
    default: return "type " + std::to_string(static_cast<int>(type));
  }
}

std::string KindName(InputKind kind) {
  switch (kind) {
    case InputKind::kPlanes: return "normalised float32 planes";
    case InputKind::kHalfPlanes: return "normalised float16 planes";
    case InputKind::kRgbBytes: return "RGB888 pixels (static AIPP)";
    case InputKind::kNv12: return "YUV420SP pixels (static AIPP)";
  }
  return "";
}

std::vector<uint8_t> HalvesToFloats(const std::vector<uint8_t>& halves) {
  std::vector<uint8_t> floats(halves.size() * 2);
  for (size_t i = 0; i < halves.size() / sizeof(aclFloat16); ++i) {
    aclFloat16 half = 0;
    std::memcpy(&half, halves.data() + i * sizeof(half), sizeof(half));
    const float value = aclFloat16ToFloat(half);
    std::memcpy(floats.data() + i * sizeof(value), &value, sizeof(value));
  }
  return floats;
}

}  // namespace

Dataset::Dataset() : handle_(CheckMade(aclmdlCreateDataset(), "aclmdlCreateDataset")) {}

void Dataset::Add(size_t bytes, bool on_device) {
  memory_.push_back(std::make_unique<DeviceMemory>(bytes, on_device));
  memory_.back()->Zero();
  buffers_.emplace_back(CheckMade(aclCreateDataBuffer(memory_.back()->get(), bytes), "aclCreateDataBuffer"));
  Check(aclmdlAddDatasetBuffer(handle_.get(), buffers_.back().get()), "aclmdlAddDatasetBuffer");
}

Model::Loaded::Loaded(const std::filesystem::path& file) {
  if (!std::filesystem::is_regular_file(file))
    throw std::runtime_error("the model " + file.string() + " is not a file");
  Check(aclmdlLoadFromFile(file.c_str(), &id), "aclmdlLoadFromFile", file.string());
}

Model::Loaded::~Loaded() { CheckRelease(aclmdlUnload(id), "aclmdlUnload"); }

Model::Model(const std::filesystem::path& file, bool on_device)
    : on_device_(on_device), loaded_(file), desc_(CheckMade(aclmdlCreateDesc(), "aclmdlCreateDesc")) {
  Check(aclmdlGetDesc(desc_.get(), loaded_.id), "aclmdlGetDesc");
  ReadInput();
  ReadOutputs();
  output_ = std::make_unique<Dataset>();
  for (const OutputSpec& output : outputs_) output_->Add(output.bytes, on_device_);
}

Model::~Model() = default;

void Model::ReadInput() {
  const size_t inputs = aclmdlGetNumInputs(desc_.get());
  if (inputs != 1) Refuse("has " + std::to_string(inputs) + " inputs (dynamic batch or dynamic AIPP?) instead of one");
  aclmdlIODims dims{};
  Check(aclmdlGetInputDims(desc_.get(), 0, &dims), "aclmdlGetInputDims");
  const std::vector<int64_t> shape = DimsOf(dims);
  const bool rows_first = aclmdlGetInputFormat(desc_.get(), 0) == ACL_FORMAT_NHWC;
  const size_t total = aclmdlGetInputSizeByIndex(desc_.get(), 0);
  if (shape.size() != 4 || shape[0] < 1 || total == 0)
    Refuse("has an input of shape " + Shape(shape) + " instead of four fixed sizes");
  input_.batch = shape[0];
  input_.size = {static_cast<int>(shape[rows_first ? 2 : 3]), static_cast<int>(shape[rows_first ? 1 : 2])};
  input_.bytes = total / static_cast<size_t>(input_.batch);

  aclmdlInputAippType aipp = ACL_DATA_WITHOUT_AIPP;
  size_t attached = 0;
  Check(aclmdlGetAippType(loaded_.id, 0, &aipp, &attached), "aclmdlGetAippType");
  const aclDataType type = aclmdlGetInputDataType(desc_.get(), 0);
  const size_t values = static_cast<size_t>(input_.size.width) * input_.size.height * kChannels;
  size_t expected = 0;
  if (aipp == ACL_DATA_WITH_STATIC_AIPP) {
    ReadAipp();
    expected = input_.kind == InputKind::kNv12 ? values / 2 : values;
  } else if (aipp != ACL_DATA_WITHOUT_AIPP) {
    Refuse("has dynamic AIPP");
  } else if (type == ACL_FLOAT && !rows_first) {
    expected = values * sizeof(float);
  } else if (type == ACL_FLOAT16 && !rows_first) {
    input_.kind = InputKind::kHalfPlanes;
    expected = values * sizeof(aclFloat16);
  } else {
    Refuse("has an input of " + TypeName(type) + (rows_first ? " in NHWC order" : "") + " and no AIPP");
  }
  if (input_.bytes != expected) {
    Refuse("takes " + std::to_string(input_.bytes) + " bytes for an image where " + std::to_string(expected) +
           " were expected");
  }
}

void Model::ReadAipp() {
  aclAippInfo info{};
  Check(aclmdlGetFirstAippInfo(loaded_.id, 0, &info), "aclmdlGetFirstAippInfo");
  if (info.inputFormat == ACL_YUV420SP_U8) {
    input_.kind = InputKind::kNv12;
  } else if (info.inputFormat == ACL_RGB888_U8) {
    input_.kind = InputKind::kRgbBytes;
  } else {
    Refuse("has AIPP for input format " + std::to_string(static_cast<int>(info.inputFormat)) +
           ", neither YUV420SP_U8 nor RGB888_U8");
  }
  if (info.cropSwitch != 0 || info.paddingSwitch != 0) Refuse("has AIPP that crops or pads");
}

void Model::ReadOutputs() {
  const size_t count = aclmdlGetNumOutputs(desc_.get());
  if (count == 0) Refuse("has no outputs");
  for (size_t i = 0; i < count; ++i) {
    aclmdlIODims dims{};
    Check(aclmdlGetOutputDims(desc_.get(), i, &dims), "aclmdlGetOutputDims");
    const char* name = aclmdlGetOutputNameByIndex(desc_.get(), i);
    OutputSpec output{name == nullptr ? "" : name, aclmdlGetOutputDataType(desc_.get(), i), DimsOf(dims),
                      aclmdlGetOutputSizeByIndex(desc_.get(), i)};
    if (output.bytes == 0 || output.dims.empty() || output.dims[0] != input_.batch) {
      Refuse("has output " + std::to_string(i) + " of shape " + Shape(output.dims) +
             ", which is not one row per image");
    }
    outputs_.push_back(output);
  }
}

std::string Model::Describe() const {
  std::string text = "model: batch " + std::to_string(input_.batch) + ", " + std::to_string(input_.size.width) + "x" +
                     std::to_string(input_.size.height) + " " + KindName(input_.kind);
  for (const OutputSpec& output : outputs_) {
    text += "; output '" + output.name + "' " + TypeName(output.type) + " " + Shape(output.dims);
  }
  return text;
}

std::unique_ptr<Dataset> Model::NewInput() const {
  auto dataset = std::make_unique<Dataset>();
  dataset->Add(input_.bytes * static_cast<size_t>(input_.batch), on_device_);
  return dataset;
}

void Model::Run(const Dataset& input, std::vector<std::vector<uint8_t>>* results) {
  Check(aclmdlExecute(loaded_.id, input.get(), output_->get()), "aclmdlExecute");
  results->resize(outputs_.size());
  for (size_t i = 0; i < outputs_.size(); ++i) {
    std::vector<uint8_t>& bytes = (*results)[i];
    bytes.resize(outputs_[i].bytes);
    output_->memory(i).Download(bytes.data(), bytes.size());
    if (outputs_[i].type == ACL_FLOAT16) bytes = HalvesToFloats(bytes);
  }
}

}  // namespace infer
