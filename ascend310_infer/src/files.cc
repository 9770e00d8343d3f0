#include "files.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <set>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "errors.h"

namespace infer {
namespace {

namespace fs = std::filesystem;

bool HasImageSuffix(const fs::path& file) {
  static const std::array<std::string, 9> kSuffixes = {".jpg", ".jpeg", ".png", ".bmp", ".webp",
                                                       ".gif", ".ppm",  ".tif", ".tiff"};
  std::string suffix = file.extension().string();
  std::transform(suffix.begin(), suffix.end(), suffix.begin(), [](unsigned char c) { return std::tolower(c); });
  return std::find(kSuffixes.begin(), kSuffixes.end(), suffix) != kSuffixes.end();
}

std::string Trimmed(const std::string& text) {
  const char* kBlank = " \t\r\n";
  const size_t first = text.find_first_not_of(kBlank);
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

std::string WithoutSuffix(const fs::path& path) { return fs::path(path).replace_extension().generic_string(); }

void NameItems(const fs::path& root, std::vector<Item>* images) {
  std::map<std::string, int> stems;
  std::map<std::string, int> paths;
  for (const Item& item : *images) {
    ++stems[item.file.stem().string()];
    ++paths[WithoutSuffix(item.file.lexically_relative(root))];
  }
  for (Item& item : *images) {
    const fs::path relative = item.file.lexically_relative(root);
    const std::string stem = item.file.stem().string();
    const std::string path = WithoutSuffix(relative);
    item.name = stems[stem] == 1 ? stem : paths[path] == 1 ? path : relative.generic_string();
  }
}

// What a folder holds, sorted and without hidden names. Links count as what they lead to, and as files where that is
// nothing.
struct Entries {
  std::vector<fs::path> folders;
  std::vector<fs::path> files;
};

Entries EntriesOf(const fs::path& folder) {
  Entries entries;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename().string().front() == '.') continue;
    std::error_code unknown;
    (entry.is_directory(unknown) ? entries.folders : entries.files).push_back(entry.path());
  }
  std::sort(entries.folders.begin(), entries.folders.end());
  std::sort(entries.files.begin(), entries.files.end());
  return entries;
}

// The same files in the same places as files_below of src/engine/io/files.py: `seen` holds the folders that are listed
// or about to be, so that links back do not go round in circles.
void AddUnseen(const fs::path& folder, std::set<fs::path>* seen, std::vector<fs::path>* files) {
  Entries entries = EntriesOf(folder);
  files->insert(files->end(), entries.files.begin(), entries.files.end());
  std::vector<fs::path> unseen;
  for (const fs::path& each : entries.folders) {
    if (seen->count(fs::canonical(each)) == 0) unseen.push_back(each);
  }
  for (const fs::path& each : unseen) seen->insert(fs::canonical(each));
  for (const fs::path& each : unseen) AddUnseen(each, seen, files);
}

void AddFilesBelow(const fs::path& folder, std::vector<fs::path>* files) {
  std::set<fs::path> seen = {fs::canonical(folder)};
  AddUnseen(folder, &seen, files);
}

}  // namespace

Listing ListImages(const fs::path& root, bool by_class) {
  if (!fs::is_directory(root)) throw std::runtime_error(root.string() + " is not a folder; give one that holds images");
  Entries top = EntriesOf(root);
  std::vector<fs::path> files;
  Listing listing;
  if (by_class && !top.folders.empty()) {
    for (const fs::path& folder : top.folders) AddFilesBelow(folder, &files);
    std::swap(listing.in_no_class, top.files);
  } else {
    AddFilesBelow(root, &files);
  }
  for (const fs::path& file : files) {
    if (HasImageSuffix(file)) {
      listing.images.push_back({file, ""});
    } else {
      listing.others.push_back(file);
    }
  }
  if (listing.images.empty()) throw std::runtime_error(root.string() + " holds no images; give a folder that does");
  std::sort(listing.images.begin(), listing.images.end(), [](const Item& a, const Item& b) { return a.file < b.file; });
  std::sort(listing.others.begin(), listing.others.end());
  NameItems(root, &listing.images);
  return listing;
}

std::vector<uint8_t> ReadFile(const fs::path& file) {
  std::error_code unknown;
  const fs::file_status status = fs::status(file, unknown);
  // opening a pipe would wait for somebody to write into it
  if (fs::exists(status) && !fs::is_regular_file(status)) throw BadImage("not a regular file");
  std::ifstream in(file, std::ios::binary);
  if (!in) throw BadImage("cannot be opened");
  std::vector<uint8_t> bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (in.bad()) throw BadImage("cannot be read");
  if (bytes.empty()) throw BadImage("empty file");
  return bytes;
}

Labels ReadLabels(const fs::path& file) {
  std::ifstream in(file);
  if (!in)
    throw std::runtime_error("cannot open the label file " + file.string() + "; tools/make_label_file.py makes one");
  Labels labels;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (Trimmed(line).empty()) continue;
    const size_t colon = line.rfind(':');
    const std::string name = Trimmed(line.substr(0, colon));
    const std::string label = colon == std::string::npos ? "" : Trimmed(line.substr(colon + 1));
    if (name.empty() || label.empty() || label.find_first_not_of("0123456789") != std::string::npos ||
        label.size() > 9) {
      throw std::runtime_error(file.string() + ":" + std::to_string(number) + ": '" + line + "' is not name:label");
    }
    const std::string key = HasImageSuffix(name) ? WithoutSuffix(name) : name;
    for (const std::string& spelling : {name, key}) {
      const auto [place, is_new] = labels.emplace(spelling, std::stoll(label));
      if (!is_new && place->second != std::stoll(label)) {
        throw std::runtime_error(file.string() + ":" + std::to_string(number) + ": '" + spelling + "' has two labels");
      }
    }
  }
  if (labels.empty()) throw std::runtime_error(file.string() + " holds no label; tools/make_label_file.py makes one");
  return labels;
}

std::vector<std::string> WithoutLabel(const std::vector<Item>& images, const Labels& labels) {
  std::vector<std::string> missing;
  for (const Item& item : images) {
    if (labels.count(item.name) == 0) missing.push_back(item.name);
  }
  return missing;
}

}  // namespace infer
