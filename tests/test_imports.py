"""Imports go only downward, and importing the package is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import glassjax

PACKAGE = Path(glassjax.__file__).parent

# A module may import modules on a lower line, and within its own package a sibling where INSIDE says so.
LAYERS = """
_pytree archive distributed memory pace compaction
structure
images
neighbors
elements
conversions artefacts absorption scattering_tables zhou
fourier
observables io lammps_engine
nuisance windowing feff scattering_fit melt_quench
labelling priors
surrogates
targets spectra
absorption_targets
inference noise samplers
guidance contacts
restraints replica checkpoint
segments
ensemble
protocols
analysis settings
absorption_measurements
measurements
preparation
plots
inversion
report
commands
inspection label_command tabulation comparison_command arguments
cli
__main__
""".split("\n")
RANK = {name: line for line, names in enumerate(LAYERS) for name in names.split()}
ALLOWED = {("inversion", "report")}  # inside a function only: Inversion.save and .plot


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:  # the package's own __init__ loads names lazily
            yield name, path


def imported(name, path):
    """(module, inside a function) of every import of this package, relative ones resolved."""
    here = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    tree = ast.parse(path.read_text())
    typing = {id(n) for i in ast.walk(tree) if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.unparse(i.test) for s in i.body for n in ast.walk(s)}
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) for n in ast.walk(f)}
    for node in (n for n in ast.walk(tree) if id(n) not in typing):
        found = []
        if isinstance(node, ast.Import):
            found = [a.name.split(".")[1:] for a in node.names if a.name.split(".")[0] == "glassjax"]
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").split(".") if node.module else []
            if node.level:
                base = here[: len(here) - node.level + 1] + base
            elif base[:1] == ["glassjax"]:
                base = base[1:]
            else:
                continue
            # "from glassjax import x" names a module; "from glassjax.a import b" may name one too
            found = [base + [a.name] if (PACKAGE.joinpath(*base, a.name + ".py")).exists() or not base else base for a in node.names]
        for target in found:
            if target and target[0] in RANK:
                yield ".".join(target), id(node) in inside


EDGES = [(name, target, inside) for name, path in modules() for target, inside in imported(name, path)]


def test_every_module_has_a_layer():
    unknown = {name.split(".")[0] for name, _ in modules()} - RANK.keys()
    assert not unknown, f"{unknown} has no line in LAYERS"
    assert len(EDGES) > 30  # the parser sees the imports


def test_imports_go_downward():
    wrong = []
    for name, target, inside in EDGES:
        top, below = name.split(".")[0], target.split(".")[0]
        if top == below or RANK[below] < RANK[top] or (inside and (top, below) in ALLOWED):
            continue
        wrong.append(f"{name} imports {target}")
    assert not wrong, wrong


def test_no_cycles_between_siblings():
    """Inside a package (observables, priors, io, analysis) the modules form no cycle either."""
    graph = {}
    for name, target, _ in EDGES:
        if name != target and "." in target:
            graph.setdefault(name, set()).add(target)

    def reach(start):
        seen, todo = set(), list(graph.get(start, ()))
        while todo:
            node = todo.pop()
            if node not in seen:
                seen.add(node)
                todo += graph.get(node, ())
        return seen

    assert not [name for name in graph if name in reach(name)]


def test_the_rule_catches_an_upward_import(tmp_path):
    path = tmp_path / "structure.py"
    path.write_text("def f():\n    from glassjax.ensemble import sample\nfrom . import cli\nimport glassjax.report\n")
    assert set(imported("structure", path)) == {("ensemble", True), ("cli", False), ("report", False)}


def test_only_neighbors_imports_jax_md():
    users = [name for name, path in modules() if any(word in path.read_text() for word in ("import jax_md", "from jax_md"))]
    assert users == ["neighbors"]


@pytest.mark.parametrize("heavy", [("jax_md", "ase", "matplotlib", "flax", "jraph", "optax", "scipy", "lammps")])
def test_import_is_cheap(heavy):
    code = f"import sys, glassjax; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_every_public_name_exists():
    for name in glassjax.__all__:
        assert getattr(glassjax, name) is not None, name
    with pytest.raises(AttributeError, match="nothing"):
        _ = glassjax.nothing
    assert set(glassjax.__all__) <= set(dir(glassjax))
