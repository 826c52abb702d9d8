"""The laws of sampling. An image's pixels say which class and which image it is."""

import pytest
import torch

from fmaml.data.class_examples import Split, consecutive_splits, equal_classes, sample_episodes, with_rotations
from fmaml.data.episodes import Episode, episodes
from fmaml.data.source import task_keys
from fmaml.errors import Error

CPU = torch.device("cpu")


def labelled(sizes):
    """A split of classes of these sizes: pixel (0, 0) is the class, pixel (0, 1) the image's number in it."""
    images = torch.zeros(sum(sizes), 1, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    images[:, 0, 0, 1] = torch.cat([torch.arange(size) for size in sizes])
    count = torch.tensor(sizes)
    return Split(images, count.cumsum(0) - count, count, max(sizes))


def draw(split, tasks, *, ways=5, shots=1, queries=3, seed=0, step=0):
    """The tasks; and of support, then query, the class and the image number, [tasks, ways, examples]."""
    keys = task_keys(seed, "train", step, range(tasks), CPU)
    task = sample_episodes(split, keys, ways=ways, shots=shots, queries=queries)
    return task, [(batch.x[:, :, 0, 0, i] * 255).round().long().view(tasks, ways, -1) for batch in task for i in (0, 1)]


RAGGED = [4, 9, 5, 20, 4, 7, 4]


@pytest.mark.parametrize("sizes", [[20] * 30, RAGGED])
def test_classes_are_distinct_and_so_are_examples(sizes):
    _, (support_class, support_image, query_class, query_image) = draw(labelled(sizes), 300)
    classes = support_class[:, :, 0]
    assert (classes.sort(1).values.diff(dim=1) > 0).all()
    assert (support_class == classes[..., None]).all()
    assert (query_class == classes[..., None]).all()
    together = torch.cat([support_image, query_image], 2)
    assert (together.sort(2).values.diff(dim=2) > 0).all()
    assert (together < torch.tensor(sizes)[classes][..., None]).all()


def test_shapes_types_and_labels():
    task, (support_class, *_) = draw(labelled([10] * 12), 7, ways=4, shots=2, queries=5)
    assert task.support.x.shape == (7, 8, 1, 2, 2)
    assert task.query.x.shape == (7, 20, 1, 2, 2)
    assert task.support.x.dtype == torch.float32
    assert task.query.y.dtype == torch.int64
    assert task.support.y.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]] * 7
    assert task.query.y.tolist() == [[0] * 5 + [1] * 5 + [2] * 5 + [3] * 5] * 7
    assert task.support.y.is_contiguous()
    assert (support_class[:, :, 0] != support_class[:, :, 1]).sum() == 0


def test_pixels_run_from_0_to_exactly_1():
    images = torch.tensor([0, 255], dtype=torch.uint8).expand(6, 5, 1, 1, 2).contiguous()
    task, _ = draw(equal_classes(images), 3)
    assert task.support.x.unique().tolist() == [0.0, 1.0]


def chi_square(counts, expected):
    return ((counts - expected) ** 2 / expected).sum().item()


def test_every_class_takes_every_label_equally_often():
    """30 classes x 5 labels over 6,000 tasks: 149 degrees of freedom; 210 has p = 0.0007."""
    _, (support_class, *_) = draw(labelled([8] * 30), 6000, queries=1)
    counts = torch.stack([support_class[:, way, 0].bincount(minlength=30) for way in range(5)])
    assert chi_square(counts, 6000 / 30) < 210


def test_every_image_is_support_and_query_equally_often_even_in_ragged_classes():
    """Within each class its images are uniform; the classes are, too (46 degrees; 88 has p = 0.0002)."""
    _, (support_class, support_image, query_class, query_image) = draw(labelled(RAGGED), 8000)
    for classes, images in ((support_class, support_image), (query_class, query_image)):
        total = 0.0
        for number, size in enumerate(RAGGED):
            counts = images[classes == number].bincount(minlength=size)
            assert len(counts) == size
            total += chi_square(counts, counts.sum() / size)
        # Queries are drawn without replacement, which makes counts more equal than independent draws.
        assert total < 88
    assert chi_square(support_class.flatten().bincount(), 8000 * 5 / 7) < 25


def test_pairs_of_classes_meet_equally_often():
    """66 pairs of 12 classes: no class drags another one along (65 degrees; 110 has p = 0.0004)."""
    _, (support_class, *_) = draw(labelled([4] * 12), 6000, ways=2)
    low, high = support_class[:, :, 0].sort(1).values.unbind(1)
    counts = (low * 12 + high).bincount(minlength=144)
    assert chi_square(counts[counts > 0], 6000 / 66) < 110
    assert (counts > 0).sum() == 66


