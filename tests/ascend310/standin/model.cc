// Models, their descriptions and data of the stand-in.

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "acl/acl.h"
#include "aipp.h"
#include "half.h"
#include "om_file.h"
#include "state.h"
#include "worker.h"

using standin::Enter;
using standin::Fail;
using standin::IsLive;
using standin::Kind;
using standin::Misuse;
using standin::Tensor;
using standin::Untrack;
using standin::View;

struct aclDataBuffer {
  void* data;
  size_t size;
};

struct aclmdlDataset {
  std::vector<aclDataBuffer*> buffers;
};

struct aclmdlDesc {
  uint32_t model = 0;  // no model has this number
};

namespace {

struct Model {
  standin::OmFile om;
  aclrtContext context;
  std::unique_ptr<standin::Worker> worker;
  bool running = false;
};

std::mutex models_mutex;  // NOLINT
std::map<uint32_t, std::unique_ptr<Model>>& Models() {
  static auto* models = new std::map<uint32_t, std::unique_ptr<Model>>;
  return *models;
}

Model* Find(uint32_t id) {
  const std::lock_guard<std::mutex> lock(models_mutex);
  const auto found = Models().find(id);
  return found == Models().end() ? nullptr : found->second.get();
}

// What a description describes; nullptr, and a misuse, where it is gone, empty or about an unloaded model.
const standin::OmFile* Described(const aclmdlDesc* desc) {
  if (!IsLive(desc, Kind::kModelDesc)) return nullptr;
  const Model* model = Find(desc->model);
  if (model == nullptr) Misuse(ACL_ERROR_INVALID_MODEL_ID, "a description is read whose model is not there");
  return model == nullptr ? nullptr : &model->om;
}

// `read` of what is described, or `otherwise`.
template <typename T, typename Reader>
T Read(const char* function, const aclmdlDesc* desc, T otherwise, const Reader& read) {
  if (Enter(function) != ACL_SUCCESS) return otherwise;
  const standin::OmFile* om = Described(desc);
  return om == nullptr ? otherwise : read(*om);
}

// Batch, height and width of the network's input.
struct Geometry {
  int64_t batch;
  int height;
  int width;
};

Geometry GeometryOf(const standin::OmFile& om) {
  const auto& dims = om.inputs[0].dims;
  return {dims[0], static_cast<int>(dims[2]), static_cast<int>(dims[3])};
}

size_t InputBytes(const standin::OmFile& om, size_t index) {
  if (om.aipp.empty() || index > 0) return standin::BytesOf(om.inputs[index]);
  const Geometry size = GeometryOf(om);
  return standin::SourceBytes(om.aipp, size.width, size.height) * static_cast<size_t>(size.batch);
}

aclDataType TypeOf(const Tensor& tensor) {
  if (tensor.type == "float16") return ACL_FLOAT16;
  if (tensor.type == "int32") return ACL_INT32;
  if (tensor.type == "int64") return ACL_INT64;
  return ACL_FLOAT;
}

void FillDims(const std::string& name, const std::vector<int64_t>& from, aclmdlIODims* dims) {
  *dims = {};
  std::strncpy(dims->name, name.c_str(), sizeof(dims->name) - 1);
  dims->dimCount = from.size();
  std::copy(from.begin(), from.end(), dims->dims);
}

aclError CheckBuffers(const aclmdlDataset* dataset, const std::vector<size_t>& sizes, aclError code, const char* side) {
  if (!IsLive(dataset, Kind::kDataset)) return ACL_ERROR_RT_INVALID_HANDLE;
  if (dataset->buffers.size() != sizes.size()) return Misuse(code, std::string("wrong number of ") + side + "s");
  for (size_t i = 0; i < sizes.size(); ++i) {
    const aclDataBuffer* buffer = dataset->buffers[i];
    if (!IsLive(buffer, Kind::kDataBuffer)) return ACL_ERROR_RT_INVALID_HANDLE;
    if (buffer->size < sizes[i]) return Misuse(code, std::string(side) + " buffer is too small");
    if (View(buffer->data, buffer->size) == nullptr)
      return Misuse(ACL_ERROR_MEMORY_ADDRESS_UNALIGNED, std::string(side) + " is not the card's memory");
  }
  return ACL_SUCCESS;
}

std::vector<float> NetworkInput(const Model& model, const aclDataBuffer* buffer) {
  const standin::OmFile& om = model.om;
  const Geometry size = GeometryOf(om);
  const size_t image = static_cast<size_t>(size.width) * size.height * 3;
  std::vector<float> values(image * static_cast<size_t>(size.batch));
  const auto* bytes = static_cast<const uint8_t*>(View(buffer->data, buffer->size));
  if (!om.aipp.empty()) {
    const size_t step = standin::SourceBytes(om.aipp, size.width, size.height);
    for (size_t n = 0; n < static_cast<size_t>(size.batch); ++n) {
      standin::ApplyAipp(om.aipp, bytes + n * step, size.width, size.height, values.data() + n * image);
    }
  } else if (om.inputs[0].type == "float16") {
    for (size_t i = 0; i < values.size(); ++i) {
      uint16_t half = 0;
      std::memcpy(&half, bytes + i * sizeof(half), sizeof(half));
      values[i] = standin::FromHalf(half);
    }
  } else {
    std::memcpy(values.data(), bytes, values.size() * sizeof(float));
  }
  return values;
}

void ReceiveOutput(Model* model, const Tensor& output, const aclDataBuffer* buffer) {
  auto* target = static_cast<uint8_t*>(View(buffer->data, buffer->size));
  if (output.type != "float16") {
    model->worker->Receive(target, standin::BytesOf(output));
    return;
  }
  std::vector<float> values(standin::BytesOf(output) / sizeof(uint16_t));
  model->worker->Receive(values.data(), values.size() * sizeof(float));
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t half = standin::ToHalf(values[i]);
    std::memcpy(target + i * sizeof(half), &half, sizeof(half));
  }
}

}  // namespace

