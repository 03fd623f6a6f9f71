"""The teaching phantom: a radiograph drawn from a study's own MeSH codes, with a mask for every finding."""

from .render import Phantom, phantom_fingerprint, render_phantom

__all__ = ["Phantom", "phantom_fingerprint", "render_phantom"]
