"""Parts of the command line: kinds of arguments, and the options that concern X-ray absorption."""

from __future__ import annotations

import argparse
import re


def command(commands, name: str, text: str) -> argparse.ArgumentParser:
    """A new command of this name among ``commands``."""
    made = commands.add_parser(name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.set_defaults(run=name.replace("-", "_"))
    return made


def number_or_word(text: str) -> float | str:
    """A number, or the text as it is, such as "infer"."""
    try:
        return float(text)
    except ValueError:
        return text


class Mapping(argparse.Action):
    """Pairs as a dict."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, dict(values))


def isotope(text: str) -> tuple[str, object]:
    """ "Ni=62Ni" or "H=0.36H+0.64D" as (element, isotope or mixture)."""
    element, _, rest = text.partition("=")
    found = [re.fullmatch(r"(\d*\.\d+|\d+(?=[HDT]$))?(\d*[A-Z][a-z]?)", part.strip()) for part in rest.split("+")]
    if not element or not all(found):
        raise argparse.ArgumentTypeError(f"got {text!r}; needs an element and its isotopes, such as Ni=62Ni or H=0.36H+0.64D")
    if len(found) == 1 and found[0][1] is None:
        return element, found[0][2]
    return element, {m[2]: 1.0 if m[1] is None else float(m[1]) for m in found}


def interval(text: str) -> list[float]:
    """ "0,1.2" as two numbers."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}; needs two numbers such as 0,1.2") from None
    return [low, high]


def columns(text: str) -> list[int]:
    """ "0,1,2" as numbers of columns."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}; needs numbers such as 0,1 or 0,1,2") from None


def add_absorption(invert) -> None:
    """Options of X-ray absorption targets."""
    invert.add_argument("--edge", metavar="EL:EDGE", help="of an absorption curve, such as Si:K (default: the file's)")
    texts = dict(kmin="1/A: first k, or where the window opens", kmax="1/A: last k", kweight="power of k", dk="1/A: sill of the window")
    for name, text in texts.items():
        invert.add_argument(f"--{name}", type=float, metavar="X", help=f"{text} (default: the file's)")
    invert.add_argument("--e0", type=float, metavar="EV", help="edge energy of the data (default: the file's)")
    invert.add_argument("--rbkg", type=float, metavar="A", help="of the background removal from mu(E) (default: the file's, or 1)")
    invert.add_argument("--s02", type=number_or_word, metavar="X|infer", help="S0^2, or the edge step of mu(E) (default: 1)")
    invert.add_argument("--e0-shift", type=number_or_word, metavar="EV|infer", help="E0 of the model minus E0 of the data (default: 0)")
    invert.add_argument("--mean-square", type=number_or_word, metavar="A2|infer", help="thermal sigma^2 of chi(k) (default: 0)")
    invert.add_argument("--multiple", action="store_true", default=None, help="add multiple scattering to chi(k)")
    invert.add_argument("--scattering", metavar="FILE", help="scattering tables from `glassjax exafs-table` (default: the shipped ones)")
    invert.add_argument("--surrogate", metavar="NAME|FILE", help="of mu(E): a shipped surrogate, or a file from `glassjax train-surrogate`")
    invert.add_argument("--group", metavar="LABEL", help="of an Athena project with several")
    invert.add_argument("--kpower", type=int, metavar="N", help="of a file of k^N chi(k) that does not say so")
    invert.add_argument("--energy-unit", choices=("eV", "keV"), help="of the file, where it is not said or wrong")


def add_label(commands) -> None:
    """The command label."""
    label = command(commands, "label", "spectra of every site of structures by FEFF; writes LABELS and their mean (.csv)")
    label.formatter_class = argparse.HelpFormatter
    label.add_argument("structures", nargs="+", metavar="STRUCTURES", help="structure files, every frame of them")
    label.add_argument("--edge", required=True, metavar="EL:EDGE", help="absorber and edge, such as Si:K")
    label.add_argument("--kind", choices=("exafs", "xanes"), default="exafs", help="xanes needs a FEFF of your own (default: exafs)")
    label.add_argument("--reach", type=float, metavar="A", help="half the longest path, or the radius of full multiple scattering (default: 6)")
    label.add_argument("--legs", type=int, help="of the longest path; 2 (default) is single scattering")
    label.add_argument("--cluster", type=float, metavar="A", help="radius of the atoms given to FEFF (default: reach + 1.5)")
    label.add_argument("--kmax", type=float, metavar="1/A", help="end of the curves (default: 20, or 8 of xanes)")
    label.add_argument("--scf", type=float, metavar="A", help="radius of the self-consistent potential of xanes (default: 5)")
    label.add_argument("--paths", action="store_true", help="keep the scattering paths of exafs")
    label.add_argument("--feff", metavar="PATH", help="a FEFF executable (default: GLASSJAX_FEFF, or the FEFF8L of the extra [xas])")
    label.add_argument("--workers", type=int, metavar="N", help="FEFFs at a time (default: one per processor)")
    label.add_argument("--cache", metavar="DIR", help="finished sites, from which a repeated command continues (default: ~/.cache/glassjax/feff)")
    label.add_argument("--out", metavar="LABELS", help="file, ending in .npz (default: EL_EDGE_KIND.npz); its mean goes beside it as .csv")


def add_exafs_table(commands) -> None:
    """The command exafs-table."""
    table = command(commands, "exafs-table", "scattering tables of a material from its structures, by FEFF8L (needs the extra [xas])")
    table.add_argument("structures", nargs="+", metavar="STRUCTURES", help="structure files, every frame of them")
    table.add_argument("--edge", nargs="+", required=True, metavar="EL:EDGE", help="absorbers and edges, such as Si:K O:K")
    table.add_argument("--sites", type=int, default=96, help="FEFF runs with single scattering per edge, spread over the structures")
    table.add_argument("--reach", type=float, default=6.0, metavar="A", help="half length of single paths")
    table.add_argument("--reach-multiple", type=float, default=5.0, metavar="A", help="half length of paths of three and four legs; 0 for none")
    table.add_argument("--strain", type=float, default=0.03, help="structures also enter scaled by this share, up and down")
    table.add_argument("--feff", metavar="PATH", help="a folder of FEFF8L's programs (default: that of the extra [xas])")
    table.add_argument("--workers", type=int, metavar="N", help="FEFFs at a time (default: one per processor)")
    table.add_argument("--out", default=".", metavar="DIR", help="folder for one file per edge")
