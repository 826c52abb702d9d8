"""Ratings to compare with: the film's mean, shrunk biases of film and user, and a factorisation with ridge regression.

They are fitted to the training users; shrinkage and penalty are chosen on the validation users. `features` gives the
same facts of each film to a network.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

import fmaml

if TYPE_CHECKING:
    from .ratings import Users

SHRINKAGES = (2.0, 4.0, 8.0, 16.0)  # ratings of the mean that count beside those of a film, or of a user
WIDTH, PENALTIES = 8, (2.5, 5.0, 10.0, 20.0)  # of the factorisation, and of a user's ridge regression
FOLDS = 5  # of the training users, for `features`
ROUNDS = 5  # of alternating least squares


class Table(NamedTuple):
    """The ratings of users, 0 where there is none; float64 [users, films]."""

    stars: Tensor
    seen: Tensor  # 1 for each rating


class Baselines(NamedTuple):
    """Facts about each film, from the training users."""

    overall: Tensor  # scalar: the mean of all ratings
    of_film: float  # the shrinkage of a film's mean
    mean: Tensor  # [films]: the mean of its ratings; the overall mean if it has none
    bias: Tensor  # [films]: its mean without the means of its users, shrunk
    shrinkage: Tensor  # [1]: of a user's mean
    kinds: Tensor  # [films, 1 + WIDTH]: a one, and the factors; before the factorisation the one alone
    penalties: Tensor  # [1 + WIDTH]: the shrinkage, and the penalty of the factors


def table_of(users: Users, films: int) -> Table:
    """The ratings of users in one row for each, of film numbers below ``films``."""
    user = torch.arange(len(users.counts), device=users.films.device).repeat_interleave(users.counts)
    stars, seen = torch.zeros(2, len(users.counts), films, dtype=torch.float64, device=users.films.device)
    stars[user, users.films], seen[user, users.films] = users.stars.double(), 1.0
    return Table(stars, seen)


def fit_baselines(table: Table, validation: fmaml.Task) -> Baselines:
    """Fit to the training users, and choose by the validation tasks."""

    def best(candidates: list[Baselines], name: str) -> Baselines:
        return min(candidates, key=lambda fitted: float(errors(fitted, validation)[name].mean()))

    biased = best([biases(table, *sizes) for sizes in product(SHRINKAGES, SHRINKAGES)], "shrunk bias")
    return best([factors(table, biased, penalty) for penalty in PENALTIES], "factorisation")


def biases(table: Table, of_film: float, of_user: float) -> Baselines:
    """Alternate between the films' and the users' shrunk means."""
    stars, seen = table
    overall, ratings = stars.sum() / seen.sum(), seen.sum(0)
    mean = torch.where(ratings > 0, stars.sum(0) / ratings.clamp(min=1), overall)
    bias, mine = mean, torch.zeros_like(stars[:, :1])
    for _ in range(ROUNDS):
        bias = overall + (seen * (stars - overall - mine)).sum(0) / (ratings + of_film)
        mine = (seen * (stars - bias)).sum(1, keepdim=True) / (seen.sum(1, keepdim=True) + of_user)
    shrinkage = mean.new_full((1,), of_user)
    return Baselines(overall, of_film, mean, bias, shrinkage, torch.ones_like(mean)[:, None], shrinkage)


def factors(table: Table, biased: Baselines, penalty: float) -> Baselines:
    """Factorise what the films' biases leave: rest = user's mean + kind . taste, by alternating least squares."""
    rest = table.seen * (table.stars - biased.bias)
    noise = torch.randn(len(biased.bias), WIDTH, generator=torch.Generator().manual_seed(0)).to(rest)
    penalties = torch.cat([biased.shrinkage, rest.new_full((WIDTH,), penalty)])
    kinds = torch.cat([biased.kinds, noise], 1)
    for _ in range(ROUNDS):
        users = ridge(table.seen, rest, kinds, penalties)
        free = rest - table.seen * users[:, :1]
        kinds[:, 1:] = ridge(table.seen.T, free.T, users[:, 1:], penalties[1:])
    return biased._replace(kinds=kinds, penalties=penalties)


def ridge(seen: Tensor, rest: Tensor, kinds: Tensor, penalties: Tensor) -> Tensor:
    """For each row of ``rest`` [n, m], argmin over w of its squared errors where seen + penalties . w^2: [n, width].

    ``kinds`` is [m, width], or [n, m, width] with kinds for each row.
    """
    squares = kinds[..., :, None] * kinds[..., None, :]  # [.., m, width, width]
    gram = torch.einsum("nm,mab->nab" if kinds.ndim == 2 else "nm,nmab->nab", seen, squares)
    weighted = torch.einsum("nm,ma->na" if kinds.ndim == 2 else "nm,nma->na", rest, kinds)
    return torch.linalg.solve(gram + penalties.diag(), weighted)


def features(table: Table, fitted: Baselines) -> Tensor:
    """The factors, the bias and the logarithm of the number of ratings of each film: [FOLDS + 1, films, WIDTH + 2].

    Part k < FOLDS is without the ratings of training user k, k + FOLDS, .., so that those may learn from it as new
    users do. The last part has all ratings. The factors are scaled so that their penalty is that of a user's mean.
    """
    tastes = ridge(table.seen, table.seen * (table.stars - fitted.bias), fitted.kinds, fitted.penalties)
    scale = (fitted.shrinkage / fitted.penalties[1:]).sqrt()
    parts = []
    for fold in range(FOLDS + 1):
        others = torch.arange(len(tastes), device=tastes.device) % FOLDS != fold
        seen = table.seen[others]
        free = seen * (table.stars[others] - fitted.overall - tastes[others, :1])
        ratings = seen.sum(0)
        bias = free.sum(0) / (ratings + fitted.of_film)
        factors = scale * ridge(seen.T, (free - seen * bias).T, tastes[others, 1:], fitted.penalties[1:])
        parts.append(torch.cat([factors, (fitted.overall + bias)[:, None], ratings.log1p()[:, None]], 1))
    return torch.stack(parts).float()


def errors(fitted: Baselines, task: fmaml.Task) -> dict[str, Tensor]:
    """Name -> the mean squared errors of stacked tasks [tasks], over the queries; x has the numbers of the films."""
    (known, stars), (asked, truth) = ((part.x, part.y[..., 0].double()) for part in task)
    seen = (stars > 0).double()
    rest = seen * (stars - fitted.bias[known])
    own = rest.sum(1, keepdim=True) / (seen.sum(1, keepdim=True) + fitted.shrinkage)
    users = ridge(seen, rest, fitted.kinds[known], fitted.penalties)
    predicted = {
        "item mean": fitted.mean[asked],
        "shrunk bias": fitted.bias[asked] + own,
        "factorisation": fitted.bias[asked] + (fitted.kinds[asked] @ users[..., None])[..., 0],
    }
    real = (truth > 0).double()
    return {name: (real * (p - truth).square()).sum(1) / real.sum(1) for name, p in predicted.items()}
