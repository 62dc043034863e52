"""What a run does after a step."""

from typing import NamedTuple

import ml_collections


class Due(NamedTuple):
    """What to do after a step."""

    log: bool
    score: bool
    save: bool
    preview: bool

    @classmethod
    def after(cls, step: int, config: ml_collections.ConfigDict, stop: bool) -> "Due":
        """stop: the run ends with this step."""
        train, last = config.train, step == config.train.num_steps
        due = lambda every: bool(every) and (step % every == 0 or last)  # noqa: E731
        save = stop or due(train.checkpoint_every) or due(train.keep_every)
        return cls(due(train.log_every), due(config.eval.every), save, due(train.preview_every))
