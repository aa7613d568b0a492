"""A batch is a pure function of (seed, step); an epoch visits every image once per direction."""

from dataclasses import fields

import numpy as np
import pytest

from dgnet_jax.data.sampling import ClassificationSampler, PairSampler

# Not contiguous and not sorted; the identity 9 has one image.
LABELS = np.array([4, 4, 9, 0, 4, 0, 2, 2, 2, 2, 4], np.int32)
COUNT = len(LABELS)


def arrays(batch) -> dict[str, np.ndarray]:
    return {field.name: getattr(batch, field.name) for field in fields(batch)}


def stream(sampler, name: str, steps: int) -> np.ndarray:
    return np.concatenate([getattr(sampler.batch(step), name) for step in range(steps)])


@pytest.mark.parametrize("batch_size", [1, 3, 11, 4, 30])
@pytest.mark.parametrize("direction", ["image_a", "image_b"])
def test_every_image_comes_once_per_epoch_and_direction(batch_size: int, direction: str):
    images = stream(PairSampler(LABELS, batch_size, seed=0), direction, 5 * COUNT)
    epochs = images[: len(images) // COUNT * COUNT].reshape(-1, COUNT)
    assert len(epochs) >= 5
    for epoch in epochs:
        assert sorted(epoch) == list(range(COUNT))
    assert any((epoch != epochs[0]).any() for epoch in epochs[1:]), "each epoch has its own order"


def test_the_teacher_sees_every_image_once_per_epoch():
    sampler = ClassificationSampler(LABELS, 4, seed=3)
    images = stream(sampler, "image", COUNT)
    for epoch in images.reshape(4, COUNT):
        assert sorted(epoch) == list(range(COUNT))
    np.testing.assert_array_equal(stream(sampler, "label", COUNT), LABELS[images])


def test_the_order_does_not_depend_on_the_batch_size():
    one, seven = (stream(PairSampler(LABELS, size, 5), "image_a", 70 // size) for size in (1, 7))
    np.testing.assert_array_equal(one, seven)


def test_positives_are_other_images_of_the_same_identity():
    sampler = PairSampler(LABELS, 8, seed=1)
    for step in range(50):
        batch = sampler.batch(step)
        for image, positive, label in (
            (batch.image_a, batch.positive_a, batch.label_a),
            (batch.image_b, batch.positive_b, batch.label_b),
        ):
            np.testing.assert_array_equal(LABELS[image], label)
            np.testing.assert_array_equal(LABELS[positive], label)
            np.testing.assert_array_equal(image == positive, LABELS[image] == 9)


def test_positives_are_uniform():
    sampler = PairSampler(LABELS, 1100, seed=2)
    pairs = np.zeros((COUNT, COUNT), int)
    for step in range(30):
        batch = sampler.batch(step)
        np.add.at(pairs, (batch.image_a, batch.positive_a), 1)
    draws = 30 * 1100 // COUNT
    for image, row in enumerate(pairs):
        others = [i for i in range(COUNT) if LABELS[i] == LABELS[image] and i != image]
        if others:
            # Five standard deviations of a binomial.
            share = 1 / len(others)
            bound = 5 * np.sqrt(draws * share * (1 - share))
            np.testing.assert_allclose(row[others], draws * share, atol=bound)


def test_batches_depend_on_seed_step_and_direction_only():
    labels = np.repeat(np.arange(50), 4)
    for sampler_type in (PairSampler, ClassificationSampler):
        first, again = (sampler_type(labels, 16, seed=7) for _ in range(2))
        replayed = [arrays(first.batch(step)) for step in range(40)]
        for step in (39, 0, 12, 13):
            for name, array in arrays(again.batch(step)).items():
                np.testing.assert_array_equal(array, replayed[step][name])
        other = arrays(sampler_type(labels, 16, seed=8).batch(0))
        assert all((array != replayed[0][name]).any() for name, array in other.items())
    batch = PairSampler(labels, 16, seed=7).batch(0)
    teacher = ClassificationSampler(labels, 16, seed=7).batch(0)
    assert (batch.image_a != batch.image_b).any()
    assert (batch.image_a != teacher.image).any() and (batch.image_b != teacher.image).any()


@pytest.mark.parametrize("sampler_type", [PairSampler, ClassificationSampler])
def test_some_rows_of_a_batch_are_those_rows_of_all_its_arrays(sampler_type: type):
    batch = sampler_type(LABELS, 8, seed=0).batch(3)
    part = batch[slice(2, 5)]
    assert type(part) is type(batch)
    for name, array in arrays(batch).items():
        np.testing.assert_array_equal(getattr(part, name), array[2:5])


@pytest.mark.parametrize("sampler_type", [PairSampler, ClassificationSampler])
def test_nothing_to_draw_is_refused(sampler_type: type):
    with pytest.raises(ValueError, match="batches of 8 from 0 images"):
        sampler_type(np.array([], np.int32), 8, seed=0)
    with pytest.raises(ValueError, match="batches of 0 from 11 images"):
        sampler_type(LABELS, 0, seed=0)
