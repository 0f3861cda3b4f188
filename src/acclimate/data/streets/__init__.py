"""The built-in benchmark: two procedurally drawn street domains, the same everywhere and ready in seconds.

*Source* looks rendered: sunny, clean, saturated, through a perfect lens. *Target* looks photographed:
weathered materials, overcast, dusk, fog and rain, a shaky camera with noise, blur and JPEG. Shapes and
meanings are shared, so that what is lost between them can be won back without labels.

A picture walks through the files in this order: `domains` draws a `style` (with `weather`); `scene` makes a
`plan` of a `street` from `lots`, `kerbs` and `traffic`, and paints it onto a `canvas` through a `camera`, each
kind of thing in its own file; `look` turns the canvas into a photograph; `folders` writes files.
"""

from acclimate.data.streets.classes import Class
from acclimate.data.streets.domains import SIZE, Domain, render
from acclimate.data.streets.folders import write

__all__ = ["SIZE", "Class", "Domain", "render", "write"]
