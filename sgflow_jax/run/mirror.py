"""What shows a run's log in another program, beside the files of `metric_log`."""

from typing import Any, Protocol

import numpy as np


class Mirror(Protocol):
    """Shows a log elsewhere. No method raises: the log's own files have all that a fault leaves out."""

    def config(self, config: dict[str, Any]) -> None:
        """Shows the run's configuration, a tree."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Shows the numbers of one step."""

    def image(self, step: int, picture: np.ndarray) -> None:
        """Shows a picture of samples, uint8 [h, w, 3]."""

    def rewind(self, step: int) -> None:
        """Later steps will be repeated, with other values."""

    def close(self, failed: bool) -> None:
        """The process ends. failed: by an error."""
