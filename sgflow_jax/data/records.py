"""Data sets of images too large for memory: grain orders them, and decodes the next batches while one is used."""

import dataclasses
import functools
import multiprocessing
import os
import signal
import sys
import threading
from typing import Any

import numpy as np
from absl import flags

from sgflow_jax.data import fingerprint
from sgflow_jax.data.prepared import Split, open_split
from sgflow_jax.data.source import ORDER, Stepwise, half_mirrored
from sgflow_jax.interfaces import InputError

THREADS = 8  # without worker processes: batches that are decoded side by side, and held


@dataclasses.dataclass(frozen=True, eq=False)
class Records(Stepwise):
    """Images in files, without labels, each uint8 [H, W, C] of `shape`. Each epoch is one permutation of them all.

    num_workers: processes that decode; 0 leaves it to threads of this one, which share one Python lock.
    """

    records: Split
    shape: tuple[int, ...]
    flip: bool
    name: str
    split: str
    num_workers: int = 0

    @property
    def size(self) -> int:
        return len(self.records)

    def batch(self, seed, step, batch_size, rows):
        order = _order(seed, self.size)
        x = self.read([order[int(place)] for place in step * batch_size + np.arange(batch_size)[rows]])
        if self.flip:
            x = half_mirrored(x, seed, step, batch_size, rows)
        return {"x": x, "label": np.zeros(len(x), np.int32)}

    def batches(self, seed, start, batch_size, rows):
        """See `Source`: what `batch` makes, by threads or processes that are ahead. They end when this is closed."""
        import grain  # a second of import that other data sets need not pay

        # A worker takes every num_workers-th step and has one more batch decoded and waiting.
        ahead = 1 if self.num_workers else THREADS
        steps = grain.MapDataset.range(start, sys.maxsize)
        made = steps.map(lambda step: self.batch(seed, step, batch_size, rows)).to_iter_dataset(
            grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=ahead)
        )
        if self.num_workers:
            if not flags.FLAGS.is_parsed():  # grain reads its own, which only a program parses
                flags.FLAGS.mark_as_parsed()
            made = made.mp_prefetch(grain.MultiprocessingOptions(self.num_workers), _end_with_parent)
        iterator = iter(made)
        try:
            for batch in iterator:
                # Copied out of the memory shared with a worker, which then serves for the next.
                yield {name: np.array(array) for name, array in batch.items()}
        except RuntimeError as error:
            if not self.num_workers:
                raise
            raise InputError(
                f"a process that decodes {self.name} ended ({' '.join(str(error).split())}): set "
                "--config.data.num_workers to fewer, or to 0 for none"
            ) from error
        finally:
            iterator.close()

    def read(self, indices):
        """See `Source`. InputError for what cannot be decoded, or is no image of this shape."""
        return self.records.images(self.records.examples(indices), indices, self.shape)

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "split": self.split, "examples": self.size, "fingerprint": self._fingerprint}

    @functools.cached_property
    def _fingerprint(self) -> str:
        return fingerprint.of_examples(self)


def imagenet(
    name: str, tfds_name: str, shape: tuple[int, ...], data_dir: str, flip: bool, split: str, num_workers: int
) -> Records:
    """Downsampled ImageNet (van den Oord et al. 2016) as TFDS has prepared it, whose validation images are the test
    split. InputError if it has not, or prepared other images than those of `shape`."""
    command = f"make data DATASET={tfds_name}"
    found = open_split(name, tfds_name, "validation" if split == "test" else split, data_dir, command)
    source = Records(found, shape, flip, name, split, num_workers)
    source.read([0, source.size - 1])  # now rather than in the first batch
    return source


@functools.lru_cache(maxsize=2)
def _order(seed: int, n: int):
    """A grain.MapDataset whose element number place is the index of the example at that place of all epochs."""
    import grain

    # Grain adds the number of the epoch to the seed, so that neighbouring seeds would share most of their epochs.
    hashed = int(np.random.SeedSequence([ORDER, seed]).generate_state(1)[0])
    return grain.MapDataset.range(n).shuffle(hashed).repeat()


def _end_with_parent(worker: int, workers: int) -> None:
    """Ends this worker process when the one that started it is gone, even if it was killed, and not before: Ctrl-C, and
    some schedulers' signals, reach workers too, when the run still wants the batch it waits for."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
