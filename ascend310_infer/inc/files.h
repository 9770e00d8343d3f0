#ifndef ASCEND310_INFER_FILES_H_
#define ASCEND310_INFER_FILES_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace infer {

// An image and the name its results get: the stem where no other image has it, else the path below the data folder
// without suffix, or with it where two images differ in the suffix only. src/engine/export/result_files.py has the same
// rule.
struct Item {
  std::filesystem::path file;
  std::string name;
};

struct Listing {
  std::vector<Item> images;
  std::vector<std::filesystem::path> others;       // files without an image's suffix
  std::vector<std::filesystem::path> in_no_class;  // files beside the class folders, where those alone are wanted
};

// All images below `root`, in a fixed order; hidden files and folders are left out, links followed. `by_class` lists
// what evaluation and tools/make_label_file.py do: where there are folders, only what is in them. Throws
// std::runtime_error.
Listing ListImages(const std::filesystem::path& root, bool by_class = false);

std::vector<uint8_t> ReadFile(const std::filesystem::path& file);

// Labels by name, from lines "name:label"; a name may also be a file name or a path with an image's suffix.
using Labels = std::map<std::string, int64_t>;
Labels ReadLabels(const std::filesystem::path& file);

// The images that have no label.
std::vector<std::string> WithoutLabel(const std::vector<Item>& images, const Labels& labels);

}  // namespace infer

#endif  // ASCEND310_INFER_FILES_H_
