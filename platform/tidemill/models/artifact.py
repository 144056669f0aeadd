"""A trained model as a folder: `manifest.json`, `model.skops` and the test part's predictions. No pickle is ever read.

Boosted trees lie beside it once more, as the plain arrays of `trees.npz`: whoever only predicts reads those and never
imports scikit-learn, which takes more than a second. The answers are the same to the last bit.

The folder appears at once or not at all, and is checked against its digests whenever it is read.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tidemill.errors import DefinitionError, InputError, NotDefinedError
from tidemill.models.boosted import BoostedTrees
from tidemill.models.encoding import Encoding
from tidemill.models.manifest import TREES, Manifest, manifest_from_json

MANIFEST, ESTIMATOR = "manifest.json", "model.skops"
PREDICTIONS, CUTOFFS = "test_predictions.parquet", "cutoffs.parquet"

# Types inside scikit-learn's own estimators that skops does not know by itself. Each is plain data or a function of
# scikit-learn without side effects; a partial is only as good as what it wraps, and that must be trusted as well.
_TRUSTED = (
    "functools.partial",
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
    "sklearn.utils.validation.check_array",
)


@dataclass(frozen=True, kw_only=True)
class ModelArtifact:
    """A model version that can predict.

    `estimator` is None in a loaded artifact that predicts from its trees; `fitted` reads it.
    """

    manifest: Manifest
    estimator: Any = None
    digest: str = ""
    folder: Path | None = None

    @classmethod
    def load(cls, folder: Path, *, digest: str | None = None) -> ModelArtifact:
        """Read an artifact. With `digest`, it must be that one, so that nobody can put another in its place.

        Raises NotDefinedError where there is none, InputError where it is damaged or holds types that are not trusted.
        """
        manifest, found = read_manifest(folder)
        if digest is not None and found != digest:
            raise InputError(
                f"The artifact in {folder} has digest {found[:12]}, and {digest[:12]} was registered.",
                hint="It was changed since; restore it, or train again.",
            )
        for name, expected in manifest.files.items():
            _check_file(folder / name, expected)
        loaded = cls(manifest=manifest, digest=found, folder=folder)
        return loaded if loaded.trees is not None else replace(loaded, estimator=loaded.fitted())

    def save(
        self, folder: Path, *, predictions: pl.DataFrame | None = None, cutoffs: pl.DataFrame | None = None
    ) -> ModelArtifact:
        """Write the artifact as a new folder, atomically; returns it with its digest and folder filled in.

        `predictions` and `cutoffs` are kept beside the model, for `test_predictions` and `cutoffs`.

        Raises DefinitionError, before anything is written, for an estimator that could not be loaded again.
        """
        body, trees = dump_estimator(self.fitted()), self.trees
        fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
        fresh.mkdir(parents=True)
        try:
            (fresh / ESTIMATOR).write_bytes(body)
            if trees is not None:
                (fresh / TREES).write_bytes(trees.to_bytes())
            for name, frame in ((PREDICTIONS, predictions), (CUTOFFS, cutoffs)):
                if frame is not None:
                    frame.write_parquet(fresh / name)
            files = {file.name: _sha256(file.read_bytes()) for file in sorted(fresh.iterdir())}
            manifest = replace(self.manifest, files=files)
            (fresh / MANIFEST).write_text(manifest.to_json())
            _flush(fresh)
            fresh.rename(folder)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        return replace(self, manifest=manifest, digest=_sha256(manifest.to_json().encode()), folder=folder)

    def predict(self, columns: pl.DataFrame | Mapping[str, Sequence[object]]) -> np.ndarray:
        """The probability of the positive class for each row, float64.

        `columns` is a frame or a dict of lists (None where a value is missing) with the features by name; their order
        does not matter and further columns are ignored. Raises InputError for a missing or mistyped feature.
        """
        return self.predict_matrix(self.encoding.matrix(columns))

    def predict_matrix(self, matrix: np.ndarray) -> np.ndarray:
        """The same from the encoded matrix (rows, features)."""
        if not len(matrix):
            return np.empty(0)
        if self.trees is not None:
            return self.trees.probabilities(matrix)
        return np.ascontiguousarray(self.fitted().predict_proba(matrix)[:, 1], dtype=np.float64)

    def test_predictions(self) -> pl.DataFrame | None:
        """Id, request time, label and prediction of the test part as it was when the model was trained."""
        return self._beside(PREDICTIONS)

    def cutoffs(self) -> pl.DataFrame | None:
        """Which materialization runs the training data was made with: view, finished_at, cutoff (microseconds)."""
        return self._beside(CUTOFFS)

    def _beside(self, name: str) -> pl.DataFrame | None:
        file = None if self.folder is None else self.folder / name
        return None if file is None or not file.exists() else pl.read_parquet(file)

    @cached_property
    def trees(self) -> BoostedTrees | None:
        """What it predicts from, if it is boosted trees that were found to answer exactly as scikit-learn does."""
        if self.folder is not None and self.manifest.files:
            return _read_trees(self.folder / TREES) if self.manifest.has_trees else None
        from tidemill.models.boosted_layout import boosted_trees

        return boosted_trees(self.estimator)

    def fitted(self) -> Any:
        """scikit-learn's estimator, read from the folder where it was not loaded. Raises InputError like `load`."""
        if self.estimator is None and self.folder is not None:
            return _read_estimator(self.folder / ESTIMATOR)
        return self.estimator

    @cached_property
    def encoding(self) -> Encoding:
        return self.manifest.encoding


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """The manifest alone and the artifact's digest, without loading the estimator."""
    try:
        body = (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NotDefinedError("model artifact", str(folder), []) from None
    try:
        return manifest_from_json(body.decode()), _sha256(body)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / MANIFEST} is not a model's manifest: {error}.", hint="Train again.") from None


