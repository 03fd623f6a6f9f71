"""The Indiana University radiology reports (IU-RR): from Open-i's XML to studies."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import numpy as np
import pandas as pd
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from cmlr_utils.data.files import CourseError
from cmlr_utils.data.mesh import labels_from_mesh

ARCHIVE_SHA256 = "8fb6de7eec73d8c3665067ad4bb003ccd57f971ae316d2642e1627ac7268667a"
MEND_ARCHIVE = 'pip install --force-reinstall --no-deps "torchxrayvision==1.5.7"'
FRONTAL_POSITIONS, LATERAL_POSITIONS = {"PA", "AP"}, {"LL", "RL", "LATERAL", "LARGE LATERAL"}
DEIDENTIFIED = re.compile(r"X{4,}", re.IGNORECASE)  # also in "4XXXX" and "XXXXpm"
# A full stop ends a sentence unless it only closes the number of an item ("2.") or stands inside a number ("1.5 cm").
SENTENCE_END = re.compile(r"(?<=[.;!?])(?<!\b\d\.)\s+")
ITEM_NUMBER = re.compile(r"^\d+[.)]\s*")


@dataclass(frozen=True, eq=False)
class Study:
    """One examination: what the radiologist wrote and coded, and which radiographs belong to it."""

    id: str
    patient: str
    indication: str
    comparison: str
    findings: str
    impression: str
    mesh: tuple[str, ...]  # the radiologist's codes, as written
    images: tuple[str, ...]  # image names without a file ending
    views: tuple[str, ...]  # "frontal", "lateral" or "" (not recorded), one per image
    labels: np.ndarray  # float32 [5]: 1 present, 0 absent, NaN not coded
    split: str = ""  # "train", "val", "test", or "" for a study without a radiograph

    @property
    def normal(self) -> bool:
        """Whether the radiologist coded the study as normal, and nothing else."""
        return self.mesh == ("normal",)

    @property
    def sentences(self) -> list[str]:
        """The sentences of findings and impression, lower case, de-identification marks and item numbers removed."""
        report = re.sub(r"\s+", " ", DEIDENTIFIED.sub(" ", f"{self.findings} {self.impression}").lower()).strip()
        sentences = (ITEM_NUMBER.sub("", sentence).strip() for sentence in SENTENCE_END.split(report))
        return [sentence for sentence in sentences if re.search(r"[a-z]{2}", sentence)]

    @property
    def text(self) -> str:
        """Findings and impression as one cleaned text; "" if the report has neither."""
        return " ".join(self.sentences)


def torchxrayvision_file(name: str) -> Path:
    """Path of a file in the installed torchxrayvision's `data` folder, found without importing that package.

    Raises CourseError if the package or the file is missing.
    """
    spec = importlib.util.find_spec("torchxrayvision")
    path = Path(spec.origin).parent / "data" / name if spec and spec.origin else None
    if path is None or not path.is_file():
        raise CourseError(f"torchxrayvision's data/{name} is missing: run {MEND_ARCHIVE}.")
    return path


def read_reports(archive: Path | None = None) -> list[Study]:
    """Read every report of an archive of XML files, sorted by number; splits are not set yet.

    Without `archive`, all 3,955 reports inside the installed torchxrayvision, whose hash is checked. Views come from
    the DICOM metadata in the same package. Raises CourseError naming the archive or the report that cannot be read.
    """
    default = archive is None
    archive = Path(archive) if archive else torchxrayvision_file("NLMCXR_reports.tgz")
    try:
        content = archive.read_bytes()
    except OSError as error:
        raise CourseError(
            f"The reports' archive {archive} cannot be read ({error.strerror}): check the path."
        ) from error
    if default and hashlib.sha256(content).hexdigest() != ARCHIVE_SHA256:
        raise CourseError(f"{archive} is not the archive this course was measured with: run {MEND_ARCHIVE}.")
    views = read_views()
    studies = []
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and member.name.endswith(".xml"):
                    studies.append(parse_report(tar.extractfile(member).read(), f"{archive.name}/{member.name}", views))
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise CourseError(f"The reports' archive {archive} is damaged ({error}): fetch it again.") from error
    if not studies:
        raise CourseError(f"The archive {archive} holds no report: expected XML files such as ecgen-radiology/1.xml.")
    return sorted(studies, key=lambda study: int(re.sub(r"\D", "", study.id) or 0))


def parse_report(content: bytes, name: str, views: dict[str, str] | None = None) -> Study:
    """Turn one XML report of Open-i's layout into a Study; `name` says in errors which one it was.

    `views` maps image names to "frontal" or "lateral". XML bombs and external entities are refused by defusedxml.
    Raises CourseError if it is no well-formed report.
    """
    try:
        root = fromstring(content)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise CourseError(f"The report {name} is not readable XML ({error!r}): fetch the archive again.") from error
    identity = root.find("uId")
    if identity is None or not identity.get("id"):
        raise CourseError(
            f"The report {name} has no <uId id=…>, so it is no Open-i report: remove it from the archive."
        )
    sections = {section.get("Label"): text_of(section) for section in root.iter("AbstractText")}
    mesh = tuple(filter(None, map(text_of, root.iter("major"))))
    images = tuple(image.get("id", "") for image in root.iter("parentImage"))
    return Study(
        id=identity.get("id"),
        patient=identity.get("id").removeprefix("CXR"),
        indication=sections.get("INDICATION", ""),
        comparison=sections.get("COMPARISON", ""),
        findings=sections.get("FINDINGS", ""),
        impression=sections.get("IMPRESSION", ""),
        mesh=mesh,
        images=images,
        views=tuple((views or {}).get(image, "") for image in images),
        labels=labels_from_mesh(mesh),
    )


def text_of(element: Element) -> str:
    return re.sub(r"\s+", " ", element.text or "").strip()


def read_views() -> dict[str, str]:
    """The view of each image by its name, "frontal" (PA, AP) or "lateral", where the DICOM metadata record it.

    Raises CourseError if the metadata cannot be read.
    """
    path = torchxrayvision_file("nlmcxr_dicom_metadata.csv.gz")
    try:
        table = pd.read_csv(path, usecols=["imageid", "View Position"], low_memory=False)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise CourseError(f"The metadata {path} are damaged ({error}): run {MEND_ARCHIVE}.") from error
    views = {}
    for image, position in zip(table["imageid"], table["View Position"], strict=True):
        if position in FRONTAL_POSITIONS:
            views[image] = "frontal"
        elif position in LATERAL_POSITIONS:
            views[image] = "lateral"
    return views
