"""What every process that runs these tests does first."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def cpu() -> None:
    """Threads can be bound to cores only before anything is computed."""
    pytest.importorskip("mindspore")
    from src.engine import device

    device.setup("CPU")
