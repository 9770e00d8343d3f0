#include "pipeline.h"

#include <cstring>
#include <exception>
#include <string>
#include <thread>
#include <utility>

#include "channel.h"
#include "decode.h"
#include "errors.h"
#include "preparer.h"
#include "report.h"
#include "results.h"
#include "segmentation.h"
#include "timing.h"

namespace infer {
namespace {

constexpr int kBatchesInFlight = 3;  // one is filled, one waits, one runs

bool IsFloat(const OutputSpec& output) { return output.type == ACL_FLOAT || output.type == ACL_FLOAT16; }

// The thread that reads and prepares. Whatever way this object ends, the thread has ended.
class Producer {
 public:
  Producer(const Options& options, Fit fit, const AclSession& session, const Model& model,
           const std::vector<Item>& images)
      : options_(options), fit_(fit), session_(session), model_(model), images_(images) {
    for (int i = 0; i < kBatchesInFlight; ++i) empty_.Send(Batch{model.NewInput(), {}});
    thread_ = std::thread([this] { Run(); });
  }
  Producer(const Producer&) = delete;
  Producer& operator=(const Producer&) = delete;
  ~Producer() { Stop(); }

  // Nothing after the last batch, or after a failure, which Finish throws.
  std::optional<Batch> Next() { return full_.Receive(); }
  void Recycle(Batch batch) {
    batch.images.clear();
    empty_.Send(std::move(batch));
  }
  void Stop() {
    empty_.Close();
    if (thread_.joinable()) thread_.join();
  }
  void Finish() {
    Stop();
    if (failure_) std::rethrow_exception(failure_);
  }
  // Valid after Stop.
  size_t skipped() const { return skipped_; }
  size_t on_host() const { return on_host_; }

 private:
  void Run() {
    try {
      Prepare();
    } catch (...) {
      failure_ = std::current_exception();
    }
    full_.Close();
  }

  void Prepare() {
    session_.Enter();
    Preparer preparer(options_, fit_, model_.input(), session_.OnDevice());
    std::optional<Batch> batch;
    for (const Item& item : images_) {
      if (!batch) batch = empty_.Receive();
      if (!batch) return;  // the run ends early
      try {
        preparer.Add(item, &*batch);
      } catch (const BadImage& bad) {
        ++skipped_;
        Say("skipping " + item.file.string() + ": " + bad.what());
      } catch (const AclError& error) {
        throw AclError(item.file.string() + ": " + error.what());
      }
      on_host_ = preparer.on_host();
      if (batch->images.size() == static_cast<size_t>(model_.input().batch)) {
        full_.Send(std::move(*batch));
        batch.reset();
      }
    }
    if (batch && !batch->images.empty()) full_.Send(std::move(*batch));
  }

  const Options& options_;
  Fit fit_;
  const AclSession& session_;
  const Model& model_;
  const std::vector<Item>& images_;
  Channel<Batch> empty_;
  Channel<Batch> full_;
  std::exception_ptr failure_;
  size_t skipped_ = 0;
  size_t on_host_ = 0;
  std::thread thread_;
};

std::string FilesOf(const Batch& batch) {
  const size_t others = batch.images.size() - 1;
  return batch.images[0].item.file.string() + (others == 0 ? "" : " and " + std::to_string(others) + " more");
}

void Execute(const Batch& batch, Model* model, std::vector<std::vector<uint8_t>>* outputs) {
  try {
    model->Run(*batch.input, outputs);
  } catch (const AclError& error) {
    throw AclError(FilesOf(batch) + ": " + error.what());
  }
}

// Where the bytes of one image are in an output of a batch.
struct Row {
  const uint8_t* data;
  size_t bytes;
};

Row RowOf(const std::vector<uint8_t>& output, size_t index, int64_t batch) {
  const size_t bytes = output.size() / static_cast<size_t>(batch);
  return {output.data() + index * bytes, bytes};
}

std::vector<float> Floats(Row row) {
  std::vector<float> values(row.bytes / sizeof(float));
  std::memcpy(values.data(), row.data, row.bytes);
  return values;
}

void WritePicture(const Options& options, const Model& model, const Prepared& image, Row row) {
  const std::vector<int64_t>& dims = model.outputs()[0].dims;
  const Size map{static_cast<int>(dims[3]), static_cast<int>(dims[2])};
  const std::vector<float> scores = Floats(row);
  const std::vector<uint8_t> classes =
      ClassMap(scores.data(), static_cast<int>(dims[1]), map, model.input().size, image.filled, image.picture);
  const std::vector<uint8_t> png = EncodeGreyPng(classes, image.picture.width, image.picture.height);
  WriteText(options.pictures / (image.item.name + ".png"), std::string(png.begin(), png.end()));
}

void WriteResults(const Options& options, const Model& model, const Batch& batch,
                  const std::vector<std::vector<uint8_t>>& outputs, const Labels& labels, Outcome* outcome) {
  const bool is_map = HasScoreMap(model);
  for (size_t i = 0; i < batch.images.size(); ++i) {
    const Prepared& image = batch.images[i];
    for (size_t k = 0; k < outputs.size(); ++k) {
      const Row row = RowOf(outputs[k], i, model.input().batch);
      WriteResult(options.results, image.item.name, k, row.data, row.bytes);
    }
    const Row first = RowOf(outputs[0], i, model.input().batch);
    if (is_map && !options.pictures.empty()) WritePicture(options, model, image, first);
    const auto label = labels.find(image.item.name);
    if (!is_map && label != labels.end() && IsFloat(model.outputs()[0])) {
      const std::vector<float> scores = Floats(first);
      ++outcome->labelled;
      outcome->correct += BestClass(scores.data(), scores.size()) == label->second ? 1 : 0;
    }
    ++outcome->done;
  }
}

}  // namespace

bool HasScoreMap(const Model& model) {
  const OutputSpec& output = model.outputs()[0];
  return output.dims.size() == 4 && output.dims[2] * output.dims[3] > 1 && IsFloat(output);
}

void InferAll(const Options& options, const AclSession& session, Model* model, const std::vector<Item>& images,
              const Labels& labels, Outcome* outcome) {
  Fit fit = options.fit;
  if (fit == Fit::kByOutput) fit = HasScoreMap(*model) ? Fit::kPad : Fit::kCrop;
  Producer producer(options, fit, session, *model, images);
  std::vector<std::vector<uint8_t>> outputs;
  std::exception_ptr failure;
  try {
    while (std::optional<Batch> batch = producer.Next()) {
      const Stopwatch watch;
      Execute(*batch, model, &outputs);
      outcome->latencies.push_back(watch.Milliseconds());
      WriteResults(options, *model, *batch, outputs, labels, outcome);
      producer.Recycle(std::move(*batch));
    }
  } catch (...) {
    failure = std::current_exception();
  }
  producer.Stop();
  outcome->skipped = producer.skipped();
  outcome->on_host = producer.on_host();
  if (failure) std::rethrow_exception(failure);
  producer.Finish();
}

}  // namespace infer
