"""What the tests of training share: a tiny model on disk, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.train.tiny import save_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random two-layer Llama."""
    torch.set_num_threads(1)
    return save_tiny(tmp_path_factory.mktemp("tiny"))
