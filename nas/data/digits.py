"""scikit-learn's digits: 1,797 grey images of 8 x 8, ten classes. Nothing to download: for tests and first steps."""

from __future__ import annotations

import numpy as np

from nas.data.config import DataConfig, needed
from nas.data.splits import Images, Source, held_out

TEST_SHARE, TEST_SEED = 0.2, 0


def digits(config: DataConfig) -> Source:
    """The test set is the same whatever the seed of the study; values 0..16 become 0..255."""
    data = needed("sklearn.datasets", config.source, "scikit-learn").load_digits()
    pixels = np.rint(data.images * 255 / 16).astype(np.uint8)[..., None]
    images = Images(pixels, data.target.astype(np.int64))
    train, test = held_out(images, TEST_SHARE, TEST_SEED, "data.test", "images")
    return Source(train, test, tuple(str(name) for name in data.target_names))
