#ifndef ASCEND310_INFER_CHANNEL_H_
#define ASCEND310_INFER_CHANNEL_H_

#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

namespace infer {

// A queue between threads. After Close, Send refuses and Receive hands out what is left, then nothing.
template <typename T>
class Channel {
 public:
  bool Send(T value) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (closed_) return false;
      values_.push_back(std::move(value));
    }
    changed_.notify_one();
    return true;
  }

  std::optional<T> Receive() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return closed_ || !values_.empty(); });
    if (values_.empty()) return std::nullopt;
    T value = std::move(values_.front());
    values_.pop_front();
    return value;
  }

  void Close() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<T> values_;
  bool closed_ = false;
};

}  // namespace infer

#endif  // ASCEND310_INFER_CHANNEL_H_
