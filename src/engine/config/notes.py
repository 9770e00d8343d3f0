"""What is said about keys that were given and have no effect: one sentence for each reason, one for each file."""

from __future__ import annotations

from typing import Any

from src.engine.config.options import REQUIRED, Value, options_of, readers_of


def notes(command: str, cfg: Any, flags: dict[str, Value], written: dict[str, Value]) -> list[str]:
    """Sentences about flags, and about `written`, the values of the user's own files, that change nothing.

    A file serves several commands and may hold every key. So of its keys those count that the model does not have, in
    one sentence without reasons, and those that are set and that another value of the configuration switches off.
    """
    rules, idle = options_of(type(cfg)), cfg.idle(command)
    by_reason: dict[str, list[str]] = {}
    by_file: dict[str, list[str]] = {}
    for key in flags:
        by_reason.setdefault(reason(command, cfg, key, idle), []).append(f"--{key}")
    for key, value in written.items():
        if key in flags:
            continue
        if rules[key].unused:
            by_file.setdefault(value.source, []).append(key)
        elif is_set(cfg, key):
            by_reason.setdefault(idle.get(key, ""), []).append(f"{key} of {value.source}")
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


def is_set(cfg: Any, key: str) -> bool:
    """Whether a value differs from the key's default; what every file has to give is not set by it."""
    default = getattr(type(cfg), key)
    return default is not REQUIRED and getattr(cfg, key) != default


def has(keys: list[str]) -> str:
    return "has" if len(keys) == 1 else "have"