aclDataBuffer* aclCreateDataBuffer(void* data, size_t size) {
  if (Enter("aclCreateDataBuffer") != ACL_SUCCESS) return nullptr;
  auto* buffer = new aclDataBuffer{data, size};
  standin::Track(buffer, Kind::kDataBuffer);
  if (data != nullptr) standin::Refer(buffer, data);
  return buffer;
}

aclError aclDestroyDataBuffer(const aclDataBuffer* dataBuffer) {
  const aclError injected = Enter("aclDestroyDataBuffer");
  if (!Untrack(dataBuffer, Kind::kDataBuffer)) return ACL_ERROR_RT_INVALID_HANDLE;
  if (standin::IsReferredTo(dataBuffer))
    Misuse(ACL_ERROR_RT_INVALID_HANDLE, "a data buffer is destroyed that a live dataset lists");
  delete dataBuffer;
  return injected;
}

aclmdlDataset* aclmdlCreateDataset() {
  if (Enter("aclmdlCreateDataset") != ACL_SUCCESS) return nullptr;
  auto* dataset = new aclmdlDataset;
  standin::Track(dataset, Kind::kDataset);
  return dataset;
}

aclError aclmdlDestroyDataset(const aclmdlDataset* dataset) {
  const aclError injected = Enter("aclmdlDestroyDataset");
  if (!Untrack(dataset, Kind::kDataset)) return ACL_ERROR_RT_INVALID_HANDLE;
  delete dataset;
  return injected;
}

aclError aclmdlAddDatasetBuffer(aclmdlDataset* dataset, aclDataBuffer* dataBuffer) {
  if (const aclError code = Enter("aclmdlAddDatasetBuffer")) return code;
  if (!IsLive(dataset, Kind::kDataset) || !IsLive(dataBuffer, Kind::kDataBuffer)) return ACL_ERROR_RT_INVALID_HANDLE;
  dataset->buffers.push_back(dataBuffer);
  standin::Refer(dataset, dataBuffer);
  return ACL_SUCCESS;
}

aclError aclmdlLoadFromFile(const char* modelPath, uint32_t* modelId) {
  if (const aclError code = Enter("aclmdlLoadFromFile")) return code;
  if (standin::CurrentContext() == nullptr)
    return Misuse(ACL_ERROR_RT_CONTEXT_NULL, "a model is loaded in a thread without context");
  static uint32_t last_id = 0;
  auto model = std::make_unique<Model>();
  try {
    model->om = standin::ReadOmFile(modelPath);
    model->context = standin::CurrentContext();
    model->worker = std::make_unique<standin::Worker>(model->om.python, modelPath);
  } catch (const std::runtime_error& error) {
    const bool truncated = std::strstr(error.what(), "truncated") != nullptr;
    return Fail(truncated ? ACL_ERROR_GE_EXEC_MODEL_DATA_SIZE_INVALID : ACL_ERROR_GE_FAILURE, error.what());
  }
  const std::lock_guard<std::mutex> lock(models_mutex);
  *modelId = ++last_id;
  standin::Track(model.get(), Kind::kModel);
  Models()[*modelId] = std::move(model);
  return ACL_SUCCESS;
}

