"""Every notebook runs from top to bottom (GLASSJAX_FAST=1: a few steps, two replicas) and is stored without outputs."""

import json
import os
from pathlib import Path

import pytest

import glassjax

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
PACKAGE = Path(glassjax.__file__).parent
NEEDED = tuple(
    PACKAGE / n for n in ("data/demo_target.dat", "priors/shipped/silicon.npz", "priors/shipped/carbon.npz", "surrogates/shipped/carbon-xanes.npz")
)


def carbon_below_zero() -> str:
    """What notebook 03 has to count in the table of the benchmark."""
    rows = json.loads((Path(__file__).parents[1] / "benchmarks" / "results" / "materials.json").read_text())["carbon"]["g"].values()
    values = [row["modalities"][name]["ded"] for row in rows for name in ("PDF", "XRD", "ND", "ADF", "EXAFS", "XANES")]
    return f"dED at or below 0 in {sum(value <= 0 for value in values)} of {len(values)} cells"


PRINTED = {
    "01_quickstart": "mean |g - data| per replica",
    "02_carbon_xanes": "mean |g - g of the data|",
    "03_compare_ensembles": carbon_below_zero(),
}

nbformat = pytest.importorskip("nbformat")


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_valid_and_stored_without_outputs(path):
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert notebook.nbformat == 4
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    missing = [str(file) for file in NEEDED if not file.is_file()]
    if missing:
        pytest.skip(f"the package lacks {', '.join(missing)}")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    # the kernel must find the glassjax under test, installed or not, and write nothing into the repository
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("GLASSJAX_REPOSITORY", str(Path(__file__).parents[1]))
    for name, value in dict(GLASSJAX_FAST="1", JAX_PLATFORMS="cpu", IPYTHONDIR=str(tmp_path), TMPDIR=str(tmp_path)).items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs)
    assert PRINTED[path.stem] in printed
    assert any("image/png" in output.get("data", {}) for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs)
