// Runs an offline model (.om) on the images of a folder, on an Ascend card; options.cc has the command line.

#include <cstdio>
#include <exception>
#include <iostream>
#include <string>

#include "errors.h"
#include "pipeline.h"
#include "preparer.h"
#include "report.h"
#include "results.h"
#include "segmentation.h"
#include "timing.h"

namespace {

using namespace infer;  // NOLINT: this is the application

std::string Share(size_t part, size_t whole) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.5f", static_cast<double>(part) / static_cast<double>(whole));
  return text;
}

void Summarise(const Options& options, const Outcome& outcome, size_t images, double total_ms) {
  Say("images: " + std::to_string(outcome.done) + " of " + std::to_string(images) + " done, " +
      std::to_string(outcome.skipped) + " skipped" +
      (options.mode == Mode::kDvpp ? ", " + std::to_string(outcome.on_host) + " decoded without DVPP" : ""));
  if (outcome.labelled > 0) {
    Say("top-1: " + Share(outcome.correct, outcome.labelled) + " of " + std::to_string(outcome.labelled) +
        " labelled images");
  }
  if (!outcome.latencies.empty()) {
    const std::string report = TimingReport(outcome.latencies, outcome.done, total_ms);
    WriteText(options.timing, report);
    Say(report.substr(0, report.size() - 1));
  }
}

void CheckBatch(const Options& options, const InputSpec& input) {
  if (options.batch != 0 && options.batch != input.batch) {
    throw std::runtime_error("--batch is " + std::to_string(options.batch) +
                             ", but the model was converted for batch " + std::to_string(input.batch) +
                             "; convert it again or leave --batch out");
  }
}

void CheckPictures(const Options& options, const Model& model) {
  if (options.pictures.empty()) return;
  if (!HasScoreMap(model)) {
    throw std::runtime_error(
        "--label_pictures is given, but the model's first output is no score map (batch, classes, height, width); "
        "leave it out");
  }
  CheckClasses(model.outputs()[0].dims[1]);
}

ExitStatus Run(const Options& options) {
  const Listing listing = ListImages(options.data, !options.labels.empty());
  for (const auto& file : listing.in_no_class) Say("left out (in no class folder): " + file.string());
  for (const auto& file : listing.others) Say("left out (no image's suffix): " + file.string());
  const Labels labels = options.labels.empty() ? Labels() : ReadLabels(options.labels);
  if (!options.labels.empty()) {
    for (const std::string& name : WithoutLabel(listing.images, labels)) Say("no label for " + name);
  }
  const AclSession session(options.device);
  Model model(options.model, session.OnDevice());
  Say(model.Describe());
  RequireFit(options.mode, model.input());
  CheckBatch(options, model.input());
  CheckPictures(options, model);

  Outcome outcome;
  const Stopwatch watch;
  std::exception_ptr failure;
  try {
    InferAll(options, session, &model, listing.images, labels, &outcome);
  } catch (...) {
    failure = std::current_exception();
  }
  Summarise(options, outcome, listing.images.size(), watch.Milliseconds());
  if (failure) std::rethrow_exception(failure);
  if (outcome.done == 0) throw std::runtime_error("none of the images could be used");
  return outcome.skipped > 0 ? kImagesSkipped : kDone;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options options = ParseOptions({argv + 1, argv + argc});
    if (options.help) {
      std::cout << Usage();
      return kDone;
    }
    const ExitStatus status = Run(options);
    return AnyReleaseFailed() ? kFailed : status;
  } catch (const UsageError& error) {
    std::cerr << "error: " << error.what() << "\n" << Usage();
    return kWrongUsage;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << std::endl;
    return kFailed;
  }
}
