#include "worker.h"

#include <dlfcn.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>

#include "state.h"

extern char** environ;

namespace standin {
namespace {

// Beside this library: <prefix>/lib64/libascendcl.so and <prefix>/python/worker.py.
std::string Script() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&Script), &info) == 0) throw std::runtime_error("cannot find the worker's script");
  return std::filesystem::canonical(info.dli_fname).parent_path().parent_path() / "python" / "worker.py";
}

}  // namespace

Worker::Worker(const std::string& python, const std::string& model) {
  const std::string server = Environment("STANDIN_WORKERS", "");
  if (server.empty()) {
    Spawn(python, model);
  } else {
    Connect(server, model);
  }
}

void Worker::Connect(const std::string& server, const std::string& model) {
  socket_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  server.copy(address.sun_path, sizeof(address.sun_path) - 1);
  if (connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    close(socket_);
    throw std::runtime_error("no server at " + server);
  }
  const std::string line = std::filesystem::absolute(model).string() + "\n";
  Send(line.data(), line.size());
}

void Worker::Spawn(const std::string& python, const std::string& model) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    throw std::runtime_error("no socket for the worker");
  socket_ = ends[0];
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  std::string words[] = {python, Script(), model};
  char* arguments[] = {words[0].data(), words[1].data(), words[2].data(), nullptr};
  const int failure = posix_spawn(&pid_, python.c_str(), &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (failure != 0) {
    close(socket_);
    throw std::runtime_error("cannot start " + python);
  }
}

Worker::~Worker() {
  close(socket_);
  if (pid_ != 0) waitpid(pid_, nullptr, 0);
}

void Worker::Send(const void* data, size_t bytes) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t sent = send(socket_, next, bytes, MSG_NOSIGNAL);
    if (sent <= 0) throw std::runtime_error("the network's process has ended");
    next += sent;
    bytes -= static_cast<size_t>(sent);
  }
}

void Worker::Receive(void* data, size_t bytes) {
  char* next = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t got = recv(socket_, next, bytes, 0);
    if (got <= 0) throw std::runtime_error("the network's process has ended");
    next += got;
    bytes -= static_cast<size_t>(got);
  }
}

}  // namespace standin
