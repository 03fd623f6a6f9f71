"""A radiologist's MeSH codes, such as `Pleural Effusion/right/small`, and the five labels they give."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

PATHOLOGIES = ("atelectasis", "cardiomegaly", "consolidation", "edema", "pleural effusion")
HEADINGS = ("Pulmonary Atelectasis", "Cardiomegaly", "Consolidation", "Pulmonary Edema", "Pleural Effusion")
SEVERITIES = ("borderline", "small", "mild", "moderate", "large", "severe")
ZONES = ("retrocardiac", "apex", "upper lobe", "middle lobe", "lingula", "lower lobe", "base", "hilum", "diffuse")
DIFFUSE = {"diffuse", "scattered", "multilobar"}
SIDES = ("left", "right", "bilateral")
# How a finding looks, spreads or changed: with sides and severities, all qualifiers of IU-RR that name no place.
DESCRIPTORS = frozenset(
    "abnormal acute blunted bronchovascular chronic degenerative diffuse elevated enlarged flattened focal healed "
    "hyperdistention hypoinflation interstitial irregular multilobar multiple obscured patchy prominent reticular "
    "round scattered streaky tortuous".split()
)
NOT_CODED = "No Indexing"


@dataclass(frozen=True)
class MeshCode:
    """One code, taken apart: what (`heading`), which side, which zone of the lung, how severe ('' if not said)."""

    heading: str
    side: str  # "left", "right", "bilateral" or ""
    zone: str  # one of ZONES or ""
    severity: str  # one of SEVERITIES or ""
    qualifiers: frozenset[str]  # everything after the heading, as written
    location: tuple[str, ...]  # the places among them, in the order written: ("lung", "lower lobe")


def parse_mesh(code: str) -> MeshCode:
    """Take a code `heading/qualifier/…` apart (the coding of Demner-Fushman et al., JAMIA 2016)."""
    heading, *rest = (part.strip() for part in code.split("/"))
    qualifiers = frozenset(rest)
    left = bool(qualifiers & {"left", "lingula"})
    right = bool(qualifiers & {"right", "middle lobe"})
    side = (
        "bilateral" if "bilateral" in qualifiers or (left and right) else "left" if left else "right" if right else ""
    )
    zone = "diffuse" if qualifiers & DIFFUSE else next((zone for zone in ZONES if zone in qualifiers), "")
    severity = next((level for level in reversed(SEVERITIES) if level in qualifiers), "")
    location = tuple(part for part in rest if part and part not in {*SIDES, *SEVERITIES, *DESCRIPTORS})
    return MeshCode(heading, side, zone, severity, qualifiers, location)


def labels_from_mesh(codes: Iterable[str]) -> np.ndarray:
    """Five labels in the order of PATHOLOGIES, float32 [5]: 1 present, 0 absent, NaN where nobody coded the report.

    Whole headings count, not substrings: `Pericardial Effusion` is no pleural effusion.
    """
    headings = {parse_mesh(code).heading for code in codes}
    if NOT_CODED in headings or not headings:
        return np.full(len(HEADINGS), np.nan, dtype=np.float32)
    return np.array([heading in headings for heading in HEADINGS], dtype=np.float32)
