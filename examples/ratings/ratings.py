"""Ratings of films by users never seen: a task is a user, some ratings the support set, the others the query set.

An example is a film: x holds facts about it, y the user's rating, 1 to 5 stars. Users have rated different numbers of
films; a row with y = 0 is padding.
"""

import json
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple, TypeAlias

import torch
from torch import Tensor

import fmaml
from fmaml import Batch
from fmaml.data import Metric, Source, task_keys
from fmaml.rng import fold, uniform
from fmaml.setting_types import CostsMemory, Count, FreeOnResume, KeepsTestTasks, Size, gives

from .baselines import FOLDS, errors, features, fit_baselines, table_of

LEAST = 30  # ratings of a user
FILES = ("user_cold_state", "user_and_item_cold_state")  # of MeLU: all ratings of the users that it holds out
ENDS = {"train": 0.7, "val": 0.8, "test": 1.0}  # split -> the share of users up to its last one
UNIT = 10  # ratings that pull as much as their mean
Rated: TypeAlias = list[tuple[int, float]]  # the films and stars of a user


class Users(NamedTuple):
    """The ratings of users, one user after the other."""

    films: Tensor  # int64 [ratings]
    stars: Tensor  # float32 [ratings], 1 to 5
    counts: Tensor  # int64 [users]


def squared_error(output: Tensor, y: Tensor) -> Tensor:
    """The mean squared error of the ratings, without padding; a scalar."""
    return UNIT * pull(output, y) / (y > 0).sum().clamp(min=1)


def pull(output: Tensor, y: Tensor) -> Tensor:
    """The sum of the squared errors, over UNIT; a scalar. So twice as many ratings pull twice as hard."""
    return torch.where(y > 0, output - y, 0).square().sum() / UNIT


SQUARED_ERROR = Metric("squared error", squared_error, ".3f", more_is_better=False)


@gives("numbers", "single_targets")
def ratings(
    *,
    seed: int,
    device: torch.device,
    root: Annotated[str | None, FreeOnResume] = None,
    shots: Size = 10,
    train_shots: Annotated[tuple[Count, Count], CostsMemory, KeepsTestTasks] = (10, 10),
    train_queries: Annotated[Size, KeepsTestTasks] = 50,
) -> Source:
    """Users of the folder ``root`` with MeLU's files of MovieLens 1M; without a folder, made ones.

    Support x and y float32 [tasks, shots, 1], ratings at random; the query set has all others. Validation and test task
    i is user i. A training task is a random user, with a number of ratings within ``train_shots``, and at most
    ``train_queries`` others.
    """
    least, most = train_shots
    if max(shots, most) >= LEAST or least > most:
        raise ValueError(f"data.shots, data.train_shots: must be below {LEAST}, and the first of a range the smaller")
    users, genres = read_users(Path(root).expanduser()) if root else made_users()
    splits = {split: Users(*(part.to(device) for part in own)) for split, own in split_users(users).items()}
    table = table_of(splits["train"], len(genres))
    draw = partial(sample_tasks, splits, shots, (least, most, train_queries), seed)
    fitted = fit_baselines(table, validation(splits, shots, seed))
    known = features(table, fit_baselines(table, validation(splits, UNIT, seed)))  # the same for all ``shots``
    known = torch.cat([known, genres.to(device).expand(len(known), -1, -1)], -1)  # [FOLDS + 1, films, features]

    def sample(split: str, step: int, tasks: range) -> fmaml.Task:
        (support, query), which = draw(split, step, tasks)
        fold = which % FOLDS if split == "train" else torch.full_like(which, FOLDS)
        return fmaml.Task(*(Batch(known[fold[:, None], films], y) for films, y in (support, query)))

    def references(split: str, step: int, tasks: range) -> dict[str, Tensor]:
        return errors(fitted, draw(split, step, tasks)[0])

    counts = {split: len(own.counts) for split, own in splits.items()}
    about = {
        "data": "MovieLens 1M, users held out by MeLU" if root else "made users",
        "task": f"{shots} ratings of a user",
        "protocol": f"users never seen ({counts['train']} train, {counts['val']} validation, {counts['test']} test)",
    }
    source = Source(sample, (known.shape[-1],), 1, about, criterion=pull, metric=SQUARED_ERROR)
    data = {split: own._asdict() for split, own in splits.items()}
    return source._replace(settings=(fmaml.transductive,), references=references, data=data)


def validation(splits: dict[str, Users], shots: int, seed: int) -> fmaml.Task:
    """The tasks of all validation users; x has the numbers of the films."""
    return sample_tasks(splits, shots, (shots, shots, 1), seed, "val", 0, range(len(splits["val"].counts)))[0]


