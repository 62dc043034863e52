"""Data sets of images too large for memory. grain shuffles them and decodes the next batches in the background."""

import dataclasses
import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from absl import flags

from sgflow_jax.data import fingerprint
from sgflow_jax.data.prepared import Pictures, open_split
from sgflow_jax.data.source import ORDER, Request, Stepwise, half_mirrored, identity_of
from sgflow_jax.interfaces import InputError

THREADS = 8  # without worker processes: batches decoded concurrently and held


class Files(Protocol):
    """Images of one shape, by index. It can be pickled."""

    def __len__(self) -> int: ...

    def images(self, indices: Iterable[int]) -> np.ndarray:
        """uint8 [n, H, W, C]; InputError if one cannot be read."""


@dataclasses.dataclass(frozen=True, eq=False)
class Records(Stepwise):
    """Images in files, with labels int32 [N]. Each epoch is a permutation of all.

    num_workers: processes that decode; 0 decodes in threads of this process, which share the Python lock. classes,
    known_fingerprint: as for `memory.Images`.
    """

    records: Files
    labels: np.ndarray
    flip: bool
    name: str
    split: str
    num_workers: int = 0
    classes: tuple[str, ...] = ()
    known_fingerprint: str = ""

    @property
    def size(self) -> int:
        return len(self.records)

    def batch(self, seed, step, batch_size, rows):
        order = _order(seed, self.size)
        index = np.array([order[int(place)] for place in step * batch_size + np.arange(batch_size)[rows]], int)
        x = self.read(index)
        if self.flip:
            x = half_mirrored(x, seed, step, batch_size, rows)
        return {"x": x, "label": self.labels[index]}

    def batches(self, seed, start, batch_size, rows):
        """See `Source`. Threads or processes compute batches ahead; they end when the iterator is closed."""
        import grain  # takes a second to import, which only these data sets need

        # Each worker computes every num_workers-th step and keeps one decoded batch waiting.
        ahead = 1 if self.num_workers else THREADS
        steps = grain.MapDataset.range(start, sys.maxsize)
        made = steps.map(lambda step: self.batch(seed, step, batch_size, rows)).to_iter_dataset(
            grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=ahead)
        )
        if self.num_workers:
            if not flags.FLAGS.is_parsed():  # grain reads its own flags, which are parsed only in a program
                flags.FLAGS.mark_as_parsed()
            made = made.mp_prefetch(grain.MultiprocessingOptions(self.num_workers), _end_with_parent)
        iterator = iter(made)
        try:
            for batch in iterator:
                # Copied, because the worker reuses the shared memory for its next batch.
                yield {name: np.array(array) for name, array in batch.items()}
        except RuntimeError as error:
            if not self.num_workers:
                raise
            raise InputError(
                f"a process that decodes {self.name} ended ({' '.join(str(error).split())}): lower "
                "--config.data.num_workers, or set it to 0 to use threads"
            ) from error
        finally:
            iterator.close()

    def read(self, indices):
        """See `Source`. InputError for an image that cannot be decoded or has another shape."""
        return self.records.images(indices)

    def identity(self) -> dict[str, Any]:
        return identity_of(self)

    @functools.cached_property
    def fingerprint(self) -> str:
        return self.known_fingerprint or fingerprint.of_examples(self)


def imagenet(size: int, request: Request) -> Records:
    """Downsampled ImageNet (van den Oord et al. 2016) of size x size pixels, as prepared by TFDS. Its validation images
    are the test split. InputError if it is not prepared, or its images have another size."""
    tfds_name = f"downsampled_imagenet/{size}x{size}"
    split = "validation" if request.split == "test" else request.split
    found = open_split(request.name, tfds_name, split, request.data_dir)
    files = Pictures(found, (size, size, 3), request.size or size, request.channels or 3)
    labels = np.zeros(len(found), np.int32)
    source = Records(files, labels, request.flip, request.name, request.split, request.num_workers)
    source.read([0, source.size - 1])  # fails now rather than in the first batch
    return source


@functools.lru_cache(maxsize=2)
def _order(seed: int, n: int):
    """A grain.MapDataset that maps a position in the sequence of all epochs to the index of an example."""
    import grain

    # grain adds the epoch to the seed, so unhashed neighbouring seeds would share most of their epochs.
    hashed = int(np.random.SeedSequence([ORDER, seed]).generate_state(1)[0])
    return grain.MapDataset.range(n).shuffle(hashed).repeat()


def _end_with_parent(worker: int, workers: int) -> None:
    """Ends this worker when its parent process ends, even by kill -9, but not on signals: Ctrl-C and some schedulers
    signal workers too, while the run still waits for a batch."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
