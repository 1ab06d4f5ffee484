"""Replicas over several processes: the structures of one, to the last bit; over several devices: but for rounding."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
from tiny import ATOMS, DENSITY, allow_rank_promotion, packing, tiny_prior, write_prior  # noqa: F401

from glassjax import distributed, to_atoms
from glassjax.checkpoint import Checkpoint
from glassjax.priors.prior import read_checkpoint

HERE = Path(__file__).parent

MANY = """
import sys
import jax, numpy as np
sys.path.insert(0, {tests!r})
from tiny import packing, tiny_prior
from glassjax.ensemble import sample
from glassjax.protocols import protocol, stages
devices = jax.local_devices()
assert len(devices) == 8, devices
todo = stages(tiny_prior(), (), elements=("Si",), protocol=protocol("default", steps=4, corrections=1), minimum_distance={{("Si", "Si"): 1.5}})
starts = [packing(seed) for seed in range(11)]
one, many = (sample(jax.random.key(1), todo, starts, replicas=11, chunk=2, segment=2, devices=d) for d in (devices[:1], devices))
assert many.status == ["ok"] * 11
for a, b in zip(one.structures, many.structures, strict=True):
    np.testing.assert_allclose(a.positions, b.positions, atol=2e-5)  # rounding: XLA compiles the sharded program differently
default = sample(jax.random.key(1), todo, starts[:8], replicas=8, segment=2, devices=devices)  # one on each
for a, b in zip(default.structures, one.structures[:8], strict=True):
    np.testing.assert_allclose(a.positions, b.positions, atol=2e-5)
