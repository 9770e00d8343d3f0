#include "timing.h"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <numeric>
#include <sstream>
#include <stdexcept>

namespace infer {

double Stopwatch::Milliseconds() const {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin_).count();
}

double Percentile(const std::vector<double>& sorted, double percent) {
  const auto rank = static_cast<size_t>(std::ceil(percent / 100 * static_cast<double>(sorted.size())));
  return sorted.at(std::max<size_t>(rank, 1) - 1);
}

std::string TimingReport(std::vector<double> latencies, size_t images, double total_ms) {
  if (latencies.empty()) throw std::runtime_error("no execution was timed; none of the images could be used");
  std::sort(latencies.begin(), latencies.end());
  const double mean = std::accumulate(latencies.begin(), latencies.end(), 0.0) / static_cast<double>(latencies.size());
  std::ostringstream text;
  text << std::fixed << std::setprecision(3) << "NN inference cost average time: " << mean << " ms of infer_count "
       << latencies.size() << "\nlatency of one execution: p50 " << Percentile(latencies, 50) << " ms, p90 "
       << Percentile(latencies, 90) << " ms, p99 " << Percentile(latencies, 99)
       << " ms\nthroughput: " << static_cast<double>(images) * 1000 / total_ms << " images/s (" << images
       << " images in " << total_ms << " ms, reading and preprocessing included)\n";
  return text.str();
}

}  // namespace infer