aclError aclmdlUnload(uint32_t modelId) {
  const aclError injected = Enter("aclmdlUnload");
  Model* model = Find(modelId);
  if (model == nullptr) return Misuse(ACL_ERROR_INVALID_MODEL_ID, "an unknown model is unloaded");
  if (model->context != standin::CurrentContext())
    return Misuse(ACL_ERROR_RT_MODEL_CONTEXT, "a model is unloaded in another context");
  Untrack(model, Kind::kModel);
  const std::lock_guard<std::mutex> lock(models_mutex);
  Models().erase(modelId);
  return injected;
}

aclmdlDesc* aclmdlCreateDesc() {
  if (Enter("aclmdlCreateDesc") != ACL_SUCCESS) return nullptr;
  auto* desc = new aclmdlDesc;
  standin::Track(desc, Kind::kModelDesc);
  return desc;
}

aclError aclmdlDestroyDesc(aclmdlDesc* modelDesc) {
  const aclError injected = Enter("aclmdlDestroyDesc");
  if (!Untrack(modelDesc, Kind::kModelDesc)) return ACL_ERROR_RT_INVALID_HANDLE;
  delete modelDesc;
  return injected;
}

aclError aclmdlGetDesc(aclmdlDesc* modelDesc, uint32_t modelId) {
  if (const aclError code = Enter("aclmdlGetDesc")) return code;
  if (!IsLive(modelDesc, Kind::kModelDesc)) return ACL_ERROR_RT_INVALID_HANDLE;
  if (Find(modelId) == nullptr) return Misuse(ACL_ERROR_INVALID_MODEL_ID, "an unknown model is described");
  modelDesc->model = modelId;
  return ACL_SUCCESS;
}

size_t aclmdlGetNumInputs(aclmdlDesc* modelDesc) {
  return Read("aclmdlGetNumInputs", modelDesc, size_t{0}, [](const auto& om) { return om.inputs.size(); });
}

size_t aclmdlGetNumOutputs(aclmdlDesc* modelDesc) {
  return Read("aclmdlGetNumOutputs", modelDesc, size_t{0}, [](const auto& om) { return om.outputs.size(); });
}

size_t aclmdlGetInputSizeByIndex(aclmdlDesc* modelDesc, size_t index) {
  return Read("aclmdlGetInputSizeByIndex", modelDesc, size_t{0}, [=](const auto& om) { return InputBytes(om, index); });
}

size_t aclmdlGetOutputSizeByIndex(aclmdlDesc* modelDesc, size_t index) {
  return Read("aclmdlGetOutputSizeByIndex", modelDesc, size_t{0},
              [=](const auto& om) { return standin::BytesOf(om.outputs.at(index)); });
}

aclError aclmdlGetInputDims(const aclmdlDesc* modelDesc, size_t index, aclmdlIODims* dims) {
  if (const aclError code = Enter("aclmdlGetInputDims")) return code;
  const standin::OmFile* om = Described(modelDesc);
  if (om == nullptr) return ACL_ERROR_RT_INVALID_HANDLE;
  const Tensor& input = om->inputs.at(index);
  std::vector<int64_t> shape = input.dims;
  if (!om->aipp.empty()) shape = {shape[0], shape[2], shape[3], shape[1]};  // of the picture, channels last
  FillDims(input.name, shape, dims);
  return ACL_SUCCESS;
}

aclError aclmdlGetOutputDims(const aclmdlDesc* modelDesc, size_t index, aclmdlIODims* dims) {
  if (const aclError code = Enter("aclmdlGetOutputDims")) return code;
  const standin::OmFile* om = Described(modelDesc);
  if (om == nullptr) return ACL_ERROR_RT_INVALID_HANDLE;
  const Tensor& output = om->outputs.at(index);
  FillDims(output.name, output.dims, dims);
  return ACL_SUCCESS;
}

const char* aclmdlGetOutputNameByIndex(const aclmdlDesc* modelDesc, size_t index) {
  return Read("aclmdlGetOutputNameByIndex", modelDesc, static_cast<const char*>(nullptr),
              [=](const auto& om) { return om.outputs.at(index).name.c_str(); });
}

