"""The command line: ``glassjax demo | invert | generate | train | melt-quench | spectra``. Heavy imports happen inside `commands`."""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status. Wrong input prints one line ``glassjax: error: ...`` and gives 2."""
    options = _parser().parse_args(argv)
    _compilation_cache()
    from glassjax import commands

    try:
        return getattr(commands, options.run)(options) or 0
    except (ValueError, OSError, ImportError) as error:
        message = " ".join(str(error).split())
        print(f"glassjax: error: {message}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if type(error) is not RuntimeError:
            raise
        print(f"glassjax: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nglassjax: interrupted; repeat the command with --resume to continue", file=sys.stderr)
        return 130


def _compilation_cache() -> None:
    """Keep compiled programs in ~/.cache/glassjax, unless JAX_COMPILATION_CACHE_DIR says otherwise or JAX is already in use.

    A folder per kind of processor, because XLA does not tell them apart in its keys. Loading prints false alarms about "prefer-no-gather", a
    preference and no processor feature; they are silenced with the rest of XLA's log, unless TF_CPP_MIN_LOG_LEVEL is set.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or "jax" in sys.modules:
        return
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(base) / "glassjax" / _processor())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _processor() -> str:
    """A short name for this kind of processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        features = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:12]}"


class _Version(argparse.Action):
    """Print the version without importing anything heavy."""

    def __call__(self, parser, namespace, values, option_string=None):
        from glassjax import __version__

        print(f"glassjax {__version__}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="glassjax", description="Amorphous structures from scattering data.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_demo, _invert, _generate, _train, _melt_quench, _spectra):
        add(commands)
    return parser


def _command(commands, name: str, text: str) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.set_defaults(run=name.replace("-", "_"))
    return made


def _demo(commands) -> None:
    demo = _command(commands, "demo", "invert the target that ships with the package: amorphous silicon, 216 atoms")
    demo.add_argument("--out", default="glassjax-demo", help="folder for the results")
    demo.add_argument("--replicas", type=int, default=4, help="independent structures")
    demo.add_argument("--seed", type=int, default=0, help="of starts and noise")
    demo.add_argument("--steps", type=int, help="denoising steps")
    demo.add_argument("--resume", action="store_true", help="continue an interrupted run")


def _sampling(command) -> None:
    """Options that invert and generate share; None means not given."""
    command.add_argument("--composition", metavar="FORMULA", help="such as Si, SiO2 or Cu50Zr50")
    command.add_argument("--atoms", type=int, help="atoms in the cell")
    command.add_argument("--density", type=float, metavar="G/CM3", help="mass density, g/cm3; or")
    command.add_argument("--number-density", type=float, metavar="N/A3", help="atoms per cubic angstrom")
    command.add_argument("--prior", metavar="NAME|FILE", help="a shipped prior, or a file from `glassjax train` (default: silicon)")
    command.add_argument("--init", metavar="FILE", help="starting structures (one for all replicas or one each) instead of random packings")
    command.add_argument("--replicas", type=int, help="independent structures (default: 8)")
    command.add_argument("--seed", type=int, help="of starts and noise (default: 0)")
    command.add_argument("--steps", type=int, help="denoising steps (default: the protocol's)")
    command.add_argument("--protocol", metavar="NAME", help="default or two-stage")
    command.add_argument("--minimum-distance", type=float, metavar="A", help="of any pair (default: 0.9 x the sum of covalent radii)")
    command.add_argument("--chunk", type=int, help="replicas at a time; less takes less memory (default: 4)")
    command.add_argument("--out", metavar="DIR", help="folder for the results")
    command.add_argument("--resume", action="store_true", default=None, help="continue the run in DIR")


def _invert(commands) -> None:
    invert = _command(commands, "invert", "structures that give a measured curve")
    invert.formatter_class = argparse.HelpFormatter
    invert.add_argument("target", metavar="TARGET|RUN.TOML", help="text file of columns x, y[, uncertainty]; or a run file for several targets")
    invert.add_argument("--function", choices=("g", "G", "S"), help="g: g(r) -> 1; G: 4 pi rho0 r (g - 1), 1/A^2; S: Faber-Ziman S(Q) -> 1")
    invert.add_argument("--weights", choices=("number", "neutron", "xray", "Z"), help="of the pairs; may be left out for one element")
    invert.add_argument("--uncertainty", type=float, metavar="X", help="of every point (default: the third column, or 0.02)")
    invert.add_argument("--rmin", type=float, metavar="A", help="lower end of the fitted range of g or G")
    invert.add_argument("--rmax", type=float, metavar="A", help="upper end of it; with S, the farthest pair that counts (default: 10)")
    invert.add_argument("--qmin", type=float, metavar="1/A", help="lower end of the fitted range of S")
    invert.add_argument("--qmax", type=float, metavar="1/A", help="upper end of it")
    invert.add_argument("--width", type=float, metavar="A", help="Gaussian broadening of g or G (default: 0.15)")
    invert.add_argument("--window", choices=("cosine", "lorch", "none"), help="real-space window of S (default: cosine)")
    invert.add_argument("--partial", metavar="A-B", help="the data are one partial")
    invert.add_argument("--columns", metavar="X,Y[,U]", type=_columns, help="which columns of the file, from 0")
    invert.add_argument("--repeated", choices=("refuse", "mean"), help="points that share one x: refuse, or average")
    _sampling(invert)
    invert.add_argument("--method", choices=("pseudo-inverse", "gradient"), help="of guidance")
    invert.add_argument("--strength", type=float, help="of guidance; 1 (default) is as strong as the data say")


def _columns(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}; needs numbers such as 0,1 or 0,1,2") from None


def _generate(commands) -> None:
    generate = _command(commands, "generate", "structures from the prior alone")
    generate.formatter_class = argparse.HelpFormatter
    _sampling(generate)


def _train(commands) -> None:
    train = _command(commands, "train", "train a prior on structures; writes PRIOR, its learning curve (.csv, .png) and a state to resume from")
    train.add_argument("structures", nargs="+", metavar="STRUCTURES", help="structure files, every frame of them")
    train.add_argument("--out", required=True, metavar="PRIOR", help="file, ending in .npz")
    train.add_argument("--minutes", type=float, default=30.0, help="wall time, all sessions together")
    train.add_argument("--steps", type=int, help="stop after so many steps")
    train.add_argument("--batch", type=int, default=4, help="cells per step")
    train.add_argument("--seed", type=int, default=0, help="of initialisation and noise")
    train.add_argument("--network", choices=("equivariant", "meshgraphnet"), default="equivariant", help="kind of network")
    train.add_argument("--elements", nargs="+", metavar="E", help="elements that the prior knows (default: those of the structures)")
    train.add_argument("--resume", action="store_true", help="continue this training")


def _melt_quench(commands) -> None:
    melt = _command(commands, "melt-quench", "make training cells by molecular dynamics (needs the extra [md])")
    melt.add_argument("composition", metavar="FORMULA", help="such as Si")
    melt.add_argument("--density", type=float, required=True, metavar="G/CM3", help="mass density")
    melt.add_argument("--replicas", type=int, default=1, help="independent cells")
    melt.add_argument("--atoms", type=int, default=216, help="atoms per cell")
    melt.add_argument("--rate", type=float, metavar="K/PS", help="cooling rate (through the glass transition, or all the way with --published)")
    melt.add_argument("--published", action="store_true", help="GLASS's schedule: 50 ps at 5000 K, then 300 K at 100 K/ps")
    melt.add_argument("--snapshots", type=int, default=1, help="frames per cell")
    melt.add_argument("--seed", type=int, default=0, help="of the first cell")
    melt.add_argument("--out", required=True, metavar="FILE", help="extended XYZ; a repeated command keeps what it holds and goes on")


def _spectra(commands) -> None:
    spectra = _command(commands, "spectra", "curves of structures: columns x, mean and one per frame, and a picture beside the CSV")
    spectra.add_argument("structures", nargs="+", metavar="STRUCTURES", help="structure files, every frame of them")
    spectra.add_argument("--function", choices=("g", "G", "S"), required=True, help="what to compute")
    spectra.add_argument("--weights", choices=("number", "neutron", "xray", "Z"), help="of the pairs; may be left out for one element")
    spectra.add_argument("--rmin", type=float, default=0.08, metavar="A", help="first r of g or G")
    spectra.add_argument("--rmax", type=float, metavar="A", help="last r of g or G (default: 8); of S, the farthest pair (default: 10)")
    spectra.add_argument("--qmin", type=float, default=0.5, metavar="1/A", help="first Q of S")
    spectra.add_argument("--qmax", type=float, default=20.0, metavar="1/A", help="last Q of S")
    spectra.add_argument("--points", type=int, help="number of points (default: 100 for g and G, 391 for S)")
    spectra.add_argument("--width", type=float, default=0.15, metavar="A", help="Gaussian broadening of g and G")
    spectra.add_argument("--window", choices=("cosine", "lorch", "none"), default="cosine", help="real-space window of S")
    spectra.add_argument("--partial", metavar="A-B", help="one partial instead of the total")
    spectra.add_argument("--out", required=True, metavar="CSV", help="file to write")
