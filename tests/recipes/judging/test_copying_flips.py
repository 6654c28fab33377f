"""A model that learned from mirror images copies when it makes one of them."""

import torch

from unnoise.data.augmentation import Augmentation
from unnoise.data.base import Dataset, Spec
from unnoise.evaluation.features.base import extractors
from unnoise.recipes.judging.copying import copying
from unnoise.recipes.judging.real import RealData


def test_mirror_images_of_training_data_are_copies_if_training_flipped_and_only_then():
    x = torch.randint(0, 256, (60, 1, 6, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    made = x[:20].flip(-1)
    found = {}
    for flips in (False, True):
        data = Dataset(x, Spec("image", (1, 6, 6)), augmentation=Augmentation(flips=flips))
        extractor = extractors.build("pixels").prepare(data)
        space = copying(made, RealData(data, data, None), extractor, extractor(made)).spaces["pixels"]
        found[flips] = space.copies.value
    assert found == {False: 0.0, True: 1.0}
