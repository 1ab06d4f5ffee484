"""The command line: demo, identify, invert, generate, train, melt-quench, label, exafs-table, train-surrogate, spectra, compare, convert.

Heavy imports happen inside the modules that run the commands.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import platform
import signal
import sys
import threading
from pathlib import Path

from glassjax.arguments import Mapping, add_absorption, add_exafs_table, add_label, columns, command, interval, isotope, number_or_word

# repeated here from observables and targets, because --help must not load JAX; a test compares them
WEIGHTS = ("number", "neutron", "xray", "Z")
WINDOWS = ("cosine", "lorch", "none")
TERMINATIONS = ("sharp", "lorch", "soper-barney")
TARGETS = ("g", "G", "G_keen", "D", "T", "RDF", "S", "F_keen", "Q(S-1)", "I", "ADF", "coordination distribution")
COMPUTED = (*TARGETS, "S_AL", "S_NN", "S_NC", "S_CC")
ABSORPTION = ("chi(k)", "chi(R)", "mu(E)")
ABSORPTION_WINDOWS = ("hanning", "kaiser", "parzen", "welch", "gaussian", "sine")
# where the function that runs a command lies, if not in `commands`
PLACES = {"identify": "inspection", "spectra": "inspection", "convert": "inspection", "label": "label_command", "exafs_table": "tabulation"}
PLACES |= {"train_surrogate": "surrogates.command", "compare": "comparison_command"}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status. Wrong input prints one line ``glassjax: error: ...`` and gives 2."""
    options = _parser().parse_args(argv)
    _compilation_cache()
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _interrupted)  # of a queue that ends the job: as Ctrl-C
    module = importlib.import_module(f"glassjax.{PLACES.get(options.run, 'commands')}")
    try:
        return getattr(module, options.run)(options) or 0
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
        how = "repeat the command with --resume" if hasattr(options, "resume") else "repeat the command"
        print(f"\nglassjax: interrupted; {how} to continue", file=sys.stderr)
        return 130


def _interrupted(*_):
    raise KeyboardInterrupt


