#include "report.h"

#include <iostream>
#include <mutex>

namespace infer {

void Say(const std::string& line) {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  std::cout << line << std::endl;
}

}  // namespace infer
