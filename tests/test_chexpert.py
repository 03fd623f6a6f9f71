"""CheXpert's real label rows, the policies for doubt, the balanced test set, its folders, and phantoms in its place."""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cmlr_utils.data.chexpert import (
    CODED_AS,
    FIVE,
    LABELS,
    apply_policy,
    balanced,
    chosen,
    code_pools,
    drawn_codes,
    load_chexpert,
    read_chexpert,
    sample,
    studies_of,
)
from cmlr_utils.data.files import CourseError
from cmlr_utils.data.mesh import HEADINGS, labels_from_mesh, parse_mesh
from cmlr_utils.data.reports import torchxrayvision_file

HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(LABELS)
EFFUSION, SUPPORT = LABELS.index("Pleural Effusion"), LABELS.index("Support Devices")


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    """The same rows, read by pandas."""
    return pd.read_csv(torchxrayvision_file("chexpert_train.csv.gz"), low_memory=False)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return read_chexpert()[0]


def line(path: str, **labels: str) -> str:
    view = "Lateral" if "lateral" in path else "Frontal"
    values = {name.replace(" ", "_"): "" for name in LABELS} | labels
    return ",".join([path, "Female", "68", view, "AP", *values.values()])


def made(tmp_path, lines: list[str], folder: str = "CheXpert-v1.0-small", name: str = "train.csv", files: bool = True):
    """A CheXpert folder with these rows, each radiograph of another grey."""
    root = tmp_path / folder
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join([HEADER, *lines]) + "\n")
    for number, row in enumerate(lines if files else []):
        file = root.parent / row.split(",")[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (24, 20), 20 + 10 * number).save(file)
    return root


def small_rows(folder: str = "CheXpert-v1.0-small", part: str = "train") -> list[str]:
    start = f"{folder}/{part}/patient0000"
    return [
        line(f"{start}1/study1/view1_frontal.jpg", Edema="1.0", Pleural_Effusion="-1.0", Support_Devices="1.0"),
        line(f"{start}1/study1/view2_lateral.jpg", Edema="1.0"),
        line(f"{start}2/study1/view1_frontal.jpg", Atelectasis="-1.0", Cardiomegaly="-1.0", Consolidation="0.0"),
        line(f"{start}3/study7/view1_frontal.jpg", No_Finding="1.0"),
        line(f"{start}4/study1/view1_frontal.jpg", Consolidation="1.0"),  # and nothing else: for the 5x200
    ]


def test_the_real_rows_are_read_as_pandas_reads_them(raw, rows):
    assert len(rows) == 223_414 and rows["Path"].tolist() == raw["Path"].tolist()
    np.testing.assert_array_equal(rows[list(LABELS)].to_numpy(float), raw[list(LABELS)].to_numpy(float))
    assert (rows["view"] == raw["Frontal/Lateral"].str.lower()).all()
    assert rows["line"].tolist() == list(range(2, 223_416))


def test_the_counts_of_the_frontal_rows_are_those_in_the_docstring(raw):
    import cmlr_utils.data.chexpert as module

    frontal = raw[raw["Frontal/Lateral"] == "Frontal"]
    patients = frontal["Path"].str.split("/").str[2]
    assert f"{len(frontal):,} frontal train rows ({patients.nunique():,} patients)" in module.__doc__
    for name in FIVE:
        counts = [*((frontal[name] == value).sum() for value in (1, 0, -1)), frontal[name].isna().sum()]
        words = [row.split() for row in module.__doc__.splitlines() if row.strip().startswith(name.lower())][0]
        assert words[-4:] == [f"{count:,}" for count in counts]


