"""The Indiana University radiology reports (IU-RR): from Open-i's XML or Kaggle's tables to studies."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import re
import tarfile
import zlib
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from xml.etree.ElementTree import ParseError

import numpy as np
import pandas as pd
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from cmlr_utils.data.files import CourseError
from cmlr_utils.data.mesh import labels_from_mesh
from cmlr_utils.data.tables import read_table, require_known
from cmlr_utils.data.texts import SECTIONS, report_sentences

ARCHIVE_SHA256 = "8fb6de7eec73d8c3665067ad4bb003ccd57f971ae316d2642e1627ac7268667a"
MEND_ARCHIVE = 'pip install --force-reinstall --no-deps "torchxrayvision==1.5.7"'
FRONTAL_POSITIONS, LATERAL_POSITIONS = {"PA", "AP"}, {"LL", "RL", "LATERAL", "LARGE LATERAL"}
CODE = "Acquisition Device Processing Code"
LATERAL_CODE = "60003"  # on a plate reader: 1,360 headers say PA, 151 of 155 are lateral by pixels
LARGEST_REPORT = 1 << 20  # bytes; the longest real one has 9 kB
LARGEST_ARCHIVE = 1 << 28  # unpacked; the real one has 24 MB
KAGGLE_VIEWS = ("Frontal", "Lateral")


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
        return report_sentences(self)

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
        unpacker = zlib.decompressobj(wbits=31)  # gzip, and no other format that tarfile would try
        content = unpacker.decompress(content, LARGEST_ARCHIVE)
        if not unpacker.eof:
            raise EOFError(f"it is cut off, or unpacks to more than {LARGEST_ARCHIVE / 1e6:,.0f} MB")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for member in tar:
                if member.isfile() and member.name.endswith(".xml"):
                    if member.size > LARGEST_REPORT:
                        raise CourseError(
                            f"{archive.name}/{member.name} has {member.size / 1e6:,.0f} MB, far more than any report: "
                            "remove it from the archive."
                        )
                    studies.append(parse_report(tar.extractfile(member).read(), f"{archive.name}/{member.name}", views))
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise CourseError(f"The reports' archive {archive} is damaged ({error}): fetch it again.") from error
    if not studies:
        raise CourseError(f"The archive {archive} holds no report: expected XML files such as ecgen-radiology/1.xml.")
    ids = [study.id for study in studies]
    if len(set(ids)) < len(ids):
        raise CourseError(f"{archive} holds the study {max(ids, key=ids.count)} twice: remove one of the two.")
    return in_order(studies)


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
    sections = {section.get("Label", "").lower(): section.text for section in root.iter("AbstractText")}
    images = [image.get("id", "") for image in root.iter("parentImage")]
    return study_of(identity.get("id"), sections, [code.text for code in root.iter("major")], images, views)


def study_of(
    study_id: str,
    sections: dict[str, str | None],
    codes: list[str | None],
    images: list[str],
    views: dict[str, str] | None,
) -> Study:
    mesh = tuple(filter(None, map(one_line, codes)))
    return Study(
        id=study_id,
        patient=study_id.removeprefix("CXR"),
        **{section: one_line(sections.get(section)) for section in SECTIONS},
        mesh=mesh,
        images=tuple(images),
        views=tuple((views or {}).get(image, "") for image in images),
        labels=labels_from_mesh(mesh),
    )


def one_line(text: str | None) -> str:
    return " ".join(unescape(text or "").split())  # two reports hold "&gt;" escaped twice


def read_kaggle(folder: Path | str) -> list[Study]:
    """Read `indiana_reports.csv` and `indiana_projections.csv` of Kaggle's `raddar/chest-xrays-indiana-university`.

    Gives the studies that `read_reports` gives, as far as the tables hold them: ids and image names are Open-i's
    (`1` becomes `CXR1`, `2_IM-0652-1001.dcm.png` becomes `CXR2_IM-0652-1001`, and Open-i's one odd name
    `CXR1_1_IM-0001-3001` is restored), codes are split at their semicolons, line breaks become spaces, an empty cell is
    an empty section, and the word `None`, which 596 comparisons hold and pandas takes for a missing value, stays.
    Views are Kaggle's own, one for every image, and may differ from those of `read_views`.

    What is known of the tables: parts of a public copy of the first were read, and what others report of both; the
    real projections were not at hand. 3,851 studies, those without an image being left out. 7,466 projections, 3,818
    frontal and 3,648 lateral, where Open-i has 7,470 images: two studies with four images have only two here. No code
    of IU-RR holds a semicolon, but headings hold commas (`Catheters, Indwelling`). The columns Problems (the headings
    alone) and image (the radiographs' caption, `>` written as `&gt;`) add nothing and may be missing.

    Raises CourseError naming the file, and the line or the column, that does not fit.
    """
    path = Path(folder) / "indiana_projections.csv"
    projections = read_table(path, {name: name for name in ("uid", "filename", "projection")}, key="filename")
    require_known(projections, "projection", projections["projection"].isin(KAGGLE_VIEWS), path, KAGGLE_VIEWS)
    owns = pd.Series([row.filename.startswith(f"{row.uid}_") for row in projections.itertuples()], dtype=bool)
    require_known(projections, "filename", owns, path, ["names that begin with the row's uid"])
    views: dict[str, dict[str, str]] = {}
    for row in projections.itertuples():
        image = f"CXR{'1_' * (row.uid == '1')}{row.filename.removesuffix('.png').removesuffix('.dcm')}"
        views.setdefault(row.uid, {})[image] = row.projection.lower()

    path = Path(folder) / "indiana_reports.csv"
    reports = read_table(path, {name: name for name in ("uid", "MeSH", *SECTIONS)}, key="uid")
    require_known(reports, "uid", reports["uid"].str.isdecimal().astype(bool), path, ["numbers"])
    if reports.empty or (missing := set(views) - set(reports["uid"])):
        raise CourseError(
            f"{path} has no row for {f'study {min(missing)}' if len(reports) else 'any study'}: "
            "fetch both tables again, they belong together."
        )
    studies = []
    for row in reports.to_dict("records"):
        own_views = views.get(row["uid"], {})
        studies.append(study_of(f"CXR{row['uid']}", row, row["MeSH"].split(";"), sorted(own_views), own_views))
    return in_order(studies)


def in_order(studies: list[Study]) -> list[Study]:
    def number(study: Study) -> tuple[int, str]:
        digits = re.sub(r"\D", "", study.id).lstrip("0")
        return len(digits), digits  # as int, but int() takes no more than 4,300 digits

    return sorted(studies, key=number)


def read_views() -> dict[str, str]:
    """The view of each of the 7,470 images by its name, "frontal" or "lateral".

    The DICOM headers alone do not tell: 2,586 have no View Position, and many that say PA are lateral. So the first
    image of each report goes by the view that torchxrayvision's authors found in its pixels (3,267 frontal, 584
    lateral), and any other by its header, where LATERAL_CODE and a lateral position speak before PA and AP. Where that
    is silent too (1,204), it is the other view than its report's first, right for 2,248 of the 2,415 images whose
    header speaks: 93.1 %, 95 % interval 92.0 to 94.0; in reports with two images 98.0 %. In all 3,810 frontal and
    3,660 lateral; Kaggle's copy counts 3,818 and 3,648. Raises CourseError if the metadata cannot be read.
    """
    headers = read_metadata("nlmcxr_dicom_metadata.csv.gz", "imageid", "View Position", CODE)
    seen = read_metadata("nlmcxr_tsne_pa.csv.gz", "imageid", "tsne-view")
    firsts = {image: "frontal" if view == "PA" else "lateral" for image, view in seen}
    other = {image.split("_")[0]: "lateral" if view == "frontal" else "frontal" for image, view in firsts.items()}
    views = {}
    for image, position, code in headers:
        if position in LATERAL_POSITIONS or code == LATERAL_CODE:
            view = "lateral"
        else:
            view = "frontal" if position in FRONTAL_POSITIONS else other[image.split("_")[0]]
        views[image.replace("CXR1_IM", "CXR1_1_IM")] = view  # the one image name that the reports write otherwise
    return views | firsts


def read_metadata(name: str, *columns: str) -> list[tuple[str, ...]]:
    path = torchxrayvision_file(name)
    try:
        table = pd.read_csv(path, usecols=columns, dtype=str, keep_default_na=False)
        return list(table[list(columns)].itertuples(index=False, name=None))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise CourseError(f"The metadata {path} are damaged ({error}): run {MEND_ARCHIVE}.") from error
