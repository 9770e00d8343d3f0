"""What is said about keys that were given and have no effect: one sentence for each reason, one for each file."""

from __future__ import annotations

from typing import Any

from src.engine.config.options import Value, options_of, readers_of


def notes(command: str, cfg: Any, flags: dict[str, Value], written: dict[str, Value]) -> list[str]:
    """Sentences about flags, and about `written`, the values of the user's own files, that change nothing.

    A file serves several commands and keeps values for other times, so of its keys only those count that nothing in
    this model reads.
    """
    idle = cfg.idle(command)
    by_reason: dict[str, list[str]] = {}
    by_file: dict[str, list[str]] = {}
    for key in flags:
        by_reason.setdefault(reason(command, cfg, key, idle), []).append(f"--{key}")
    for key, value in written.items():
        if options_of(type(cfg))[key].unused and key not in flags:
            by_file.setdefault(value.source, []).append(key)
    by_reason.pop("", None)
    found = [f"{', '.join(keys)} {has(keys)} no effect: {why}" for why, keys in by_reason.items()]
    return found + [
        f"{', '.join(keys)} of {source} {has(keys)} no effect; --help KEY says why" for source, keys in by_file.items()
    ]


def reason(command: str, cfg: Any, key: str, idle: dict[str, str]) -> str:
    """Why a key has no effect; empty where it has one."""
    rule = options_of(type(cfg))[key]
    readers = readers_of(type(cfg), key, rule)
    by_job = cfg.job_keys().checkpoints.get(command, ()) if cfg.enable_modelarts else ()
    if rule.unused:
        return rule.unused
    if readers and command not in readers and key not in by_job:
        return f"read by {', '.join(f'{name}.py' for name in readers)} only"
    return idle.get(key, "")


def has(keys: list[str]) -> str:
    return "has" if len(keys) == 1 else "have"
