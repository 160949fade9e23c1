"""Local Hugging Face checkpoint folders as models: no downloads, and no code of the folder runs.

Importing this package imports nothing heavy.
"""

from __future__ import annotations

from strop.compiler.frontend.huggingface.request import OPTIONS, parse_request
from strop.compiler.frontend.huggingface.tasks import TASKS, Task
from strop.compiler.frontend.model import Model
from strop.compiler.frontend.programs import Programs

__all__ = ["OPTIONS", "TASKS", "Task", "load_folder"]


def load_folder(wanted: str) -> Model | Programs:
    """What ``PATH[#task][,option=value...]`` names, with example inputs and what servers need.

    Raises:
        UsageError: the folder, its weights or the task are not as they must be.
    """
    from strop.compiler.frontend.huggingface.folder import load

    return load(parse_request(wanted))
