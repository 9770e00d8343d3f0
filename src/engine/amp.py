"""The rules of mixed precision that every model's configuration shares. No MindSpore here."""

from __future__ import annotations

from src.engine.errors import UsageError

AMP_DTYPE = "what O2 computes in; float16 needs a loss scale, bfloat16 has float32's range and fewer digits"
AMP_DTYPES = ("float16", "bfloat16")


def require_half_precision(dtype: str, platform: str) -> None:
    """Raise UsageError where the platform does not train in `dtype`."""
    if platform == "CPU":
        why = "which computes float16 no faster" if dtype == "float16" else "whose kernels know no bfloat16"
        raise UsageError(f"amp_level is O2 and platform CPU, {why}; a CPU needs --amp_level O0")
