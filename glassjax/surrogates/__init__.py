"""Learned spectra: site-resolved X-ray absorption of a structure by small networks, with a measure of where they may be trusted."""
