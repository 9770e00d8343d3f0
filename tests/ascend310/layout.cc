// Prints the binary layout of what the application and the runtime exchange; the stand-in's headers and the vendor's
// have to print the same.

#include <cstddef>
#include <iostream>

#include "acl/acl.h"
#include "acl/ops/acl_dvpp.h"

#define SHOW(value) std::cout << #value << " " << static_cast<long long>(value) << "\n"

int main() {
  SHOW(sizeof(aclmdlIODims));
  SHOW(offsetof(aclmdlIODims, dims));
  SHOW(sizeof(aclAippInfo));
  SHOW(offsetof(aclAippInfo, cropSwitch));
  SHOW(offsetof(aclAippInfo, paddingSwitch));
  SHOW(offsetof(aclAippInfo, varReciChn3));
  SHOW(offsetof(aclAippInfo, aippExtend));
  for (const int code : {ACL_SUCCESS, ACL_ERROR_INVALID_PARAM, ACL_ERROR_UNINITIALIZE, ACL_ERROR_REPEAT_INITIALIZE,
                         ACL_ERROR_INVALID_FILE, ACL_ERROR_INVALID_MODEL_ID, ACL_ERROR_MODEL_INPUT_NOT_MATCH,
                         ACL_ERROR_MODEL_OUTPUT_NOT_MATCH, ACL_ERROR_REPEAT_FINALIZE, ACL_ERROR_NOT_STATIC_AIPP,
                         ACL_ERROR_BAD_ALLOC, ACL_ERROR_FAILURE, ACL_ERROR_GE_FAILURE,
                         static_cast<int>(ACL_ERROR_RT_PARAM_INVALID), static_cast<int>(ACL_ERROR_RT_INVALID_DEVICEID),
                         static_cast<int>(ACL_ERROR_RT_CONTEXT_NULL), static_cast<int>(ACL_ERROR_RT_MODEL_CONTEXT),
                         static_cast<int>(ACL_ERROR_RT_INVALID_HANDLE), static_cast<int>(ACL_ERROR_RT_MODEL_EXECUTE)}) {
    std::cout << code << "\n";
  }
  for (const int value :
       {int(ACL_FLOAT), int(ACL_FLOAT16), int(ACL_INT32), int(ACL_UINT8), int(ACL_INT64), int(ACL_FORMAT_NCHW),
        int(ACL_FORMAT_NHWC), int(ACL_DEVICE), int(ACL_HOST), int(ACL_MEMCPY_HOST_TO_DEVICE),
        int(ACL_MEMCPY_DEVICE_TO_HOST), int(ACL_MEMCPY_DEVICE_TO_DEVICE), int(ACL_MEM_MALLOC_HUGE_FIRST),
        int(ACL_DATA_WITHOUT_AIPP), int(ACL_DATA_WITH_STATIC_AIPP), int(ACL_YUV420SP_U8), int(ACL_RGB888_U8),
        int(PIXEL_FORMAT_YUV_SEMIPLANAR_420)}) {
    std::cout << value << "\n";
  }
  return 0;
}