aclFormat aclmdlGetInputFormat(const aclmdlDesc* modelDesc, size_t) {
  return Read("aclmdlGetInputFormat", modelDesc, ACL_FORMAT_UNDEFINED,
              [](const auto& om) { return om.aipp.empty() ? ACL_FORMAT_NCHW : ACL_FORMAT_NHWC; });
}

aclDataType aclmdlGetInputDataType(const aclmdlDesc* modelDesc, size_t index) {
  return Read("aclmdlGetInputDataType", modelDesc, ACL_DT_UNDEFINED,
              [=](const auto& om) { return om.aipp.empty() ? TypeOf(om.inputs.at(index)) : ACL_UINT8; });
}

aclDataType aclmdlGetOutputDataType(const aclmdlDesc* modelDesc, size_t index) {
  return Read("aclmdlGetOutputDataType", modelDesc, ACL_DT_UNDEFINED,
              [=](const auto& om) { return TypeOf(om.outputs.at(index)); });
}

aclError aclmdlGetAippType(uint32_t modelId, size_t, aclmdlInputAippType* type, size_t* dynamicAttachedDataIndex) {
  if (const aclError code = Enter("aclmdlGetAippType")) return code;
  const Model* model = Find(modelId);
  if (model == nullptr) return Misuse(ACL_ERROR_INVALID_MODEL_ID, "an unknown model is asked for AIPP");
  *type = model->om.aipp.empty() ? ACL_DATA_WITHOUT_AIPP : ACL_DATA_WITH_STATIC_AIPP;
  *dynamicAttachedDataIndex = SIZE_MAX;
  return ACL_SUCCESS;
}

aclError aclmdlGetFirstAippInfo(uint32_t modelId, size_t, aclAippInfo* aippInfo) {
  if (const aclError code = Enter("aclmdlGetFirstAippInfo")) return code;
  const Model* model = Find(modelId);
  if (model == nullptr) return Misuse(ACL_ERROR_INVALID_MODEL_ID, "an unknown model is asked for AIPP");
  if (model->om.aipp.empty()) return Fail(ACL_ERROR_NOT_STATIC_AIPP, "the model has no AIPP");
  *aippInfo = {};
  aippInfo->inputFormat = static_cast<aclAippInputFormat>(static_cast<int>(model->om.aipp.at("input_format")));
  aippInfo->srcImageSizeW = GeometryOf(model->om).width;
  aippInfo->srcImageSizeH = GeometryOf(model->om).height;
  return ACL_SUCCESS;
}

aclError aclmdlExecute(uint32_t modelId, const aclmdlDataset* input, aclmdlDataset* output) {
  if (const aclError code = Enter("aclmdlExecute")) return code;
  Model* model = Find(modelId);
  if (model == nullptr) return Misuse(ACL_ERROR_INVALID_MODEL_ID, "an unknown model is executed");
  if (model->context != standin::CurrentContext())
    return Misuse(ACL_ERROR_RT_MODEL_CONTEXT, "a model is executed in another context");
  std::vector<size_t> sizes;
  for (size_t i = 0; i < model->om.inputs.size(); ++i) sizes.push_back(InputBytes(model->om, i));
  if (const aclError code = CheckBuffers(input, sizes, ACL_ERROR_MODEL_INPUT_NOT_MATCH, "input")) return code;
  sizes.clear();
  for (const Tensor& tensor : model->om.outputs) sizes.push_back(standin::BytesOf(tensor));
  if (const aclError code = CheckBuffers(output, sizes, ACL_ERROR_MODEL_OUTPUT_NOT_MATCH, "output")) return code;
  if (model->running) return Misuse(ACL_ERROR_FAILURE, "a model is executed by two threads at once");
  model->running = true;
  aclError result = ACL_SUCCESS;
  try {
    const std::vector<float> values = NetworkInput(*model, input->buffers[0]);
    model->worker->Send(values.data(), values.size() * sizeof(float));
    for (size_t i = 0; i < model->om.outputs.size(); ++i)
      ReceiveOutput(model, model->om.outputs[i], output->buffers[i]);
  } catch (const std::runtime_error& error) {
    result = Fail(ACL_ERROR_RT_MODEL_EXECUTE, error.what());
  }
  model->running = false;
  return result;
}
