"""Choosing networks without labels: among a stage's candidates, and among the stages."""

from acclimate.selection.agreement import agreement, look, steadiest
from acclimate.selection.candidates import Chooser, copy
from acclimate.selection.consensus import Estimate, choose, judge

__all__ = ["Chooser", "Estimate", "agreement", "choose", "copy", "judge", "look", "steadiest"]
