#ifndef ASCEND310_INFER_PIPELINE_H_
#define ASCEND310_INFER_PIPELINE_H_

#include <cstddef>
#include <vector>

#include "acl_model.h"
#include "acl_session.h"
#include "files.h"
#include "options.h"

namespace infer {

// What a run has done so far; also right when it ends early.
struct Outcome {
  size_t done = 0;
  size_t skipped = 0;
  size_t on_host = 0;  // of `done`, decoded by this machine in mode DVPP
  size_t labelled = 0;
  size_t correct = 0;
  std::vector<double> latencies;  // milliseconds of every execution, copies from the card included
};

// True where the first output is scores (batch, classes, height, width) and not (batch, classes).
bool HasScoreMap(const Model& model);

// Runs the network on all images: one thread reads and prepares, the calling one executes and writes the results.
void InferAll(const Options& options, const AclSession& session, Model* model, const std::vector<Item>& images,
              const Labels& labels, Outcome* outcome);

}  // namespace infer

#endif  // ASCEND310_INFER_PIPELINE_H_
