"""The priors of the benchmark: one per material, trained on cells of one condition, and a joint one over all of them.

`python benchmarks/materials.py train` trains them one after another from the packed training cells, each for --minutes; it goes on from where
it stopped. The state of a training stays in ``WORK``: on another machine each begins again, from the committed parameters or (--fresh) from those of
``START``, with all noise levels weighted alike (an even choice; the first trainings of the committed ones were weighted as `glassjax train` does by
itself, see priors/README.md). Files: PRIORS/MATERIAL.npz with the learning curve of the last training.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import materials_pack
import materials_reference as reference

from glassjax.archive import write_whole

PRIORS = Path(__file__).parent / "priors"
WORK = Path(__file__).resolve().parents[2] / "run" / "priors"
JOINT = "joint"
# A, of the network's graph: past the first shell of every pair; what glassjax train takes by default (5) for silicon and silica
CUTOFFS = {"silicon": 5.0, "carbon": 4.0, "silica": 5.0, "cu-zr": 4.5, "zr-ni-al": 4.5, JOINT: 4.5}
# each begins from the parameters of another, which saves most of the steps: of 600 for carbon (losses of 0.57 at 0.1-0.3 A and 2.30 at 0.3-0.7 A
# begun from silicon's, 0.85 and 2.45 from random ones) 150 do what all of them do from random ones
START = {"silicon": None, "carbon": "silicon", "silica": "silicon", "cu-zr": "silicon", "zr-ni-al": "cu-zr", JOINT: "silicon"}
RATE = {"zr-ni-al": 1e-3}  # peak of the learning rate, else 0.002; that became infinite here, at noise above 0.7 A
BATCH = {"silicon": 4, "carbon": 4, "silica": 4, "cu-zr": 2, "zr-ni-al": 2, JOINT: 4}


def prior_file(name: str, folder: Path = PRIORS) -> Path:
    """The prior of a material, or the joint one."""
    return folder / f"{name}.npz"


def published_file(material: str, folder: Path = PRIORS) -> Path:
    """The prior of a material with the paper's network, trained at the same condition (`gpu.sh`, stage published)."""
    return prior_file(f"meshgraphnet_{material}", folder)


def command(
    name: str,
    minutes: float,
    folder: Path = PRIORS,
    data: Path = reference.DATA,
    batch: int | None = None,
    work: Path = WORK,
    fresh: bool = False,
) -> list[str]:
    """The glassjax command that trains one prior in ``work`` until it has had ``minutes`` there, or goes on with a training that is there.

    It begins from the prior of that name in ``folder``, if there is one and it is not to be made afresh, else from that of ``START``.

    Raises:
      FileNotFoundError: no cells to train on.
      ValueError: a training in ``work`` that began from another prior than the one in ``folder``, which it would replace.
    """
    materials = list(reference.MATERIALS) if name == JOINT else [name]
    cells = [materials_pack.training_file(material, data) for material in materials]
    missing = [str(path) for path in cells if not path.exists()]
    if missing:
        raise FileNotFoundError(f"got no {', '.join(missing)}; needs cells to train on; run `python benchmarks/materials.py reference` and `pack`")
    out, there = prior_file(name, work), prior_file(name, folder)
    if out.with_suffix(".train.npz").exists():
        if there.exists() and digest(there) not in (begun(name, work), digest(out)):
            raise ValueError(f"got a training of {name} in {work} that began from another prior than {there}; needs that one; remove the training")
        begin = ["--resume"]
    else:
        first = name if there.exists() and not fresh else START[name]
        begin = ["--start", str(prior_file(first, folder))] if first else []
    options = ["--out", str(out), "--cutoff", str(CUTOFFS[name]), "--batch", str(batch or BATCH[name]), "--minutes", str(minutes), "--floor", "0"]
    options += ["--learning-rate", str(RATE[name])] if name in RATE else []
    return [sys.executable, "-m", "glassjax", "train", *map(str, cells), *options, *begin]


def digest(path: Path) -> str | None:
    """What tells one file from another, or None where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def begun(name: str, work: Path) -> str | None:
    """The digest of the committed prior when the training in ``work`` began."""
    note = work / f"{name}.begun"
    return (note.read_text() or None) if note.exists() else None


def train(names, minutes: float, folder: Path = PRIORS, batch: int | None = None, work: Path = WORK, fresh: bool = False) -> int:
    """Train each until it has had ``minutes`` in ``work``, and put it into ``folder``; the first exit status that is not 0."""
    if folder.resolve() == work.resolve():
        raise ValueError(f"got {folder} for the priors and for their trainings; needs two folders; pass another --work")
    for place in (folder, work):
        place.mkdir(parents=True, exist_ok=True)
    for name in names:
        run = command(name, minutes, folder, batch=batch, work=work, fresh=fresh)
        if "--resume" not in run:
            (work / f"{name}.begun").write_text(digest(prior_file(name, folder)) or "")
        status = subprocess.run(run).returncode
        if status:
            return status
        for suffix in (".npz", ".csv"):
            write_whole(prior_file(name, folder).with_suffix(suffix), prior_file(name, work).with_suffix(suffix).read_bytes())
    return 0
