#ifndef ASCEND310_INFER_REPORT_H_
#define ASCEND310_INFER_REPORT_H_

#include <string>

namespace infer {

// Prints a whole line, whichever thread says it.
void Say(const std::string& line);

}  // namespace infer

#endif  // ASCEND310_INFER_REPORT_H_