def dump_estimator(estimator: Any) -> bytes:
    """The estimator as skops writes it. Raises DefinitionError if it holds types that would not be read again."""
    import skops.io

    try:
        body = skops.io.dumps(estimator)
        unknown = _untrusted(body)
    except Exception as error:
        raise DefinitionError(
            f"The estimator {type(estimator).__name__} cannot be written without pickle: {error}.", hint=_ADVICE
        ) from error
    if unknown:
        raise DefinitionError(
            f"The estimator {type(estimator).__name__} holds types that are not scikit-learn's: {', '.join(unknown)}.",
            hint=_ADVICE,
        )
    return body


_ADVICE = (
    "Return an estimator or pipeline made of scikit-learn's own classes; compute anything else as a feature in an "
    "on-demand feature view."
)


def _read_estimator(file: Path) -> Any:
    import skops.io

    body = file.read_bytes()
    unknown = _untrusted(body)
    if unknown:
        raise InputError(
            f"{file} holds types that are not trusted: {', '.join(unknown)}. It was not loaded.",
            hint="Only scikit-learn's own classes are; train the model again with them.",
        )
    return skops.io.loads(body, trusted=list(_TRUSTED))


def _read_trees(file: Path) -> BoostedTrees:
    try:
        return BoostedTrees.from_bytes(file.read_bytes())
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{file} holds no boosted trees: {error}.", hint="Train again.") from None


def _untrusted(body: bytes) -> list[str]:
    import skops.io

    return sorted(set(skops.io.get_untrusted_types(data=body)) - set(_TRUSTED))


def _check_file(file: Path, expected: str) -> None:
    if not file.is_file():
        raise InputError(f"{file} is missing.", hint="Restore the artifact, or train again.")
    if _sha256(file.read_bytes()) != expected:
        raise InputError(f"{file} is damaged: its content is not what its manifest says.", hint="Train again.")


def _flush(folder: Path) -> None:
    """Ask the disk to have everything before the folder gets its name."""
    for file in folder.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
