#ifndef STANDIN_WORKER_H_
#define STANDIN_WORKER_H_

#include <sys/types.h>

#include <cstddef>
#include <string>

namespace standin {

// The process that runs a model's network: whole batches of float32 in, the outputs one after the other out.
class Worker {
 public:
  // Starts the process, or asks the server that STANDIN_WORKERS names for one. Throws std::runtime_error.
  Worker(const std::string& python, const std::string& model);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker();

  void Send(const void* data, size_t bytes);
  void Receive(void* data, size_t bytes);

 private:
  void Spawn(const std::string& python, const std::string& model);
  void Connect(const std::string& server, const std::string& model);

  pid_t pid_ = 0;
  int socket_ = -1;
};

}  // namespace standin

#endif  // STANDIN_WORKER_H_
