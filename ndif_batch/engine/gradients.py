"""Gradients of many tasks at once: one backward for all tasks of a pass, of which each task takes what is its own.

Runs that are differentiated share no tokens, so what the tasks' scalars have in common is the pass and nothing else:
the gradient of their sum is, at each token, that of the one scalar that depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from ndif_batch.engine.schedule import AFTER

if TYPE_CHECKING:
    from ndif_batch.engine.cohort import Cohort


def differentiate(cohorts: Sequence[Cohort], company: Sequence[Cohort]) -> None:
    """Carries out what comes after a pass: the first ``backward`` of every program, then the second, and so on.

    What the passes of a batch made on the way stays until nobody of the ``company`` goes back through it any more.
    """
    with torch.enable_grad():
        waiting: Sequence[Cohort] = cohorts
        while waiting := [cohort for cohort in waiting if cohort.advance(cohort.stage, AFTER)]:
            left = sum(cohort.backwards_left for cohort in company)
            _backward(waiting, again=left > len(waiting))


def _backward(cohorts: Sequence[Cohort], *, again: bool) -> None:
    scalars = [scalar for cohort in cohorts for scalar in cohort.scalars()]
    sites = _distinct(site for cohort in cohorts for site in cohort.differentiated())
    if not scalars or not sites:
        return
    ones = [torch.ones_like(scalar) for scalar in scalars]
    found = torch.autograd.grad(scalars, sites, ones, retain_graph=again, allow_unused=True)
    by_site = {id(site): gradient for site, gradient in zip(sites, found, strict=True) if gradient is not None}
    for cohort in cohorts:
        cohort.take_gradients(by_site)


def _distinct(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())
