from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import skops.io
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from tidemill.errors import DefinitionError, InputError, NotDefinedError
from tidemill.models.artifact import ModelArtifact, read_manifest


class HomeGrown(LogisticRegression):
    """Somebody's own class, which no other process would know."""


def test_a_loaded_model_predicts_bit_for_bit_what_the_saved_one_did(
    artifact: ModelArtifact, frame: pl.DataFrame, tmp_path: Path
):
    saved = artifact.save(tmp_path / "1")
    loaded = ModelArtifact.load(tmp_path / "1", digest=saved.digest)
    assert np.array_equal(loaded.predict(frame), artifact.predict(frame))
    assert loaded.manifest == saved.manifest


def test_a_served_vector_gets_the_same_prediction_as_the_row_of_a_frame(artifact: ModelArtifact, frame: pl.DataFrame):
    expected = artifact.predict(frame)
    one_by_one = [artifact.predict({name: [value] for name, value in row.items()})[0] for row in frame.to_dicts()]
    assert np.array_equal(one_by_one, expected)


def test_predictions_are_probabilities(artifact: ModelArtifact, frame: pl.DataFrame):
    predictions = artifact.predict(frame)
    assert predictions.dtype == np.float64
    assert ((predictions > 0) & (predictions < 1)).all()
    assert len(artifact.predict(frame.clear())) == 0


def test_the_test_parts_predictions_are_kept_beside_the_model(artifact: ModelArtifact, tmp_path: Path):
    kept = pl.DataFrame({"id": ["a", "b"], "prediction": [0.25, 0.5]})
    saved = artifact.save(tmp_path / "1", predictions=kept)
    found = ModelArtifact.load(tmp_path / "1", digest=saved.digest).test_predictions()
    assert found is not None
    assert found.equals(kept)


def test_the_same_model_saved_twice_has_the_same_manifest(artifact: ModelArtifact, tmp_path: Path):
    first, second = artifact.save(tmp_path / "1"), artifact.save(tmp_path / "2")
    assert replace(first.manifest, files={}) == replace(second.manifest, files={})


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
        RandomForestClassifier(n_estimators=5, random_state=0),
        HistGradientBoostingClassifier(max_iter=5, categorical_features=[3]),
    ],
    ids=["linear", "forest", "categorical"],
)
def test_scikit_learns_own_estimators_can_be_kept(
    estimator: object, artifact: ModelArtifact, frame: pl.DataFrame, tmp_path: Path
):
    matrix = artifact.encoding.matrix(frame)
    fitted = estimator.fit(matrix, np.arange(len(matrix)) % 2)  # type: ignore[attr-defined]
    kept = replace(artifact, estimator=fitted)
    kept.save(tmp_path / "1")
    assert np.array_equal(ModelArtifact.load(tmp_path / "1").predict(frame), kept.predict(frame))


@pytest.mark.parametrize(
    "estimator", [HomeGrown(), make_pipeline(FunctionTransformer(Path.unlink), LogisticRegression())]
)
def test_an_estimator_of_unknown_types_is_refused_before_anything_is_written(
    estimator: object, artifact: ModelArtifact, tmp_path: Path
):
    with pytest.raises(DefinitionError, match=r"(HomeGrown|pathlib\S*unlink).*scikit-learn's own classes"):
        replace(artifact, estimator=estimator).save(tmp_path / "1")
    assert list(tmp_path.iterdir()) == []


def test_unknown_types_in_a_file_are_never_loaded(artifact: ModelArtifact, tmp_path: Path):
    import hashlib

    saved = artifact.save(tmp_path / "1")
    body = skops.io.dumps(HomeGrown())
    (tmp_path / "1" / "model.skops").write_bytes(body)
    forged = replace(saved.manifest, files={"model.skops": hashlib.sha256(body).hexdigest()})
    (tmp_path / "1" / "manifest.json").write_text(forged.to_json())
    with pytest.raises(InputError, match=r"HomeGrown.*not loaded"):
        ModelArtifact.load(tmp_path / "1")


@pytest.mark.parametrize("name", ["manifest.json", "model.skops"])
def test_an_artifact_changed_after_registration_is_refused(name: str, artifact: ModelArtifact, tmp_path: Path):
    saved = artifact.save(tmp_path / "1")
    file = tmp_path / "1" / name
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(InputError, match=r"was registered|damaged"):
        ModelArtifact.load(tmp_path / "1", digest=saved.digest)


def test_a_missing_artifact_or_file_is_named(artifact: ModelArtifact, tmp_path: Path):
    with pytest.raises(NotDefinedError, match="model artifact"):
        ModelArtifact.load(tmp_path / "none")
    artifact.save(tmp_path / "1")
    (tmp_path / "1" / "model.skops").unlink()
    with pytest.raises(InputError, match="is missing"):
        ModelArtifact.load(tmp_path / "1")


def test_a_folder_that_is_there_already_is_never_overwritten(artifact: ModelArtifact, tmp_path: Path):
    saved = artifact.save(tmp_path / "1")
    with pytest.raises(OSError, match="1"):
        artifact.save(tmp_path / "1")
    assert ModelArtifact.load(tmp_path / "1", digest=saved.digest).digest == saved.digest
    assert [file.name for file in tmp_path.iterdir()] == ["1"]


@pytest.mark.parametrize("body", ["", "{}", "[]", '{"format": 99}', "\x00"])
def test_a_manifest_that_is_not_one_is_refused(body: str, tmp_path: Path):
    (tmp_path / "manifest.json").write_text(body)
    with pytest.raises(InputError, match="not a model's manifest"):
        read_manifest(tmp_path)
