// Prints what the network gets for one image: dump_input FILE WIDTH HEIGHT crop|pad OUT writes the fitted picture
// (8-bit RGB) to OUT.rgb and the normalised planes (float32) to OUT.bin. Tests compare both with Python.
#include <cstdlib>
#include <iostream>

#include "decode.h"
#include "errors.h"
#include "files.h"
#include "options.h"
#include "results.h"
#include "transform.h"

int main(int argc, char** argv) {
  using namespace infer;  // NOLINT: a test
  if (argc != 6) return kWrongUsage;
  try {
    const Options defaults;
    const Size input{std::atoi(argv[2]), std::atoi(argv[3])};
    const Fit fit = std::string(argv[4]) == "pad" ? Fit::kPad : Fit::kCrop;
    const Fitted fitted = FitToInput(Decode(ReadFile(argv[1])), input, fit, defaults.resize_ratio, {0, 0, 0});
    std::vector<float> planes(fitted.picture.pixels.size());
    Normalise(fitted, defaults.mean, defaults.deviation, planes.data());
    const auto& pixels = fitted.picture.pixels;
    WriteText(std::string(argv[5]) + ".rgb", std::string(pixels.begin(), pixels.end()));
    WriteText(std::string(argv[5]) + ".bin",
              std::string(reinterpret_cast<const char*>(planes.data()), planes.size() * sizeof(float)));
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return kFailed;
  }
  return kDone;
}