SPLITS = {"train": labelled([6] * 40), "val": labelled([6] * 8), "test": labelled(RAGGED)}


def source(seed=0):
    return episodes(SPLITS, seed, Episode(ways=5, shots=1, queries=3), {"data": "labelled"})


def flat(task):
    return torch.cat([task.support.x.flatten(1), task.query.x.flatten(1)], 1)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_slice_of_a_meta_batch_equals_the_slice_of_the_whole(split):
    whole = flat(source().sample(split, 5, range(16)))
    for piece in (range(0, 8), range(8, 16), range(3, 4), range(1, 16, 2)):
        part = flat(source().sample(split, 5, piece))
        assert torch.equal(part, whole[piece.start : piece.stop : piece.step])


def test_another_seed_split_step_or_task_gives_another_task():
    same = {"train": SPLITS["train"], "val": SPLITS["train"], "test": SPLITS["train"]}
    tasks = []
    for seed in (0, 1):
        sample = episodes(same, seed, Episode(ways=5, shots=1, queries=3), {}).sample
        tasks += [flat(sample(split, step, range(4))) for split in same for step in (0, 1)]
    assert len(torch.cat(tasks).unique(dim=0)) == 2 * 3 * 2 * 4


def test_sampling_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = flat(source().sample("train", 0, range(4)))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(flat(source().sample("train", 0, range(4))), first)


def test_the_tasks_of_past_runs_stay():
    """Pinned: a change here changes the data that every seed stands for."""
    _, (support_class, support_image, _, query_image) = draw(labelled([20] * 30), 2, seed=1, step=2)
    assert support_class[:, :, 0].tolist() == [[26, 13, 12, 23, 21], [12, 16, 21, 7, 8]]
    assert support_image[:, :, 0].tolist() == [[1, 18, 3, 0, 4], [2, 16, 8, 17, 8]]
    assert query_image[0, 0].tolist() == [9, 11, 16]


def test_sampling_is_one_graph():
    def sample(keys):
        return sample_episodes(SPLITS["test"], keys, ways=3, shots=1, queries=2)

    keys = task_keys(0, "test", 0, range(6), CPU)
    compiled = torch.compile(sample, fullgraph=True, backend="eager")
    assert torch.equal(flat(compiled(keys)), flat(sample(keys)))


def test_rotated_turns_each_class_by_quarter_turns():
    images = torch.arange(2 * 3 * 16, dtype=torch.uint8).view(2, 3, 1, 4, 4)
    split = with_rotations(equal_classes(images))
    assert len(split.starts) == len(split.counts) == 8
    for turn in range(4):
        for number in range(2):
            start = split.starts[2 * turn + number]
            expected = images[number].rot90(turn, (2, 3))
            assert torch.equal(split.images[start : start + 3], expected)


def test_rotated_keeps_ragged_classes_apart():
    split = with_rotations(labelled(RAGGED))
    ends = split.starts + split.counts
    assert torch.equal(ends[:-1], split.starts[1:])
    assert ends[-1] == len(split.images)


def test_cut_gives_consecutive_classes_and_rotates_what_is_named():
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1, 1)
    splits = consecutive_splits(images, {"train": 5, "val": 2, "test": 3}, ("val",))
    assert {name: split.images.flatten().tolist() for name, split in splits.items()} == {
        "train": [0, 1, 2, 3, 4],
        "val": [5, 6] * 4,
        "test": [7, 8, 9],
    }
    assert len(splits["val"].starts) == 8


def test_source_says_what_a_report_needs():
    made = source()
    assert made.inputs == (1, 2, 2)
    assert made.outputs == 5
    assert made.chance == 0.2
    assert made.about == {
        "data": "labelled",
        "task": "5-way 1-shot",
        "protocol": "5-way 1-shot, 3 queries a class, from 7 unseen classes",
        "ways": 5,
        "shots": 1,
        "queries": 3,
        "classes": {"train": 40, "val": 8, "test": 7},
    }


def test_too_many_ways_is_refused_with_the_split_named():
    with pytest.raises(Error, match=r"data\.ways = 8: split test has 7 classes.*give at most 7"):
        episodes(SPLITS, 0, Episode(ways=8, shots=1, queries=1), {})


def test_too_many_examples_are_refused_with_split_and_class_named():
    with pytest.raises(Error, match=r"= 5: class 0 of split test has 4 examples.*give .* at most 4"):
        episodes(SPLITS, 0, Episode(ways=5, shots=2, queries=3), {})


def test_a_task_may_take_every_class_and_every_image():
    _, (support_class, support_image, _, query_image) = draw(labelled([4] * 6), 20, ways=6, queries=3)
    assert (support_class[:, :, 0].sort(1).values == torch.arange(6)).all()
    assert (torch.cat([support_image, query_image], 2).sort(2).values == torch.arange(4)).all()
