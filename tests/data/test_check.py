import numpy as np
import pytest

from faceattr_jax.data.check import check
from faceattr_jax.data.prepare import prepare
from faceattr_jax.errors import UserError


def test_an_intact_folder_has_no_problems(intact_celeba):
    report = check(str(intact_celeba))
    assert report.kind == "celeba"
    assert not report.problems
    lines = [line.split() for line in report.format().splitlines()]
    assert ["pictures", "8", "2", "2", "12"] in lines
    assert ["people", "2", "1", "1", "4"] in lines
    assert ["Male", "50.0", "50.0", "50.0", "50.0"] in lines
    labels = report.table.labels[:8, 39].mean() * 100
    assert next(line for line in lines if line[:1] == ["Young"])[1] == f"{labels:.1f}"
    assert lines[-1] == ["no", "problems"]


def test_every_problem_is_listed(celeba, picture):
    pictures = celeba / "img_align_celeba"
    jpeg = (pictures / "000001.jpg").read_bytes()
    (pictures / "000001.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (pictures / "000004.jpg").write_bytes(b"no picture")
    (pictures / "000007.jpg").unlink()
    picture(0, 100, 120).save(pictures / "000010.jpg")
    picture(0, 10, 10).save(pictures / "000013.jpg")
    picture(0).save(pictures / "999999.jpg")
    path = celeba / "list_attr_celeba.txt"
    lines = path.read_text().splitlines()
    lines[0] = "13"
    lines[7] = lines[7].rpartition(" ")[0]  # 000016
    lines[8] = lines[8].rpartition(" ")[0] + " 7"  # 000019
    path.write_text("\n".join(lines))
    partition = celeba / "list_eval_partition.txt"
    partition.write_text(partition.read_text().replace("000022.jpg 0\n", "").replace("000025.jpg 2", "000025.jpg 5"))
    report = check(str(celeba))
    expected = [
        "line 1 says 13 rows, but 12 follow",
        "line 8: '000016.jpg' has 39 values",
        "line 5: there is no picture",
        "line 9: '000019.jpg' has the value '7'",
        "has no row for '000022.jpg'",
        "000001.jpg' cannot be decoded",
        "000004.jpg' is not a picture",
        "'000010.jpg' is 100x120, not 178x218",
        "000013.jpg' is 10x10, too small",
        "999999.jpg' has no row in the list of labels",
    ]
    for says in expected:
        assert [problem for problem in report.problems if says in problem], (says, report.problems)
    assert len(report.problems) == len(expected)
    text = report.format()
    assert all(f"problem: {problem}\n" in text for problem in report.problems)
    assert text.endswith("10 problems")
    assert len(report.table) == 12 - 4  # the rows that can be used; their pictures may still be damaged


def test_a_list_that_cannot_be_used_is_a_problem(celeba):
    (celeba / "list_eval_partition.txt").unlink()
    report = check(str(celeba))
    assert report.table is None
    assert report.format().endswith("1 problem")
    assert "no list 'list_eval_partition.txt'" in report.problems[0]


def test_csv_folders_are_checked_at_any_size(tmp_path, picture):
    picture(0, 60, 50).save(tmp_path / "a.png")
    picture(1, 70, 70).save(tmp_path / "b.jpg")
    (tmp_path / "labels.csv").write_text("file,Winking,split\na.png,1,train\nb.jpg,0,train\n")
    assert not check(str(tmp_path)).problems
    (tmp_path / "b.jpg").write_bytes(b"")
    picture(0).save(tmp_path / "c.webp")
    report = check(str(tmp_path))
    assert len(report.problems) == 2
    assert "Winking" in report.format()
    # No rate of a split without pictures.
    assert report.format().splitlines()[-5].split() == ["Winking", "50.0", "-", "-", "50.0"]


def test_prepared_arrays_are_checked(intact_celeba, tmp_path):
    prepare(str(intact_celeba), tmp_path / "out", size=16)
    report = check(str(tmp_path / "out"))
    assert report.kind == "prepared"
    assert not report.problems
    np.save(tmp_path / "out" / "images.npy", np.zeros(3))
    assert "does not fit its table" in check(str(tmp_path / "out")).problems[0]


def test_synthetic_is_counted():
    report = check("synthetic:60")
    assert report.kind == "synthetic"
    assert not report.problems
    assert len(report.table) == 60


def test_nothing_known_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        check(str(tmp_path / "absent"))
