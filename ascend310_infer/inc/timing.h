#ifndef ASCEND310_INFER_TIMING_H_
#define ASCEND310_INFER_TIMING_H_

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

namespace infer {

// Milliseconds since it was made.
class Stopwatch {
 public:
  double Milliseconds() const;

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

// The smallest of `sorted` that `percent` percent of them do not exceed (nearest rank). `sorted` must not be empty.
double Percentile(const std::vector<double>& sorted, double percent);

// What test_perform_static.txt holds: `latencies` are of one execution each, in milliseconds, `total_ms` is the whole
// run. Its first line is the documented one.
std::string TimingReport(std::vector<double> latencies, size_t images, double total_ms);

}  // namespace infer

#endif  // ASCEND310_INFER_TIMING_H_
