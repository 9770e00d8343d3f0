"""Which keys of a model's configuration name data, checkpoints and results, for runs that bring and take them away."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class JobKeys:
    """Names of keys; `checkpoints` are by command, first the one that is read, then others that may name it.

    `more_data` and `more_files` may name another part of the data set, or a file in it.

    `export_reads_data` says whether an export uses the data, where the key names some.
    """

    data: str
    more_data: tuple[str, ...]
    more_files: tuple[str, ...]
    local_data: str
    checkpoints: dict[str, tuple[str, ...]]
    run_folder: str
    results: tuple[str, ...]
    export_reads_data: bool
