"""Choosing networks without labels: among a stage's candidates, and among the stages."""

from acclimate.selection.agreement import Steadiness, agreement, look, steadiest, steadiness
from acclimate.selection.candidates import Chooser, copy
from acclimate.selection.consensus import Estimate, judge

__all__ = ["Chooser", "Estimate", "Steadiness", "agreement", "copy", "judge", "look", "steadiest", "steadiness"]