def read_users(folder: Path) -> tuple[list[Rated], Tensor]:
    """The ratings of each user of MeLU's files, and the genres of each film, float32 [films, genres].

    FILE.json has the films of each user, FILE_y.json the stars.
    """
    users: dict[str, Rated] = {}
    for name in FILES:
        films, stars = (folder / f"{name}.json", folder / f"{name}_y.json")
        if not (films.exists() and stars.exists()):
            raise ValueError(f"data.root = {folder}: has no {films.name} and {stars.name}; give MeLU's movielens/ml-1m")
        given = json.loads(stars.read_text(encoding="utf-8"))
        for user, own in json.loads(films.read_text(encoding="utf-8")).items():
            users.setdefault(user, []).extend(zip(map(int, own), map(float, given[user]), strict=True))
    return [users[user] for user in sorted(users, key=int)], genres_of(films_of(folder))


def films_of(folder: Path) -> dict[int, tuple[str, list[str]]]:
    """The title and the genres of each film by its number."""
    lines = (folder / "movies.dat").read_text(encoding="latin-1").splitlines()
    rows = [line.split("::") for line in lines]
    return {int(number): (title, genres.split("|")) for number, title, genres in rows}


def genres_of(films: dict[int, tuple[str, list[str]]]) -> Tensor:
    """1 for each genre of a film, float32 [films, genres]."""
    names = sorted({genre for _, genres in films.values() for genre in genres})
    table = torch.zeros(1 + max(films), len(names))
    for number, (_, genres) in films.items():
        table[number, [names.index(genre) for genre in genres]] = 1
    return table


def made_users(count: int = 1000, films: int = 200, taste: int = 2) -> tuple[list[Rated], Tensor]:
    """Users with a mean and a taste, films with a quality and a kind; the stars are rounded to 1 to 5.

    A genre is a positive number of the kind.
    """
    noise = torch.Generator().manual_seed(0)
    quality, kinds = 0.5 * torch.randn(films, generator=noise), torch.randn(films, taste, generator=noise)
    users = []
    for _ in range(count):
        seen = torch.randperm(films, generator=noise)[: int(torch.randint(LEAST, 100, (), generator=noise))]
        mean, own = 3.5 + 0.4 * torch.randn((), generator=noise), 0.3 * torch.randn(taste, generator=noise)
        liked = mean + quality[seen] + kinds[seen] @ own + 0.5 * torch.randn(len(seen), generator=noise)
        users.append(list(zip(seen.tolist(), liked.round().clamp(1, 5).tolist(), strict=True)))
    return users, (kinds > 0).float()


def split_users(users: list[Rated]) -> dict[str, Users]:
    """The users with LEAST ratings or more, in a random order that never changes."""
    users = [own for own in users if len(own) >= LEAST]
    order = torch.randperm(len(users), generator=torch.Generator().manual_seed(0)).tolist()
    splits, first = {}, 0
    for split, share in ENDS.items():
        last = round(share * len(users))
        chosen = [users[i] for i in order[first:last]]
        films, stars = zip(*(rated for own in chosen for rated in own), strict=True)
        splits[split] = Users(torch.tensor(films), torch.tensor(stars), torch.tensor([len(own) for own in chosen]))
        first = last
    return splits


def sample_tasks(
    splits: dict[str, Users], shots: int, training: tuple[int, int, int], seed: int, split: str, step: int, tasks: range
) -> tuple[fmaml.Task, Tensor]:
    """The stacked tasks of these numbers, their ratings in random order, and the user of each [tasks].

    Here x is int64 [tasks, n], the numbers of the films.

    Raises Error if there are fewer users of the split than tasks.
    """
    users, device = splits[split], splits[split].counts.device
    keys = task_keys(seed, split, step, tasks, device)  # [tasks]
    if split == "train":
        least, shots, queries = training
        u = uniform(fold(keys[:, None], torch.arange(2, device=device)))
        which, support = (len(users.counts) * u[:, 0]).long(), least + ((shots - least + 1) * u[:, 1]).long()
    elif tasks.stop > len(users.counts):
        raise fmaml.Error(f"data: split {split} has {len(users.counts)} users; give that many tasks or fewer")
    else:
        which = torch.arange(tasks.start, tasks.stop, device=device)
        support, queries = torch.full_like(which, shots), int(users.counts.max()) - shots
    slots = torch.arange(int(users.counts.max()), device=device)
    counts = users.counts[which, None]  # [tasks, 1]
    mixed = torch.where(slots < counts, uniform(fold(fold(keys, -1)[:, None], slots)), 2.0)  # padding comes last
    places = mixed.argsort(1)[:, : shots + queries]
    rows = (users.counts.cumsum(0) - users.counts)[which, None] + places.minimum(counts - 1)
    used = (slots < support[:, None]) | ((slots >= shots) & (slots < counts))
    x, y = users.films[rows], torch.where(used[:, : rows.shape[1]], users.stars[rows], 0.0)[..., None]
    return fmaml.Task(Batch(x[:, :shots], y[:, :shots]), Batch(x[:, shots:], y[:, shots:])), which