progress = []
sample(jax.random.key(1), todo, starts[:8], replicas=8, segment=4, devices=devices, report=lambda p: progress.append(p["chunks"]))
assert progress[0] == 1, progress
print("moved", np.abs(np.asarray(one.structures[0].positions) - np.asarray(starts[0].positions)).max())
"""


def python(*words, **environment):
    return subprocess.Popen(
        ["timeout", "-k", "5", "240", sys.executable, *words],
        cwd=HERE.parent,
        env=os.environ | dict(JAX_PLATFORMS="cpu") | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_eight_devices_make_what_one_makes():
    done = python("-c", textwrap.dedent(MANY.format(tests=str(HERE))), XLA_FLAGS="--xla_force_host_platform_device_count=8")
    out, err = done.communicate()
    assert done.returncode == 0, err[-2000:]
    assert float(out.split("moved")[1]) > 0.1


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def test_two_processes_make_what_one_makes(tmp_path):
    """The command line, three chunks of two (the last one of one); then a third process resumes the finished folder alone."""
    prior = write_prior(tmp_path / "prior.npz")
    common = ["-m", "glassjax", "generate", "--composition", "Si", "--atoms", str(ATOMS), "--density", str(DENSITY), "--prior", str(prior)]
    common += ["--replicas", "5", "--chunk", "2", "--steps", "6", "--minimum-distance", "1.5", "--out"]
    address = f"localhost:{free_port()}"
    alone = python(*common, str(tmp_path / "alone"))
    joint = [str(tmp_path / "joint"), "--coordinator", address, "--processes", "2", "--process"]
    pair = [python(*common, *joint, str(i)) for i in range(2)]
    texts = [one.communicate() for one in (alone, *pair)]
    assert [one.returncode for one in (alone, *pair)] == [0, 0, 0], texts
    one, two = (tmp_path / name / "ensemble.extxyz" for name in ("alone", "joint"))
    assert len(ase.io.read(one, ":")) == 5
    assert one.read_bytes() == two.read_bytes()
    assert json.loads((tmp_path / "joint" / "run.json").read_text())["processes"] == 2
    assert {p.name for p in (tmp_path / "joint" / "checkpoint").glob("finished_*")} == {"finished_0.npz", "finished_1.npz"}
    assert "shortest" in texts[1][0] and "shortest" not in texts[2][0]  # process 0 tells, the other does not
    again = python(*common, str(tmp_path / "joint"), "--resume")
    text = again.communicate()
    assert again.returncode == 0, text
    assert one.read_bytes() == two.read_bytes()


def test_two_processes_train_as_one(tmp_path):
    """Three steps of a batch of two, one cell per process."""
    ase.io.write(tmp_path / "cells.extxyz", [to_atoms(packing(seed)) for seed in (1, 2)])
    common = ["-m", "glassjax", "train", str(tmp_path / "cells.extxyz"), "--steps", "3", "--batch", "2", "--cutoff", "3.5", "--out"]
    joint = [str(tmp_path / "joint.npz"), "--coordinator", f"localhost:{free_port()}", "--processes", "2", "--process"]
    quick = dict(JAX_DISABLE_MOST_OPTIMIZATIONS="1")
    runs = [python(*common, str(tmp_path / "alone.npz"), **quick), *[python(*common, *joint, str(i), **quick) for i in range(2)]]
    texts = [one.communicate() for one in runs]
    assert [one.returncode for one in runs] == [0, 0, 0], texts
    (_, one), (_, two) = (read_checkpoint(tmp_path / f"{name}.train.npz") for name in ("alone", "joint"))
    assert one.keys() == two.keys()
    for name in one:  # opt/...: the moments of the gradients
        limit = 1e-3 * np.abs(one[name]).max() if name.startswith("opt") else 1e-5
        np.testing.assert_allclose(two[name], one[name], atol=limit + 1e-12, err_msg=name)
    assert "prior in" in texts[1][0] and "prior in" not in texts[2][0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("host:1", None, None), "needs all three"),
        ((None, 2, 0), "needs all three"),
        (("localhost:1", 2, 2), "needs 0 to 1"),
        ((None, None, None), "no Slurm"),
        (("host", 2, 0), "needs HOST:PORT"),
    ],
)
def test_bad_places(given, message, monkeypatch):
    for name in distributed.LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=message):
        distributed.initialise(*given)


def test_alone_without_others():
    assert distributed.place() == (0, 1)
    assert distributed.agreed(1.5) == 1.5
    with pytest.raises(ValueError, match="as it is"):
        distributed.first(lambda: (_ for _ in ()).throw(ValueError("as it is")))


def test_killed_processes_resume_in_other_numbers(tmp_path):
    """Two of two stop in the middle; one alone, or three (one of them without a share), go on to the same bits, also where a group is not full."""
    from concurrent.futures import ThreadPoolExecutor

    import jax

    from glassjax.ensemble import sample
    from glassjax.protocols import protocol, stages

    todo = stages(tiny_prior(), (), elements=("Si",), protocol=protocol("default", steps=4, corrections=0), minimum_distance={("Si", "Si"): 1.5})
    starts = [packing(seed) for seed in range(5)]
    common = dict(replicas=5, chunk=2, segment=2)
    whole = sample(jax.random.key(1), todo, starts, **common)

    class Killed(BaseException):  # as a signal, not an error that would tell the others
        pass

    def kill(progress):
        if progress["done"] > 4:  # in the second group of process 0, which has one replica
            raise Killed

    for count in (1, 3):
        folder = tmp_path / str(count)
        with pytest.raises(Killed):
            sample(jax.random.key(1), todo, starts, checkpoint=folder, place=(0, 2), report=kill, **common)
        with pytest.raises(Killed):
            sample(jax.random.key(1), todo, starts, checkpoint=folder, place=(1, 2), report=lambda progress: kill(dict(done=5)), **common)
        with ThreadPoolExecutor(count) as pool:
            options = dict(checkpoint=folder, resume=True, **common)
            parts = [pool.submit(sample, jax.random.key(1), todo, starts, place=(rank, count), **options) for rank in range(count)]
            for part in parts:
                for a, b in zip(part.result(timeout=200).structures, whole.structures, strict=True):
                    np.testing.assert_array_equal(a.positions, b.positions)


def test_a_process_that_gives_up_ends_the_others(tmp_path):
    """A replica of process 1 diverges with throw=True: process 0 stops with its reason. A failure that was forgotten is none."""
    from concurrent.futures import ThreadPoolExecutor

    import jax

    from glassjax.ensemble import sample
    from glassjax.protocols import protocol, stages

    todo = stages(tiny_prior(), (), elements=("Si",), protocol=protocol("default", steps=4, corrections=0), minimum_distance={("Si", "Si"): 1.5})
    good = packing(0)
    bad = dataclasses.replace(good, positions=good.positions.at[0, 0].set(np.nan))
    options = dict(replicas=2, chunk=1, segment=2, checkpoint=tmp_path / "folder", throw=True)
    with ThreadPoolExecutor(2) as pool:
        parts = [pool.submit(sample, jax.random.key(1), todo, [good, bad], place=(rank, 2), **options) for rank in range(2)]
        for part, reason in zip(parts, ("another process gave up: replica 1 diverged", "^replica 1 diverged"), strict=True):
            with pytest.raises(RuntimeError, match=reason):
                part.result(timeout=200)
    good_now = dict(options, throw=False, resume=True)
    Checkpoint.forget_failures(tmp_path / "folder")  # as `invert` does before any process begins again
    with ThreadPoolExecutor(2) as pool:
        parts = [pool.submit(sample, jax.random.key(1), todo, [good, bad], place=(rank, 2), **good_now) for rank in (1, 0)]
        assert [part.result(timeout=200).status for part in parts] == [["ok", "diverged"]] * 2


def test_failures_are_of_one_run(tmp_path):
    """Another run's is not heard; `forget_failures` removes all, and a process that begins again its own."""
    Checkpoint(tmp_path, "mark", (1, 2)).save_failure("disk full")
    assert Checkpoint(tmp_path, "mark", (0, 2)).failure() == "disk full"
    assert Checkpoint(tmp_path, "other", (0, 2)).failure() is None
    assert Checkpoint(tmp_path, "mark", (1, 2)).failure() is None
    Checkpoint(tmp_path, "mark", (1, 2)).save_failure("disk full")
    Checkpoint.forget_failures(tmp_path)
    assert Checkpoint(tmp_path, "mark", (0, 2)).failure() is None