@pytest.mark.parametrize(
    "policy, doubtful",
    [
        ("ones", [1, 1, 1, 1, 1]),
        ("zeros", [0, 0, 0, 0, 0]),
        ("ignore", [np.nan] * 5),
        ("three-class", [-1] * 5),
        ("mix", [1, 0, 0, 1, 1]),
    ],
)
def test_a_policy_changes_doubt_and_silence_only(policy, doubtful):
    labels = np.array([[-1] * 5, [1] * 5, [0] * 5, [np.nan] * 5, [1, -1, 0, np.nan, -1]])
    before = labels.copy()
    d = doubtful
    expected = np.array([d, [1] * 5, [0] * 5, [0] * 5, [1, d[1], 0, 0, d[4]]])
    resolved = apply_policy(labels, policy)
    np.testing.assert_array_equal(resolved, expected)
    np.testing.assert_array_equal(labels, before)
    assert resolved.dtype == np.float32


@pytest.mark.parametrize(
    "labels, policy, why",
    [
        ([[0] * 5], "U-Ones", "policy='U-Ones' is unknown: choose one of ones, zeros"),
        ([[0] * 4], "ones", "in five columns"),
        ([[2, 0, 0, 0, 0]], "ones", "must be 1, 0, -1 or NaN"),
    ],
)
def test_a_policy_that_cannot_be_applied_is_named(labels, policy, why):
    with pytest.raises(CourseError, match=why):
        apply_policy(np.array(labels), policy)


def test_the_balanced_set_holds_200_images_with_one_pathology_and_nothing_else(raw, rows):
    test = balanced(rows)
    assert len(test) == 1000 and test["patient"].nunique() == 1000
    by_path = raw.set_index("Path")
    for k, name in enumerate(FIVE):
        for path in test["Path"][200 * k : 200 * (k + 1)]:
            row = by_path.loc[path]
            said = {label for label in LABELS if label != "No Finding" and row[label] in (1, -1)}
            assert said == {name} and row[name] == 1 and row["Frontal/Lateral"] == "Frontal"
    pinned = hashlib.sha256("\n".join(test["id"]).encode()).hexdigest()
    assert pinned == "1fa8b6515db5deb3635df154540cb6fed74350d52ec29d7159e13272a86807af"
    shuffled = balanced(rows.sample(frac=1, random_state=0))
    assert shuffled["id"].tolist() == test["id"].tolist()


def test_training_rows_share_no_patient_with_the_balanced_set_or_with_validation(rows):
    train = chosen(rows, None, "train", None)
    assert not set(train["patient"]) & set(balanced(rows)["patient"]) and (train["view"] == "frontal").all()
    studies = studies_of(train, "train", "mix")
    patients = {part: {s.patient for s in studies if s.split == part} for part in ("train", "val")}
    assert not patients["train"] & patients["val"]
    assert len(patients["val"]) / train["patient"].nunique() == pytest.approx(0.1, abs=0.005)
    few = studies_of(sample(train, 500), "train", "mix")
    assert all(study.patient in patients[study.split] for study in few)  # one part, whatever else is drawn


def test_a_sample_keeps_the_proportions_of_all_patients(rows):
    train = chosen(rows, None, "train", None)
    few = sample(train, 2000)
    assert len(few) == few["patient"].nunique() == 2000
    assert few["id"].tolist() == sample(train.iloc[::-1], 2000)["id"].tolist()
    one_each = train.sample(frac=1, random_state=3).drop_duplicates("patient")
    for name in FIVE:
        for value in (1, 0, -1):
            assert (few[name] == value).mean() == pytest.approx((one_each[name] == value).mean(), abs=0.01)
    for n in (0, 10**6):
        with pytest.raises(CourseError, match=f"n={n} must be from 1 to 63,534"):
            sample(train, n)


