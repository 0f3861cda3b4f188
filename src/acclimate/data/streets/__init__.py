"""The built-in benchmark: two procedurally drawn street domains, the same everywhere and ready in seconds.

*Source* looks rendered: sunny, clean, saturated, through a perfect lens. *Target* looks photographed:
weathered materials, overcast, dusk, fog and rain, a shaky camera with noise, blur and JPEG. Shapes and
meanings are shared, so that what is lost between them can be won back without labels.

A picture walks through the files in this order: `style` (what a domain looks like), `scene` (where things
stand), `canvas` with `ground`, `buildings`, `plants`, `vehicles`, `people` and `furniture` (what they look
like), `look` (light, air and lens), `folders` (files).
"""

from acclimate.data.streets.classes import Class
from acclimate.data.streets.domains import SIZE, Domain, render
from acclimate.data.streets.folders import write

__all__ = ["SIZE", "Class", "Domain", "render", "write"]
