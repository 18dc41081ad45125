"""Probe datasets: images with a label map of concepts.

from milannotations import probes

probe = probes.open_probe("coco:path/to/coco")  # also broden:, segments:, images:DIR, mini
"""

from milannotations.probes.base import Concept, Probe, ProbeItems, open_probe, stack_planes

__all__ = ["Concept", "Probe", "ProbeItems", "open_probe", "stack_planes"]
