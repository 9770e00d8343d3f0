#ifndef ASCEND310_INFER_ERRORS_H_
#define ASCEND310_INFER_ERRORS_H_

#include <stdexcept>

namespace infer {

// Exit statuses of the application; scripts/run_infer_310.sh relies on them.
enum ExitStatus { kDone = 0, kFailed = 1, kWrongUsage = 2, kImagesSkipped = 3 };

// The command line is wrong; nothing was started.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// One file cannot be used as an image; the run goes on without it.
struct BadImage : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace infer

#endif  // ASCEND310_INFER_ERRORS_H_