def test_sides_and_severities_come_as_often_as_in_iu_rr(studies):
    """Counted over 4,000 rows for every heading, against the codes of IU-RR's training studies."""
    pools = code_pools()
    for k, heading in enumerate(HEADINGS):
        values = np.full(len(LABELS), np.nan)
        values[LABELS.index(FIVE[k])] = 1
        drawn = [parse_mesh(drawn_codes(f"{heading} {i}", values, pools)[0]) for i in range(4000)]
        coded = [parse_mesh(m) for s in studies if s.split == "train" for m in s.mesh if m.split("/")[0] == heading]
        assert {code.heading for code in drawn} == {heading} and len(coded) >= 22
        for part in ("side", "severity", "zone"):
            seen, expected = (Counter(getattr(code, part) for code in codes) for codes in (drawn, coded))
            assert set(seen) <= set(expected)
            for value, count in expected.items():
                assert seen[value] / 4000 == pytest.approx(count / len(coded), abs=0.03), (heading, value)


def test_no_code_of_iu_rrs_test_studies_alone_is_drawn(studies):
    training = {code for study in studies if study.split == "train" for code in study.mesh}
    assert {code for pool in code_pools().values() for code in pool} <= training
    assert all(len(pool) >= 16 for pool in code_pools().values()) and set(CODED_AS) | {"No Finding"} == set(LABELS)


def test_doubt_is_drawn_half_the_time_and_silence_never():
    values = np.full(len(LABELS), np.nan)
    assert drawn_codes("a", values, code_pools()) == ("normal",)
    values[EFFUSION], values[SUPPORT] = -1, 0
    drawn = [drawn_codes(f"row {i}", values, code_pools()) for i in range(2000)]
    shown = [labels_from_mesh(codes)[4] for codes in drawn]
    assert np.mean(shown) == pytest.approx(0.5, abs=0.04) and all(len(codes) == 1 for codes in drawn)
    assert drawn == [drawn_codes(f"row {i}", values, code_pools()) for i in range(2000)]


def test_an_opacity_is_drawn_only_where_no_finding_explains_it():
    values = np.full(len(LABELS), np.nan)
    values[LABELS.index("Lung Opacity")] = 1
    alone = drawn_codes("a", values, code_pools())
    assert parse_mesh(alone[0]).heading in CODED_AS["Lung Opacity"][0] and len(alone) == 1
    values[LABELS.index("Consolidation")] = 1
    assert [parse_mesh(code).heading for code in drawn_codes("a", values, code_pools())] == ["Consolidation"]


def test_phantoms_stand_in_for_the_radiographs(bank, rows):
    studies = load_chexpert(n=12, image_size=32, policy="three-class")
    assert studies.source == "phantom" and len(studies) == 12 and studies.images.shape == (12, 32, 32)
    labels = rows.set_index("id").loc[[study.id for study in studies], list(FIVE)].fillna(0)
    np.testing.assert_array_equal(studies.labels, labels)
    for i, study in enumerate(studies):
        shown = labels_from_mesh(study.mesh)
        assert (shown[studies.labels[i] == 1] == 1).all() and (shown[studies.labels[i] == 0] == 0).all()
        assert not studies.masks(i)[shown == 0].any()
    assert (load_chexpert(n=12, image_size=32).images == studies.images).all()


@pytest.mark.parametrize("folder", ["CheXpert-v1.0-small", "CheXpert-v1.0"])
@pytest.mark.parametrize("parent", [False, True])
def test_the_real_folders(tmp_path, folder, parent):
    root = made(tmp_path, small_rows(folder), folder)
    (root / "train/patient00003/study7/view1_frontal.jpg").unlink()
    train = load_chexpert(root.parent if parent else root, image_size=16)
    names = ["train/patient00001/study1/view1_frontal", "train/patient00002/study1/view1_frontal"]
    assert [study.id for study in train] == names and train.source == "chexpert"
    assert train.labels.tolist() == [[0, 0, 0, 1, 1], [1, 0, 0, 0, 0]]
    assert train.patients.tolist() == ["patient00001", "patient00002"] and set(train.texts) == {""}
    np.testing.assert_allclose(train.images[:, 8, 8], [20, 40], atol=1)
    test = load_chexpert(root, "5x200", image_size=16)
    assert [study.patient for study in test] == ["patient00004"] and test.labels.tolist() == [[0, 0, 1, 0, 0]]
    made(tmp_path, small_rows(folder, "valid"), folder, "valid.csv")
    valid = load_chexpert(root, "valid", image_size=16)
    assert len(valid) == 4 and {study.split for study in valid} == {study.split for study in test} == {"test"}


