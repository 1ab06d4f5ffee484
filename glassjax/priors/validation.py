"""What ``glassjax train --validation`` does: a finished prior on cells that it was not trained on."""

from __future__ import annotations

import json

import numpy as np

from glassjax._pytree import replace
from glassjax.archive import file_record
from glassjax.io.atoms import read_structures
from glassjax.priors.prior import save_prior
from glassjax.priors.training import denoising_losses


def comparable(structures, options, elements) -> tuple[list, list]:
    """Cells to validate on (at most 16, evenly from those given) and as many training cells of the same composition; empty without --validation.

    Raises ``ValueError`` for a file that is trained on, and where no training cell has the composition.
    """
    if not options.validation:
        return [], []
    trained_on = {file_record(f)["sha256"] for f in options.structures}
    if same := [f for f in options.validation if file_record(f)["sha256"] in trained_on]:
        raise ValueError(f"got {', '.join(same)} to train on and to validate on; needs cells that are not trained on; leave some out of the training")

    def counts(one) -> list[int]:
        return np.bincount(np.asarray(one.species), minlength=len(elements)).tolist()

    def some(cells: list) -> list:
        return [cells[i] for i in np.linspace(0, len(cells) - 1, min(16, len(cells))).astype(int)]

    unseen = read_structures(options.validation, list(elements))
    known = [one for one in structures if counts(one) in [counts(other) for other in unseen]]
    if not known:
        raise ValueError("got cells to validate on with other numbers of atoms than the training cells; needs some with the same; pass others")
    return some(known), some(unseen)


def validate(prior, known, unseen, options, out) -> None:
    """Say how well a prior knows cells that it was not trained on, beside some that it was, and put it into the model card."""
    print(f"losses of {len(known)} training cells and {len(unseen)} others by noise level (3: no knowledge)", flush=True)
    losses = {}
    both = [denoising_losses(prior, group) for group in (known, unseen)]
    for level in both[0]:
        (ours, error), (theirs, its) = both[0][level], both[1][level]
        print(f"  {level:.2f} A   {ours:.3f} +- {error:.3f}   {theirs:.3f} +- {its:.3f}", flush=True)
        losses[f"{level:g}"] = dict(training=round(ours, 4), validation=round(theirs, 4))
    facts = dict(files=[file_record(f) for f in options.validation], cells=[len(known), len(unseen)], losses=losses)
    save_prior(replace(prior, card=json.dumps(json.loads(prior.card) | dict(validation=facts))), out)
