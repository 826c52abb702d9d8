"""The interface of data sources: what it imports, and the check of a source's tasks before training."""

import subprocess
import sys
from typing import Any

import pytest
import torch

from fmaml.data.source import Source, check_tasks
from fmaml.errors import Error
from fmaml.types import Batch, Task

GOOD = Batch(torch.zeros(2, 6, 3), torch.arange(3).repeat(2, 2))


def source() -> Source:
    return Source(lambda split, step, tasks: Task(GOOD, GOOD), (3,), 3, {"task": "", "protocol": ""})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": torch.zeros(2, 6, 4)}, r"has examples of shape \[4\], but the source has inputs = \[3\]"),
        ({"y": GOOD.y[:, :5]}, r"has \[2, 5\] targets for \[2, 6\] examples"),
        ({"y": GOOD.y.int()}, "has labels of type int32; they must be int64"),
        ({"y": GOOD.y > 0}, "has labels of type bool"),
        ({"y": GOOD.y + 1}, "has label 3, and the network has 3 outputs"),
        ({"y": torch.full_like(GOOD.y, -100)}, "has a task with negative labels only"),
        ({"y": torch.full((2, 6), torch.nan)}, "has targets that are not finite"),
    ],
)
def test_what_is_wrong_is_told(change: dict[str, Any], said: str):
    check_tasks("train", Task(GOOD, GOOD), source())
    check_tasks("train", Task(GOOD, GOOD._replace(y=torch.where(GOOD.y == 1, -1, GOOD.y))), source())
    for part in ("support", "query"):
        with pytest.raises(Error, match=f"data: the {part} set of split val {said}"):
            check_tasks("val", Task(GOOD, GOOD)._replace(**{part: GOOD._replace(**change)}), source())


def test_a_source_without_images_imports_no_image_decoder():
    heavy = {"PIL", "matplotlib", "rich", "pooch", "requests", "safetensors"}
    code = f"import sys, fmaml.data.sources.sinusoid; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""