def test_terminated_as_by_a_queue(tmp_path):
    """SIGTERM is Ctrl-C: exit status 130, a folder that --resume continues."""
    prior = write_prior(tmp_path / "prior.npz")
    words = ["-m", "glassjax", "generate", "--composition", "Si", "--atoms", str(ATOMS), "--density", str(DENSITY), "--prior", str(prior)]
    words += ["--replicas", "2", "--chunk", "1", "--steps", "2000", "--minimum-distance", "1.5", "--out", str(tmp_path / "out")]
    one = subprocess.Popen([sys.executable, *words], cwd=HERE.parent, env=os.environ | dict(JAX_PLATFORMS="cpu"), stderr=subprocess.PIPE, text=True)
    position = tmp_path / "out" / "checkpoint" / "position_0.npz"
    for _ in range(1200):
        if position.exists() or one.poll() is not None:
            break
        time.sleep(0.1)
    one.terminate()
    _, text = one.communicate(timeout=60)
    assert one.returncode == 130, text
    assert "--resume" in text and position.exists()


def wait_for_writes(process, folder, count: int) -> None:
    """Return after ``count`` changes of the files in a folder, or at the end of the process."""
    seen, changes = {}, 0
    while changes < count and process.poll() is None:
        now = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.npz")} if folder.exists() else {}
        changes, seen = changes + (now != seen), now
        time.sleep(0.002)


def test_killed_and_resumed_again_and_again(tmp_path):
    """kill -9 after the first, second, ... writes of the checkpoint, in the first replicas and in later ones: the bytes of an uninterrupted run."""
    prior = write_prior(tmp_path / "prior.npz")
    words = ["-m", "glassjax", "generate", "--composition", "Si", "--atoms", str(ATOMS), "--density", str(DENSITY), "--prior", str(prior)]
    words += ["--replicas", "4", "--chunk", "2", "--steps", "240", "--minimum-distance", "1.5", "--out"]
    alone = python(*words, str(tmp_path / "alone"))
    text, kills, resume = alone.communicate(), 0, []
    assert alone.returncode == 0, text
    for writes in (1, 2, 3, 4):
        command = [sys.executable, *words, str(tmp_path / "out"), *resume]
        one = subprocess.Popen(command, cwd=HERE.parent, env=os.environ | dict(JAX_PLATFORMS="cpu"), stdout=subprocess.DEVNULL)
        wait_for_writes(one, tmp_path / "out" / "checkpoint", writes + bool(resume))
        kills += one.poll() is None
        one.kill()
        one.wait(timeout=60)
        resume = ["--resume"]
    last = python(*words, str(tmp_path / "out"), *resume)
    text = last.communicate()
    assert last.returncode == 0, text
    assert kills >= 2
    assert (tmp_path / "out" / "ensemble.extxyz").read_bytes() == (tmp_path / "alone" / "ensemble.extxyz").read_bytes()
