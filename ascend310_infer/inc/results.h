#ifndef ASCEND310_INFER_RESULTS_H_
#define ASCEND310_INFER_RESULTS_H_

#include <cstddef>
#include <filesystem>
#include <string>

namespace infer {

// Writes one output of one image to <folder>/<name>_<output>.bin. Throws std::runtime_error where the disk refuses.
void WriteResult(const std::filesystem::path& folder, const std::string& name, size_t output, const void* data,
                 size_t bytes);

// Writes `text` as the whole of `file`; its folder is made.
void WriteText(const std::filesystem::path& file, const std::string& text);

}  // namespace infer

#endif  // ASCEND310_INFER_RESULTS_H_
