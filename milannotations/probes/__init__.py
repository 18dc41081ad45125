"""Probe data sets: pictures whose every pixel says which concepts it is of.

from milannotations import probes

probe = probes.open_probe("coco:path/to/coco")  # or broden:, segments:, images:DIR, mini
"""

from milannotations.probes.base import Concept, Probe, ProbeItems, open_probe, stack_planes

__all__ = ["Concept", "Probe", "ProbeItems", "open_probe", "stack_planes"]
