"""The processes of a run: how they find each other, what they agree on, and what one says for all."""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from sgflow_jax.interfaces import InputError


def from_first_process(value: Any) -> Any:
    """The first process's value of anything JSON can say, on every process: what they must agree on."""
    if jax.process_count() == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.resize(text, length)  # whatever the others have is not looked at
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes())


def on_first_process(function: Callable[[], Any]) -> Any:
    """What function() gives on the first process; None on the others. Its InputError is raised on all of them, so that
    none waits for one that has left."""
    found, fault = None, None
    if jax.process_index() == 0:
        try:
            found = function()
        except InputError as error:
            fault = error
    if (said := from_first_process(fault and str(fault))) is not None:
        raise InputError(said) from fault
    return found
