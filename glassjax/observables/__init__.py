"""Differentiable spectra of periodic structures."""

from glassjax.observables.histogram import pair_histogram as pair_histogram
from glassjax.observables.pair import PairObservable as PairObservable
from glassjax.observables.real_space import pair_distribution as pair_distribution
from glassjax.observables.reciprocal import structure_factor as structure_factor
from glassjax.observables.reciprocal import windowed_data as windowed_data
