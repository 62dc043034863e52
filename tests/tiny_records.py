"""Writes a small image data set in TFDS's prepared format, without TensorFlow."""

import io
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

NAME, VERSION = "downsampled_imagenet", "2.0.0"


def images(size: int, count: int, split: str = "train") -> np.ndarray:
    """The images of `write`, uint8 [count, size, size, 3]: coarse noise. The top row holds the number of the image, as
    (number, 0, number // 256) at its left end and (number, 255, number // 256) at its right end."""
    rng = np.random.default_rng([count, len(split)])
    coarse = rng.integers(256, size=(count, 4, 4, 3), dtype=np.uint8)
    found = coarse.repeat(size // 4, axis=1).repeat(size // 4, axis=2)
    numbers = np.arange(count)
    for column, end in ((0, 0), (-1, 255)):
        found[:, 0, column] = np.stack([numbers % 256, np.full(count, end), numbers // 256], axis=1)
    return found


def write(directory: Path | str, size: int = 64, count: int = 32, test_count: int = 8) -> Path:
    """Prepares downsampled_imagenet/{size}x{size} under `directory` (the data_dir), with `count` training and
    `test_count` test images. Returns the folder of its files."""
    splits = {"train": images(size, count), "validation": images(size, test_count, "validation")}
    return write_images(directory, size, splits)


def write_images(
    directory: Path | str,
    size: int,
    splits: dict[str, np.ndarray],
    name: str = NAME,
    classes: tuple[str, ...] = (),
) -> Path:
    """Like `write`, with the given images per split, which may have any shape, and the name of the data set. With
    classes, image i has label i modulo their number."""
    folder = Path(directory) / name / f"{size}x{size}" / VERSION
    folder.mkdir(parents=True)
    # TFDS declares jpeg although the images are PNG.
    label = {"label": tfds.features.ClassLabel(names=classes)} if classes else {}
    features = tfds.features.FeaturesDict({"image": tfds.features.Image(encoding_format="jpeg"), **label})
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder,
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        dataset_name=name,
        filetype_suffix="array_record",
    )
    infos = []
    for split, arrays in splits.items():
        shards = np.array_split(np.arange(len(arrays)), min(2, len(arrays)))
        sizes = []
        for shard, indices in enumerate(shards):
            file = folder / f"{name}-{split}.array_record-{shard:05d}-of-{len(shards):05d}"
            writer = ArrayRecordWriter(str(file), "group_size:1")
            for i in indices:
                record = features.serialize_example(
                    {"image": _png(arrays[i])} | ({"label": i % len(classes)} if classes else {})
                )
                writer.write(record)
                sizes.append(len(record))
            writer.close()
        lengths = [len(indices) for indices in shards]
        infos.append(
            tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=sum(sizes), filename_template=template)
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=infos, filename_template=template, check_data=False
    )
    return folder


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()