GOOD = "\n".join([HEADER, *small_rows()])


@pytest.mark.parametrize(
    "content, why",
    [
        (b"", r"train\.csv cannot be read \(it is empty\)"),
        (HEADER.encode(), "No frontal radiograph of .*train.csv for 'train' is there"),
        (GOOD[:-9].encode(), r"train\.csv, line 6, has 12 fields instead of 19"),
        (GOOD.encode("utf-16"), r"train\.csv, line \d+, is not UTF-8"),
        (GOOD.encode().replace(b"Female", b"F\xe9male"), r"train\.csv, line \d+, is not UTF-8"),
        (GOOD.replace("Edema", "Oedema", 1).encode(), "has no column Edema; it has Path, Sex"),
        (GOOD.replace("Path,", "path,", 1).encode(), "has no column Path"),
        (f"{GOOD}\n{small_rows()[2]}".encode(), r"line 7: CheXpert-v1.0-small/train/patient00002.* a second time"),
        (GOOD.replace("-1.0", "2").encode(), r"line 4: Cardiomegaly is '2'; only 1.0, 0.0, -1.0, blank can be"),
        (GOOD.replace("1.0", "nan").encode(), "line 5: No Finding is 'nan'"),
        (GOOD.replace("view1_frontal.jpg", "front.jpg", 1).encode(), "line 2: Path is '.*front.jpg'; only"),
        (GOOD.replace("Female", '"Female', 1).encode(), r"train\.csv cannot be read"),
        (GOOD.replace("Sex", "Path", 1).encode(), r"train\.csv has the column 'Path' twice"),
        (GOOD.replace("/study", f"/{'x' * 300}/study").encode(), "Path is|No frontal radiograph of"),
        (gzip.compress(GOOD.encode()), r"train\.csv, line 1, is not UTF-8"),
    ],
    ids="empty headed cut utf16 latin1 column case twice two nan path quote columns long zipped".split(),
)
def test_a_table_that_does_not_fit_is_named(tmp_path, content, why):
    root = made(tmp_path, small_rows())
    (root / "train.csv").write_bytes(content)
    with pytest.raises(CourseError, match=why):
        load_chexpert(root, image_size=16)


def test_an_unreadable_radiograph_is_named_with_its_line_or_left_out(tmp_path, capsys):
    root = made(tmp_path, small_rows())
    (root / "train/patient00002/study1/view1_frontal.jpg").write_bytes(b"no JPEG")
    with pytest.raises(CourseError, match=r"train\.csv, line 4: The radiograph .*patient00002.*cannot be read"):
        load_chexpert(root, image_size=16)
    studies = load_chexpert(root, image_size=16, skip_unreadable=True)
    assert studies.patients.tolist() == ["patient00001", "patient00003"] and "1 of 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, why",
    [
        ({"part": "test"}, "part='test' is unknown: choose one of train, valid, 5x200"),
        ({"part": "valid"}, 'rows of part="valid" come with CheXpert only: give root'),
        ({"root": "nowhere"}, r"There is no train\.csv in nowhere"),
    ],
)
def test_unknown_arguments_are_named(arguments, why):
    with pytest.raises(CourseError, match=why):
        load_chexpert(**arguments)


def test_two_copies_side_by_side_must_be_told_apart(tmp_path):
    for folder in ("CheXpert-v1.0-small", "CheXpert-v1.0"):
        made(tmp_path, small_rows(folder), folder, files=False)
    with pytest.raises(CourseError, match=r"There is 2 folders with train\.csv in .*: give the data set's own folder"):
        load_chexpert(tmp_path)
