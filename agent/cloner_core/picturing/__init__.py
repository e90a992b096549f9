"""Pictures of layouts: bars of what lies on what, as characters and as SVG. The same layout, the same bytes."""

from cloner_core.picturing.bars import Picture, draw
from cloner_core.picturing.svg import as_svg
from cloner_core.picturing.terminal import as_text

__all__ = ["Picture", "as_svg", "as_text", "draw"]
