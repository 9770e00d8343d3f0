#ifndef STANDIN_MEETING_H_
#define STANDIN_MEETING_H_

#include <string>

namespace standin {

// With STANDIN_MEET=f:n,g:m, the n-th call of f and the m-th call of g wait for each other: both return true once both
// have begun, which they only can from two threads that work at the same time. False where the other one does not come.
bool Meet(const std::string& function, int call);

}  // namespace standin

#endif  // STANDIN_MEETING_H_
