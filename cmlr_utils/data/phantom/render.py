"""A radiograph for a study, drawn from its MeSH codes: a teaching phantom, with a mask for every finding."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import CourseError
from ..mesh import HEADINGS, NOT_CODED, parse_mesh
from .anatomy import Body, build_body
from .canvas import blur
from .film import develop
from .findings import Findings, changes_to_anatomy, draw_findings

MIN_SIZE = 32
MASK_SMOOTHING = 0.012  # of the picture's side
VISIBLE = 0.06  # a finding's mask is where it takes at least this much attenuation's worth of air
POOR_FILM = "Technical Quality of Image Unsatisfactory"


@dataclass(frozen=True)
class Phantom:
    """One rendered study; S is the picture's side. The patient's left is on the picture's right."""

    pixels: np.ndarray  # uint8 [S, S], 0 black (air) to 255 white
    masks: np.ndarray  # bool [5, S, S], in the order of mesh.PATHOLOGIES; empty where the finding is not coded
    lungs: np.ndarray  # bool [S, S], the part behind heart and fluid included
    heart: np.ndarray  # bool [S, S]


def render_phantom(study_id: str, mesh_codes: Sequence[str], size: int = 128, variant: int = 0) -> Phantom:
    """Draw the radiograph of a study of which `mesh_codes` (such as `Pleural Effusion/right/small`) are true.

    The same arguments give the same bytes, everywhere. Anatomy, every finding and the film have random streams of their
    own, so two calls that differ in one code differ only where that finding is: give one `study_id` the codes
    `Pleural Effusion/left`, `Pleural Effusion/right` and `normal` and they are mirrored twins. `variant` draws another
    body for the same study. Codes that do not show on a frontal radiograph change nothing.

    Raises CourseError for a size below 32, for codes given as one string, and if the lung masks are not installed.
    """
    if size < MIN_SIZE:
        raise CourseError(f"A phantom of size {size} shows nothing: ask for {MIN_SIZE} pixels or more.")
    if isinstance(mesh_codes, str):
        raise CourseError(f"mesh_codes is the string {mesh_codes!r}: give a list of codes, such as [{mesh_codes!r}].")

    def stream(name: str) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(f"{study_id}:{variant}:{name}".encode()))

    codes = [parse_mesh(code) for code in mesh_codes if not code.startswith(NOT_CODED)]
    body = build_body(stream("anatomy"), size, changes_to_anatomy(codes, lambda name: stream(f"findings/{name}")))
    findings = draw_findings(body, codes, lambda name: stream(f"findings/{name}"))
    poor = any(code.heading == POOR_FILM for code in codes)
    healthy = attenuation(body, Findings())
    pixels = develop(attenuation(body, findings), healthy, body.frame, stream("film"), body.bedside, poor)
    masks = finding_masks(body, findings, enlarged=any(code.heading == "Cardiomegaly" for code in codes))
    lungs = np.maximum(body.lungs["right"].inside, body.lungs["left"].inside) > 0.5
    return Phantom(pixels, masks, lungs, body.heart > 0.5)


def attenuation(body: Body, findings: Findings) -> np.ndarray:
    """What the rays lose on their way: tissue less the air that is left, vessels in aerated lung, bone and metal."""
    aerated = np.ones_like(body.air)
    for opacity in findings.opacity.values():
        aerated *= 1 - opacity
    air = body.air * aerated
    collapse = findings.collapse
    air = air * (1 - collapse) + np.maximum(air, 0.85 * body.air + 0.12) * collapse
    return body.tissue * (1 - air) + body.vessels * air * (1 - collapse) + body.bone + findings.added


def finding_masks(body: Body, findings: Findings, enlarged: bool) -> np.ndarray:
    """Where each of the five findings shows, bool [5, S, S]: hidden under fluid or behind the heart does not count.

    Cardiomegaly's mask is the whole heart.
    """
    masks = np.zeros((len(HEADINGS), *body.air.shape), dtype=bool)
    for mask, heading in zip(masks, HEADINGS, strict=True):
        if heading in findings.opacity:
            shown = body.air * findings.opacity[heading]
            for other, opacity in findings.opacity.items():
                if other != heading:
                    shown = shown * (1 - opacity)
            shown = blur(shown, MASK_SMOOTHING)
            mask[:] = shown > min(VISIBLE, 0.5 * shown.max())
        elif heading == "Cardiomegaly" and enlarged:
            mask[:] = body.heart > 0.5
    return masks


def phantom_fingerprint() -> str:
    """A hash of the source that decides the pixels: those rendered under another fingerprint are out of date."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for path in (package.parent / "mesh.py", *sorted(package.glob("*.py"))):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]
