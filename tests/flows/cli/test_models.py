"""A model's life on the command line: register, compare, promote, go back; and the keys."""

import json
from pathlib import Path

import pytest

from command import Nightshift
from project import Project


def test_versions_are_compared_and_an_alias_goes_back(
    project: Project, saved: tuple[str, str], nightshift: Nightshift
) -> None:
    model, sample = saved
    register = ["register", model, "--name", "big", "--sample", sample, "--promote", "champion"]
    nightshift(*register, "--metric", "auc=0.8")
    nightshift(*register, "--metric", "auc=0.9", "--setting", "output=predict_proba")
    output = nightshift("models", "diff", "big", "1", "2").stdout
    assert "metric auc: 0.8 -> 0.9" in output
    assert "output prediction: bool -> none" in output
    changed = json.loads(nightshift("models", "diff", "big", "1", "2", "--json").stdout)
    assert changed["metrics"] == {"auc": ["0.8", "0.9"]}
    assert nightshift("models", "diff", "big", "1", "1").stdout == "No difference.\n"

    assert "big@champion is now version 1" in nightshift("models", "rollback", "big").stdout
    assert "one promotion earlier" in nightshift("models", "rollback", "big", code=1).stderr
    shown = nightshift("models", "show", "big").stdout
    assert "big@champion is version 1; it was, in turn, 1 (" in shown


def test_a_refused_promotion_says_what_is_registered(
    project: Project, saved: tuple[str, str], nightshift: Nightshift
) -> None:
    project.fill()
    project.sql("ALTER TABLE orders DROP COLUMN x")
    project.write_job(model="big@champion")
    model, sample = saved
    register = ["register", model, "--name", "big", "--sample", sample, "--promote"]
    assert "Use a word" in nightshift(*register, "7", code=2).stderr
    assert project.store.versions("big") == []
    error = nightshift(*register, "champion", code=1).stderr
    assert "table 'orders' has no column 'x'" in error
    cure = "nightshift promote big 1 --alias champion"
    assert f"Registered big@1, not promoted. Promote it: {cure}" in error
    assert project.store.versions("big") == [1]
    assert project.store.aliases("big") == {}


def test_a_key_of_ones_own(
    project: Project,
    saved: tuple[str, str],
    nightshift: Nightshift,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_TRUST__SIGN_KEY", "mine/key.pem")
    made = json.loads(nightshift("keys", "create", "--json").stdout)
    assert Path(made["path"]) == project.folder / "mine" / "key.pub"
    assert "never overwritten" in nightshift("keys", "create", code=2).stderr
    keys = json.loads(nightshift("keys", "--json").stdout)
    (mine,) = (key for key in keys if key["signs here"])
    assert (mine["public"], mine["trusted"]) == (made["public"], False)

    monkeypatch.delenv("NIGHTSHIFT_TRUST__SIGN_KEY")
    model, sample = saved
    register = [
        "register",
        model,
        "--name",
        "big",
        "--sample",
        sample,
        "--sign-key",
        "mine/key.pem",
    ]
    nightshift(*register)
    assert f"signed by  {mine['key']}" in nightshift("models", "show", "big@1").stdout
    error = nightshift("promote", "big", "1", code=1).stderr
    assert f"the key '{mine['key']}', which is not in trust.keys" in error


def test_one_library_registered_as_another(
    project: Project, saved: tuple[str, str], nightshift: Nightshift
) -> None:
    pytest.importorskip("skl2onnx")
    model, sample = saved
    register = ["register", model, "--name", "big", "--sample", sample]
    register += ["--setting", "output=predict_proba"]
    registered = json.loads(nightshift(*register, "--as", "onnx", "--json").stdout)
    assert registered["adapter"] == "onnx"
    assert "Only `--as onnx` is known" in nightshift(*register, "--as", "pmml", code=2).stderr


def test_what_a_model_was_trained_on_is_scored_only_if_asked_for(
    project: Project, saved: tuple[str, str], nightshift: Nightshift
) -> None:
    project.fill()
    project.sql("UPDATE orders SET x = mod(id * 7, 300)")
    project.write_job(model="big")
    model, sample = saved
    register = ["register", model, "--name", "big", "--sample", sample, "--promote", "champion"]
    assert "does not match" in nightshift(*register, "--trained-through", "May", code=2).stderr
    nightshift(*register, "--trained-through", "2024-03-01")
    run = ["run", "orders", "--partition", "2024-03-01"]
    assert "--allow-leakage" in nightshift(*run, code=1).stderr
    assert "Published 500 rows" in nightshift(*run, "--allow-leakage").stdout


def test_a_damaged_version_hides_no_other(
    project: Project, nightshift: Nightshift, s3_client: object, s3_bucket: str
) -> None:
    project.register()
    project.register()
    key = "store/models/doubler/versions/1/manifest.json"
    s3_client.put_object(Bucket=s3_bucket, Key=key, Body=b"{")  # type: ignore[attr-defined]
    listed = nightshift("models")
    assert "versions/1/manifest.json cannot be understood" in listed.stderr
    lines = listed.stdout.splitlines()
    assert "champion" in lines[1]
    assert "damaged" in lines[2]
    rows = json.loads(nightshift("models", "--json").stdout)
    assert [(row["version"], row["adapter"]) for row in rows] == [(2, "sklearn"), (1, None)]
