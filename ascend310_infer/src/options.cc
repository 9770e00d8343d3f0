#include "options.h"

#include <algorithm>
#include <cctype>
#include <functional>
#include <map>
#include <sstream>

#include "errors.h"

namespace infer {
namespace {

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

int64_t Whole(const std::string& name, const std::string& text, int64_t lowest, int64_t highest) {
  std::istringstream in(text);
  int64_t value = 0;
  if (!(in >> value) || !in.eof() || value < lowest || value > highest) {
    throw UsageError(name + " is '" + text + "'; it has to be a whole number from " + std::to_string(lowest) + " to " +
                     std::to_string(highest));
  }
  return value;
}

double Positive(const std::string& name, const std::string& text) {
  std::istringstream in(text);
  double value = 0;
  if (!(in >> value) || !in.eof() || !(value > 0)) {
    throw UsageError(name + " is '" + text + "'; it has to be a number above 0");
  }
  return value;
}

std::array<double, 3> Triple(const std::string& name, const std::string& text, bool above_zero) {
  std::istringstream in(text);
  std::array<double, 3> values{};
  char comma = ',';
  bool good = static_cast<bool>(in >> values[0]);
  for (size_t i = 1; i < values.size(); ++i) good = good && in >> comma >> values[i] && comma == ',';
  good = good && in.eof();
  if (above_zero) good = good && std::all_of(values.begin(), values.end(), [](double v) { return v > 0; });
  if (!good)
    throw UsageError(name + " is '" + text + "'; it has to be three numbers R,G,B" + (above_zero ? " above 0" : ""));
  return values;
}

Mode ModeOf(const std::string& text) {
  if (Lower(text) == "cpu") return Mode::kCpu;
  if (Lower(text) == "dvpp") return Mode::kDvpp;
  throw UsageError("--mode is '" + text + "'; it has to be CPU or DVPP");
}

Fit FitOf(const std::string& text) {
  if (text == "auto") return Fit::kByOutput;
  if (text == "crop") return Fit::kCrop;
  if (text == "pad") return Fit::kPad;
  throw UsageError("--fit is '" + text + "'; it has to be auto, crop or pad");
}

using Setter = std::function<void(Options&, const std::string&)>;

const std::map<std::string, Setter>& Setters() {
  static const std::map<std::string, Setter> setters = {
      {"--model", [](Options& o, const std::string& v) { o.model = v; }},
      {"--data", [](Options& o, const std::string& v) { o.data = v; }},
      {"--mode", [](Options& o, const std::string& v) { o.mode = ModeOf(v); }},
      {"--device_id",
       [](Options& o, const std::string& v) { o.device = static_cast<int>(Whole("--device_id", v, 0, 4095)); }},
      {"--batch", [](Options& o, const std::string& v) { o.batch = Whole("--batch", v, 1, 4096); }},
      {"--label_path", [](Options& o, const std::string& v) { o.labels = v; }},
      {"--result_path", [](Options& o, const std::string& v) { o.results = v; }},
      {"--time_path", [](Options& o, const std::string& v) { o.timing = v; }},
      {"--label_pictures", [](Options& o, const std::string& v) { o.pictures = v; }},
      {"--fit", [](Options& o, const std::string& v) { o.fit = FitOf(v); }},
      {"--mean", [](Options& o, const std::string& v) { o.mean = Triple("--mean", v, false); }},
      {"--std", [](Options& o, const std::string& v) { o.deviation = Triple("--std", v, true); }},
      {"--resize_ratio", [](Options& o, const std::string& v) { o.resize_ratio = Positive("--resize_ratio", v); }},
  };
  return setters;
}

}  // namespace

Options ParseOptions(const std::vector<std::string>& arguments) {
  Options options;
  bool mode_given = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--help") {
      options.help = true;
      return options;
    }
    const size_t equals = arguments[i].find('=');
    const std::string name = arguments[i].substr(0, equals);
    const auto setter = Setters().find(name);
    if (setter == Setters().end()) throw UsageError("'" + name + "' is no option");
    if (equals == std::string::npos && i + 1 == arguments.size()) throw UsageError(name + " has no value");
    setter->second(options, equals == std::string::npos ? arguments[++i] : arguments[i].substr(equals + 1));
    mode_given = mode_given || name == "--mode";
  }
  if (options.model.empty() || options.data.empty() || !mode_given) {
    throw UsageError("--model, --data and --mode are needed");
  }
  if (options.resize_ratio < 1) throw UsageError("--resize_ratio is below 1; the crop would be larger than the image");
  return options;
}

std::string Usage() {
  return "Usage: infer310 --model FILE.om --data FOLDER --mode CPU|DVPP [option ...]\n"
         "  --device_id N        card (0)\n"
         "  --batch N            refuse a model whose batch is not N (take what the model has)\n"
         "  --label_path FILE    lines of name:label; prints the top-1 accuracy\n"
         "  --result_path DIR    outputs, <name>_<output>.bin (result_Files)\n"
         "  --time_path FILE     latency (time_Result/test_perform_static.txt)\n"
         "  --label_pictures DIR class of every pixel as PNG, for networks with score maps\n"
         "  --fit auto|crop|pad   crop: shorter side, centre crop; pad: whole image, rest filled with the mean; auto: "
         "pad for score maps only\n"
         "  --mean R,G,B --std R,G,B  of grey values 0..255, for models without AIPP (ImageNet)\n"
         "  --resize_ratio X     shorter side over crop (256/224 = 1.142857)\n"
         "Exit status: 0 done, 1 failed, 2 wrong usage, 3 done but some images were skipped.\n";
}

}  // namespace infer
