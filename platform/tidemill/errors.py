"""What can go wrong, as one tree.

    TidemillError
    ├── ConfigurationError        the project's own settings or files
    │   └── ProjectNotFoundError
    ├── DefinitionError           a feature, view, service or model is declared wrongly
    ├── NotDefinedError           a name that the catalog does not hold
    ├── NotAppliedError           nothing has been applied yet
    ├── InputError                data handed in by the caller
    │   ├── SpineError
    │   ├── SourceError           a source file is missing, corrupt or of another shape
    │   └── TrainingDataError     a training set that nothing can be learned from
    ├── InvariantError            a retrieval broke a promise of the semantics: our defect, never returned as data
    ├── UnavailableError          a part that is needed does not answer
    │   ├── OnlineStoreUnavailableError
    │   └── StaleFeaturesError    a view's policy refuses values this old
    ├── ConflictError             somebody else is doing this already
    └── NotReproducibleError      a rebuilt dataset or model differs from what was recorded

Every message says what was found, what was expected and what to do. The core knows no HTTP: serving maps these
classes to status codes in one table.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TidemillError(Exception):
    """Root of everything Tidemill raises on purpose."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message} {hint}")
        self.message = message
        self.hint = hint


class ConfigurationError(TidemillError):
    """A setting or a file of the project is missing or wrong."""


class ProjectNotFoundError(ConfigurationError):
    """No feature_store.yaml was found where the project was expected."""


class DefinitionError(TidemillError):
    """A definition cannot mean anything; the message names it and says what to change."""


class NotDefinedError(TidemillError):
    """A name is asked for that the catalog does not hold."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        close = difflib.get_close_matches(name, self.known, n=1, cutoff=0.6)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(self.known) or 'none'}."
        super().__init__(f"No {kind} is named {name!r}.", hint=hint)


class NotAppliedError(TidemillError):
    """The project's definitions have not been applied; run `tidemill apply` first."""


class InputError(TidemillError):
    """Data handed in by the caller does not fit what was declared."""


class SpineError(InputError):
    """The spine of a training set cannot be used as it is."""


class SourceError(InputError):
    """A source file is missing, corrupt or of another shape than declared."""


class TrainingDataError(InputError):
    """Nothing can be learned from this training set."""


class InvariantError(TidemillError):
    """A retrieval broke an invariant of the semantics. This is a defect of Tidemill; nothing was returned."""


class UnavailableError(TidemillError):
    """A part that is needed does not answer."""


class OnlineStoreUnavailableError(UnavailableError):
    """The online store does not answer; it is asked again at the next request."""


class StaleFeaturesError(UnavailableError):
    """A feature is older than its view's freshness objective, and the view's policy is to refuse then."""


class ConflictError(TidemillError):
    """Somebody else is doing this already."""


class NotReproducibleError(TidemillError):
    """What was rebuilt differs from what was recorded."""
