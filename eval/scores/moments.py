"""Published reference statistics: an .npz file with `mu` [D] and `sigma` [D, D], the mean and covariance of features.

The statistics of EDM, pytorch-fid and the first FID have this form. Such a file says neither what it is of nor by which
network it was made.
"""

import re
from pathlib import Path

from eval.features.interface import Features
from eval.frechet import Gaussian
from sgflow_jax.files import disk
from sgflow_jax.interfaces import InputError


def published(file: Path) -> bool:
    """Whether a file has such statistics. False for any other file, also a damaged one, and for none."""
    try:
        return {"mu", "sigma"} <= set(disk.array_shapes(file))
    except InputError:
        return False


def title(path: Path) -> str:
    """The name of a file or folder, with _ for what a row may not have."""
    return re.sub(r"[^\w.+,-]", "_", path.resolve().name)


def read(file: Path, extract: Features, shape: tuple[int, ...]) -> Gaussian:
    """The statistics in a file. shape: of an example to be compared.

    InputError if they do not fit the features, which is seen before they are read, or are no mean and covariance.
    """
    shapes = disk.array_shapes(file)
    found, dimension = (shapes["mu"], shapes["sigma"]), extract.dimension(shape)
    if found != ((dimension,), (dimension, dimension)):
        raise InputError(
            f"reference {file} has mu {list(found[0])} and sigma {list(found[1])}, but the features {extract.name} "
            f"have {dimension:,} values: use the features it was made with"
        )
    try:
        return Gaussian(*disk.read_arrays(file, "mu", "sigma"))
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"reference {file} has no sound mu and sigma ({error}): get it again") from error
