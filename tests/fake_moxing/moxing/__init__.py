"""A stand-in for ModelArts' library: obs://BUCKET/KEY and s3://BUCKET/KEY are files below $FAKE_OBS_ROOT."""

from moxing import file  # noqa: F401
