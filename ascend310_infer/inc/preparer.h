#ifndef ASCEND310_INFER_PREPARER_H_
#define ASCEND310_INFER_PREPARER_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "acl_dvpp.h"
#include "acl_model.h"
#include "files.h"
#include "options.h"

namespace infer {

// An image that is in a batch.
struct Prepared {
  Item item;
  Size picture;  // as in the file, upright
  Size filled;   // the part of the network's input that holds it
};

// Input memory on the card and what has been put there.
struct Batch {
  std::unique_ptr<Dataset> input;
  std::vector<Prepared> images;
};

// Throws std::runtime_error where the model's input is not what the mode makes.
void RequireFit(Mode mode, const InputSpec& input);

// Turns files into network input. Made and used by one thread, in the card's context.
class Preparer {
 public:
  Preparer(const Options& options, Fit fit, const InputSpec& input, bool on_device);

  // Puts an image into the next place of the batch. Throws BadImage, and AclError where the card fails.
  void Add(const Item& item, Batch* batch);

  // Images that DVPP did not take, so that this machine decoded them.
  size_t on_host() const { return on_host_; }

 private:
  bool AddByDvpp(const std::vector<uint8_t>& bytes, const Item& item, Batch* batch);
  void AddByHost(const std::vector<uint8_t>& bytes, const Item& item, Batch* batch);
  std::vector<uint8_t> Convert(const Fitted& fitted) const;

  const Options& options_;
  Fit fit_;
  InputSpec input_;
  std::optional<Dvpp> dvpp_;
  size_t on_host_ = 0;
};

}  // namespace infer

#endif  // ASCEND310_INFER_PREPARER_H_
