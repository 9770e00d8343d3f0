#ifndef ACL_ACL_H_
#define ACL_ACL_H_

#include "acl/acl_mdl.h"
#include "acl/acl_rt.h"

#ifdef __cplusplus
extern "C" {
#endif

aclError aclInit(const char *configPath);
aclError aclFinalize();
const char *aclGetRecentErrMsg();

#ifdef __cplusplus
}
#endif

#endif
