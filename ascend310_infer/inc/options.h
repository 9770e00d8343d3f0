#ifndef ASCEND310_INFER_OPTIONS_H_
#define ASCEND310_INFER_OPTIONS_H_

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace infer {

// Who decodes and resizes: this machine, or the chip's DVPP.
enum class Mode { kCpu, kDvpp };

// How an image meets the network's input size: as evaluation of classifiers does it (shorter side, centre crop), or
// whole, with the rest filled up, as segmentation does. kByOutput takes the first for score vectors, the second for
// score maps.
enum class Fit { kByOutput, kCrop, kPad };

struct Options {
  std::filesystem::path model;
  std::filesystem::path data;
  Mode mode = Mode::kCpu;
  int device = 0;
  int64_t batch = 0;  // 0: whatever the model has
  std::filesystem::path labels;
  std::filesystem::path results = "result_Files";
  std::filesystem::path timing = "time_Result/test_perform_static.txt";
  std::filesystem::path pictures;  // empty: no label pictures
  Fit fit = Fit::kByOutput;
  // ImageNet, RGB, of grey values 0..255, as src/mobilenetv2/dataset.py has them.
  std::array<double, 3> mean = {0.485 * 255, 0.456 * 255, 0.406 * 255};
  std::array<double, 3> deviation = {0.229 * 255, 0.224 * 255, 0.225 * 255};
  double resize_ratio = 256.0 / 224.0;
  bool help = false;
};

// `arguments` without the program's name, as "--name value" or "--name=value". Throws UsageError.
Options ParseOptions(const std::vector<std::string>& arguments);

std::string Usage();

}  // namespace infer

#endif  // ASCEND310_INFER_OPTIONS_H_
