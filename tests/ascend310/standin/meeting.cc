#include "meeting.h"

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "state.h"

namespace standin {
namespace {

constexpr auto kPatience = std::chrono::seconds(60);  // only a test that fails takes so long

std::mutex mutex;                 // NOLINT
std::condition_variable changed;  // NOLINT
int arrived = 0;                  // NOLINT

}  // namespace

bool Meet(const std::string& function, int call) {
  const std::string wish = "," + Environment("STANDIN_MEET", "") + ",";
  if (wish.find("," + function + ":" + std::to_string(call) + ",") == std::string::npos) return true;
  std::unique_lock<std::mutex> lock(mutex);
  ++arrived;
  changed.notify_all();
  return changed.wait_for(lock, kPatience, [] { return arrived == 2; });
}

}  // namespace standin
