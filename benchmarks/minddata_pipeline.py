"""The training transform by MindSpore's C++ data pipeline."""

from __future__ import annotations

from collections.abc import Iterator

import mindspore.dataset as ds
from mindspore.dataset import vision

from src.mobilenetv2.dataset import MEAN, STD

JITTER = (0.6, 1.4)


def minddata_batches(folder: str, repeats: int, batch: int, size: int, workers: int) -> Iterator[tuple]:
    """Images (N, 3, size, size) float32 and labels (N,) of the folder, gone through `repeats` times."""
    transforms = [
        vision.RandomCropDecodeResize(size),
        vision.RandomHorizontalFlip(),
        vision.RandomColorAdjust(JITTER, JITTER, JITTER),
        vision.Normalize(list(MEAN), list(STD)),
        vision.HWC2CHW(),
    ]
    data = ds.ImageFolderDataset(folder, num_parallel_workers=workers, shuffle=True)
    data = data.map(transforms, "image", num_parallel_workers=workers).repeat(repeats)
    data = data.batch(batch, drop_remainder=True, num_parallel_workers=workers)
    return data.create_tuple_iterator(num_epochs=1, output_numpy=True)
