"""Amorphous structures from scattering data: a score-based prior steered by differentiable spectra, in JAX.

Names are loaded when they are first used, so ``import glassjax`` is cheap. ``glassjax.structure``, ``glassjax.noise`` and the like are the modules.
"""

from importlib import import_module as _import_module

__version__ = "0.1.0"

_NAMES = {
    "structure": "Structure number_density random_packing stack unstack wrap",
    "neighbors": "Graph NeighborSpec neighbor_spec",
    "elements": "check_density mass_density number_density_from_mass parse_composition",
    "observables": "PairObservable pair_distribution structure_factor",
    "observables.angle": "AngleDistribution angle_distribution",
    "observables.coordination": "coordination_distribution coordination_number",
    "observables.exafs": "exafs",
    "observables.multiple_scattering": "MultipleScattering multiple_scattering",
    "absorption": "fourier_operator wavenumber",
    "absorption_targets": "absorption_target",
    "scattering_tables": "ScatteringTable align_edge find_table shipped_tables",
    "tabulation": "tabulate",
    "feff": "LabelSettings find_feff",
    "labelling": "label load_labels save_labels",
    "surrogates.surrogate": "Surrogate load_surrogate shipped_surrogates",
    "surrogates.observable": "spectrum",
    "surrogates.training": "train_surrogate",
    "conversions": "closest_approach convert mean_square_of",
    "fourier": "termination_window to_real_space to_reciprocal",
    "artefacts": "estimate_noise find_artefacts",
    "nuisance": "Density Nuisance",
    "targets": "Target chi_squared r_factor residual target",
    "io": "Measured check_function from_atoms read_measured read_structures to_atoms",
    "io.absorption": "Absorption read_absorption to_chi to_normalised",
    "io.identify": "Identification identify",
    "io.writers": "write_columns write_structures",
    "priors.prior": "Prior load_prior save_prior shipped_priors",
    "priors.training": "TrainingOptions train",
    "contacts": "keep_apart",
    "guidance": "posterior",
    "restraints": "coordination_restraint distance_window",
    "samplers": "breathe predictor_corrector probability_flow reverse_sde veto",
    "replica": "Ensemble Stage run",
    "ensemble": "sample",
    "protocols": "Protocol minimum_distances protocol stages",
    "inversion": "Inversion generate invert",
    "settings": "read_run",
    "measurements": "read_target",
    "analysis": "compare diamond_fraction bond_angles coordination_fractions coordination_numbers dihedral_angles matching_fraction "
    "partial_coordination ring_counts shortest_distance steinhardt voronoi_indices warren_cowley",
}
_WHERE = {name: module for module, names in _NAMES.items() for name in names.split()}
_MODULES = {name.split(".")[0] for name in _NAMES} | {"noise", "nuisance", "report", "melt_quench", "cli"}

__all__ = ["__version__", *sorted(_WHERE)]


def __getattr__(name: str):
    if name in _WHERE:
        value = getattr(_import_module(f"glassjax.{_WHERE[name]}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return _import_module(f"glassjax.{name}")
    raise AttributeError(f"module 'glassjax' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_WHERE, *_MODULES})
