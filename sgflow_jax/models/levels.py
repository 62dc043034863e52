"""The levels of a U-Net that suit images of a size: the defaults of model.channel_mult and model.attention_sizes."""

import itertools

from sgflow_jax.interfaces import InputError

_LAST = 8  # pixels at which halving ends
_MOST_AT_END = 16  # pixels of the smallest level, at most
_ATTENTION = 16  # pixels at and below which a level has attention
_WIDTHS = (1, 2, 2, 3, 4)  # multiples of the first width; further levels have the last


def channel_mult(size: int) -> tuple[int, ...]:
    """Widths for levels that halve `size` pixels at least once, and on while they are even and more than 8. InputError
    if the smallest would have more than 16, or the size is odd."""
    if not _fits(size):
        near = [next(filter(_fits, range(size, 0, -1)), None), next(filter(_fits, itertools.count(size)))]
        others = " or ".join(str(other) for other in near if other)
        raise InputError(
            f"config.data.size is {size}, which cannot be halved to {_MOST_AT_END} or fewer pixels: use {others}, or "
            "set model.channel_mult"
        )
    return tuple(_WIDTHS[min(level, len(_WIDTHS) - 1)] for level in range(len(_halved(size))))


def attention_sizes(size: int, levels: int) -> tuple[int, ...]:
    """Those of the levels that have attention: all of at most 16 pixels, except the first."""
    return tuple(size >> level for level in range(1, levels) if size >> level <= _ATTENTION)


def _halved(size: int) -> list[int]:
    sizes = [size]
    while sizes[-1] % 2 == 0 and (sizes[-1] > _LAST or len(sizes) == 1):
        sizes.append(sizes[-1] // 2)
    return sizes


def _fits(size: int) -> bool:
    sizes = _halved(size)
    return len(sizes) > 1 and sizes[-1] <= _MOST_AT_END