def _compilation_cache() -> None:
    """Keep compiled programs in ~/.cache/glassjax, unless JAX_COMPILATION_CACHE_DIR says otherwise or JAX is already in use.

    A folder per kind of processor, because XLA does not tell them apart in its keys. Loading prints false alarms about "prefer-no-gather", a
    preference and no processor feature; they are silenced with the rest of XLA's log, unless TF_CPP_MIN_LOG_LEVEL is set.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or "jax" in sys.modules:
        return
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(base) / "glassjax" / processor())
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def processor() -> str:
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
    first = (_demo, _identify, _invert, _generate, _train, _melt_quench, add_label, add_exafs_table, _train_surrogate)
    for add in (*first, _spectra, _compare, _convert):
        add(commands)
    return parser


def _demo(commands) -> None:
    demo = command(commands, "demo", "invert the target that ships with the package: amorphous silicon, 216 atoms")
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
    command.add_argument(
        "--chunk", type=int, help="replicas per device at a time (default: the number of cores and at least 4; on GPUs as many as fit)"
    )
    command.add_argument("--out", metavar="DIR", help="folder for the results")
    command.add_argument("--resume", action="store_true", default=None, help="continue the run in DIR")
    _together(command, "replicas")


def _together(command, what: str) -> None:
    """Options to run as one of several processes."""
    command.add_argument("--distributed", action="store_true", help=f"share the {what} with the other processes of this Slurm or Open MPI job")
    command.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0, to do so without a launcher; with --processes and --process")
    command.add_argument("--processes", type=int, metavar="N", help="how many there are")
    command.add_argument("--process", type=int, metavar="I", help="which of them this is, from 0")


def _invert(commands) -> None:
    invert = command(commands, "invert", "structures that give a measured curve")
    invert.formatter_class = argparse.HelpFormatter
    invert.add_argument("target", metavar="TARGET|RUN.TOML", help="text file of columns x, y[, uncertainty]; or a run file for several targets")
    invert.add_argument("--function", choices=(*TARGETS, *ABSORPTION), help="what the file holds (default: identified from the file); see the README")
    invert.add_argument("--weights", choices=WEIGHTS, help="of the pairs; may be left out for one element, or where the header says the radiation")
    invert.add_argument(
        "--uncertainty", type=number_or_word, metavar="X|noise", help="of every point (default: the file's column, or 0.02 of g or S)"
    )
    invert.add_argument("--rmin", type=float, metavar="A", help="lower end of the fitted range in r")
    invert.add_argument("--rmax", type=float, metavar="A", help="upper end of it; of functions of Q, the farthest pair that counts (default: 10)")
    invert.add_argument("--qmin", type=float, metavar="1/A", help="lower end of the fitted range in Q; of functions of r, of the measurement")
    invert.add_argument("--qmax", type=float, metavar="1/A", help="upper end of it; of functions of r, of the measurement (default: the header's)")
    invert.add_argument("--mask", type=interval, action="append", metavar="LOW,HIGH", help="leave this interval out; may be repeated")
    invert.add_argument("--artefacts", choices=("report", "mask"), help="ripples at small r and spikes: report them (default) or leave them out")
    invert.add_argument("--width", type=float, metavar="A", help="Gaussian broadening in r (default: 0.15, or what qmax resolves)")
    invert.add_argument("--window", choices=(*WINDOWS, *ABSORPTION_WINDOWS), help="of functions of Q, in r (default: cosine); of EXAFS, in k")
    invert.add_argument("--termination", choices=TERMINATIONS, help="of functions of r: model it, instead of letting the width stand for it")
    invert.add_argument("--qdamp", type=number_or_word, metavar="X|infer", help="1/A (default: the header's)")
    invert.add_argument("--qbroad", type=float, metavar="1/A", help="(default: the header's)")
    invert.add_argument("--displacement", type=number_or_word, metavar="X|infer", help="isotropic B of a function of Q, A^2")
    invert.add_argument("--scale", type=number_or_word, metavar="X|infer", help="of the data (default: 1)")
    invert.add_argument("--background", type=int, metavar="ORDER", help="infer a polynomial background; 0 is a constant")
    invert.add_argument("--partial", metavar="A-B", help="the data are one partial")
    invert.add_argument("--cutoff", type=float, metavar="A", help="bond cutoff of an ADF or a coordination distribution")
    invert.add_argument("--triplet", metavar="A-B-C", help="of an ADF, centre in the middle (default: all)")
    invert.add_argument("--isotopes", nargs="+", type=isotope, action=Mapping, metavar="EL=...", help="such as Ni=62Ni or H=0.36H+0.64D")
    invert.add_argument("--axis", choices=("Q", "2theta"), help="what the first column is, where the file does not say")
    invert.add_argument("--wavelength", type=float, metavar="A", help="turns 2theta into Q")
    invert.add_argument("--edges", choices=("centre", "left"), help="left: x holds left bin edges (Gudrun's are known)")
    invert.add_argument("--switch", type=float, metavar="A", help="over which a bond of an ADF or a coordination distribution fades at its cutoff")
    invert.add_argument("--columns", metavar="X,Y[,U]", type=columns, help="which columns of the file, from 0")
    invert.add_argument("--repeated", choices=("refuse", "mean"), help="points that share one x: refuse, or average")
    add_absorption(invert)
    invert.add_argument("--infer-density", action="store_true", default=None, help="the density is a start; the cell is scaled to what the data say")
    _sampling(invert)
    invert.add_argument("--method", choices=("pseudo-inverse", "gradient"), help="of guidance")
    invert.add_argument("--strength", type=float, help="of guidance; 1 (default) is as strong as the data say")


def _generate(commands) -> None:
    generate = command(commands, "generate", "structures from the prior alone")
    generate.formatter_class = argparse.HelpFormatter
    _sampling(generate)


def _train(commands) -> None:
    train = command(commands, "train", "train a prior on structures; writes PRIOR, its learning curve (.csv, .png) and a state to resume from")
    train.add_argument("structures", nargs="+", metavar="STRUCTURES", help="structure files, every frame of them")
    train.add_argument("--out", required=True, metavar="PRIOR", help="file, ending in .npz")
    train.add_argument("--minutes", type=float, default=30.0, help="wall time, all sessions together")
    train.add_argument("--steps", type=int, help="stop after so many steps")
    train.add_argument("--batch", type=int, default=4, help="cells per step")
    train.add_argument("--seed", type=int, default=0, help="of initialisation and noise")
    train.add_argument("--strain", type=float, default=0.0, help="scale cells at random by up to this share, such as 0.03")
    train.add_argument("--learning-rate", type=float, default=2e-3, metavar="RATE", help="peak; take less where the loss became infinite")
    train.add_argument("--floor", type=float, default=0.1, metavar="A", help="noise below this counts more in the loss; 0: all levels alike")
    train.add_argument("--sigma-min", type=float, default=0.03, metavar="A", help="smallest noise level")
    train.add_argument("--sigma-max", type=float, default=1.6, metavar="A", help="largest noise level; sampling begins at 1.6")
    train.add_argument("--network", choices=("equivariant", "meshgraphnet"), default="equivariant", help="kind of network")
    train.add_argument("--cutoff", type=float, metavar="A", help="of the network's graph (its own default: 5); dense materials train faster at 4")
    train.add_argument("--elements", nargs="+", metavar="E", help="elements that the prior knows (default: those of the structures)")
    train.add_argument("--validation", nargs="+", metavar="STRUCTURES", help="cells to evaluate the finished prior on: is it learning by heart?")
    train.add_argument("--start", metavar="NAME|FILE", help="a prior of other or of the same elements to begin from: saves steps")
    train.add_argument("--resume", action="store_true", help="continue this training")
    _together(train, "batches")


def _melt_quench(commands) -> None:
    melt = command(commands, "melt-quench", "make training cells by molecular dynamics (needs the extra [md])")
    melt.add_argument("composition", metavar="FORMULA", help="such as Si, SiO2, Cu50Zr50 or ZrNiAl")
    melt.add_argument("--density", type=float, required=True, metavar="G/CM3", help="mass density")
    melt.add_argument("--replicas", type=int, default=1, help="independent cells")
    melt.add_argument("--atoms", type=int, default=216, help="atoms per cell")
    melt.add_argument("--rate", type=float, metavar="K/PS", help="cooling rate (through the glass transition, or all the way with --published)")
    melt.add_argument("--published", action="store_true", help="GLASS's schedule: 50 ps at 5000 K, then 300 K at 100 K/ps")
    melt.add_argument("--snapshots", type=int, default=1, help="frames per cell")
    melt.add_argument("--seed", type=int, default=0, help="of the first cell")
    melt.add_argument("--out", required=True, metavar="FILE", help="extended XYZ; a repeated command keeps what it holds and goes on")


def _train_surrogate(commands) -> None:
    from glassjax.surrogates.command import add_arguments

    add_arguments(command(commands, "train-surrogate", "train a network that predicts site-resolved absorption spectra from structures"))


def _spectra(commands) -> None:
    spectra = command(commands, "spectra", "curves of structures: columns x, mean and one per frame, and a picture beside the CSV")
    spectra.add_argument("structures", nargs="+", metavar="STRUCTURES", help="structure files, every frame of them")
    spectra.add_argument(
        "--function", nargs="+", choices=(*COMPUTED, *ABSORPTION), required=True, help="what to compute; several share one pair pass"
    )
    spectra.add_argument("--weights", choices=WEIGHTS, help="of the pairs; may be left out for one element")
    spectra.add_argument("--rmin", type=float, default=0.08, metavar="A", help="first r")
    spectra.add_argument("--rmax", type=float, metavar="A", help="last r (default: 8); of functions of Q, the farthest pair (default: 10)")
    spectra.add_argument("--qmin", type=float, default=0.5, metavar="1/A", help="first Q")
    spectra.add_argument("--qmax", type=float, metavar="1/A", help="last Q (default: 20); of functions of r, where they are terminated")
    spectra.add_argument("--points", type=int, help="number of points (default: 100 in r, 391 in Q, 181 angles)")
    spectra.add_argument("--width", type=float, metavar="A", help="Gaussian broadening in r (default: 0.15, or 0.07 when terminated)")
    spectra.add_argument("--isotopes", nargs="+", type=isotope, metavar="EL=...", help="such as Ni=62Ni or H=0.36H+0.64D, with neutron weights")
    spectra.add_argument("--termination", choices=TERMINATIONS, help="of functions of r, at --qmax")
    spectra.add_argument("--qdamp", type=float, default=0.0, metavar="1/A", help="resolution in Q")
    spectra.add_argument("--qbroad", type=float, default=0.0, metavar="1/A", help="broadening with r")
    spectra.add_argument("--displacement", type=float, default=0.0, metavar="A2", help="isotropic B of functions of Q")
    spectra.add_argument("--window", choices=WINDOWS, default="cosine", help="real-space window of functions of Q")
    spectra.add_argument("--partial", nargs="+", metavar="A-B", help="these partials instead of the total")
    spectra.add_argument("--partials", action="store_true", help="every partial (and every triplet) instead of the total")
    spectra.add_argument("--cutoff", type=float, metavar="A", help="bond cutoff of angles and coordination (default: 1.285 x covalent radii)")
    spectra.add_argument("--triplet", nargs="+", metavar="A-B-C", help="of an ADF, centre in the middle (default: all angles)")
    spectra.add_argument("--edge", nargs="+", metavar="EL:EDGE", help="of chi(k) and chi(R), such as Cu:K Zr:K")
    spectra.add_argument("--kmin", type=float, default=3.0, metavar="1/A", help="first k, or where the window of chi(R) opens")
    spectra.add_argument("--kmax", type=float, default=12.0, metavar="1/A", help="last k, or where that window closes")
    spectra.add_argument("--kweight", type=float, default=2.0, metavar="W", help="power of k")
    spectra.add_argument("--multiple", action="store_true", help="add multiple scattering to chi(k)")
    spectra.add_argument("--scattering", metavar="FILE", help="scattering table (default: the shipped ones)")
    spectra.add_argument("--surrogate", metavar="NAME|FILE", help="of mu(E)")
    spectra.add_argument("--out", required=True, metavar="CSV", help="file to write; several functions add their names to it")


def _compare(commands) -> None:
    from glassjax.comparison_command import add_arguments

    compare = command(commands, "compare", "an ensemble against a reference: error, diversity and dED of every curve, and the local order of both")
    compare.formatter_class = argparse.HelpFormatter
    add_arguments(compare)


def _identify(commands) -> None:
    identify = command(commands, "identify", "say which function a measured file holds, in which unit and on which scale")
    identify.add_argument("file", metavar="FILE", help="text file of columns, any layout")
    identify.add_argument("--composition", metavar="FORMULA", help="such as SiO2: checks the scale")
    identify.add_argument("--number-density", type=float, metavar="N/A3", help="atoms per cubic angstrom: checks the scale")
    identify.add_argument("--columns", metavar="X,Y[,U]", type=columns, help="which columns of the file, from 0")


def _convert(commands) -> None:
    convert = command(commands, "convert", "structures from one format to another: extxyz, CIF, LAMMPS data, rmc6f")
    convert.add_argument("structures", nargs="+", metavar="STRUCTURES", help="structure files, every frame of them")
    convert.add_argument("--out", required=True, metavar="FILE", help="its ending chooses the format: .extxyz, .cif, .data, .rmc6f")
